"""Samples that are left out of a reconstruction and then judge it: a check for scans without truth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from mri_score.data.coils import SIZES, calibration_region
from mri_score.data.masks import mask_seed
from mri_score.data.noncartesian import NonCartesianScan
from mri_score.data.scan import Scan
from mri_score.errors import InputError
from mri_score.numerics.fourier import resize_kspace
from mri_score.numerics.noise import generators, key
from mri_score.operators.sense import Sense


def hold_out(mask: Tensor, shape: tuple[int, int], amount: float, random: Generator) -> Tensor:
    """A random few of the sampled lines outside the calibration lines, as a mask that leaves them out of k-space.

    `amount` is a number of lines from 1 on, a share of them below 1. Under masks of points it counts points, outside
    the centre square that coil maps may come from.
    Shapes: mask bool (1, 1, 1 or H, 1 or W) of k-space (H, W); the result (1, 1, 1, W), (1, 1, H, 1) or (1, 1, H, W).
    Errors: InputError where this would leave out nothing, or everything.
    """
    candidates = _candidates(mask.reshape(mask.shape[-2:]).bool().expand(shape))
    places = candidates.flatten().nonzero()[:, 0]
    known = 0 < amount < float("inf")
    count = 0 if not known else round(amount) if amount >= 1 else max(1, round(amount * len(places)))
    if not 0 < count < len(places):
        raise InputError(
            f"--check-lines {amount:g} cannot be left out: outside its calibration region the mask samples"
            f" {len(places)} lines or points; give a share such as 0.1, or a number below {len(places)}"
        )
    held = torch.zeros(candidates.numel(), dtype=torch.bool)
    held[places[torch.randperm(len(places), generator=random)[:count]]] = True
    return held.reshape(1, 1, *candidates.shape)


def _candidates(sampled: Tensor) -> Tensor:
    """The samples that coil maps do not need: lines (1, W) or (H, 1), or points (H, W)."""
    size = max(sampled.shape)
    region = calibration_region(sampled, size, size)
    if region is None:
        square = torch.ones([min(SIZES[0], side) for side in sampled.shape], dtype=torch.bool)
        return sampled & ~resize_kspace(square, sampled.shape)
    lines = (sampled[:1] if bool((sampled == sampled[:1]).all()) else sampled[:, :1]).clone()
    lines[region] = False
    return lines


@dataclass(frozen=True)
class Misfit:
    """Sums over held-out samples, in units of their noise |n|^2 = 2 noise_std^2; those of several slices add up."""

    squared: float
    """|y - A image|^2."""
    squared_draws: float | None
    """|y - A mean of the draws|^2, for the ratio: a better image than theirs would hide that they are too sure."""
    spread: float | None
    """(1 + 1/P) times the variance of A x over P draws; None for a method without draws."""
    count: int

    def __add__(self, other: Misfit) -> Misfit:
        spread = None if self.spread is None or other.spread is None else self.spread + other.spread
        pair = (self.squared_draws, other.squared_draws)
        draws = None if pair[0] is None or pair[1] is None else pair[0] + pair[1]
        return Misfit(self.squared + other.squared, draws, spread, self.count + other.count)

    @property
    def misfit(self) -> float:
        """A sample's: 1 where nothing but noise is left, and the lower the better the method."""
        return self.squared / self.count

    @property
    def expected(self) -> float | None:
        """What the draws foretell of it: their own variance, and the noise."""
        return None if self.spread is None else 1 + self.spread / self.count

    @property
    def ratio(self) -> float | None:
        """Found over expected of the draws: 1 for the true posterior, above it for draws too sure of themselves."""
        if self.expected is None or self.squared_draws is None:
            return None
        return self.squared_draws / self.count / self.expected


def misfit(
    image: Tensor, kspace: Tensor, maps: Tensor, held: Tensor, noise_std: float, samples: Tensor | None = None
) -> Misfit:
    """How an image that never saw the samples of `held` predicts them, y = A x + n with n of 2 noise_std^2.

    If x and the P draws come from one law, E |y - A mean|^2 = 2 noise_std^2 + (1 + 1/P) E var(A x) at every sample,
    whatever the law. Coil maps that are not exact add to the misfit of every method alike.
    Scale and noise level of the scan came from all samples; no image did.
    Shapes: image (H, W), kspace and maps (C, H, W), held broadcastable to (1, C, H, W), samples (P, H, W).
    """
    operator = Sense(maps[None], held)
    points = held.expand(1, *kspace.shape)[0]
    unit = 2 * noise_std**2

    def predict(image: Tensor) -> Tensor:
        return operator(image[None])[0][points]

    def squared(image: Tensor) -> float:
        return float((kspace[points] - predict(image)).abs().square().sum() / unit)

    spread = draws = None
    if samples is not None and len(samples) > 1:
        draws = squared(samples.mean(0))
        predictions = torch.view_as_real(torch.stack([predict(draw) for draw in samples]))
        spread = float((1 + 1 / len(samples)) * predictions.var(0).sum() / unit)
    return Misfit(squared(image), draws, spread, int(points.sum()))


def held_out_of(scan: Scan, amount: float) -> Tensor:
    """The left-out samples of a volume, which follow from the seed of its mask."""
    if isinstance(scan, NonCartesianScan):
        raise InputError(f"{scan.file.path}: --check-lines leaves out samples of a mask, not of a trajectory")
    seed = key("held-out lines", *mask_seed(scan.file.path.name, scan.sampling.seed))
    return hold_out(scan.mask, scan.file.image_shape, amount, generators(seed)[0])
