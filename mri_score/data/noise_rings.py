"""The noise of a scan, measured in outer k-space, and the whitening of its coils."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mri_score.errors import InputError

SLICES = 8
"""Largest number of slices of a volume that are measured, evenly spaced."""
AGREEMENT = 0.05
"""Largest relative difference between the levels of two rings of white noise."""
FAINT = 0.2
"""Without correlation, a relative difference below this is not reported as a filter."""
COHERENCE = 0.15
"""Correlation of neighbouring samples above which a ring has signal; that of filtered white noise is smaller."""
DISAGREEMENT = 0.2
"""Largest relative difference between the levels of a noise scan and of outer k-space."""
LARGEST_RATIO = 1000.0
"""Outer k-space with signal is brighter than the noise scan, but not so many times."""
LEAST_SAMPLES = 10
"""Samples of a noise scan that are needed for each coil: whitening then loses about a tenth of the signal power."""
GAUSSIAN_MEDIAN = 0.6744897501960817
"""The median of |x| for a standard normal x."""


@dataclass(frozen=True)
class NoiseLevel:
    """The noise of one volume, as measured in outer k-space."""

    noise_std: float
    """Standard deviation of the real and of the imaginary part of a sample, root mean square over the coils."""
    coil_std: Tensor
    """(C,): the standard deviation of each coil."""
    covariance: Tensor | None
    """(C, C) complex, of real plus imaginary part over 2, so that its diagonal is coil_std^2; None if unknown."""
    whitening: Tensor | None
    """(C, C): matrix that makes the noise of the coils white and keeps its mean power; None without whitening."""
    notes: tuple[str, ...]
    """Warnings for the user: padding, filters, signal in outer k-space, the reason if there is no whitening."""


def evenly_spaced(count: int) -> list[int]:
    """Numbers of at most SLICES evenly spaced slices out of `count`, the first and the last included."""
    return torch.linspace(0, count - 1, min(count, SLICES)).round().long().tolist()


def whiten(kspace: Tensor, matrix: Tensor) -> Tensor:
    """Mix the coils of k-space or coil images (..., C, H, W) by a matrix (D, C) into (..., D, H, W)."""
    return torch.einsum("dc,...chw->...dhw", matrix.to(kspace), kspace)


def whitening_matrix(covariance: Tensor) -> Tensor:
    """W = sqrt(tr(covariance) / C) covariance^(-1/2): W covariance W^H = mean coil noise power times identity.

    The Hermitian root is the whitening that changes the coils least. Shapes: covariance and result (C, C).
    """
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * (values.mean() / values).sqrt().to(vectors.dtype)) @ vectors.mH


def measure_noise(
    slices: Sequence[Tensor] | Tensor,
    mask: Tensor | None = None,
    *,
    name: str = "k-space",
) -> NoiseLevel:
    """Measure noise_std = median |Re, Im| / 0.6745 in the two outermost rings of the sampled points.

    A ring has 2 to 5 % of the points, and at least 20 samples per coil over all slices. The median is robust to the few
    points with signal. The second ring is used only if it agrees with the first within 5 %; in that case, or with a
    noise scan (`with_noise_scan`), the coils can be whitened. Otherwise outer k-space has signal or was filtered, and a
    note states it.

    slices: sequence of k-space (C, H, W), file's units, of which at most 8 are read; readout oversampling must be
    removed, because receive filters darken the removed margin. mask: bool, broadcastable to (1, H, W), one for the
    volume; points that are zero in all coils are left out. name: of the scan, for messages.
    Errors: InputError for NaN, and for k-space without a nonzero sample.
    """
    chosen = evenly_spaced(len(slices))
    kspace = torch.stack([slices[index] for index in chosen])
    if not torch.isfinite(torch.view_as_real(kspace)).all():
        raise InputError(f"{name}: k-space contains NaN or infinity; repair or export the file again")
    parts = _parts(kspace, mask if mask is None or mask.ndim < 4 or len(mask) == 1 else mask[chosen])
    notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    if not all(bool(part.points.any()) for part in parts):
        raise InputError(f"{name}: k-space of shape {tuple(kspace.shape)} is zero at every sampled point")
    outer, inner = zip(*(_rings(part.points, len(kspace), kspace.shape[1]) for part in parts), strict=True)
    samples = [_joined(parts, rings) for rings in (outer, inner)]
    levels = [_coil_std(ring) for ring in samples]
    ratio = float(_mean(levels[1]) / _mean(levels[0]).clamp_min(torch.finfo(levels[0].dtype).tiny))
    agree = abs(ratio - 1) < AGREEMENT
    if not agree:
        coherences = [_coherence(part.kspace, part.points, ring) for part, ring in zip(parts, outer, strict=True)]
        notes.append(_disagreement(ratio, max((one for one in coherences if one is not None), default=None)))
    region = torch.cat(samples, 1) if agree else samples[0]
    coil_std = _coil_std(region)
    covariance = None
    if agree:
        covariance = _covariance_or_none(region, coil_std, samples[1].shape[1], notes)
    matrix = _whitening_or_none(covariance, notes)
    return NoiseLevel(float(_mean(coil_std)), coil_std, covariance, matrix, tuple(notes))


@dataclass(frozen=True)
class _Part:
    """Slices (S, C, H, W) with one mask, and their measured points, bool (H, W)."""

    kspace: Tensor
    points: Tensor
    notes: list[str]


def _parts(kspace: Tensor, mask: Tensor | None) -> list[_Part]:
    """All slices together; or each alone, if the mask (S, 1, H or 1, W or 1) has one for each slice."""
    if mask is None or mask.ndim < 4 or len(mask) == 1:
        return [_Part(kspace, *measured_points(kspace, mask))]
    alone = [(kspace[s : s + 1], mask[s : s + 1]) for s in range(len(kspace))]
    return [_Part(y, *measured_points(y, one)) for y, one in alone]


def _joined(parts: Sequence[_Part], rings: Sequence[Tensor]) -> Tensor:
    """The samples (C, n) of all parts, each at the flat indices of its own ring."""
    return torch.cat([_at(part.kspace, ring) for part, ring in zip(parts, rings, strict=True)], 1)


def outer_level(samples: Tensor) -> NoiseLevel:
    """The noise level from samples (C, n) of the edge of k-space; without whitening. samples: along a trajectory."""
    coil_std = _coil_std(samples)
    note = "noise_std is from the outermost samples, which may hold signal; the coils are not whitened"
    return NoiseLevel(float(_mean(coil_std)), coil_std, None, None, (note,))


def with_noise_scan(level: NoiseLevel, samples: Tensor, calibrated: bool) -> NoiseLevel:
    """The noise of a volume with the covariance of a noise scan, and with its level if that is calibrated.

    level: as measured in k-space, which takes signal for noise where outer k-space has any. samples: (C, n), noise
    alone. calibrated: whether they have the level of k-space. Outer k-space may hold signal, so a larger measured level
    does not contradict the noise scan unless it is LARGEST_RATIO times as large: then dwell times are wrong. A level
    that is smaller by more than `DISAGREEMENT` does: then the receiver or the header changed in between, and the
    measured level stands. A note states both where they differ.
    """
    if samples.shape[1] < LEAST_SAMPLES * len(samples):
        note = f"the noise scan has {samples.shape[1]} samples, too few for {len(samples)} coils: it is not used"
        return replace(level, notes=(*level.notes, note))
    covariance = _covariance(samples)
    coil_std = covariance.diagonal().real.sqrt().float()
    found, notes = float(_mean(coil_std)), [note for note in level.notes if "whiten" not in note]
    if not 0 < found < math.inf:
        note = f"the noise scan has a standard deviation of {found:.3g}, so it holds no noise: it is not used"
        return replace(level, notes=(*level.notes, note))
    believed = calibrated and (1 - DISAGREEMENT) * found < level.noise_std < LARGEST_RATIO * found
    if believed:
        notes = [note for note in notes if "noise_std" not in note]
    if calibrated and abs(level.noise_std / found - 1) > DISAGREEMENT:
        used = "the level of the noise scan is used" if believed else "only the covariance of the noise scan is used"
        notes.append(f"the noise scan gives noise_std {found:.3g}, k-space itself {level.noise_std:.3g}: {used}")
    noise_std = found if believed else level.noise_std
    if not believed:
        covariance, coil_std = covariance * (noise_std / found) ** 2, coil_std * (noise_std / found)
    return NoiseLevel(noise_std, coil_std, covariance, _whitening_or_none(covariance, notes), tuple(notes))


def measured_points(kspace: Tensor, mask: Tensor | None) -> tuple[Tensor, list[str]]:
    """Bool (H, W): the measured points, without zero padding; and notes about the padding.

    Padding is zero in all coils, or at least 30 times darker than the lines beside it.
    Shapes: kspace (S, C, H, W), mask bool, broadcastable to it.
    """
    power = kspace.abs().square().sum((0, 1))
    points = power > 0
    claimed = torch.ones_like(points)
    if mask is not None:
        claimed = mask.to(kspace.device).bool().reshape(-1, *mask.shape[-2:]).all(0).expand_as(points)
    points = points & claimed
    notes = []
    for axis, what in ((0, "rows"), (1, "columns")):
        empty = _empty_edges(power, points, claimed, axis)
        if count := int(empty.sum()):
            notes.append(f"zero-padded: {count} of {len(empty)} {what} at the edges of k-space are not measured")
            points = points & ~(empty[:, None] if axis == 0 else empty[None])
    return points, notes


def _empty_edges(power: Tensor, points: Tensor, claimed: Tensor, axis: int) -> Tensor:
    """Bool (lines,): lines that are padding: sampled by the mask, at an edge, 30 times darker than the next lines."""
    lines = torch.nonzero(claimed.any(1 - axis)).flatten()
    level = torch.where(points, power, torch.nan).nanmedian(1 - axis).values.nan_to_num(0).sqrt()[lines].cpu()
    empty = torch.zeros(claimed.shape[axis], dtype=torch.bool, device=power.device)
    for order in (torch.arange(len(lines)), torch.arange(len(lines)).flip(0)):
        edge = level[order]
        for count in range(len(lines) // 2, 0, -1):
            if edge[:count].max() < edge[count : count + 3].min() / 30:
                empty[lines[order[:count].to(lines.device)]] = True
                break
    return empty


def _rings(points: Tensor, count: int, coils: int) -> tuple[Tensor, Tensor]:
    """Flat indices of the two outermost rings of points; the inner ring is short or empty if there are few points."""
    height, width = points.shape
    rows = (torch.arange(height, device=points.device) - height // 2) / (height / 2)
    cols = (torch.arange(width, device=points.device) - width // 2) / (width / 2)
    radius = (rows[:, None].square() + cols.square()).flatten()
    where = torch.nonzero(points.flatten()).flatten()
    where = where[radius[where].argsort(descending=True, stable=True)]
    wanted = min(max(0.02 * len(where), 4000 / (coils * count)), 0.05 * len(where))
    size = int(max(wanted, 20 * coils / count)) + 1
    return where[:size], where[size : 2 * size]


def _at(kspace: Tensor, where: Tensor) -> Tensor:
    """The samples of all slices at flat indices: (S, C, H, W) -> (C, S * points)."""
    return kspace.flatten(2)[..., where].movedim(0, 1).flatten(1)


def _coil_std(samples: Tensor) -> Tensor:
    """Median absolute deviation from zero of the real and imaginary parts, as a standard deviation: (C, n) -> (C,)."""
    if samples.shape[1] == 0:
        return samples.real.new_zeros(len(samples))
    return torch.view_as_real(samples).flatten(1).abs().median(1).values / GAUSSIAN_MEDIAN


def _mean(coil_std: Tensor) -> Tensor:
    """Root mean square over the coils with nonzero noise."""
    return coil_std.square().sum().div((coil_std > 0).sum().clamp_min(1)).sqrt()


def _covariance(samples: Tensor, coil_std: Tensor | None = None) -> Tensor:
    """Covariance (C, C) of samples (C, n); with `coil_std`, their correlation scaled to these robust deviations."""
    samples = samples.to(torch.complex128)
    covariance = samples @ samples.mH / (2 * samples.shape[1])
    if coil_std is None:
        return covariance
    gain = coil_std.to(torch.float64) / covariance.diagonal().real.sqrt()
    return covariance * gain[:, None] * gain


def robust_covariance(samples: Tensor) -> Tensor:
    """Covariance (C, C) of samples (C, n): their correlation, scaled to the robust deviations of the coils."""
    return _covariance(samples, _coil_std(samples))


def _covariance_or_none(samples: Tensor, coil_std: Tensor, count: int, notes: list[str]) -> Tensor | None:
    """The covariance, if a ring has enough samples (`count`) and all coils have noise; else None and a note."""
    coils = len(coil_std)
    if count < 20 * coils:
        notes.append(f"not whitened: a ring has {count} samples, {coils} coils need {20 * coils} or a noise scan")
        return None
    if not bool((coil_std > 0).all()):
        notes.append(f"not whitened: coils {torch.nonzero(coil_std == 0).flatten().tolist()} are empty")
        return None
    return _covariance(samples, coil_std)


def _coherence(kspace: Tensor, points: Tensor, ring: Tensor) -> float | None:
    """|correlation| of a ring's samples with their neighbours, the larger of both axes; None for fewer than 50 pairs.

    It is about 0 for noise, which is white in k-space, but not for an object smaller than the field of view.
    """
    found = []
    for axis, step in ((0, points.shape[1]), (1, 1)):
        line = ring // points.shape[1] if axis == 0 else ring % points.shape[1]
        here = ring[line < points.shape[axis] - 1]
        here = here[points.flatten()[here + step]]
        if len(here) * len(kspace) >= 50:
            x, y = _at(kspace, here), _at(kspace, here + step)
            energy = (x.abs().square().sum(1) * y.abs().square().sum(1)).sqrt().sum()
            found.append(float((x * y.conj()).sum(1).abs().sum() / energy))
    return max(found, default=None)


def _disagreement(ratio: float, coherence: float | None) -> str:
    levels = f"its outermost ring and the next differ by a factor of {ratio:.2f}"
    if ratio == 0:
        return "too few sampled points for a second ring: noise_std comes from one ring, and the coils are not whitened"
    if coherence is None or coherence > COHERENCE:
        return f"outer k-space has signal: {levels}; noise_std is an upper bound, and the coils are not whitened"
    if abs(ratio - 1) < FAINT:
        return f"faint signal, or a mild filter, in outer k-space: {levels}; the coils are not whitened"
    return (
        f"k-space looks filtered: {levels}, without correlation; noise_std may be too low; the coils are not whitened"
    )


def _whitening_or_none(covariance: Tensor | None, notes: list[str]) -> Tensor | None:
    if covariance is None:
        return None
    values = torch.linalg.eigvalsh(covariance)
    if values[0] <= 1e-6 * values[-1]:
        notes.append("not whitened: the noise covariance is singular, because some coils are empty or copies of others")
        return None
    return whitening_matrix(covariance).to(torch.complex64)
