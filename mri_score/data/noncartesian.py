"""Non-Cartesian scans, simulated from full Cartesian ones: samples, coil maps, scale."""

from __future__ import annotations

import math
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
"""Radius of the centre of k-space that coil maps are made from, at least: smaller ones do not tell coils apart."""


class NonCartesianScan(Scan):
    """A fully sampled file, as a scan along a trajectory would have seen it; `truth` is that of the file.

    Errors: InputError for an undersampled file, or one of another matrix than the trajectory's.
    """

    def __init__(self, file: Reader, trajectory: Trajectory, **options: Any) -> None:
        super().__init__(file, **options)
        self.trajectory = trajectory
        if file.mask is not None:
            raise InputError(f"{file.path} is undersampled; trajectories are simulated from full k-space: name another")
        if file.image_shape != trajectory.shape:
            raise InputError(
                f"{file.path} has {file.image_shape} points, the trajectory is made for {trajectory.shape}; make it"
                " for the file's image_shape"
            )

    @property
    def acceleration(self) -> float:
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
    """The scaled acquisition that a trajectory would have given in place of full k-space.

    Coil by coil, without coil maps, y = N x with x the coil's image: the scan's own noise passes with it. The rows of N
    have norm 1, so every sample keeps the standard deviation noise_std of the scan; samples of one spoke or arm, a grid
    cell apart, are nearly uncorrelated (|correlation| at most 0.13), but those that lie closer, near DC, share noise.
    Scale and floor of the noise as for Cartesian scans (`scaled`); then kspace and noise_std are multiplied by the gain
    of the operator.
    Shapes: kspace (B, C, H, W), noise_std in its units.
    """
    y = samples(ifft(kspace), trajectory)
    maps = centre_maps(y, trajectory)
    operator = NonCartesian(maps, trajectory.coordinates)
    scale = percentile(operator.cg_sense(y * operator.gain))
    if not bool((scale > 0).all()):
        raise InputError(f"{name}: slice {int((scale <= 0).nonzero()[0])} of the batch holds no signal; leave it out")
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
    """What each image (B, C, H, W) has along a trajectory, in the units of orthonormal k-space: (B, C, M)."""
    transform = _single(trajectory.shape, trajectory.coordinates, gain=1.0)
    return transform(images.flatten(0, 1)).unflatten(0, images.shape[:2])[:, :, 0]


def centre_maps(y: Tensor, trajectory: Trajectory) -> Tensor:
    """ESPIRiT maps (B, C, H, W) from the samples (B, C, M) near DC.

    These alone give each coil's image on a coarse grid by least squares, which needs no density compensation; ESPIRiT
    takes the disc of k-space that they fill.
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
    """The classical image A^H D y, D the area of k-space that each sample stands for: (B, H, W), scaled as the scan."""
    operator = acquisition.operator()
    assert isinstance(operator, NonCartesian) and acquisition.kspace is not None
    area = trajectory.area.to(acquisition.kspace.real)
    return operator.adjoint(acquisition.kspace * area) / operator.gain**2


def _single(shape: tuple[int, ...], coordinates: Tensor, gain: float | None = None) -> NonCartesian:
    """The transform of single images, without coils."""
    return NonCartesian(torch.ones(1, 1, *shape, dtype=torch.complex64), coordinates, gain)


def _radius(coordinates: Tensor, shape: tuple[int, int]) -> Tensor:
    """|k|, as a part of the whole width of k-space."""
    return (coordinates / torch.tensor(shape).to(coordinates.double())).square().sum(-1).sqrt()
