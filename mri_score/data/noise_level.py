"""The noise level if outer k-space has signal: from the residual of a fit with the coil maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mri_score.data.coils import coil_maps
from mri_score.data.noise_rings import (
    NoiseLevel,
    measure_noise,
    measured_points,
    robust_covariance,
    whiten,
    whitening_matrix,
)
from mri_score.errors import InputError
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense

OUTER = 0.8
"""Radius at which outer k-space begins, relative to the half width; beyond it, errors of the maps are small."""

WEIGHT = 0.03
"""Tikhonov weight of the fit: small enough to keep signal out of the residual, large enough for few iterations."""

LEAST_COILS = 4
"""Fewer coils leave too small a residual to tell how their noise is correlated."""

CORRELATED = 0.08
"""Relative change of the noise level from which the correlation of the coils is allowed for; on real scans 0.05."""

STRONG = 0.3
"""Mean correlation of two coils that counts as strong; errors of maps look like 0.2 on real and on small scans."""

NOISE_ALONE = 0.35
"""Relative difference from the level of the ring up to which the ring holds little signal: the geometric mean of both
levels is taken, the residual's counting twice.
"""

STEPS = 3
"""Steps to the covariance; further ones change the level by less than 1 %."""

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
        given = coil_maps(kspace, mask)[0] if maps is None else maps
        found = unexplained_noise(kspace, given, mask)
    except InputError as error:
        note = f"noise_std is that of the outer ring, which may include signal: {error}"
        return replace(level, notes=(*level.notes, note))
    if (correlated := _correlated(level, kspace, given, mask, found)) is not None:
        return correlated
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


def _correlated(
    level: NoiseLevel, kspace: Tensor, maps: Tensor, mask: Tensor | None, found: float
) -> NoiseLevel | None:
    """The noise level if the noise of the coils is so correlated that `found`, for equal white noise, is wrong.

    Then the coils are whitened: by the rings if they hold noise alone, else by the covariance of `residual_noise`.
    None for noise that is nearly white, and for fewer than `LEAST_COILS` coils.
    """
    if kspace.shape[1] < LEAST_COILS or not 0 < found < torch.inf:
        return None
    covariance = residual_covariance(kspace, maps, mask, unlike=found)
    if covariance is None or _mean_correlation(covariance) < STRONG:
        return None
    noise_std = float(covariance.diagonal().real.mean().sqrt())
    ring = level.noise_std
    if abs(noise_std / ring - 1) > NOISE_ALONE:  # the ring holds signal, and errors of the maps may look correlated
        return None
    # Few samples make the residual's level too small, faint signal the ring's too large.
    noise_std = noise_std ** (2 / 3) * ring ** (1 / 3)
    note = f"the noise of the coils is strongly correlated: noise_std {noise_std:.3g} allows for that"
    if noise_std >= SIGNAL * ring and level.whitening is not None:
        return replace(level, noise_std=noise_std, notes=(*level.notes, note))
    kept = tuple(text for text in level.notes if "whiten" not in text)
    covariance = covariance * (noise_std**2 / covariance.diagonal().real.mean())
    whitening = whitening_matrix(covariance).to(torch.complex64)
    coil_std = covariance.diagonal().real.sqrt().float()
    return NoiseLevel(noise_std, coil_std, covariance, whitening, (*kept, f"{note}; the coils are whitened by it"))


def _mean_correlation(covariance: Tensor) -> float:
    """Mean magnitude of the correlation of two coils."""
    std = covariance.diagonal().real.sqrt()
    correlation = (covariance / (std[:, None] * std)).abs()
    return float((correlation.sum() - len(std)) / (len(std) * (len(std) - 1)))


def residual_covariance(kspace: Tensor, maps: Tensor, mask: Tensor | None, unlike: float) -> Tensor | None:
    """The covariance (C, C) of the noise of one slice from the residual of a fit with its coil maps.

    It is the covariance S for which noise, white in k-space, leaves a residual (see `unexplained_noise`) of the
    covariance D that the data leave. From S = 1 on, the residual of noise of covariance S has some covariance E, and S
    becomes S^1/2 E^-1/2 D E^-1/2 S^1/2, which leaves S as it is where E = D.
    unlike: the noise level for equal white noise; None is returned if the first step changes it by less than
    `CORRELATED`. Shapes: as in `unexplained_noise`.
    """
    points, outer = _outer(kspace, mask)
    operator = Sense(maps, points)
    unit = (kspace * points).abs().square().mean().sqrt()

    def covariance(y: Tensor) -> Tensor:
        residual = y - operator(operator.solve(operator.adjoint(y), WEIGHT, tolerance=1e-4))
        return robust_covariance(residual[..., outer].movedim(1, 0).flatten(1))

    of_data = covariance(kspace / unit)
    white = noise_like(kspace, generators(0, "unexplained noise"))
    found = torch.eye(kspace.shape[1], dtype=of_data.dtype)
    for step in range(STEPS):
        mixing = _root(found)
        inverse = torch.linalg.inv(_root(covariance(whiten(white, mixing))))
        found = mixing @ inverse @ of_data @ inverse @ mixing
        found = (found + found.mH) / 2
        if step == 0 and abs(float(found.diagonal().real.mean().sqrt() * unit) / unlike - 1) < CORRELATED:
            return None
    return found * unit.double() ** 2


def _root(covariance: Tensor) -> Tensor:
    """The Hermitian root of a covariance."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(1e-9 * values[-1]).sqrt()) @ vectors.mH


def _outer(kspace: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Bool (H, W): the measured points, and those of them in outer k-space."""
    points, _ = measured_points(kspace, mask)
    rows, cols = (torch.linspace(-1, 1, size).square() for size in kspace.shape[-2:])
    return points, points & ((rows[:, None] + cols) > OUTER**2)


def unexplained_noise(kspace: Tensor, maps: Tensor, mask: Tensor | None = None) -> float:
    """Noise level of one slice from the residual of a fit with its coil maps; infinity if it cannot be measured.

    The level is the standard deviation of the real, and of the imaginary, part of a sample. H y = A (A^H A + w)^-1 A^H
    y is the part of k-space that the coil maps explain. The residual (I - H) y in outer k-space is compared with that
    of white noise n of unit variance on the same samples, by medians over the samples of each coil:

        noise_std^2 = sum_c median^2 |(I - H) y|_c / sum_c median^2 |(I - H) n|_c.

    An image seen by these coils has almost no residual, so signal in outer k-space does not matter. Errors of the maps
    make the result too large; very unequal or correlated noise of the coils makes it too small, which
    `residual_covariance` allows for. It scatters by a few per cent. Padding is left out. The result is infinity for a
    single coil, which leaves no residual, and without samples in outer k-space; min() then takes another estimate.
    Shapes: kspace and maps (1, C, H, W), mask broadcastable bool.
    """
    points, outer = _outer(kspace, mask)
    if kspace.shape[1] == 1 or not bool(outer.any()):
        return torch.inf
    operator = Sense(maps, points)
    unit = (kspace * points).abs().square().mean().sqrt()
    both = torch.cat([kspace / unit, noise_like(kspace, generators(0, "unexplained noise"))])
    fit = operator.solve(operator.adjoint(both), WEIGHT, tolerance=1e-4)
    residual = (both - operator(fit)).abs()
    data, white = residual[..., outer].median(-1).values.norm(dim=-1)
    return float(data / white * unit)
