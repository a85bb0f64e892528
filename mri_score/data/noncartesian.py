"""Non-Cartesian scans, simulated from fully sampled Cartesian ones: samples, coil maps, scale."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mri_score.data.acquisition import Acquisition
from mri_score.data.espirit import espirit
from mri_score.data.noise_rings import whiten
from mri_score.data.scale import percentile
from mri_score.data.scan import LEAST_NOISE, Scan
from mri_score.data.trajectories import Trajectory
from mri_score.errors import InputError
from mri_score.numerics.fourier import fft, ifft
from mri_score.operators.noncartesian import NonCartesian
from mri_score.readers.base import Reader

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

    def acceleration_of(self, slices: Iterable[int]) -> float:
        return self.trajectory.acceleration

    def acquisition(self, slice: int) -> Acquisition:
        """One slice, scaled, with maps from its own samples; batch size 1."""
        kspace = self.kspace(slice)[None]
        if self.mixing is not None:
            kspace = whiten(kspace, self.mixing)
        return acquire(kspace, self.trajectory, self.noise_std, self.file.name, self.mixing)


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
    y = samples(ifft(kspace), trajectory)
    maps = centre_maps(y, trajectory)
    operator = NonCartesian(maps, trajectory.coordinates)
    scale = percentile(operator.cg_sense(y * operator.gain))
    if not bool((scale > 0).all()):
        raise InputError(f"{name}: slice {int((scale <= 0).nonzero()[0])} of the batch has no signal; leave it out")
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
