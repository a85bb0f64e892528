"""Conformal intervals: a factor for the standard deviation map, fitted on fully sampled scans."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mri_score.errors import InputError
from mri_score.evaluation.metrics import Images, as_numpy
from mri_score.evaluation.uncertainty import component_errors
from mri_score.files import write_text
from mri_score.untrusted.text import read_json

TARGETS = ("magnitude", "component")
"""Quantities that have intervals: the magnitude image, or the real and the imaginary part, each."""
UNITS = ("slice", "volume", "patient")
SIDES = (4, 8, 16)
"""Sides of the square blocks of pixels whose mean magnitude has intervals: 16 x 16 pixels are about a lesion."""
BOUNDS = ("psnr", "ssim")
"""Scores that have a lower bound."""
SIMILAR = 1.15
"""Largest ratio of the scan's and the fit's acceleration, or its inverse, without a warning."""
LARGEST_FILE = 1 << 20
"""Largest file of intervals, in bytes."""
_FORMAT = "mri_score intervals 1"
_TEXTS = ("unit", "prior", "prior_sha256", "sampler", "mask")
_COUNTS = ("steps", "samples", "volumes", "slices")


def predicted_std(std: Images, noise_std: float, acceleration: float) -> NDArray[np.float64]:
    """Expected standard deviation of the error relative to a noisy fully sampled scan, each real component.

    sqrt(std^2 + (1 - 1/R) noise_std^2). The second term is the noise of the fraction 1 - 1/R of k-space that only the
    fully sampled scan has; the posterior samples include the noise of the acquired fraction already. Since the FFT is
    orthonormal and coils are combined with unit-norm maps, noise_std is the same in k-space and in the image. The
    result is positive everywhere, so no interval has zero width. Because the fit compares with noisy scans, the
    intervals are wider than needed for the noise-free object.
    std: (...), standard deviation of the samples, each real component. noise_std: of a k-space sample, each real
    component, in the units of std. acceleration: R. Returns (...), same units.
    """
    return np.sqrt(np.square(as_numpy(std)) + (1 - 1 / acceleration) * noise_std**2)


def relative_errors(mean: Images, std: Images, truth: Images, mask: Images | None = None) -> NDArray[np.float32]:
    """|mean - truth| / std for every real component of the pixels in `mask`, flat float32: the conformal scores.

    mean, truth: (...), complex or real, in the same units. std: (...), each real component, in these units. mask: (...)
    bool; None means all pixels. Errors: InputError for other shapes, and for a std that is not positive.
    """
    errors, chosen = component_errors(mean, truth, mask)
    spread = as_numpy(std)[chosen][..., None]
    if not (spread > 0).all():
        raise InputError("the std map has zeros, where no factor gives an interval; use predicted_std")
    return (errors / spread).astype(np.float32).ravel()


def require_units(count: int, level: float) -> None:
    """Check that `count` units are enough for intervals of this level: at least level / (1 - level) are needed.

    Errors: InputError for fewer units, and for a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise InputError(f"the level of the intervals is {level}; it must lie between 0 and 1, such as 0.9")
    least = math.ceil(round(level / (1 - level), 9))
    if count < least:
        raise InputError(
            f"{count} slices, volumes or patients are too few for intervals of {level:.0%}: at least {least} are"
            " needed; fit on more, or lower --level"
        )


def conformal_factor(scores: Sequence[NDArray], level: float = 0.9) -> float:
    """The smallest q with sum_k share_k(score > q) / (n + 1) + 1 / (n + 1) <= 1 - level, over n units k.

    scores: one array (pixels,) per unit, a slice or a volume, of |error| / std. Pixels of a unit may depend on each
    other. level: nominal coverage. If a new unit is exchangeable with these, a random pixel of it lies within
    +- q std with a probability of at least `level`, for any distribution of the scores, and of at most
    level + 2 / (n + 1) if ties are rare. This is an average over units and pixels: one unit, or one kind of tissue,
    may be covered less.
    Errors: InputError for fewer than level / (1 - level) units, for which no finite interval exists.
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


def least_margin(shortfalls: Sequence[float], level: float = 0.9) -> float:
    """The margin m with P(shortfall of a new unit <= m) >= level: the ceil(level (n + 1))-th smallest of n shortfalls.

    shortfalls: predicted less actual score of each unit, such as dB of PSNR. level: nominal.
    Errors: as in `conformal_factor`.
    Reference: Vovk, Gammerman and Shafer, Algorithmic learning in a random world, 2005, chapter 2.
    """
    require_units(len(shortfalls), level)
    return float(sorted(shortfalls)[math.ceil(round(level * (len(shortfalls) + 1), 9)) - 1])


def covered(scores: Sequence[NDArray], factor: float) -> float:
    """Coverage: the share of scores up to `factor` in each unit, averaged over units.

    scores: as in `conformal_factor`.
    """
    return float(np.mean([np.mean(unit <= factor) for unit in scores if unit.size]))


@dataclass(frozen=True)
class Factor:
    """The conformal factors at one acceleration, one for each of `TARGETS`.

    Both use the same standard deviation. The magnitude needs the larger factor, because errors are larger along the
    magnitude than along the phase, which is smooth.
    """

    acceleration: float
    """True acceleration, mean over volumes."""
    magnitude: float
    """Factor for intervals of the magnitude image."""
    component: float
    """Factor for intervals of the real part and of the imaginary part."""
    units: int
    """Number of units, such as slices, that the factors were fitted to."""
    blocks: Mapping[str, float] = field(default_factory=dict)
    """Side of a block of pixels, one of `SIDES` as text -> factor for intervals of the mean magnitude of blocks."""
    margins: Mapping[str, float] = field(default_factory=dict)
    """One of `BOUNDS` -> what is taken off the predicted score for a lower bound; empty in earlier files."""


@dataclass(frozen=True)
class Intervals:
    """Fitted intervals, and the settings under which their coverage is valid.

    factors: one for each acceleration. prior, prior_sha256: name and digest of the prior. sampler: the method, walked
    with `steps` noise levels and `samples` draws. mask: the sampling law. volumes, slices: size of the data of the fit.
    """

    level: float
    """Nominal coverage, such as 0.9."""
    unit: str
    """One of `UNITS`: the unit that is assumed to be exchangeable with new ones."""
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
        """The factors at the fitted acceleration that is nearest by ratio."""
        return min(self.factors, key=lambda one: abs(math.log(one.acceleration / acceleration)))

    def caution(self, acceleration: float, law: str) -> str | None:
        """A warning if the scan's acceleration, or `law`, its sampling pattern, is not one of the fit; else None."""
        nearest = self.at(acceleration).acceleration
        if law != self.mask:
            return (
                f"the intervals were fitted with {self.mask} masks, not {law}: coverage of {self.level:.0%} is not"
                " guaranteed"
            )
        if max(nearest / acceleration, acceleration / nearest) <= SIMILAR:
            return None
        return (
            f"the intervals were fitted at acceleration {nearest:.2f}, the scan has {acceleration:.2f}:"
            f" coverage of {self.level:.0%} is not guaranteed"
        )

    def check(self, **run: Any) -> None:
        """Compare a run with the fit. Errors: InputError if prior_sha256, sampler, steps or samples differ."""
        other = {name: value for name, value in run.items() if getattr(self, name) != value}
        if other:
            fitted = ", ".join(f"{name} {getattr(self, name)}" for name in other)
            came = ", ".join(f"{name} {value}" for name, value in other.items())
            raise InputError(
                f"the intervals were fitted with {fitted}, but this run has {came}: the coverage would not be"
                " valid; reconstruct with the same options, or fit again with: mri-score intervals"
            )

    def write(self, path: str | Path) -> None:
        """Write the intervals as JSON to the file `path`, for `read_intervals`."""
        write_text(path, json.dumps({"format": _FORMAT, **asdict(self)}, indent=2) + "\n")


def read_intervals(path: str | Path) -> Intervals:
    """Read the file that `mri-score intervals` wrote. Errors: InputError for any other file."""
    try:
        record = read_json(path, LARGEST_FILE)
        if record.pop("format") != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT!r}")
        factors = tuple(Factor(**one) for one in record.pop("factors"))
        found = Intervals(factors=factors, **record)
        _check_kinds(found)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is no file of intervals ({error}); write one with: mri-score intervals") from error
    return found


def _check_kinds(found: Intervals) -> None:
    """Check the kinds and ranges of all values. Errors: ValueError for the first that is wrong."""
    for name in _TEXTS:
        if not isinstance(getattr(found, name), str):
            raise ValueError(f"{name} is {getattr(found, name)!r}, not a text")
    for name in _COUNTS:
        if type(getattr(found, name)) is not int or getattr(found, name) < 1:
            raise ValueError(f"{name} is {getattr(found, name)!r}, not a number of them")
    if type(found.level) is not float or not 0 < found.level < 1 or found.unit not in UNITS:
        raise ValueError(f"the level is {found.level!r} and the unit {found.unit!r}")
    for one in found.factors:
        numbers = one.acceleration, one.magnitude, one.component
        if not all(type(value) in (int, float) and 0 < value < math.inf for value in numbers) or one.acceleration < 1:
            raise ValueError(f"a factor is missing or not positive: {one}")
        if not all(side in map(str, SIDES) and 0 < value < math.inf for side, value in one.blocks.items()):
            raise ValueError(f"the factors of blocks are {dict(one.blocks)}")
        if not all(name in BOUNDS and math.isfinite(value) for name, value in one.margins.items()):
            raise ValueError(f"the margins are {dict(one.margins)}")
    if not found.factors:
        raise ValueError("a factor is missing")
