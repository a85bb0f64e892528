"""The noise level if outer k-space has signal: from the residual of a fit with the coil maps."""

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
"""Radius at which outer k-space begins, relative to the half width; beyond it, errors of the maps are small."""

WEIGHT = 0.03
"""Tikhonov weight of the fit: small enough to keep signal out of the residual, large enough for few iterations."""

SIGNAL = 0.9
"""Below this ratio of residual level to level of the outer ring, the ring has signal; both scatter by less."""

TOLD = 1.5
"""A given noise level that differs from the measured one by more than this factor is warned of."""


def noise_level(
    slices: Sequence[Tensor] | Tensor,
    mask: Tensor | None = None,
    maps: Tensor | None = None,
    *,
    middle: int | None = None,
    name: str = "k-space",
) -> NoiseLevel:
    """Noise level of a volume: that of the outer ring of k-space, or of the residual of the coil maps if smaller.

    If the residual is clearly smaller, the ring has signal, and its covariance too. Then the coils are not whitened,
    their noise levels are assumed to be equal, and a note states it.
    slices: sequence of k-space (C, H, W), file's units. mask: bool, broadcastable to (1, 1, H, W), or one mask per
    slice. maps: (1, C, H, W), coil maps of slice number `middle` (default: the middle one); None estimates them from
    its samples. name: of the scan, for messages. Errors: as in `measure_noise`.
    """
    level = measure_noise(slices, mask, name=name)
    middle = len(slices) // 2 if middle is None else middle
    kspace = slices[middle][None]
    mask = mask[middle : middle + 1] if mask is not None and mask.ndim == 4 and len(mask) > 1 else mask
    try:
        found = unexplained_noise(kspace, coil_maps(kspace, mask)[0] if maps is None else maps, mask)
    except InputError as error:
        note = f"noise_std is that of the outer ring, which may include signal: {error}"
        return replace(level, notes=(*level.notes, note))
    if found >= SIGNAL * level.noise_std:
        return replace(level, noise_std=min(found, level.noise_std))
    note = (
        f"noise_std {found:.3g} is from the residual of the coil maps; the outer ring of k-space has signal and gives"
        f" {level.noise_std:.3g}, so the coils are not whitened"
    )
    equal = torch.full_like(level.coil_std, found)
    return replace(level, noise_std=found, coil_std=equal, covariance=None, whitening=None, notes=(*level.notes, note))


def told_noise(
    noise_std: float, kspace: Tensor, mask: Tensor, maps: Tensor, name: str = "k-space", unit: float = 1.0
) -> str | None:
    """A warning if a given noise level is not near the measured one; None if it is, or nothing can be measured.

    A level told too high smooths the image, one told too low leaves noise in it, and in both cases the standard
    deviation of the draws is wrong and does not show it.
    noise_std: as given, of each real component, in the unit of kspace. kspace: (B, C, H, W). mask: bool, broadcastable
    to it. maps: (B or 1, C, H, W). name: of the scan. unit: times the numbers of the message, for k-space that was
    divided by it.
    """
    middle = len(kspace) // 2
    fitting = maps[middle : middle + 1] if len(maps) > 1 else maps
    try:
        measured = noise_level(kspace, mask, fitting, middle=middle, name=name).noise_std
    except InputError:  # no outer k-space, such as scans of a few lines: there is nothing to compare with
        return None
    if not measured > 0 or 1 / TOLD <= noise_std / measured <= TOLD:
        return None
    above = noise_std > measured
    told, found = noise_std * unit, measured * unit
    effect = "smooths the image too much" if above else "leaves noise in the image"
    return (
        f"{name}: noise_std is given as {told:.3g}, but outer k-space has {found:.3g}; a level"
        f" {'above' if above else 'below'} the true one {effect} and makes the standard deviation wrong; leave"
        f" noise_std out, or give {found:.3g}"
    )


def unexplained_noise(kspace: Tensor, maps: Tensor, mask: Tensor | None = None) -> float:
    """Noise level of one slice from the residual of a fit with its coil maps; infinity if it cannot be measured.

    The level is the standard deviation of the real, and of the imaginary, part of a sample. H y = A (A^H A + w)^-1 A^H
    y is the part of k-space that the coil maps explain. The residual (I - H) y in outer k-space is compared with that
    of white noise n of unit variance on the same samples, by medians over the samples of each coil:

        noise_std^2 = sum_c median^2 |(I - H) y|_c / sum_c median^2 |(I - H) n|_c.

    An image seen by these coils has almost no residual, so signal in outer k-space does not matter. Errors of the maps
    make the result too large; very unequal or correlated noise of the coils makes it up to 10 % too small, and it
    scatters by a few per cent. Padding is left out. The result is infinity for a single coil, which leaves no residual,
    and without samples in outer k-space; min() then takes another estimate.
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
