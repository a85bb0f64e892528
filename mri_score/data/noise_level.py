"""The noise level where outer k-space still holds signal: from what the coil maps cannot explain there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mri_score.data.coils import coil_maps
from mri_score.data.noise_rings import NoiseLevel, measure_noise, measured_points
from mri_score.errors import InputError
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense

OUTER = 0.8
"""Outer k-space begins at this part of the half width, as a radius: there what maps explain badly is small."""

WEIGHT = 0.03
"""Tikhonov weight of the fit: small enough that what coils share does not leak, large enough for few iterations."""

SIGNAL = 0.9
"""The outer ring holds signal where less than this part of its level is unexplained: the scatter of both is smaller."""


def noise_level(
    slices: Sequence[Tensor] | Tensor,
    mask: Tensor | None = None,
    maps: Tensor | None = None,
    *,
    middle: int | None = None,
    name: str = "k-space",
) -> NoiseLevel:
    """The level of the outer ring, or what the coil maps of the middle slice leave unexplained where that is less.

    If it is clearly less, the covariance of the ring holds signal too: the coils are then not whitened, their noise is
    taken to be equal, and a note says so.
    Shapes: each of `slices` (C, H, W); mask bool, broadcastable to (1, 1, H, W) or with one for each slice; maps
    (1, C, H, W) of slice number `middle`, made from its samples unless given.
    """
    level = measure_noise(slices, mask, name=name)
    middle = len(slices) // 2 if middle is None else middle
    kspace = slices[middle][None]
    mask = mask[middle : middle + 1] if mask is not None and mask.ndim == 4 and len(mask) > 1 else mask
    try:
        found = unexplained_noise(kspace, coil_maps(kspace, mask)[0] if maps is None else maps, mask)
    except InputError as error:
        return replace(level, notes=(*level.notes, f"noise_std is that of the outer ring, signal or not: {error}"))
    if found >= SIGNAL * level.noise_std:
        return replace(level, noise_std=min(found, level.noise_std))
    note = (
        f"noise_std {found:.3g} is what the coil maps cannot explain; the outer ring, which holds signal, says"
        f" {level.noise_std:.3g}: the coils are not whitened from it"
    )
    equal = torch.full_like(level.coil_std, found)
    return replace(level, noise_std=found, coil_std=equal, covariance=None, whitening=None, notes=(*level.notes, note))


def unexplained_noise(kspace: Tensor, maps: Tensor, mask: Tensor | None = None) -> float:
    """Standard deviation of the real and of the imaginary part of the noise, for one slice; infinite if unknown.

    With H y = A (A^H A + w)^-1 A^H y, what the coil maps explain, the residual (I - H) y of outer k-space is compared
    with that of white noise n of unit variance on the same samples, medians over the samples of a coil:

        noise_std^2 = sum_c median^2 |(I - H) y|_c / sum_c median^2 |(I - H) n|_c.

    An image with these coils has almost no residual, whatever its spectrum, so that signal in outer k-space does not
    count. What leaks, because maps are never exact, makes the result too large; coils of very unequal or correlated
    noise make it up to a tenth too small, and it scatters by a few per cent.
    Padding is not counted. One coil explains everything, and there may be no sample in outer k-space: both give
    infinity, which leaves min() another estimate.
    Shapes: kspace and maps (1, C, H, W), mask broadcastable bool.
    """
    points, _ = measured_points(kspace, mask)
    rows, cols = (torch.linspace(-1, 1, size).square() for size in kspace.shape[-2:])
    outer = points & ((rows[:, None] + cols) > OUTER**2)
    if kspace.shape[1] == 1 or not bool(outer.any()):
        return torch.inf
    operator = Sense(maps, points)
    unit = (kspace * points).abs().square().mean().sqrt()
    both = torch.cat([kspace / unit, noise_like(kspace, generators(0, "unexplained noise"))])
    fit = operator.solve(operator.adjoint(both), WEIGHT, tolerance=1e-4)
    residual = (both - operator(fit)).abs()
    data, white = residual[..., outer].median(-1).values.norm(dim=-1)
    return float(data / white * unit)
