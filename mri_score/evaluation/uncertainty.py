"""Calibration of draws (samples of the posterior): spread against error by scale and size, coverage of intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mri_score.errors import InputError
from mri_score.evaluation.metrics import Images, as_numpy

LEVELS = (0.5, 0.8, 0.95)
BLOCKS = (1, 4, 8, 16)
"""Sides of the square blocks of pixels, whose means are judged: from single pixels to the size of a lesion."""
BINS = 10
"""Number of bins of `errors_by_std`."""
OUTLIER = 3.0
"""Number of standard deviations beyond which an error counts as an outlier."""


@dataclass(frozen=True)
class Outliers:
    """Errors of more than `OUTLIER` standard deviations."""

    share: float
    """Share of the real components with such an error."""
    expected: float
    """The same share of a calibrated Gaussian ensemble with as many draws."""


@dataclass(frozen=True)
class EnsembleCalibration:
    """Calibration of one ensemble of draws against one truth."""

    draws: int
    spread_skill: float
    """1 if calibrated, below 1 if the draws are overconfident."""
    coverage: Mapping[float, float]
    """Nominal level -> share of the truth inside the intervals of that level."""
    blocks: Mapping[int, float] = field(default_factory=dict)
    """Side of a block in pixels -> spread-skill ratio of the means of such blocks; see `block_spread_skill`."""
    bins: Sequence[tuple[float, float]] = ()
    """(predicted, actual) root mean square error of pixels with similar std, rising; see `errors_by_std`."""
    outliers: Outliers | None = None
    """Share of the errors beyond 3 standard deviations."""
    measured: Mapping[str, float] = field(default_factory=dict)
    """"measured" or "unmeasured" -> spread-skill ratio of that part of k-space; see `kspace_spread_skill`."""


Calibration = EnsembleCalibration  # the former name


def calibration(
    samples: Images, truth: Images, mask: Images | None = None, group: int = 1, measured: Images | None = None
) -> EnsembleCalibration:
    """Calibration of samples (P, S, H, W) against a truth (S, H, W).

    mask: bool (S, H, W), the pixels to use; None means all. group: as in `pair_share`. measured: bool, broadcastable to
    (S, H, W), the measured points of k-space on the grid of the images, DC at N // 2; None leaves that part out.
    Returns the spread-skill ratio of pixels, of block means and of k-space, coverage at 50, 80 and 95 %, errors by
    predicted std, and outliers.
    Errors: as in `spread_skill`.
    """
    errors = _errors(samples, truth, mask, group)
    return EnsembleCalibration(
        draws=errors.draws,
        spread_skill=errors.spread_skill(),
        coverage=errors.coverage(LEVELS),
        blocks=block_spread_skill(samples, truth, mask, group) if as_numpy(truth).ndim > 1 else {},
        bins=errors.by_std(BINS),
        outliers=errors.outliers(),
        measured={} if measured is None else kspace_spread_skill(samples, truth, measured, mask, group),
    )


def block_means(images: Images, side: int, mask: Images | None = None) -> NDArray:
    """Means of square blocks of side x side pixels: (..., H, W) -> (..., H // side, W // side); a rest is left out.

    images: real or complex. side: in pixels. mask: bool (S, H, W) or like the images, the pixels to average; None means
    all. Returns the means in the units of the images, 0 for a block without a pixel.
    """
    images = as_numpy(images)
    if mask is None:
        return _block_means(images, side)
    inside = as_numpy(mask).astype(np.float64)
    share = _block_means(inside, side)
    return _block_means(np.where(inside > 0, images, 0), side) / np.where(share > 0, share, 1)


def _block_means(images: NDArray, side: int) -> NDArray:
    rows, columns = (length // side for length in images.shape[-2:])
    whole = images[..., : rows * side, : columns * side]
    return whole.reshape(*images.shape[:-2], rows, side, columns, side).mean((-3, -1))


def whole_blocks(mask: Images, side: int) -> NDArray[np.bool_]:
    """The blocks that lie in the mask by more than half: bool (..., H, W) -> bool (..., H // side, W // side)."""
    return _block_means(as_numpy(mask).astype(np.float64), side) > 0.5


def block_spread_skill(
    samples: Images, truth: Images, mask: Images | None = None, group: int = 1, sides: Sequence[int] = BLOCKS
) -> dict[int, float]:
    """Side of a block -> `spread_skill` of the means of such blocks; sides without a block in the mask are left out.

    Pixels can be calibrated where blocks are not: errors that neighbours share do not average out in a block, and
    what a reader sees of a lesion is a mean of many pixels.
    samples: (P, S, H, W), complex or real. truth: (S, H, W). mask: bool (S, H, W); a block counts if more than half of
    it is inside, by the mean of its pixels that are. group: as in `pair_share`. sides: in pixels.
    Errors: as in `spread_skill`.
    """
    mask = np.ones(as_numpy(truth).shape, bool) if mask is None else as_numpy(mask).astype(bool)
    found = {}
    for side in sides:
        inside = whole_blocks(mask, side)
        if inside.any():
            parts = block_means(samples, side, mask), block_means(truth, side, mask)
            found[side] = spread_skill(*parts, inside, group)
    return found


def errors_by_std(
    samples: Images, truth: Images, mask: Images | None = None, group: int = 1, bins: int = BINS
) -> list[tuple[float, float]]:
    """Predicted and actual root mean square error of real components, in bins of equal size by predicted std, rising.

    The predicted variance of mean - truth is (1 + mean_share) times that of a draw. With few draws the std of a pixel
    is itself uncertain: pixels of the lowest bins have a larger error than predicted, those of the highest a smaller
    one, also for a calibrated ensemble.
    Shapes, group and errors: as in `spread_skill`. bins: their number. Returns one pair a bin, in the samples' unit.
    """
    return _errors(samples, truth, mask, group).by_std(bins)


def outliers(samples: Images, truth: Images, mask: Images | None = None, group: int = 1) -> Outliers:
    """The share of real components whose error exceeds `OUTLIER` predicted std, beside that of a calibrated ensemble.

    The reference is Student's t with P - 1 degrees of freedom, as in `ensemble_coverage`.
    Shapes, group and errors: as in `spread_skill`.
    """
    return _errors(samples, truth, mask, group).outliers()


def kspace_spread_skill(
    samples: Images, truth: Images, measured: Images, mask: Images | None = None, group: int = 1
) -> dict[str, float]:
    """`spread_skill` of the Fourier transform of the images inside the mask, at measured points and at the others.

    An operator or coil maps that do not fit show at the measured points, a prior that does not fit at the others.
    measured: bool, broadcastable to (S, H, W), DC at N // 2. Other shapes, group and errors: as in `spread_skill`.
    Returns {"measured": ratio, "unmeasured": ratio}, without a part that has no point.
    """
    samples, truth = as_numpy(samples), as_numpy(truth)
    inside = np.ones(truth.shape, bool) if mask is None else as_numpy(mask)
    points = np.broadcast_to(as_numpy(measured).astype(bool), truth.shape)
    transformed, wanted = _transform(samples * inside), _transform(truth * inside)
    parts = {"measured": points, "unmeasured": ~points}
    return {name: spread_skill(transformed, wanted, part, group) for name, part in parts.items() if part.any()}


def _transform(images: NDArray) -> NDArray:
    """Centred orthonormal Fourier transform of the last two axes."""
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes=axes), norm="ortho"), axes=axes)


@dataclass(frozen=True)
class _Errors:
    """Errors of the mean of draws against a truth, and what the draws predict of them; see `errors_by_std`.

    All of the real components inside a mask, flat. draws: their number. error: |mean - truth|. variance: unbiased, of
    one draw. factor: predicted variance of mean - truth, over that of one draw.
    """

    draws: int
    error: NDArray
    variance: NDArray
    factor: float

    @cached_property
    def std(self) -> NDArray:
        """Predicted standard deviation of mean - truth."""
        return np.sqrt(self.factor * self.variance)

    def spread_skill(self) -> float:
        spread, skill = self.factor * self.variance.mean(), np.square(self.error).mean()
        return float(np.sqrt(spread / skill)) if skill else float("inf")

    def coverage(self, levels: Sequence[float]) -> dict[float, float]:
        from scipy.special import stdtrit  # slow to import

        quantiles = {level: stdtrit(self.draws - 1, (1 + level) / 2) for level in levels}
        return {level: float(np.mean(self.error <= quantile * self.std)) for level, quantile in quantiles.items()}

    def by_std(self, bins: int) -> list[tuple[float, float]]:
        order = np.argsort(self.std, kind="stable")
        parts = [part for part in np.array_split(order, bins) if len(part)]
        return [(_rms(self.std[part]), _rms(self.error[part])) for part in parts]

    def outliers(self) -> Outliers:
        from scipy.special import stdtr  # slow to import

        share = float(np.mean(self.error > OUTLIER * self.std))
        return Outliers(share, float(2 * stdtr(self.draws - 1, -OUTLIER)))


def _rms(values: NDArray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _errors(samples: Images, truth: Images, mask: Images | None, group: int) -> _Errors:
    parts, wanted, chosen = _checked(samples, truth, mask)
    variance, factor = _variance(parts, group)[chosen].ravel(), 1 + mean_share(len(parts), group)
    return _Errors(len(parts), np.abs(parts.mean(0) - wanted)[chosen].ravel(), variance, factor)


def pair_share(count: int, group: int = 1) -> float:
    """E |x_i - x_j|^2 / 2 over the variance of one draw, averaged over the pairs of `count` draws.

    1 for independent draws. Draws of a group of G, whose noises add up to zero, have a correlation of -1 / (G - 1)
    where they are linear in the noise: their sample variance is this many times too large.
    """
    if group == 1 or count < 2:
        return 1.0
    return 1 + _same_group(count, group) / (count * (count - 1)) / (group - 1)


def mean_share(count: int, group: int = 1) -> float:
    """Variance of the mean of `count` draws over that of one: 1 / count, and 0 for whole groups (see `pair_share`)."""
    return (count - (_same_group(count, group) / (group - 1) if group > 1 else 0)) / count**2


def _same_group(count: int, group: int) -> int:
    """Ordered pairs of two draws of the same group."""
    whole, rest = divmod(count, group)
    return whole * group * (group - 1) + rest * (rest - 1)


def pixel_std(samples: Images, group: int = 1) -> NDArray[np.float64]:
    """Standard deviation of posterior samples at each pixel, each real component: sqrt((var Re + var Im) / 2).

    It has the unit of the samples, and the same convention as sigma and noise_std. Where the signal is well above it,
    it is close to the standard deviation of the magnitude; sqrt(E|x - mean|^2) is sqrt(2) times as large.
    Variances are unbiased (P - 1); group: as in `pair_share`. Shapes: samples (P, ...), complex or real; result (...).
    Errors: InputError for fewer than 2 samples or values that are not finite.
    """
    return np.sqrt(_variance(_components(samples), group).mean(-1))


def spread_skill(samples: Images, truth: Images, mask: Images | None = None, group: int = 1) -> float:
    """Spread-skill ratio: sqrt((1 + 1/P) * mean var / mean (mean of samples - truth)^2), over the pixels of `mask`.

    If the truth comes from the same distribution as the samples, E(mean - truth)^2 = (1 + 1/P) E var for each real
    component (var unbiased), and the ratio is 1 for every P. Both means are over pixels and real components, before
    the division. If the mean equals the truth exactly, the result is inf.
    For antithetic samples, in groups as in `pair_share`, `mean_share` replaces 1 / P.
    Shapes: samples (P, ...), truth and mask (...); mask None means all pixels. Errors: InputError as in `pixel_std`, or
    for other shapes.
    Reference: Fortin et al., Why should ensemble spread match the RMSE of the ensemble mean?, J. Hydromet. 2014.
    """
    return _errors(samples, truth, mask, group).spread_skill()


def ensemble_coverage(
    samples: Images,
    truth: Images,
    levels: Sequence[float] = LEVELS,
    mask: Images | None = None,
    group: int = 1,
) -> dict[float, float]:
    """Level -> share of the truth's real components inside mean +- t * sqrt(1 + 1/P) * std of P samples.

    t is Student's quantile with P - 1 degrees of freedom; each real component has its own variance. For Gaussian
    samples of any covariance this is the exact prediction interval of one more sample, also for small P. For other
    distributions a difference from the level shows a difference in shape as well as in spread. levels: nominal
    coverages. For antithetic samples, in groups as in `pair_share`, `mean_share` replaces 1 / P.
    Shapes and errors as in `spread_skill`.
    """
    return _errors(samples, truth, mask, group).coverage(levels)


def coverage(
    mean: Images, std: Images, truth: Images, levels: Sequence[float] = LEVELS, mask: Images | None = None
) -> dict[float, float]:
    """Level -> share of the truth's real components inside mean +- z * std, z the Gaussian quantile.

    For an exact mean and std, or those of many samples. For few samples use `ensemble_coverage`, which allows for the
    uncertainty of mean and std. `std` is that of each real component, as from `pixel_std`.
    Shapes: mean, std, truth and mask (...), in one unit. Errors: InputError for other shapes or values that are not
    finite.
    """
    from scipy.special import ndtri  # slow to import

    error, chosen = component_errors(mean, truth, mask)
    std = as_numpy(std)
    if std.shape != chosen.shape:
        raise InputError(f"the std map has shape {std.shape} but the truth {chosen.shape}")
    return {level: float(np.mean(error <= ndtri((1 + level) / 2) * std[chosen][..., None])) for level in levels}


def component_errors(
    mean: Images, truth: Images, mask: Images | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """|mean - truth| of the real components of the n pixels in `mask`, (n, 2) or (n, 1), and that mask (...).

    Shapes and errors as in `coverage`.
    """
    parts, truth, chosen = _checked(as_numpy(mean)[None], truth, mask)
    return np.abs(parts[0] - truth)[chosen], chosen


def _variance(parts: NDArray, group: int = 1) -> NDArray:
    """Unbiased variance over the first axis, without temporary arrays of the full size."""
    if len(parts) < 2:
        raise InputError(f"uncertainty needs at least 2 samples, not {len(parts)}; draw more with --samples")
    mean = parts.mean(0)
    return sum(np.square(part - mean) for part in parts) / ((len(parts) - 1) * pair_share(len(parts), group))


def _checked(samples: Images, truth: Images, mask: Images | None) -> tuple[NDArray, NDArray, NDArray[np.bool_]]:
    """Real components of the samples (P, ..., 2) and of the truth (..., 2), and the mask of pixels to use (...)."""
    parts, truth = _components(samples), _components(truth)
    chosen = np.ones(truth.shape[:-1], bool) if mask is None else as_numpy(mask).astype(bool)
    if parts.shape[1:] != truth.shape or chosen.shape != truth.shape[:-1]:
        raise InputError(
            f"samples have shape {parts.shape[:-1]}, the truth {truth.shape[:-1]} and the mask {chosen.shape};"
            " samples need one axis more than the two others, and all must be complex or all real"
        )
    if not chosen.any():
        raise InputError("the mask has no pixel that is True")
    return parts, truth, chosen


def _components(images: Images) -> NDArray[np.float64]:
    """Complex (...) -> (..., 2), real (...) -> (..., 1), in float64."""
    images = as_numpy(images)
    parts = np.stack([images.real, images.imag], -1) if np.iscomplexobj(images) else images[..., None]
    if not np.isfinite(parts).all():
        raise InputError("samples or truth hold values that are not finite")
    return parts.astype(np.float64)
