"""Check without ground truth: leave out samples, reconstruct, and compare the result with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
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
from mri_score.readers.base import result_name

QUICK_SHARE = 0.2
"""Share of the lines outside the calibration region that the quick check leaves out."""
QUICK_SLICES = 4
"""Largest number of slices of the quick check."""
LEAST_LINES = 3
"""With fewer lines left out, the comparison of two methods is left to chance."""
WORSE = 1.25
"""Ratio of the misfits of two methods from which one counts as worse. Ordinary heads have 0.3 to 1.1 times the misfit
of CG-SENSE."""


def hold_out(mask: Tensor, shape: tuple[int, int], amount: float, random: Generator) -> Tensor:
    """Choose random samples to leave out, as a bool mask.

    For masks of lines, lines outside the calibration lines are chosen; for masks of points, points outside the central
    square that coil maps may come from. amount: a number of lines or points if at least 1, else a share of them.
    Shapes: mask bool (1, 1, 1 or H, 1 or W) for k-space of `shape` (H, W); result (1, 1, 1, W), (1, 1, H, 1) or
    (1, 1, H, W). Errors: InputError if nothing, or everything, would be left out.
    """
    candidates = _candidates(mask.reshape(mask.shape[-2:]).bool().expand(shape))
    places = candidates.flatten().nonzero()[:, 0]
    known = 0 < amount < float("inf")
    count = 0 if not known else round(amount) if amount >= 1 else max(1, round(amount * len(places)))
    if not 0 < count < len(places):
        raise InputError(
            f"--check-lines {amount:g} is not possible: outside the calibration region the mask samples"
            f" {len(places)} lines or points; give a share such as 0.1, or a number below {len(places)}"
        )
    held = torch.zeros(candidates.numel(), dtype=torch.bool)
    held[places[torch.randperm(len(places), generator=random)[:count]]] = True
    return held.reshape(1, 1, *candidates.shape)


def _candidates(sampled: Tensor) -> Tensor:
    """Bool mask of the samples that may be left out: lines (1, W) or (H, 1), or points (H, W)."""
    size = max(sampled.shape)
    region = calibration_region(sampled, size, size)
    if region is None:
        square = torch.ones([min(SIZES[0], side) for side in sampled.shape], dtype=torch.bool)
        return sampled & ~resize_kspace(square, sampled.shape)
    along = -1 if not bool(sampled.any(0).all()) else -2
    lines = sampled.any(-3 - along, keepdim=True)
    lines.narrow(along, region[along].start, region[along].stop - region[along].start).fill_(False)
    return lines


@dataclass(frozen=True)
class Misfit:
    """Sums over left-out samples, in units of the noise variance 2 noise_std^2; sums of several slices add up."""

    squared: float
    """|y - A image|^2."""
    squared_draws: float | None
    """|y - A mean of the draws|^2, for `ratio`, which must not use a better image than the mean of the draws."""
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
        """Mean squared error divided by the noise variance: 1 is noise alone, lower is better."""
        return self.squared / self.count

    @property
    def expected(self) -> float | None:
        """Expected value of the draws' misfit: their variance plus the noise. None for a method without draws."""
        return None if self.spread is None else 1 + self.spread / self.count

    @property
    def ratio(self) -> float | None:
        """Misfit of the mean of the draws divided by `expected`: 1 is calibrated, above 1 is overconfident."""
        if self.expected is None or self.squared_draws is None:
            return None
        return self.squared_draws / self.count / self.expected


def misfit(
    image: Tensor, kspace: Tensor, maps: Tensor, held: Tensor, noise_std: float, samples: Tensor | None = None
) -> Misfit:
    """Compare an image with samples y = A x + n that were left out of its reconstruction; E |n|^2 = 2 noise_std^2.

    If x and the P draws have the same distribution, E |y - A mean|^2 = 2 noise_std^2 + (1 + 1/P) E var(A x) at every
    sample. Errors of the coil maps add to the misfit of every method. Scale and noise level of the scan come from all
    samples, but the image does not.
    Shapes: image (H, W), kspace and maps (C, H, W), held bool, broadcastable to (1, C, H, W), samples (the draws)
    (P, H, W); all in one unit, as noise_std (each real component).
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


def held_out_of(scan: Scan, amount: float, slices: Sequence[int]) -> dict[int, Tensor]:
    """Slice -> its left-out samples, as `hold_out`; the same for all slices of one mask.

    They depend on the seed of the mask only and, where the slices have different masks, on the number of the slice.
    Errors: InputError for a non-Cartesian scan, and as in `hold_out`.
    """
    if isinstance(scan, NonCartesianScan):
        raise InputError(f"{scan.file.path}: --check-lines is for masks only, not for trajectories")
    seed = key("held-out lines", *mask_seed(result_name(scan.file.path), scan.sampling.seed))
    shape = scan.file.image_shape
    if len(scan.mask) == 1:
        return dict.fromkeys(slices, hold_out(scan.mask, shape, amount, generators(seed)[0]))
    return {
        number: hold_out(scan.mask_of(number), shape, amount, generators(seed, slice=number)[0]) for number in slices
    }


def quick_check_of(scan: Scan, slices: Sequence[int]) -> dict[int, Tensor]:
    """Slice -> its left-out samples for the quick check, of at most QUICK_SLICES slices, evenly spaced.

    Without a slice for a trajectory, and for a mask with too few lines outside the calibration region.
    """
    if isinstance(scan, NonCartesianScan):
        return {}
    places = np.linspace(0, len(slices) - 1, min(len(slices), QUICK_SLICES)).round().astype(int)
    try:
        held = held_out_of(scan, QUICK_SHARE, [slices[place] for place in places])
    except InputError:  # nothing is sampled outside the calibration region
        return {}
    return {number: one for number, one in held.items() if int(one.sum()) >= LEAST_LINES}
