"""fastMRI files: one HDF5 file per volume, read slice by slice; treated as untrusted files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mri_score.errors import InputError
from mri_score.readers.base import Item, PlainReader, Shape
from mri_score.readers.encodings import Encoding, parse_encodings
from mri_score.readers.geometry import Geometry
from mri_score.readers.hdf5 import StoredDataset, StoredFile, new_hdf5, open_hdf5, plain_dataset, reading
from mri_score.readers.ismrmrd_header import LARGEST_HEADER, ForbiddenHeader, Header, build_header, parse_header
from mri_score.readers.layout import check_header, check_samples
from mri_score.readers.oversampling import narrowed
from mri_score.readers.sampling import (
    StoredSampling,
    choose_mask,
    find_sampling,
    mask_candidates,
    remove_oversampled_rows,
    spans,
)

if TYPE_CHECKING:  # importing torch takes a second, and only the functions that return samples need it
    from torch import Tensor

LEAST_SAMPLE, LARGEST_SAMPLE = 1e-30, 1e30
"""Range of the largest sample of a slice: results are written in the file's units, in single precision."""


class FastMRI(PlainReader):
    """One fastMRI file: k-space (slices, coils, rows = readout, cols = phase encode), or without the coil axis.

    The constructor checks everything except the samples. Each process opens its own file handle at its first read.
    ignore_mask: take all samples of kspace, whatever a dataset `mask` says.
    Errors: InputError with the name of the file, if it is not a complete fastMRI file.
    Reference: Zbontar et al., fastMRI, arXiv 1811.08839, 2018.
    """

    def __init__(self, path: str | Path, ignore_mask: bool = False) -> None:
        self.path = Path(path)
        self.name = self.path.stem
        self._handle: StoredFile | None = None
        self._process = 0
        with reading(self.path), open_hdf5(self.path) as file:
            kspace = plain_dataset(file, self.path, "kspace")
            if kspace is None:
                raise InputError(f"{path} has no dataset kspace; it holds: {', '.join(file) or 'nothing'}")
            _check_kspace(self.path, kspace)
            self._shape = kspace.shape
            self.header_xml, self.header = _header(file, self.path)
            self.attributes: dict[str, Any] = {key: _plain(value) for key, value in file.attrs.items()}
            self._layout_notes = check_header(str(path), self._shape, self.header, _images(file, self.path))
            self._target = self._find_target(file)
            self._items, self._places = self._read_items(file), self._read_geometry(file)
            shape = (self.slices, self.coils, self.rows, self.cols)
            self._stored_masks = [] if ignore_mask else _stored_masks(file, self.path, shape)

    @property
    def slices(self) -> int:
        return self._shape[0]

    @property
    def coils(self) -> int:
        return self._shape[1] if len(self._shape) == 4 else 1

    @property
    def rows(self) -> int:
        return self._shape[-2]

    @property
    def cols(self) -> int:
        return self._shape[-1]

    @property
    def encoded(self) -> Shape | None:
        """The header's encoded matrix, (rows, cols)."""
        return self.header.encoded

    @property
    def recon(self) -> Shape | None:
        """The header's reconstruction matrix, (rows, cols)."""
        return self.header.recon

    @cached_property
    def _encoding(self) -> Encoding | None:
        """Matrices and fields of view of the header; None if it does not state them."""
        try:
            return None if self.header_xml is None else parse_encodings(self.header_xml, str(self.path)).encodings[0]
        except InputError:
            return None

    @property
    def acquisition(self) -> str:
        return str(self.attributes.get("acquisition", "unknown"))

    @property
    def max(self) -> float | None:
        """Maximum of the target, if the file states it."""
        return _number(self.attributes.get("max"))

    @property
    def norm(self) -> float | None:
        return _number(self.attributes.get("norm"))

    @property
    def has_target(self) -> bool:
        return self._target is not None

    @property
    def padding(self) -> Shape:
        """Range (left, right) of the acquired columns, right excluded; columns outside are zero padding."""
        return self._sampling.padding

    @property
    def mask(self) -> Tensor | None:
        """Sampling mask: bool (cols,), (rows, cols) if it differs between rows, or (slices, 1 or rows, cols) if it
        differs between slices; None for a fully sampled file.
        """
        mask = self._sampling.mask
        if mask is None:
            return None
        import torch

        mask = self._cropped(mask)
        mask = mask[0] if len(mask) == 1 else mask
        return torch.from_numpy(mask[0] if mask.ndim == 2 and len(mask) == 1 else mask)

    @property
    def full(self) -> bool:
        """Whether the acquired region was sampled completely."""
        return self._sampling.mask is None

    @property
    def sampled(self) -> Tensor:
        """Masks for an `Acquisition`, bool (1 or slices, 1, 1 or H, 1 or W): `mask`, or the acquired region."""
        import torch

        mask = self._sampling.acquired if self._sampling.mask is None else self._sampling.mask
        mask = self._cropped(mask)
        rows_alone = mask.shape[1] > 1 and (mask == mask[:, :, :1]).all()
        return torch.from_numpy(mask[:, :, :1] if rows_alone else mask)[:, None]

    @property
    def acquired(self) -> Tensor:
        """Bool (1, 1, 1 or H, W): the acquired region of k-space; points outside it are zero padding."""
        import torch

        return torch.from_numpy(self._cropped(self._sampling.acquired))[:, None]

    def _cropped(self, masks: np.ndarray) -> np.ndarray:
        return remove_oversampled_rows(masks, self.image_shape[0])

    @property
    def notes(self) -> list[str]:
        """Contradictions between header, mask and samples, and how each was resolved."""
        return [*self.header.notes, *self._layout_notes, *self._sampling.notes]

    @property
    def oversampled(self) -> bool:
        """Whether `kspace` removes readout oversampling."""
        return self.image_shape[0] < self.rows

    @property
    def image_shape(self) -> Shape:
        """(H, W) of the k-space that `kspace` returns."""
        wanted = self._target[1][0] if self._target else self.rows
        if self.recon is not None and self._described:
            wanted = self.recon[0]
        return (wanted if wanted < self.rows and self._rows_are_readout else self.rows), self.cols

    @property
    def _described(self) -> bool:
        """Whether the header describes a readout of this length."""
        return self.encoded is None or self.rows in (self.encoded[0], (self.recon or self.encoded)[0])

    @cached_property
    def _rows_are_readout(self) -> bool:
        """Whether every column is sampled without gaps: rows that are phase encodes are not oversampled."""
        mask = self._sampling.mask
        return mask is None or bool((mask == spans(mask, 1)).all())

    @property
    def crop(self) -> Shape:
        """(rows, cols) of the image to write: the target's, else the header's recon matrix, at most `image_shape`."""
        recon = self.recon if self._described else None
        rows, cols = self._target[1] if self._target else recon or self.image_shape
        return min(rows, self.image_shape[0]), min(cols, self.cols)

    def about(self) -> dict[str, str]:
        """Name -> text on the contents of the file. Does not import torch."""
        encoded, recon = self.encoded, self.recon
        return {
            "acquisition": self.acquisition,
            "k-space": f"{self.slices} slices, {self.coils} coils, {self.rows} rows x {self.cols} columns",
            "matrix": "no header" if encoded is None else f"encoded {_by(encoded)}, reconstructed {_by(recon)}",
            "oversampling": f"readout {self.rows} -> {self.image_shape[0]} rows" if self.oversampled else "none",
            "padding": "none" if self.padding == (0, self.cols) else f"columns outside {self.padding} are not data",
            "truth": "reconstruction in the file" if self.has_target else ("full k-space" if self.full else "none"),
        }

    def geometry(self, slice: int) -> Geometry | None:
        """Where the written image of a slice lies: as the group `geometry` of converted files says, or else pixel sizes
        from the header, directions and position assumed.

        Slices are assumed to follow each other without a gap, slice 0 at the origin. None without a field of view.
        """
        if self._places:
            return self._places[slice]
        encoding = self._encoding
        if encoding is None:
            return None
        fits = encoding.encoded.matrix[:2] == (self.rows, self.cols)
        size = (encoding.encoded if fits else encoding.recon).voxel_size
        if size is None:
            return None
        place = Geometry.centred(self.image_shape, size, (0.0, 0.0, slice * size[2]))
        rows, cols = ((n - wanted) // 2 for n, wanted in zip(self.image_shape, self.crop, strict=True))
        return place.cropped((rows, cols), self.crop)

    def empty(self, slice: int) -> bool:
        """Whether all stored samples of a slice are zero; `kspace` raises an error for such a slice."""
        return not self._read("kspace", slice).any()

    def kspace(self, slice: int) -> Tensor:
        """One slice of k-space: (coils, H, W) complex64, DC at N // 2, unsampled points zero, file's units.

        Readout oversampling is removed by a crop in image space, from (N - n) // 2, between orthonormal transforms.
        Image values do not change. White noise stays white with the same standard deviation, because both transforms
        are unitary. Where readouts are incomplete, the rows come from a fit to the measured samples instead, see
        `remove_oversampling`. Errors: InputError for NaN, infinity and coils of zeros.
        """
        import torch

        from mri_score.numerics.fourier import fft, ifft, resize_image

        y = torch.from_numpy(self._read("kspace", slice)).to(torch.complex64)
        y = y.reshape(self.coils, self.rows, self.cols)
        self._check_samples(y, slice)
        if (mask := self._sampling.mask) is not None:
            y = y * torch.from_numpy(mask[slice if len(mask) > 1 else 0])
        if self.oversampled:
            region = self._sampling.acquired if mask is None else mask
            measured = region[slice if len(region) > 1 else 0]
            if len(measured) > 1 and not measured.all():  # a crop would mix rows that were not sampled with others
                return torch.from_numpy(narrowed(y.numpy(), measured, self.image_shape[0]))
            y = fft(resize_image(ifft(y, axes=(-2,)), self.image_shape), axes=(-2,))
        return y

    def stored(self, slice: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples (coils, rows, cols) of a slice, oversampling included, and bool (rows, cols), which were measured."""
        sampling = self._sampling
        mask = sampling.acquired if sampling.mask is None else sampling.mask
        points = np.broadcast_to(mask[slice if len(mask) > 1 else 0], (self.rows, self.cols))
        samples = self._read("kspace", slice).reshape(self.coils, self.rows, self.cols)
        return (samples * points).astype(np.complex64), points

    def item(self, slice: int) -> Item:
        """Which image a slice is: from the dataset `items` of converted files, else the slice alone."""
        return self._items[slice] if self._items else Item(slice)

    def _read_items(self, file: StoredFile) -> list[Item]:
        dataset = plain_dataset(file, self.path, "items")
        fields = Item.__dataclass_fields__
        if dataset is None:
            return []
        if dataset.shape != (self.slices, len(fields)) or dataset.dtype.kind not in "iu":
            raise InputError(f"{self.path}: items is {dataset.dtype} {dataset.shape}; it needs whole numbers"
                             f" ({self.slices}, {len(fields)}): {', '.join(fields)}; delete or repair it")  # fmt: skip
        return [Item(*row) for row in dataset[()].tolist()]

    def _read_geometry(self, file: StoredFile) -> list[Geometry]:
        """The places of the slices from the group `geometry` of results and converted files; empty without it."""
        if "geometry" not in file.members:
            return []
        names = ("matrix", "voxel_size", "position", "row_direction", "column_direction", "slice_direction", "oriented")
        parts = {name: plain_dataset(file, self.path, f"geometry/{name}") for name in names}
        sizes = {"matrix": (2,), "oriented": ()}
        if any(one is None or one.shape != (self.slices, *sizes.get(name, (3,))) for name, one in parts.items()):
            raise InputError(f"{self.path}: the group geometry does not have one entry a slice; delete or repair it")
        values = {name: one[()].tolist() for name, one in parts.items() if one is not None}
        places: list[Geometry] = []
        for row in zip(*values.values(), strict=True):
            one: dict[str, Any] = dict(zip(values, row, strict=True))
            oriented = bool(one.pop("oriented"))
            places.append(Geometry(**{name: tuple(value) for name, value in one.items()}, oriented=oriented))
        return places

    def target(self, slice: int) -> Tensor | None:
        """The file's own reconstruction of a slice, float32 (rows, cols): RSS, or ESC of single-coil files; or None.

        Errors: InputError for NaN or infinity.
        """
        if self._target is None:
            return None
        import torch

        key = self._target[0]
        target = torch.from_numpy(self._read(key, slice)).to(torch.float32)
        if not target.isfinite().all():
            raise InputError(f"{self.path}: {key} of slice {slice} holds NaN or infinity; delete that dataset")
        return target

    def close(self) -> None:
        """Close this process's handle; the next read opens it again."""
        if self._handle is not None and self._process == os.getpid():
            self._handle.close()
        self._handle = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def _read(self, key: str, slice: int, coil: int | None = None) -> np.ndarray:
        if not 0 <= slice < self.slices:
            raise InputError(f"{self.path} has slices 0 to {self.slices - 1}, not {slice}")
        with reading(self.path):
            if self._handle is None or self._process != os.getpid():  # handles do not survive a fork
                self._handle, self._process = open_hdf5(self.path), os.getpid()
            return self._handle[key][slice if coil is None or len(self._shape) == 3 else (slice, coil)]

    def _find_target(self, file: StoredFile) -> tuple[str, Shape] | None:
        keys = ("reconstruction_rss", "reconstruction_esc")
        for key in keys if len(self._shape) == 4 else reversed(keys):
            dataset = plain_dataset(file, self.path, key)
            if dataset is None:
                continue
            if dataset.ndim != 3 or len(dataset) != self.slices or dataset.dtype.kind not in "fiu":
                raise InputError(
                    f"{self.path}: {key} is {dataset.dtype} {dataset.shape}; it needs ({self.slices}, rows, cols) real"
                    " numbers for this kspace; delete or repair it"
                )
            return key, (dataset.shape[1], dataset.shape[2])
        return None

    @cached_property
    def _sampling(self) -> StoredSampling:
        points = self._points()
        stored = choose_mask(self._stored_masks, points) if self._stored_masks else None
        return find_sampling(points, stored, self.header.padding)

    def _points(self) -> list[np.ndarray | None]:
        """Bool (rows, cols) for each slice: points that are nonzero in a coil; None for slices of zeros.

        A slice is read completely only if the pattern of one of its coils is new: most slices cost one coil.
        """
        middle, coil = self.slices // 2, 0
        points: list[np.ndarray | None] = [None] * self.slices
        seen: dict[bytes, np.ndarray] = {}
        for slice in sorted(range(self.slices), key=lambda slice: abs(slice - middle)):
            if seen and (same := seen.get((self._read("kspace", slice, coil) != 0).tobytes())) is not None:
                points[slice] = same
                continue
            y = self._read("kspace", slice).reshape(self.coils, self.rows, self.cols)
            nonzero = y != 0
            if not nonzero.any():
                continue
            if not seen:
                _check_size(self.path, y)
                check_samples(str(self.path), y)
            coil = coil if seen else int(nonzero.any((1, 2)).argmax())
            points[slice] = nonzero.any(0)
            if nonzero[coil].any():
                seen[nonzero[coil].tobytes()] = nonzero.any(0)
        if all(one is None for one in points):
            raise InputError(f"{self.path}: every slice is all zeros; there is nothing to reconstruct")
        return points

    def _check_samples(self, y: Tensor, slice: int) -> None:
        for coil, samples in enumerate(y):
            if not samples.isfinite().all():
                raise InputError(
                    f"{self.path}: kspace of slice {slice}, coil {coil} holds NaN or infinity; export the scan again"
                )
            if not samples.any():
                raise InputError(
                    f"{self.path}: kspace of slice {slice}, coil {coil} is all zeros;"
                    " write the file again without that coil"
                )


def write_fastmri(
    path: str | Path,
    kspace: Tensor | np.ndarray,
    *,
    rss: Tensor | np.ndarray | None = None,
    mask: Tensor | np.ndarray | None = None,
    acquisition: str = "SIMULATED",
    attributes: Mapping[str, str | float] | None = None,
    **sizes: Shape,
) -> None:
    """Write one volume in the fastMRI format, header included; the file appears complete or not at all.

    kspace: complex (slices, coils, rows, cols), or (slices, rows, cols) for a single coil. rss: (slices, h, w), the RSS
    image in the same units. mask: (cols,) or (rows, cols). acquisition: the contrast. attributes: further HDF5
    attributes. sizes: `encoded`, `recon` and `padding`, as in `Header`; by default the sizes of kspace and rss, and no
    padding.
    Errors: InputError for k-space of another number of axes, or if the file cannot be written.
    """
    kspace = np.asarray(kspace, dtype=np.complex64)
    if kspace.ndim not in (3, 4):
        raise InputError(f"{path}: kspace has {kspace.ndim} axes; it needs (slices, coils, rows, cols)")
    encoded = (kspace.shape[-2], kspace.shape[-1])
    recon = encoded if rss is None else (rss.shape[-2], rss.shape[-1])
    padding = (0, sizes.get("encoded", encoded)[1])
    defaults: dict[str, Shape] = {"encoded": encoded, "recon": recon, "padding": padding}
    coils = kspace.shape[1] if kspace.ndim == 4 else 1
    with new_hdf5(Path(path)) as file:
        file["kspace"] = kspace
        file["ismrmrd_header"] = build_header(**(defaults | sizes), coils=coils)
        file.attrs.update({"acquisition": acquisition, "patient_id": Path(path).stem})
        if rss is not None:
            target = np.asarray(rss, dtype=np.float32)
            file["reconstruction_rss"] = target
            file.attrs.update({"max": float(target.max()), "norm": float(np.linalg.norm(target))})
        if mask is not None:
            file["mask"] = np.asarray(mask, dtype=bool)
        file.attrs.update(attributes or {})


def _check_kspace(path: Path, kspace: StoredDataset) -> None:
    if kspace.dtype.kind != "c":
        raise InputError(f"{path}: kspace is {kspace.dtype}, not complex; write it as complex64")
    if kspace.ndim not in (3, 4) or 0 in kspace.shape:
        raise InputError(
            f"{path}: kspace has shape {kspace.shape}; it needs (slices, coils, rows, cols), or (slices, rows, cols)"
            " of a single coil"
        )


def _check_size(path: Path, y: np.ndarray) -> None:
    """Errors: InputError for samples that single precision cannot hold with their noise."""
    with np.errstate(invalid="ignore", over="ignore"):
        largest = float(np.abs(y).max())
    if not LEAST_SAMPLE < largest < LARGEST_SAMPLE and np.isfinite(largest):
        raise InputError(
            f"{path}: the largest sample of a slice is {largest:.3g}, outside the range of single precision; multiply"
            f" kspace by a constant that brings it between {LEAST_SAMPLE:g} and {LARGEST_SAMPLE:g}"
        )


def _header(file: StoredFile, path: Path) -> tuple[bytes | str | None, Header]:
    """The XML of the ISMRMRD header, and what it states. Nothing in it is needed: what cannot be read is a note.

    Errors: InputError for a header outside the file, and for declarations that no scanner writes.
    """
    dataset = plain_dataset(file, path, "ismrmrd_header")
    if dataset is None:
        return None, Header()
    try:
        if dataset.dtype.kind not in "SOUVui" or dataset.nbytes > LARGEST_HEADER:
            raise InputError(f"ismrmrd_header is {dataset.dtype} {dataset.shape}, not text of at most 1 MiB")
        value = np.asarray(dataset[()])
        xml = value.item() if value.size == 1 and value.dtype.kind in "SOU" else value.tobytes()
        return xml, parse_header(xml, str(path))
    except ForbiddenHeader:
        raise
    except InputError as error:
        return None, Header(notes=(f"the header is not used: {str(error).removeprefix(f'{path}: ')}",))


def _images(file: StoredFile, path: Path) -> int | None:
    """Number of slices of the reconstruction in the file; None without one."""
    for key in ("reconstruction_rss", "reconstruction_esc"):
        if (dataset := plain_dataset(file, path, key)) is not None and dataset.ndim == 3:
            return len(dataset)
    return None


def _stored_masks(file: StoredFile, path: Path, shape: tuple[int, int, int, int]) -> list[np.ndarray]:
    """What the mask stored in the file may mean, see `mask_candidates`; empty if there is none.

    shape: (slices, coils, rows, cols) of kspace.
    """
    dataset = plain_dataset(file, path, "mask")
    if dataset is None:
        return []
    slices, coils, rows, cols = shape
    found = []
    if dataset.dtype.kind in "biuf" and dataset.size <= slices * coils * rows * cols:
        found = mask_candidates(dataset[()], slices, coils, (rows, cols))
    if not found:
        raise InputError(
            f"{path}: mask is {dataset.dtype} {dataset.shape} but kspace has (slices, coils, rows, cols) = {shape};"
            f" it needs zeros and ones of shape ({cols},), ({rows}, 1) or ({rows}, {cols}), or one of these for each"
            f" slice, such as ({slices}, 1, {cols})"
        )
    if not found[0].any():
        raise InputError(f"{path}: mask is zero everywhere; repair it, or delete it so that it is derived from kspace")
    return found


def _plain(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _number(value: Any) -> float | None:
    """A value as a number, also if the file stores it as text; None if it is no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _by(shape: Shape | None) -> str:
    return "unknown" if shape is None else f"{shape[0]} x {shape[1]}"
