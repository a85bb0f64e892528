"""NIfTI: magnitude, phase and maps of a volume, each with a JSON sidecar."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mri_score import __version__
from mri_score.errors import InputError
from mri_score.files import whole_file, write_text
from mri_score.writers.base import OutputVolume

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SCANNER, ALIGNED = 1, 2
"""NIfTI's codes for coordinates of the scanner, and for coordinates that only align files with each other."""


def write_nifti(
    folder: Path,
    volume: OutputVolume,
    name_of: Callable[[str], str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write `<name>_part-mag.nii.gz`, `<name>_part-phase.nii.gz` and `<name>_desc-<map>.nii.gz`, with JSON sidecars.

    The names are those of BIDS. The axes are (row, column, slice), for several frames (row, column, slice, frame), and
    the affine maps the first three to RAS in millimetres. If
    the file states no orientation, the code of the coordinates is 2 (aligned) instead of 1 (scanner), and the sidecar
    says that the orientation is assumed.
    folder: where the files go. volume: what to write. name_of: makes the file name, without suffix, of a kind such as
    part-mag or desc-std; by default as above. more: further entries of the sidecars.
    Returns the paths of the images. Errors: InputError without nibabel, for slices that are not evenly spaced, and
    where a file cannot be written.
    """
    arrays = {"part-mag": volume.magnitude, "part-phase": volume.phase}
    arrays |= {f"desc-{name}": array.astype(np.float32) for name, array in volume.maps.items()}
    affine, frames = LPS_TO_RAS @ volume.affine(), volume.by_frame()
    written = []
    for kind, array in arrays.items():
        stem = f"{volume.name}_{kind}" if name_of is None else name_of(kind)
        path = folder / f"{stem}.nii.gz"
        with whole_file(path) as part:
            part.write_bytes(_encoded(array[frames], affine, SCANNER if volume.oriented else ALIGNED))
        sidecar = {**_sidecar(volume), "Units": "rad" if kind == "part-phase" else "arbitrary", **(more or {})}
        write_text(folder / f"{stem}.json", json.dumps(sidecar, indent=2) + "\n")
        written.append(path)
    return written


def check_nifti() -> None:
    """Errors: InputError where nibabel is not installed."""
    try:
        import nibabel  # noqa: F401
    except ImportError as error:
        raise InputError("writing NIfTI needs nibabel: pip install 'mri-score[nifti]'") from error


def _encoded(array: np.ndarray, affine: np.ndarray, code: int) -> bytes:
    """A gzipped NIfTI-1 file of (F, S, h, w); equal arrays give equal bytes."""
    check_nifti()
    import nibabel

    image = nibabel.Nifti1Image(array.transpose(2, 3, 1, 0)[..., slice(None) if len(array) > 1 else 0], affine)  # type: ignore[attr-defined]
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"mri_score {__version__}".encode()
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    return gzip.compress(image.to_bytes(), mtime=0)


def _sidecar(volume: OutputVolume) -> dict[str, Any]:
    first = volume.places[0]
    return {
        **volume.facts,
        "Slices": list(volume.slices) or list(range(len(volume.image))),
        "SliceThickness": first.voxel_size[2],
        "OrientationAssumed": not volume.oriented,
        "GeneratedBy": [{"Name": "mri_score", "Version": __version__}],
    }
