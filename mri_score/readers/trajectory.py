"""Scans that were acquired along a trajectory: samples and their positions in k-space, from ISMRMRD and BART files."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mri_score.errors import InputError
from mri_score.readers.array_scan import open_cfl
from mri_score.readers.base import Item, MatrixOfImages, Shape
from mri_score.readers.geometry import Geometry
from mri_score.readers.ismrmrd_readouts import COUNTERS, Readouts, geometry_of

if TYPE_CHECKING:  # importing torch takes a second, and only the functions that return samples need it
    from torch import Tensor

FITTING = 1.5
"""Largest ratio of a trajectory's radius, in one of the known units, to half the matrix, and of its inverse."""
LEAST_EXTENT = 0.05
"""Smallest ratio of a trajectory's extents along both axes, relative to the matrix."""
LARGEST = 1 << 22
"""Most samples of an image, for each coil."""


class TrajectoryReader(MatrixOfImages):
    """What readers of trajectories share: an image of `image_shape`, samples (coils, M), and no mask."""

    path: Path

    @property
    def crop(self) -> Shape:
        """(rows, cols) of the image to write: all of it."""
        return self.image_shape

    @property
    def padding(self) -> Shape:
        """All columns."""
        return 0, self.cols

    @property
    def mask(self) -> Tensor | None:
        """None: there is a trajectory instead."""
        return None

    @property
    def acquired(self) -> Tensor:
        """Bool (1, 1, 1, W), all True."""
        import torch

        return torch.ones(1, 1, 1, self.cols, dtype=torch.bool)

    @property
    def sampled(self) -> Tensor:
        """As `acquired`."""
        return self.acquired

    @abstractmethod
    def _samples_of(self, slice: int) -> np.ndarray:
        """(coils, M), complex64."""

    @abstractmethod
    def _positions_of(self, slice: int) -> np.ndarray:
        """(M, 2), cycles per field of view."""

    def coordinates(self, slice: int) -> Tensor:
        """Positions of the samples of a slice, float64 (M, 2): cycles per field of view along rows and columns."""
        import torch

        return torch.from_numpy(np.ascontiguousarray(self._positions_of(slice), np.float64))

    def kspace(self, slice: int) -> Tensor:
        """Samples of a slice, (coils, M) complex64. Errors: InputError for NaN, infinity and coils of zeros."""
        import torch

        y = torch.from_numpy(np.ascontiguousarray(self._samples_of(slice), np.complex64))
        for coil, samples in enumerate(y):
            if not torch.view_as_real(samples).isfinite().all() or not samples.any():
                raise InputError(f"{self.path}: coil {coil} of slice {slice} is all zeros, or holds NaN or infinity")
        return y

    def empty(self, slice: int) -> bool:
        """Whether all stored samples of a slice are zero."""
        return not self._samples_of(slice).any()

    def stored(self, slice: int) -> tuple[np.ndarray, np.ndarray]:
        """Errors: InputError, because no grid holds the samples of a slice."""
        raise InputError(f"{self.path}: samples of slice {slice} lie along a trajectory; only Cartesian scans convert")

    def calibration(self, slice: int) -> tuple[Tensor, Tensor] | None:
        """None: the coil maps of a slice come from its own samples near the centre of k-space."""
        return None


class ISMRMRDTrajectory(TrajectoryReader, Readouts):
    """An ISMRMRD file with a trajectory beside its samples: radial, spiral, or any other in two dimensions.

    The image has the header's reconstruction matrix. The unit of the positions is found from their largest value: half
    the matrix in cycles per field of view, 0.5 in cycles per pixel, or half the matrix over the field of view in 1/m or
    1/mm. Readouts of one item are put together; further components of a position, such as weights, are not used.
    path: of the file. Errors: InputError with the name of the file.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        x, y, z = self.encoding.recon.matrix
        self.image_shape = (x, y)
        self._check_size(self.image_shape)
        if z > 1 or self.encoding.encoded.matrix[2] > 1:
            raise InputError(f"{path}: trajectories in three dimensions cannot be read; reconstruct it slice by slice")
        dimensions = self._headers["trajectory_dimensions"][self._imaging]
        if (dimensions < 2).any():
            raise InputError(
                f"{path}: its trajectory is {self.encoding.trajectory}, but readout {self._imaging[dimensions < 2][0]}"
                " has no positions beside its samples; export it with its trajectory"
            )

    @property
    def slices(self) -> int:
        return len(self._items)

    def item(self, slice: int) -> Item:
        """The slice, contrast, phase, repetition and set of an image."""
        return Item(**dict(zip(COUNTERS, self._key(slice), strict=True)))

    def geometry(self, slice: int) -> Geometry | None:
        """Where the image of a slice lies in the patient; None without a field of view in the header."""
        size = self.encoding.recon.voxel_size
        head = self._headers[self._readouts(self._imaging, self._key(slice))[0]]
        return None if size is None else geometry_of(head, self.image_shape, size)

    def about(self) -> dict[str, str]:
        """Name -> text on the contents of the file."""
        rows, cols = self.image_shape
        count = len(self._readouts(self._imaging, self._items[0]))
        return {
            "format": f"ISMRMRD, {self.encoding.trajectory}, {len(self._headers)} readouts",
            "acquisition": self.acquisition,
            "k-space": f"{self.slices} images of {rows} x {cols}, {self.coils} coils, {count} readouts an image",
            "noise scan": f"{len(self._noise)} readouts" if len(self._noise) else "none",
            "truth": "none",
        }

    def _key(self, slice: int) -> tuple[int, ...]:
        if not 0 <= slice < self.slices:
            raise InputError(f"{self.path} has images 0 to {self.slices - 1}, not {slice}")
        return self._items[slice]

    def _samples_of(self, slice: int) -> np.ndarray:
        key = self._key(slice)
        if self._cached is None or self._cached[0] != key:
            numbers = self._readouts(self._imaging, key)
            _check_count(self.path, int(self._kept[numbers].sum()))
            stored = zip(numbers, self._read(numbers), strict=True)
            self._cached = key, np.concatenate([self._without_discarded(*one) for one in stored], 1)
        return self._cached[1]

    def _positions_of(self, slice: int) -> np.ndarray:
        return self._stored_positions(self._key(slice)) * self._unit

    def _stored_positions(self, key: tuple[int, ...]) -> np.ndarray:
        numbers, parts = self._readouts(self._imaging, key), []
        for number, values in self._read_field(numbers, "traj"):
            head = self._headers[number]
            count, dimensions = int(head["number_of_samples"]), int(head["trajectory_dimensions"])
            if values.size != count * dimensions or not np.isfinite(values).all():
                raise InputError(
                    f"{self.path}: readout {number} has {values.size} finite or other positions for {count} samples of"
                    f" {dimensions} dimensions; the file is damaged"
                )
            parts.append(self._without_discarded(number, values.reshape(count, dimensions)[:, :2].T).T)
        return np.concatenate(parts).astype(np.float64)

    def _without_discarded(self, number: int, values: np.ndarray) -> np.ndarray:
        """The kept columns of an array (..., samples) of a readout."""
        head = self._headers[number]
        return values[:, int(head["discard_pre"]) : values.shape[1] - int(head["discard_post"])]

    @cached_property
    def _unit(self) -> np.ndarray:
        """(2,): factor from stored positions to cycles per field of view, along rows and columns."""
        matrix = np.array(self.image_shape, float)
        units = {"cycles per field of view": np.ones(2), "cycles per pixel": matrix}
        if self.encoding.recon.field_of_view is not None:
            extent = np.array(self.encoding.recon.field_of_view[:2])
            units |= {"1/m": extent / 1000, "1/mm": extent}
        stored = np.abs(self._stored_positions(self._items[0]))
        ratio = {name: float((stored * unit / (matrix / 2)).max()) for name, unit in units.items()}
        name = min(ratio, key=lambda one: abs(np.log(max(ratio[one], 1e-30))))
        if not 1 / FITTING <= ratio[name] <= FITTING:
            raise InputError(
                f"{self.path}: its trajectory reaches {stored.max():.4g}, which fits no known unit for a matrix of"
                f" {self.image_shape}: known are {', '.join(units)}; repair the trajectory or the header"
            )
        extent = (stored * units[name] / (matrix / 2)).reshape(-1, 2).max(0)
        if extent.min() < LEAST_EXTENT * extent.max():
            raise InputError(
                f"{self.path}: its trajectory covers one axis of k-space only, up to {extent[0]:.2g} and"
                f" {extent[1]:.2g} of half the matrix; repair the trajectory, or export all of its readouts"
            )
        return units[name]


class BartTrajectory(TrajectoryReader):
    """BART's k-space (1, samples, spokes, coils) and trajectory (3, samples, spokes) in cycles per field of view.

    path, trajectory: the .cfl files. The matrix is twice the trajectory's largest component along each axis.
    Errors: InputError for arrays that do not fit each other.
    """

    noise_scan = None
    axes: tuple[str, ...] = ()

    def __init__(self, path: Path, trajectory: Path) -> None:
        self._array, positions = open_cfl(path), open_cfl(trajectory)
        self.path, self.name, self.acquisition = self._array.path, self._array.path.stem, "unknown"
        self.attributes: dict[str, Any] = {}
        self.notes: list[str] = []
        sizes, other = (list(one.shape) + [1] * (16 - len(one.shape)) for one in (self._array, positions))
        many = [number for number in range(4, 16) if sizes[number] > 1 and number != 13]
        if other[0] != 3 or sizes[0] != 1 or other[1:3] != sizes[1:3] or many or max(other[3:]) > 1:
            raise InputError(
                f"{trajectory} is {tuple(positions.shape)}, {path} {tuple(self._array.shape)}; they need (3, samples,"
                " spokes) and (1, samples, spokes, coils), of one image or with slices as dimension 13"
            )
        self.coils, self.slices = sizes[3], sizes[13]
        _check_count(self.path, sizes[1] * sizes[2])
        stored = positions[()].reshape(3, -1, order="F").real.astype(np.float64)
        if not np.isfinite(stored).all() or np.abs(stored[2]).max() > 0.5:
            raise InputError(f"{trajectory} has a third component, or NaN or infinity; only two dimensions are read")
        self._positions = np.ascontiguousarray(stored[:2].T)
        reach = np.abs(self._positions).max(0)
        if not (reach >= 1).all() or reach.max() > 1 << 12:
            raise InputError(f"{trajectory} reaches {reach.tolist()} cycles per field of view; from 1 to 4096 are read")
        self.image_shape = (2 * int(np.ceil(reach[0])), 2 * int(np.ceil(reach[1])))

    def item(self, slice: int) -> Item:
        return Item(slice)

    def geometry(self, slice: int) -> Geometry | None:
        """None: BART's files do not say where images lie."""
        return None

    def about(self) -> dict[str, str]:
        """Name -> text on the contents of the file."""
        rows, cols = self.image_shape
        return {
            "format": "BART, with a trajectory",
            "k-space": f"{self.slices} images of {rows} x {cols}, {self.coils} coils, {len(self._positions)} samples",
            "truth": "none",
        }

    def close(self) -> None:
        """Nothing is open between reads."""

    def _samples_of(self, slice: int) -> np.ndarray:
        index: list[Any] = [0, *[np.s_[:]] * 3, *[0] * 12][: len(self._array.shape)]
        if len(index) > 13:
            index[13] = slice
        return self._array[tuple(index)].reshape(-1, self.coils, order="F").T

    def _positions_of(self, slice: int) -> np.ndarray:
        return self._positions


def _check_count(path: Path, count: int) -> None:
    if count > LARGEST:
        raise InputError(f"{path}: an image has {count} samples a coil; at most {LARGEST} are read")
