"""Intervals that keep their promise: a factor for the std map, fitted on scans whose truth is known."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mri_score.errors import InputError
from mri_score.evaluation.metrics import Images, as_numpy
from mri_score.evaluation.uncertainty import component_errors
from mri_score.files import write_text

TARGETS = ("magnitude", "component")
"""What an interval is about: the magnitude image, or the real and the imaginary part, each."""
UNITS = ("slice", "volume")
SIMILAR = 1.15
"""Accelerations up to this ratio apart share a factor without a warning."""
_FORMAT = "mri_score intervals 1"


def predicted_std(std: Images, noise_std: float, acceleration: float) -> NDArray[np.float64]:
    """What the error against a noisy full scan is made of: sqrt(std^2 + (1 - 1/R) noise_std^2), each real component.

    The draws account for the noise of the samples that they saw, and cannot know that of the 1 - 1/R which only the
    full scan holds; as the images and their FFT are orthonormal, a k-space level is that of an image of combined
    coils. So no pixel has an interval of nothing, however well the draws agree. The truth of a fit being noisy, its
    intervals are for the image of a full scan: for the object itself, free of noise, they are wider than need be.
    Shapes: std (...), in the units of noise_std.
    """
    return np.sqrt(np.square(as_numpy(std)) + (1 - 1 / acceleration) * noise_std**2)


def relative_errors(mean: Images, std: Images, truth: Images, mask: Images | None = None) -> NDArray[np.float32]:
    """|mean - truth| / std of every real component of the pixels of `mask`, flat: the scores to be calibrated.

    Shapes: mean and truth (...) complex or real, std and mask (...). Errors: InputError for other shapes, and for a
    std that is not positive.
    """
    errors, chosen = component_errors(mean, truth, mask)
    spread = as_numpy(std)[chosen][..., None]
    if not (spread > 0).all():
        raise InputError("the std map has zeros, which no factor makes an interval; give predicted_std")
    return (errors / spread).astype(np.float32).ravel()


def require_units(count: int, level: float) -> None:
    """Refuse a level outside (0, 1), and one that so few units cannot promise: at least level / (1 - level)."""
    if not 0 < level < 1:
        raise InputError(f"the level of an interval is {level}; it must lie between 0 and 1, such as 0.9")
    least = math.ceil(round(level / (1 - level), 9))
    if count < least:
        raise InputError(
            f"{count} slices or volumes cannot promise {level:.0%}: at least {least} are needed; fit on more of them,"
            " or take a lower --level"
        )


def conformal_factor(scores: Sequence[NDArray], level: float = 0.9) -> float:
    """The least q such that sum_k share_k(score > q) / (n + 1) + 1 / (n + 1) <= 1 - level, over n units k.

    A unit (a slice, or a volume) holds the scores of its pixels, which are anything but independent. If a new unit is
    exchangeable with these, whatever the law of the scores, a pixel drawn from it is inside +- q std with a
    probability of at least `level`, and of at most level + 2 / (n + 1) where no score is very frequent. This is an
    average over units and pixels: one unit may be covered less, and so may one kind of tissue.
    Errors: InputError for fewer than level / (1 - level) units, which can promise no finite interval.
    Reference: Angelopoulos et al., Conformal risk control, ICLR 2024; Dunn, Wasserman and Ramdas, JASA 2023.
    """
    scores = [unit for unit in scores if unit.size]
    count = len(scores)
    require_units(count, level)
    values = np.concatenate(scores)
    weights = np.concatenate([np.full(unit.size, 1 / ((count + 1) * unit.size)) for unit in scores])
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    place = min(int(np.searchsorted(reached, level - 1e-9)), len(values) - 1)
    return float(values[order[place]])


def covered(scores: Sequence[NDArray], factor: float) -> float:
    """The share of scores within `factor`: of each unit, then their mean."""
    return float(np.mean([np.mean(unit <= factor) for unit in scores if unit.size]))


@dataclass(frozen=True)
class Factor:
    """The factors at one acceleration, one of each of `TARGETS`.

    Errors of MR images lie along the magnitude more than across it, where the phase is smooth and easily known, and the
    std is one for both: the magnitude needs the larger factor.
    """

    acceleration: float
    """The true one, mean over volumes."""
    magnitude: float
    component: float
    units: int


@dataclass(frozen=True)
class Intervals:
    """What was fitted, and all that must be the same for the promise to hold."""

    level: float
    unit: str
    """Of `UNITS`: what is exchangeable with a new one."""
    factors: tuple[Factor, ...]
    prior: str
    prior_sha256: str
    sampler: str
    steps: int
    samples: int
    mask: str
    volumes: int
    slices: int

    def at(self, acceleration: float) -> Factor:
        """The factor of the nearest acceleration, by ratio."""
        return min(self.factors, key=lambda one: abs(math.log(one.acceleration / acceleration)))

    def caution(self, acceleration: float, law: str) -> str | None:
        """What to say of an acceleration or a law of masks that the factors were not fitted for."""
        nearest = self.at(acceleration).acceleration
        if law != self.mask:
            return f"the intervals were fitted under {self.mask} masks, not {law}: {self.level:.0%} is not promised"
        if max(nearest / acceleration, acceleration / nearest) <= SIMILAR:
            return None
        return (
            f"the intervals were fitted at acceleration {nearest:.2f}, the scan has {acceleration:.2f}:"
            f" {self.level:.0%} is not promised"
        )

    def check(self, **run: Any) -> None:
        """Refuse a run whose prior_sha256, sampler, steps or samples are not those of the fit."""
        other = {name: value for name, value in run.items() if getattr(self, name) != value}
        if other:
            fitted = ", ".join(f"{name} {getattr(self, name)}" for name in other)
            came = ", ".join(f"{name} {value}" for name, value in other.items())
            raise InputError(
                f"the intervals were fitted with {fitted}, but this run has {came}: their promise does not hold;"
                " reconstruct with the same options, or fit anew with: mri-score intervals"
            )

    def write(self, path: str | Path) -> None:
        write_text(path, json.dumps({"format": _FORMAT, **asdict(self)}, indent=2) + "\n")


def read_intervals(path: str | Path) -> Intervals:
    """What `mri-score intervals` wrote. Errors: InputError for any other file."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        if record.pop("format") != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT!r}")
        factors = tuple(Factor(**one) for one in record.pop("factors"))
        found = Intervals(factors=factors, **record)
        positive = (min(one.magnitude, one.component) > 0 and one.acceleration >= 1 for one in factors)
        if not factors or not all(positive):
            raise ValueError("it holds no positive factor")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} holds no intervals ({error}); write it with: mri-score intervals") from error
    return found
