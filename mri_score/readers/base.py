"""The protocol of all readers of scans: one volume of Cartesian k-space, read slice by slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mri_score.errors import InputError
from mri_score.readers.geometry import Geometry

if TYPE_CHECKING:  # importing torch takes a second, and only the functions that return samples need it
    from torch import Tensor

Shape = tuple[int, int]


def result_name(path: Path) -> str:
    """Name of the result files of a scan, and of its mask's random numbers: the same in every format, with .h5."""
    return path.name if path.suffix == ".h5" else f"{path.stem}.h5"


def one_sided(file: Reader) -> bool:
    """Whether a scan lacks one side of k-space: by partial Fourier, or partial readouts. file: an open scan."""
    region = file.acquired[0, 0].expand(file.image_shape).numpy()
    for axis, size in enumerate(region.shape):
        places = np.flatnonzero(region.any(1 - axis))
        if abs((size // 2 - int(places[0])) - (int(places[-1]) + 1 - size // 2)) > 2:
            return True
    return False


def one_name_each(files: Sequence[Path]) -> None:
    """Check that the results of all files have names of their own. files: paths of scans. Errors: InputError."""
    first: dict[str, Path] = {}
    for path in files:
        other = first.setdefault(result_name(path), path)
        if other is not path:
            raise InputError(f"{other.name} and {path.name} would have the same result file; rename one of them")


@dataclass(frozen=True)
class Item:
    """Which image of a scan: the scanner's counters, from 0. Its text names those that are not 0, and the slice."""

    slice: int
    contrast: int = 0
    set: int = 0
    phase: int = 0
    repetition: int = 0
    slab: int = 0

    def __str__(self) -> str:
        others = [f"{name} {number}" for name, number in vars(self).items() if number and name != "slice"]
        return ", ".join([f"slice {self.slice}", *others])


@dataclass(frozen=True)
class NoiseScan:
    """Samples of noise alone."""

    samples: Tensor
    """(coils, n) complex."""
    calibrated: bool
    """Whether their level is that of the k-space; if not, only the covariance of the coils is known."""


class MatrixOfImages:
    """Part of readers whose stored matrix of k-space is that of the images: no oversampling is left to remove."""

    image_shape: Shape

    @property
    def rows(self) -> int:
        return self.image_shape[0]

    @property
    def cols(self) -> int:
        return self.image_shape[1]


class PlainReader:
    """Base class of readers of files that count slices only, and have no noise scan, calibration lines or geometry."""

    noise_scan: NoiseScan | None = None
    axes: tuple[str, ...] = ()
    if TYPE_CHECKING:  # subclasses have these as attributes or as properties

        @property
        def cols(self) -> int: ...

        @property
        def padding(self) -> Shape: ...

        @property
        def sampled(self) -> Tensor: ...

        def kspace(self, slice: int) -> Tensor: ...

    @property
    def acquired(self) -> Tensor:
        """Bool (1, 1, 1, W): the columns of `padding`."""
        import torch

        columns = torch.arange(self.cols)
        return ((columns >= self.padding[0]) & (columns < self.padding[1])).reshape(1, 1, 1, -1)

    def item(self, slice: int) -> Item:
        return Item(slice)

    def coordinates(self, slice: int) -> Tensor | None:
        return None

    def stored(self, slice: int) -> tuple[np.ndarray, np.ndarray]:
        samples, sampled = self.kspace(slice).numpy(), self.sampled
        mask = sampled[slice if len(sampled) > 1 else 0, 0].numpy()
        return samples, np.broadcast_to(mask, samples.shape[1:])

    def calibration(self, slice: int) -> tuple[Tensor, Tensor] | None:
        return None

    def geometry(self, slice: int) -> Geometry | None:
        return None

    def close(self) -> None:
        """Nothing is open between reads."""


class Reader(Protocol):
    """One volume of k-space in a file.

    The constructor takes the path and checks everything except the samples. Errors: InputError.
    Readers must be picklable, because training sends them to worker processes.
    """

    @property
    def path(self) -> Path:
        """Path of the file."""
        ...

    @property
    def name(self) -> str:
        """Name of the scan: the file name without its suffix."""
        ...

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Other metadata of the file, such as `patient_id`."""
        ...

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes by which an array without a header is read; empty for other formats."""
        ...

    @property
    def acquisition(self) -> str:
        """Contrast, as named in the file, such as AXT2."""
        ...

    @property
    def slices(self) -> int:
        """Number of slices."""
        ...

    @property
    def coils(self) -> int:
        """Number of receiver coils."""
        ...

    @property
    def rows(self) -> int:
        """Rows of the stored k-space: samples along the readout, oversampling included."""
        ...

    @property
    def cols(self) -> int:
        """Columns of the stored k-space: phase-encoding steps."""
        ...

    @property
    def image_shape(self) -> Shape:
        """(H, W) of the k-space that `kspace` returns."""
        ...

    @property
    def crop(self) -> Shape:
        """(rows, cols) of the image to write, at most `image_shape`."""
        ...

    @property
    def padding(self) -> Shape:
        """Range (left, right) of the acquired columns, right excluded; columns outside are zero padding."""
        ...

    @property
    def acquired(self) -> Tensor:
        """Bool (1, 1, 1 or H, W): the acquired region of k-space; points outside it are zero padding."""
        ...

    @property
    def mask(self) -> Tensor | None:
        """Sampling mask: bool (cols,), (rows, cols) if it differs between rows, or (slices, 1 or rows, cols) if it
        differs between slices; None for a fully sampled file.
        """
        ...

    @property
    def sampled(self) -> Tensor:
        """Masks for an `Acquisition`, bool (1 or slices, 1, 1 or H, 1 or W): `mask`, or the acquired region of a
        fully sampled file.
        """
        ...

    @property
    def notes(self) -> list[str]:
        """Warnings for the user, for example about contradictions between header and samples."""
        ...

    @property
    def noise_scan(self) -> NoiseScan | None:
        """Noise measured without a signal; None if the file has none."""
        ...

    def item(self, slice: int) -> Item:
        """Which image of the scan a slice is; files without contrasts, repetitions and so on count slices only."""
        ...

    def calibration(self, slice: int) -> tuple[Tensor, Tensor] | None:
        """Samples for the coil maps of a slice that are not part of its image; None if the file has none.

        Returns the centre of k-space (coils, h, w) of the same field of view, and bool (h, w), whether a sample was
        measured.
        """
        ...

    def geometry(self, slice: int) -> Geometry | None:
        """Where the written image of a slice, of shape `crop`, lies in the patient; None if pixel sizes are unknown.
        """
        ...

    def about(self) -> dict[str, str]:
        """Name -> text on the contents of the file, for `mri-score info`."""
        ...

    def empty(self, slice: int) -> bool:
        """Whether all stored samples of a slice are zero."""
        ...

    def kspace(self, slice: int) -> Tensor:
        """One slice of k-space: (coils, H, W) complex64, DC at N // 2, unsampled points zero, file's units.

        Readout oversampling is removed. Errors: InputError for samples that are not finite, and for coils of zeros.
        """
        ...

    def coordinates(self, slice: int) -> Tensor | None:
        """Positions of the samples of a slice along a trajectory, (M, 2) in cycles per field of view; None on a grid.

        With positions, `kspace` is (coils, M) and there is no mask.
        """
        ...

    def stored(self, slice: int) -> tuple[np.ndarray, np.ndarray]:
        """A slice as it is stored, for conversion: samples (coils, rows, cols) complex64, readout oversampling
        included, and bool (rows, cols), which of them were measured; the others are zero.
        """
        ...

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        ...
