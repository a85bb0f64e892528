"""Non-Cartesian scans, simulated from fully sampled Cartesian ones: samples, coil maps, scale."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mri_score.data.acquisition import Acquisition
from mri_score.data.coils import compress_coils
from mri_score.data.espirit import espirit
from mri_score.data.noise_rings import NoiseLevel, outer_level, whiten, with_noise_scan
from mri_score.data.scale import scale_of
from mri_score.data.scan import LEAST_NOISE, Scan
from mri_score.data.trajectories import Trajectory, measured
from mri_score.errors import InputError
from mri_score.numerics.fourier import fft, ifft
from mri_score.operators.noncartesian import NonCartesian
from mri_score.readers.base import Reader

OUTER = 0.03
"""Share of the samples, those of the largest radius, that the noise is measured on."""
LEAST_CENTRE = 10.0
"""Smallest radius of the centre of k-space for coil maps; a smaller centre does not resolve the coils."""


class NonCartesianScan(Scan):
    """A scan along a trajectory, simulated from a fully sampled file; `truth` is the fully sampled image.

    options: as in `Scan`. Errors: InputError for an undersampled file, and if matrix and trajectory differ in shape.
    """

    def __init__(self, file: Reader, trajectory: Trajectory, **options: Any) -> None:
        super().__init__(file, **options)
        self.trajectory = trajectory
        if file.mask is not None:
            raise InputError(
                f"{file.path} is undersampled; trajectories are simulated from fully sampled scans: name another"
            )
        if file.image_shape != trajectory.shape:
            raise InputError(
                f"{file.path} has a matrix of {file.image_shape}, but the trajectory is for {trajectory.shape}; make it"
                " for the file's image_shape"
            )

    def trajectory_of(self, slice: int) -> Trajectory:
        """The trajectory of one slice. slice: its number; all slices have the same."""
        return self.trajectory

    @property
    def one_trajectory(self) -> bool:
        """Whether all slices have the same trajectory."""
        return True

    @property
    def source(self) -> str:
        """Where the samples come from, for reports."""
        return "simulated from full k-space"

    def acceleration_of(self, slices: Iterable[int]) -> float:
        return self.trajectory.acceleration

    def acquisition(self, slice: int) -> Acquisition:
        """One slice, scaled, with maps from its own samples; batch size 1."""
        kspace = self.kspace(slice)[None]
        if self.mixing is not None:
            kspace = whiten(kspace, self.mixing)
        return acquire(kspace, self.trajectory, self.noise_std, self.file.name, self.mixing)


class MeasuredScan(NonCartesianScan):
    """A scan that was acquired along a trajectory, which may differ from slice to slice; it has no ground truth.

    The noise level is that of the noise scan, or else of the outermost samples, which may hold signal.
    file: whose `coordinates` are not None. coils: number of virtual coils. noise_std: as in `Scan`. Errors: InputError.
    """

    along_trajectory = True

    def __init__(self, file: Reader, coils: int | None = None, noise_std: float | None = None) -> None:
        Scan.__init__(self, file, coils=coils, noise_std=noise_std)
        self._known: dict[bytes, Trajectory] = {}

    @property
    def trajectory(self) -> Trajectory:  # type: ignore[override]
        """That of the first slice."""
        return self.trajectory_of(0)

    def trajectory_of(self, slice: int) -> Trajectory:
        coordinates = self.file.coordinates(slice)
        assert coordinates is not None
        key = hashlib.sha256(coordinates.numpy().tobytes()).digest()
        if key not in self._known:
            self._known[key] = measured("acquired", self.file.image_shape, coordinates)
        return self._known[key]

    @property
    def source(self) -> str:
        return "as acquired"

    @property
    def has_truth(self) -> bool:
        return False

    @property
    def one_trajectory(self) -> bool:
        """Whether all slices have the same trajectory."""
        return len({id(self.trajectory_of(slice)) for slice in range(self.file.slices)}) == 1

    def acceleration_of(self, slices: Iterable[int]) -> float:
        each = [self.trajectory_of(slice).acceleration for slice in slices]
        return len(each) / sum(1 / one for one in each)

    def kspace(self, slice: int) -> Tensor:
        if self.file.empty(slice):
            raise InputError(f"{self.file.path}: slice {slice} is all zeros; leave it out with --slices")
        return self._in_unit(self.file.kspace(slice))

    @cached_property
    def noise(self) -> NoiseLevel:
        y, coordinates = self.kspace(self.middle), self.trajectory_of(self.middle).coordinates
        radius = _radius(coordinates, self.file.image_shape)
        outer = radius >= torch.quantile(radius[:: max(1, len(radius) // 100_000)], 1 - OUTER)
        level = outer_level(y[:, outer])
        if self.file.noise_scan is not None:
            samples = self._in_unit(self.file.noise_scan.samples)
            level = with_noise_scan(level, samples, self.file.noise_scan.calibrated)
        self.notes.extend(level.notes)
        return level

    @cached_property
    def mixing(self) -> Tensor | None:
        mixing = self.noise.whitening
        if self.coils is not None:
            middle = self.kspace(self.middle)[None, :, :, None]
            _, matrix = compress_coils(middle if mixing is None else whiten(middle, mixing), self.coils)
            mixing = matrix if mixing is None else matrix @ mixing.to(matrix)
        return mixing

    def acquisition(self, slice: int) -> Acquisition:
        y = self.kspace(slice)[None]
        if self.mixing is not None:
            y = whiten(y[..., None], self.mixing)[..., 0]
        return from_samples(y, self.trajectory_of(slice), self.noise_std, self.file.name, self.mixing)


def acquire(
    kspace: Tensor, trajectory: Trajectory, noise_std: float, name: str = "scan", mixing: Tensor | None = None
) -> Acquisition:
    """Simulate a scan along a trajectory from fully sampled k-space, scaled for reconstruction.

    Each coil is sampled by itself, without coil maps: y = N x, with x the image of the coil including its noise. The
    rows of N have norm 1, so the noise of every sample has the standard deviation noise_std. The noise of samples one
    grid cell apart is nearly uncorrelated (|correlation| at most 0.13); closer samples, near DC, have correlated noise.
    Scale and lower bound of the noise are those of Cartesian scans (`scaled`); then kspace and noise_std are multiplied
    by the gain of the operator. kspace: (B, C, H, W). noise_std: in the units of kspace. name: for messages. mixing:
    matrix that was applied to the coils, stored as `whitening`. Errors: InputError for a slice without signal.
    """
    return from_samples(samples(ifft(kspace), trajectory), trajectory, noise_std, name, mixing)


def from_samples(
    y: Tensor, trajectory: Trajectory, noise_std: float, name: str = "scan", mixing: Tensor | None = None
) -> Acquisition:
    """The scaled acquisition of samples (B, C, M) along a trajectory, in units of orthonormal k-space.

    y, trajectory: samples and their positions. noise_std: standard deviation of their real and imaginary parts. name:
    for messages. mixing: as in `acquire`. Errors: InputError for a slice without signal.
    """
    maps = centre_maps(y, trajectory)
    operator = NonCartesian(maps, trajectory.coordinates)
    scale = scale_of(operator.cg_sense(y * operator.gain), name)
    return Acquisition(
        name=name,
        kspace=y * (operator.gain / scale[:, None, None]),
        maps=maps,
        noise_std=(noise_std / scale).clamp_min(LEAST_NOISE) * operator.gain,
        scale=scale,
        whitening=mixing,
        trajectory=trajectory.coordinates,
    )


def samples(images: Tensor, trajectory: Trajectory) -> Tensor:
    """K-space samples (B, C, M) of images (B, C, H, W) along a trajectory, in the units of orthonormal k-space."""
    transform = _single(trajectory.shape, trajectory.coordinates, gain=1.0)
    return transform(images.flatten(0, 1)).unflatten(0, images.shape[:2])[:, :, 0]


def centre_maps(y: Tensor, trajectory: Trajectory) -> Tensor:
    """ESPIRiT maps (B, C, H, W) from the samples y (B, C, M) near DC.

    A least-squares fit to these samples gives the image of each coil on a coarse grid, without density compensation.
    ESPIRiT uses the disc of k-space that the samples fill.
    """
    longer = max(trajectory.shape)
    radius = min(max(trajectory.centre, LEAST_CENTRE), longer / 2)
    reach = radius / longer
    inner = _radius(trajectory.coordinates, trajectory.shape) <= reach
    grid = tuple(2 * math.ceil(reach * size) + 1 for size in trajectory.shape)
    operator = _single(grid, trajectory.coordinates[inner])
    b = operator.adjoint(y[..., inner].flatten(0, 1)[:, None])
    coarse = operator.solve(b, weight=1e-3, tolerance=1e-3, max_iterations=50)
    calibration = fft(coarse).unflatten(0, y.shape[:2])
    points = torch.stack(torch.meshgrid(*(torch.arange(n) - n // 2 for n in grid), indexing="ij"), -1)
    maps, _ = espirit(calibration, trajectory.shape, sampled=_radius(points, trajectory.shape) <= reach)
    return maps


def gridding(acquisition: Acquisition, trajectory: Trajectory) -> Tensor:
    """Gridding: the image A^H D y (B, H, W), with D the area of k-space of each sample; in the scan's scale."""
    operator = acquisition.operator()
    assert isinstance(operator, NonCartesian)
    area = trajectory.area.to(acquisition.kspace.real)
    return operator.adjoint(acquisition.kspace * area) / operator.gain**2


def _single(shape: tuple[int, ...], coordinates: Tensor, gain: float | None = None) -> NonCartesian:
    """The non-uniform Fourier transform of single images, without coils."""
    return NonCartesian(torch.ones(1, 1, *shape, dtype=torch.complex64), coordinates, gain)


def _radius(coordinates: Tensor, shape: tuple[int, int]) -> Tensor:
    """|k| relative to the full width of k-space."""
    return (coordinates / torch.tensor(shape).to(coordinates.double())).square().sum(-1).sqrt()
