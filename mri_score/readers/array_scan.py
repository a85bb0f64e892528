"""Scans stored as plain arrays: NumPy and MATLAB arrays, whose axes the user names, and BART's cfl files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mri_score.errors import InputError
from mri_score.readers.arrays import StoredArray, open_npy, require_file
from mri_score.readers.base import Item, MatrixOfImages, PlainReader, Shape
from mri_score.readers.hdf5 import check_claims
from mri_score.readers.sampling import StoredSampling, find_sampling
from mri_score.untrusted.process import read_apart

if TYPE_CHECKING:  # importing torch takes a second, and only the functions that return samples need it
    from torch import Tensor

SERIES = {"contrasts": "contrast", "sets": "set", "phases": "phase", "repetitions": "repetition", "slices": "slice"}
"""Axes of separate images, in the order in which they are numbered, and the counter of an `Item` that each is."""
CORE = ("coils", "rows", "cols", "partitions", "averages")
"""Axes within one image, or one volume of a 3-D scan."""
AXES = (*CORE, *SERIES)
"""Names of axes: rows are the readout; partitions the second phase encoding of 3-D scans; averages are averaged."""
BART_AXES = {0: "rows", 1: "cols", 2: "partitions", 3: "coils", 5: "contrasts", 10: "repetitions", 11: "phases",
             13: "slices", 14: "averages", 15: "sets"}  # fmt: skip
"""Number of BART's dimensions -> axis. The others must have the size 1."""
_PARSING = "mri_score.readers.matrices_parsing"


class StoredCfl(StoredArray):
    """The array of a .cfl file, read part by part, axes in BART's order."""

    function = f"{_PARSING}:cfl_samples"


class StoredVariable(StoredArray):
    """A variable of a MATLAB file, axes in MATLAB's order."""

    function = f"{_PARSING}:mat_samples"


def open_cfl(path: Path) -> StoredCfl:
    """Open a BART array. path: of the .cfl, of its .hdr, or without a suffix. Errors: InputError for anything else."""
    path = path.with_suffix(".cfl") if path.suffix in (".cfl", ".hdr") else path.with_name(f"{path.name}.cfl")
    require_file(path)
    return StoredCfl(path, "the array", read_apart(f"{_PARSING}:cfl_contents", path))


def open_mat(path: Path, variable: str | None = None) -> StoredVariable:
    """Open a variable of a MATLAB file: the named one, `kspace`, or the only array of three axes. Errors: InputError.
    """
    require_file(path)
    memory = min(8 << 30, (512 << 20) + 40 * path.stat().st_size)  # variables of version 5 are read as a whole
    facts = read_apart(f"{_PARSING}:mat_contents", path, memory=memory, seconds=60, variable=variable)
    array = StoredVariable(path, facts["name"], facts)
    if facts["hdf5"]:
        check_claims(path, array)
    return array


class ArrayScan(MatrixOfImages, PlainReader):
    """K-space in an array, one image after the other, see `Item`.

    Unsampled points are those that are zero in all coils; DC is at N // 2 of rows and columns. An axis that is missing
    has the size 1. With partitions, the rows are transformed into a stack of images (cols, partitions).
    The constructor checks everything except the samples.
    path: of the file. array: what it stores. axes: a name of `AXES` for each axis.
    Errors: InputError with the name of the file.
    """

    def __init__(self, path: Path, array: StoredArray, axes: Sequence[str]) -> None:
        self.path, self.name, self.acquisition = path, path.stem, "unknown"
        self.attributes: dict[str, Any] = {}
        self._array, self.axes = array, tuple(axes)
        _check_axes(path, array.shape, self.axes)
        if array.dtype.kind != "c":
            raise InputError(f"{path}: {array.key} is {array.dtype}, not complex; k-space is complex, save it as such")
        self._size = {name: self._length(name) for name in AXES}
        self.coils, self.three_dimensional = self._size["coils"], self._size["partitions"] > 1
        plane = ("cols", "partitions") if self.three_dimensional else ("rows", "cols")
        self.image_shape: Shape = (self._size[plane[0]], self._size[plane[1]])
        self.crop = self.image_shape
        counters = [range(self._size[name]) for name in SERIES]
        self._items = [dict(zip(SERIES, key, strict=True)) for key in product(*counters)]
        self.slices = len(self._items) * (self._size["rows"] if self.three_dimensional else 1)
        self._volume: tuple[int, np.ndarray] | None = None

    def _length(self, name: str) -> int:
        return self._array.shape[self.axes.index(name)] if name in self.axes else 1

    @property
    def notes(self) -> list[str]:
        return [note for note in self._sampling.notes if "has no mask" not in note]

    @property
    def padding(self) -> Shape:
        """Range (left, right) of the acquired columns, right excluded."""
        return self._sampling.padding

    @property
    def acquired(self) -> Tensor:
        """Bool (1, 1, 1 or H, W): the acquired region of k-space."""
        import torch

        return torch.from_numpy(self._sampling.acquired)[:, None]

    @property
    def mask(self) -> Tensor | None:
        """Sampling mask of the points that are not zero, as `Reader.mask`; None for a fully sampled file."""
        import torch

        mask = self._sampling.mask
        if mask is None:
            return None
        while mask.ndim > 1 and len(mask) == 1:
            mask = mask[0]
        return torch.from_numpy(mask)

    @property
    def sampled(self) -> Tensor:
        """Masks for an `Acquisition`, bool (1 or slices, 1, 1 or H, W): `mask`, or the acquired region."""
        import torch

        mask = self._sampling.mask
        return self.acquired if mask is None else torch.from_numpy(mask)[:, None]

    def item(self, slice: int) -> Item:
        """The slice, contrast, phase, repetition and set of an image; of 3-D arrays the slice is the row."""
        number, row = self._locate(slice)
        item = Item(**{SERIES[name]: count for name, count in self._items[number].items()})
        return Item(**(vars(item) | {"slab": item.slice, "slice": row})) if self.three_dimensional else item

    def about(self) -> dict[str, str]:
        """Name -> text on the contents of the file."""
        sizes = zip(self.axes, self._array.shape, strict=True)
        return {
            "format": f"array of {self._array.dtype}",
            "axes": ", ".join(f"{name} {size}" for name, size in sizes if size > 1 or name in ("rows", "cols")),
            "k-space": f"{self.slices} images, {self.coils} coils, {self.rows} rows x {self.cols} columns",
            "truth": "full k-space" if self._sampling.mask is None else "none",
        }

    def empty(self, slice: int) -> bool:
        """Whether all stored samples of a slice are zero."""
        return not self._read(slice).any()

    def kspace(self, slice: int) -> Tensor:
        """One slice of k-space: (coils, H, W) complex64, DC at N // 2, unsampled points zero, file's units.

        Errors: InputError for NaN, infinity and coils of zeros.
        """
        import torch

        y = torch.from_numpy(np.ascontiguousarray(self._read(slice), dtype=np.complex64))
        for coil, samples in enumerate(y):
            if not torch.view_as_real(samples).isfinite().all() or not samples.any():
                fault = "is all zeros" if samples.isfinite().all() else "holds NaN or infinity"
                raise InputError(f"{self.path}: coil {coil} of {self.item(slice)} {fault}; write the array again")
        return y

    def close(self) -> None:
        """Drop the volume that was read last; no file is open between reads."""
        self._volume = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_volume": None}

    def _locate(self, slice: int) -> tuple[int, int]:
        """Number of the item, and row of a 3-D array, of an image."""
        if not 0 <= slice < self.slices:
            raise InputError(f"{self.path} has images 0 to {self.slices - 1}, not {slice}")
        return divmod(slice, self._size["rows"]) if self.three_dimensional else (slice, 0)

    def _read(self, slice: int) -> np.ndarray:
        """(coils, H, W) of an image."""
        number, row = self._locate(slice)
        if not self.three_dimensional:
            return self._stored(number)[..., 0]
        if self._volume is None or self._volume[0] != number:
            y = np.fft.ifftshift(self._stored(number), 1)
            self._volume = number, np.fft.fftshift(np.fft.ifft(y, axis=1, norm="ortho"), 1).astype(np.complex64)
        return self._volume[1][:, row]

    def _stored(self, number: int) -> np.ndarray:
        """(coils, rows, cols, partitions) of an item, averages averaged."""
        fixed: dict[str, Any] = dict.fromkeys(CORE, slice(None)) | self._items[number]
        values = np.asarray(self._array[tuple(fixed.get(name, 0) for name in self.axes)])
        left = [name for name in self.axes if name in CORE]
        order = [name for name in CORE if name in left]
        values = values.transpose([left.index(name) for name in order])
        if "averages" in left:
            measured = (values != 0).sum(-1)
            values = values.sum(-1) / np.maximum(measured, 1)
        return values.reshape([self._size[name] for name in ("coils", "rows", "cols", "partitions")])

    @cached_property
    def _sampling(self) -> StoredSampling:
        points: list[np.ndarray | None] = []
        for slice in range(0, self.slices, self._size["rows"] if self.three_dimensional else 1):
            y = self._stored(slice // self._size["rows"]) if self.three_dimensional else self._read(slice)
            nonzero = (y != 0).any((0, 1)) if self.three_dimensional else (y != 0).any(0)
            points += [nonzero if nonzero.any() else None] * (self._size["rows"] if self.three_dimensional else 1)
        if all(one is None for one in points):
            raise InputError(f"{self.path}: {self._array.key} is zero everywhere; there is nothing to reconstruct")
        return find_sampling(points)


def open_array(path: Path, axes: Sequence[str] | None = None) -> ArrayScan:
    """Open k-space in a .npy, .mat or .cfl file. axes: a name of `AXES` for each axis; cfl files need none.

    Errors: InputError without axes, and for axes that do not fit.
    """
    if path.suffix.lower() in (".cfl", ".hdr"):
        array: StoredArray = open_cfl(path)
        if axes is not None:
            axes = [*axes, *(f"dimension {number}" for number in range(len(axes), len(array.shape)))]
        else:
            axes = [BART_AXES.get(number, f"dimension {number}") for number in range(len(array.shape))]
            kept = [n for n, (name, size) in enumerate(zip(axes, array.shape, strict=True)) if name in AXES or size > 1]
            if other := [axes[n] for n in kept if axes[n] not in AXES]:
                raise InputError(f"{path}: BART's {', '.join(other)} has several entries; k-space needs one of them")
        return ArrayScan(array.path, array, axes)
    array = open_mat(path) if path.suffix.lower() == ".mat" else open_npy(path)
    if axes is None:
        raise InputError(
            f"{path}: {array.key} has shape {array.shape}; name its axes, such as --axes coils,rows,cols. Known:"
            f" {', '.join(AXES)}"
        )
    return ArrayScan(array.path, array, axes)


class CflMaps:
    """BART's coil maps as an array (slices, C, H, W), read slice by slice; of several sets the first."""

    def __init__(self, path: Path) -> None:
        self._array = open_cfl(path)
        size = [*self._array.shape, *[1] * (16 - len(self._array.shape))]
        self.deep = size[2] > 1
        self.shape = (size[0], size[3], size[1], size[2]) if self.deep else (size[13], size[3], size[0], size[1])
        self.ndim, self.dtype = 4, self._array.dtype
        self.notes = [f"{path} has {size[4]} sets of coil maps; the first is used"] if size[4] > 1 else []

    def __getitem__(self, number: int) -> np.ndarray:
        index: list[int | slice] = [0] * len(self._array.shape)
        every = slice(None)
        index[:4] = [number, every, every, every] if self.deep else [every, every, 0, every]
        if not self.deep and len(index) > 13:
            index[13] = number
        return np.moveaxis(self._array[tuple(index)], -1, 0)


def _check_axes(path: Path, shape: Sequence[int], axes: Sequence[str]) -> None:
    known = ", ".join(AXES)
    named = [name for name, size in zip(axes, shape, strict=False) if name in AXES or size > 1]
    if unknown := [name for name in named if name not in AXES]:
        raise InputError(f"{path}: axes {', '.join(unknown)} are not known; known: {known}")
    if len(axes) != len(shape) or len(set(named)) < len(named) or not {"rows", "cols"} <= set(named):
        raise InputError(
            f"{path} has the shape {tuple(shape)}, but --axes names {', '.join(axes)}; it needs a different name for"
            f" each axis, rows and cols among them. Known: {known}"
        )
