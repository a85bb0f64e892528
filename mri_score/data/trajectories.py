"""Non-Cartesian trajectories: radial spokes and spirals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mri_score.errors import InputError

CONE = 1.5
"""Radius in grid cells within which samples share k-space."""
HALF_GAP = 0.6
"""Largest distance in grid cells from points of the dense centre to the nearest sample."""
GOLDEN = math.pi * (math.sqrt(5) - 1) / 2
"""Angle between successive spokes, 111.25 degrees."""


@dataclass(frozen=True)
class Trajectory:
    """Sample positions in k-space, in cycles per field of view along rows and columns; DC is 0.

    The samples fill the ellipse inside the matrix; the corners of k-space are empty, as on scanners.
    """

    name: str
    shape: tuple[int, int]
    """(H, W) of the image."""
    coordinates: Tensor
    """(M, 2) float64."""
    area: Tensor
    """(M,): area of k-space of each sample, in grid cells; used for gridding only."""
    centre: float
    """Radius, in samples of the longer side, within which neighbours are at most one grid cell apart on average."""

    @property
    def acceleration(self) -> float:
        """Number of grid points divided by number of samples."""
        return self.shape[0] * self.shape[1] / len(self.coordinates)


def radial(shape: tuple[int, int], acceleration: float) -> Trajectory:
    """Spokes through DC at successive golden angles, with one sample per grid cell along the longer side.

    shape: (H, W) of the image. acceleration: grid points divided by samples. Errors: InputError if no spoke is left.

    Reference: Winkelmann et al., An optimal radial profile order based on the golden ratio, IEEE TMI 2007.
    """
    longer = max(shape)
    spokes = _count(shape[0] * shape[1] / (acceleration * longer), "spokes", shape, acceleration)
    radius = (torch.arange(longer, dtype=torch.float64) - longer // 2).expand(spokes, -1)
    angle = GOLDEN * torch.arange(spokes, dtype=torch.float64)[:, None]
    area = math.pi * radius.abs().clamp_min(0.25) / spokes  # a ring of width 1, shared by two samples of each spoke
    return _trajectory("radial", shape, radius, angle, area, centre=spokes / math.pi)


def spiral(shape: tuple[int, int], acceleration: float, interleaves: int = 8, centre: float = 12.0) -> Trajectory:
    """Archimedean spirals from DC at constant speed: arms one grid cell apart in the centre, further apart outside.

    The dense centre, needed for coil maps, has a radius of `centre` samples, but at most a quarter of the edge's.
    Interleaves are rotated evenly. shape: (H, W) of the image. acceleration: grid points divided by samples.
    Errors: InputError for an acceleration that leaves too few samples.
    Reference: Ahn, Kim and Cho, High-speed spiral-scan echo planar NMR imaging, IEEE TMI 1986.
    """
    longer = max(shape)
    edge = longer / 2
    centre = min(centre, edge / 2)
    wanted = longer**2 / acceleration
    if wanted <= math.pi * centre**2:
        raise InputError(
            f"a spiral at acceleration {acceleration:g} has {wanted:.0f} samples, fewer than its dense centre needs"
            f" ({math.pi * centre**2:.0f}); choose a smaller acceleration"
        )
    pitch = math.pi * (edge**2 - centre**2) / (wanted - math.pi * centre**2)
    samples = _count(shape[0] * shape[1] / (acceleration * interleaves), "samples per interleaf", shape, acceleration)
    fine = torch.linspace(0, edge, 64 * longer, dtype=torch.float64)
    turn = 2 * math.pi / interleaves * (fine.clamp_max(centre) + (fine - centre).clamp_min(0) / pitch)
    arm = torch.polar(fine, turn)
    length = torch.cat([torch.zeros(1), arm.diff().abs().cumsum(0)])
    bounds = torch.linspace(0, float(length[-1]), 2 * samples + 1, dtype=torch.float64)
    radius, angle = (_interpolate(bounds, length, values) for values in (fine, turn))
    rings = math.pi / interleaves * radius[::2].square().diff()
    starts = 2 * math.pi / interleaves * torch.arange(interleaves, dtype=torch.float64)[:, None]
    along, turned = radius[1::2].expand(interleaves, -1), angle[1::2] + starts
    return _trajectory("spiral", shape, along, turned, rings.expand(interleaves, -1), centre)


def measured(name: str, shape: tuple[int, int], coordinates: Tensor) -> Trajectory:
    """The trajectory of samples that a scanner acquired: their areas and the dense centre are found from them.

    Areas a fulfil sum_j a_j cone(k_i - k_j) = 1 at every sample, with a cone of volume 1 and radius 1.5 grid cells,
    by ten fixed-point steps; the sum is the density of the samples, weighted, and is 1 where they tile k-space.
    name: such as radial. shape: (H, W) of the image. coordinates: (M, 2), cycles per field of view.
    Reference: Pipe and Menon, Sampling density compensation in MRI, MRM 1999.
    """
    from scipy.spatial import cKDTree  # slow to import

    points = coordinates.double().numpy()
    tree = cKDTree(points)
    near = tree.sparse_distance_matrix(tree, CONE, output_type="coo_matrix").tocsr()
    near.data = 1 - near.data / CONE
    near.setdiag(1)  # the distance 0 is not stored
    near *= 3 / (math.pi * CONE**2)
    area = np.ones(len(points))
    for _ in range(10):
        area /= near @ area
    longer = max(shape)
    grid = np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij"), -1).reshape(-1, 2)
    radius = np.linalg.norm(grid / shape, axis=1) * longer
    gap = tree.query(grid)[0]
    rings = [gap[(radius >= inner) & (radius < inner + 1)] for inner in range(longer // 2)]
    filled = [float(np.quantile(ring, 0.95)) <= HALF_GAP for ring in rings]
    centre = filled.index(False) if False in filled else longer // 2
    return Trajectory(name, shape, coordinates.double(), torch.from_numpy(area), float(centre))


TRAJECTORIES = {"radial": radial, "spiral": spiral}


def _trajectory(
    name: str, shape: tuple[int, int], radius: Tensor, angle: Tensor, area: Tensor, centre: float
) -> Trajectory:
    """A trajectory from polar coordinates in samples of the longer side; circles become ellipses of the matrix."""
    stretch = torch.tensor(shape, dtype=torch.float64) / max(shape)
    circle = torch.stack([radius * angle.sin(), radius * angle.cos()], -1).flatten(0, 1)
    return Trajectory(name, shape, circle * stretch, area.flatten() * float(stretch.prod()), centre)


def _count(wanted: float, what: str, shape: tuple[int, int], acceleration: float) -> int:
    if not acceleration > 0 or round(wanted) < 1:
        raise InputError(f"acceleration {acceleration:g} leaves no {what} for {shape[0]} x {shape[1]} points; lower it")
    return round(wanted)


def _interpolate(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Piecewise linear interpolation of y at `at`, for increasing x."""
    right = torch.searchsorted(x, at).clamp(1, len(x) - 1)
    part = (at - x[right - 1]) / (x[right] - x[right - 1])
    return torch.lerp(y[right - 1], y[right], part.clamp(0, 1))
