"""Results in memory as a page for a notebook, as an xarray dataset, and as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mri_score.errors import InputError
from mri_score.evaluation.metrics import Images, as_numpy
from mri_score.evaluation.report import Report, render_report
from mri_score.evaluation.viewer import ShownSlice, Viewer
from mri_score.files import write_text
from mri_score.readers.hdf5 import new_hdf5
from mri_score.writers.base import OutputVolume
from mri_score.writers.cfl import write_cfl_volume
from mri_score.writers.dicom import write_dicom
from mri_score.writers.nifti import write_nifti

if TYPE_CHECKING:
    from xarray import Dataset

SUFFIXES = {".h5": "hdf5", ".nii": "nifti", ".nii.gz": "nifti", ".cfl": "cfl", ".html": "html"}
FORMATS = ("hdf5", "nifti", "dicom", "cfl", "html")
SHOWN_SLICES, SHOWN_DRAWS = 16, 8
"""Largest number of slices, evenly spaced, and of draws on a page."""


@dataclass(frozen=True)
class ReportPage:
    """A page with the viewer of images: the last line of a notebook's cell shows it, `html` is the whole page."""

    html: str
    height: int = 880
    """Of the frame in a notebook, in pixels."""

    def _repr_html_(self) -> str:
        """The page in a frame of its own, which may run its script and nothing else."""
        page = escape(self.html, quote=True)
        size = f'width="100%" height="{self.height}"'
        return f'<iframe srcdoc="{page}" title="mri_score result" sandbox="allow-scripts" {size}></iframe>'

    def __repr__(self) -> str:
        return f"ReportPage({len(self.html) / 1e6:.1f} MB of HTML; save(path) writes it)"

    def save(self, path: str | Path) -> Path:
        """Write the page; return its path. path: of the file, such as result.html. Errors: InputError."""
        write_text(Path(path), self.html)
        return Path(path)


def page_of(
    volume: OutputVolume, draws: np.ndarray, truth: Images | None = None, baselines: Mapping[str, Images] | None = None
) -> ReportPage:
    """The page of a result. draws: (P, S, h, w) complex. truth: (S, h, w). baselines: title -> (S, h, w).

    Errors: InputError for a truth or baselines of another shape.
    """
    others = {title: np.abs(as_numpy(images)) for title, images in (baselines or {}).items()}
    known = None if truth is None else np.abs(as_numpy(truth))
    for title, images in {**others, **({} if known is None else {"truth": known})}.items():
        if images.shape != volume.image.shape:
            raise InputError(f"{title} has shape {images.shape}; the result has {volume.image.shape}, one slice first")
    count = len(volume.image)
    slices = []
    for place in np.linspace(0, count - 1, min(count, SHOWN_SLICES)).round().astype(int).tolist():
        slices.append(
            ShownSlice(
                f"Slice {place}",
                volume.image[place],
                place,
                std=volume.maps["std"][place] if "std" in volume.maps else None,
                truth=None if known is None else known[place],
                baselines={title: images[place] for title, images in others.items()},
                draws=list(draws[:SHOWN_DRAWS, place]) if len(draws) > 1 else [],
            )
        )
    facts = {name.capitalize().replace("_", " "): str(value) for name, value in volume.facts.items()}
    estimate = f"mean of {len(draws)} draws" if len(draws) > 1 else "one draw"
    viewer = Viewer(slices, estimate=estimate, unit_name="input units")
    return ReportPage(render_report(Report(volume.name, facts, viewer=viewer)))


def dataset_of(volume: OutputVolume, draws: np.ndarray) -> Dataset:
    """The result as an xarray dataset: image, std (each real component) and samples, over draw, slice, row and col.

    draws: (P, S, h, w) complex. Errors: InputError where xarray is not installed.
    """
    try:
        from xarray import Dataset
    except ImportError as error:
        raise InputError("to_xarray needs xarray: pip install 'mri-score[xarray]'") from error
    images = {"image": volume.image, **volume.maps}
    data: dict[str, Any] = {name: (("slice", "row", "col"), values) for name, values in images.items()}
    data["samples"] = (("draw", "slice", "row", "col"), draws)
    return Dataset(data, attrs={"name": volume.name, **volume.facts})


def save_result(path: str | Path, volume: OutputVolume, draws: np.ndarray, format: str | None = None) -> list[Path]:
    """Write a result in one format; return the paths.

    path: of the file; of the folder for DICOM; for NIfTI and cfl, the names of the files begin with its name
    without the suffix. format: hdf5 (as fastMRI's tools read it, with the draws), nifti, dicom, cfl or html; None: by
    the suffix.
    Errors: InputError for an unknown format, NIfTI and DICOM without geometries, and where a file cannot be written.
    """
    path = Path(path)
    suffix = next((one for one in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(one)), "")
    kind = format or SUFFIXES.get(suffix)
    if kind not in FORMATS:
        raise InputError(
            f"{path} has no suffix of a known format; known: {', '.join(SUFFIXES)}; DICOM is a folder: save(folder,"
            f" format='dicom'); formats: {', '.join(FORMATS)}"
        )
    named = OutputVolume(
        path.name.removesuffix(suffix), volume.image, volume.maps, volume.geometries, volume.facts, volume.slices,
        volume.frames,
    )  # fmt: skip
    if kind == "nifti":
        return write_nifti(path.parent, named)
    if kind == "dicom":
        return write_dicom(path, named)
    if kind == "cfl":
        return write_cfl_volume(path.parent, named)
    if kind == "html":
        return [page_of(named, draws).save(path)]
    with new_hdf5(path) as file:
        file["reconstruction"] = volume.magnitude
        file["reconstruction_complex"] = volume.image.astype(np.complex64)
        for name, values in volume.maps.items():
            file[name] = values.astype(np.float32)
        file["samples"] = draws.astype(np.complex64)
        file.attrs.update(volume.facts)
    return [path]


def output_volume(
    name: str, image: np.ndarray, std: np.ndarray, facts: Mapping[str, Any], geometries: Sequence[Any]
) -> OutputVolume:
    """The volume of a result in memory. image: complex. std: zero where there is no spread; it is left out then.

    Errors: InputError for images without the axes (slices, rows, columns).
    """
    if image.ndim != 3:
        raise InputError(f"{name} has images of shape {image.shape[1:]}; this needs slices (rows, columns)")
    return OutputVolume(name, image, {"std": std} if std.any() else {}, geometries, facts)
