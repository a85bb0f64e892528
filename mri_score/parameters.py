"""The numbers of a dataset: noise levels, step size and statistics, measured once and kept as text."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import brentq, minimize_scalar
from scipy.special import ndtr
from torch import Tensor

from mri_score.errors import InputError
from mri_score.files import write_text

SIGMA_MIN = 0.004
"""Default smallest level: 0.4 % of a bright pixel, below the noise of any scan, where images are scaled to percentile 1."""


@dataclass(frozen=True)
class Parameters:
    """What a prior must know of its dataset, for images as the network sees them; None where it was not measured.

    sigma_max, sigma_min, noise_std and sd count each real component, so that sd = sqrt(mean |x|^2 / 2) of complex images
    and sqrt(mean x^2) of real ones. mean: of |x| for complex images, of x for real ones. step_size: of Langevin steps at
    sigma_min, `repeats` a level. count: images used; seed: of their choice; dimension: real numbers an image.
    Errors: InputError for a number that is not finite or below its bound.
    """

    sigma_max: float
    sigma_min: float = SIGMA_MIN
    levels: int | None = None
    step_size: float | None = None
    repeats: int | None = None
    mean: float | None = None
    sd: float | None = None
    noise_std: float | None = None
    count: int | None = None
    seed: int | None = None
    dimension: int | None = None

    def __post_init__(self) -> None:
        for key in KEYS:
            if (value := getattr(self, key)) is not None:
                _check(key, value, "parameters")
        if self.sigma_min >= self.sigma_max:
            raise InputError(f"parameters: sigma_min {self.sigma_min} must lie below sigma_max {self.sigma_max}")


KEYS = [field.name for field in fields(Parameters)]
WHOLE = {"levels": 2, "repeats": 1, "count": 1, "seed": 0, "dimension": 1}
"""Keys of whole numbers, and the least of each."""


# Technique 1: the largest level.


def largest_distance(
    images: Iterable[Tensor], *, global_phase: bool = True, noise_std: float | None = None, block: int = 64
) -> float:
    """Technique 1: the largest Euclidean distance between two training images, over their real components.

    Where each image comes with any global phase the supremum over pairs is the sum of the two largest norms; one image
    alone meets itself turned by half a circle. Without, the exact maximum over all pairs: `block` images at a time, those
    far from the mean first, until the triangle inequality rules out the rest; `images` is then a tensor or a sequence.
    For images with noise of `noise_std` its mean energy is taken from each squared norm or distance.
    Shapes: images (N, *shape), real or complex.
    Reference: Song and Ermon, Improved techniques for training score-based generative models, NeurIPS 2020.
    """
    if not global_phase and not isinstance(images, (Tensor, Sequence)):
        images = list(images)
    vectors = (vector for _, vector in _checked(images))
    energies, sizes = zip(*((float(vector @ vector), len(vector)) for vector in vectors), strict=True)
    noise = sizes[0] * (noise_std or 0.0) ** 2
    if global_phase:
        return _sum_of_two_largest(energies, noise)
    if len(energies) < 2:
        raise InputError("the largest distance needs two images; got one")
    return _without_noise(_diameter(images, block) ** 2, 2 * noise) ** 0.5


def _sum_of_two_largest(energies: Sequence[float], noise: float) -> float:
    largest = sorted(energies, reverse=True)[:2] * 2
    return sum(_without_noise(energy, noise) ** 0.5 for energy in largest[:2])


def _without_noise(energy: float, noise: float) -> float:
    if energy <= noise:
        raise InputError(
            f"training images hold {energy:.4g} of energy, no more than their noise, {noise:.4g}: "
            "check them, or give a smaller noise_std, in their units"
        )
    return energy - noise


def _diameter(images: Tensor | Sequence[Tensor], block: int) -> float:
    """The largest distance between two of the images, with two blocks in memory."""
    mean = torch.zeros_like(_vector(images[0]))
    for image in images:
        mean += _vector(image) / len(images)
    radii, order = torch.stack([(_vector(image) - mean).norm() for image in images]).sort(descending=True)

    def centred(start: int) -> Tensor:
        return torch.stack([_vector(images[int(i)]) for i in order[start : start + block]]) - mean

    largest = 0.0
    for i in range(0, len(order), block):
        if 2 * radii[i] <= largest:
            break
        a = centred(i)
        for j in range(i, len(order), block):
            if radii[i] + radii[j] <= largest:
                break
            b = a if j == i else centred(j)
            squared = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
            row, column = divmod(int(squared.argmax()), len(b))
            largest = max(largest, float((a[row] - b[column]).norm()))  # afresh: the line above cancels digits
    return largest


def _vector(image: Tensor) -> Tensor:
    """The real components of one image, float64."""
    return (torch.view_as_real(image.resolve_conj()) if image.is_complex() else image).flatten().double()


def _checked(images: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Each image and its vector, refusing what cannot be measured."""
    size = 0
    for number, image in enumerate(images):
        vector = _vector(image)
        size = size or len(vector)
        if len(vector) != size:
            raise InputError(
                f"training image {number} has {len(vector)} real components, image 0 has {size}: crop or pad to one size"
            )
        if not torch.isfinite(vector).all():
            raise InputError(f"training image {number} holds numbers that are not finite; leave it out")
        yield image, vector
    if not size:
        raise InputError("there are no training images to measure")


# Technique 2: the number of levels.


def level_overlap(dimension: int, ratio: float) -> float:
    """How much of a level's noise falls where its neighbour was trained: Phi(a (g - 1) + 3 g) - Phi(a (g - 1) - 3 g).

    g is the ratio of neighbouring levels and a = sqrt(2 D), for D real dimensions.
    """
    a = math.sqrt(2 * dimension)
    return float(ndtr(a * (ratio - 1) + 3 * ratio) - ndtr(a * (ratio - 1) - 3 * ratio))


def level_ratio(dimension: int, overlap: float = 0.5) -> float:
    """Technique 2: the ratio > 1 of neighbouring levels at which they overlap by `overlap`.

    The published ladders of NCSNv2 follow from 0.566 to 0.567, not from the 0.5 of the paper.
    Errors: InputError for fewer than 5 dimensions, where no ratio ends the overlap, and for an overlap outside (0, 0.997).
    Reference: Song and Ermon, Improved techniques for training score-based generative models, NeurIPS 2020.
    """
    if dimension < 5:
        raise InputError(f"technique 2 needs images of at least 5 real dimensions; got {dimension}")
    if not 0 < overlap < level_overlap(dimension, 1.0):
        raise InputError(f"overlap is {overlap}; it must lie between 0 and 0.997")
    a = math.sqrt(2 * dimension)
    beyond = (a + 40) / (a - 3)  # a (g - 1) - 3 g = 40: no overlap is left
    return brentq(lambda ratio: level_overlap(dimension, ratio) - overlap, 1.0, beyond, xtol=1e-14)


def level_count(sigma_max: float, sigma_min: float, ratio: float) -> int:
    """How many levels, both ends included, lead from sigma_max to sigma_min by steps nearest to `ratio`; at least 2."""
    if not (0 < sigma_min < sigma_max and ratio > 1):
        raise InputError(f"levels need 0 < sigma_min < sigma_max and a ratio above 1; got {sigma_min}, {sigma_max}, {ratio}")
    return max(2, 1 + round(math.log(sigma_max / sigma_min) / math.log(ratio)))


# Technique 4: the step size.


def step_size(ratio: float, sigma_min: float, repeats: int) -> float:
    """Technique 4: the step at sigma_min with which `repeats` Langevin steps a level best keep the noise at its level.

    Minimizes s(e) = (1 - e)^(2 T) (g^2 - b) + b over e = step / sigma_min^2 in (0, 2), where b = 2 / (2 - e): the variance
    after T steps, in units of the level's own, of noise that came from the level above. s never falls to 1.
    Reference: Song and Ermon, Improved techniques for training score-based generative models, NeurIPS 2020.
    """
    if not (ratio > 1 and sigma_min > 0 and repeats >= 1):
        raise InputError(f"a step size needs ratio > 1, sigma_min > 0 and repeats >= 1; got {ratio}, {sigma_min}, {repeats}")
    grid = np.linspace(math.log(1e-9), math.log(1.999), 1000)
    best = int(np.argmin([variance_growth(math.exp(u), ratio, repeats) for u in grid]))
    around = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(
        lambda u: variance_growth(math.exp(u), ratio, repeats), bounds=around, method="bounded", options={"xatol": 1e-9}
    )
    return math.exp(found.x) * sigma_min**2


def variance_growth(e: float, ratio: float, repeats: int) -> float:
    """s(e) - 1 of technique 4 for relative steps e = step / sigma^2: what is left to zero."""
    b = 2 / (2 - e)
    return (1 - e) ** (2 * repeats) * (ratio**2 - b) + e / (2 - e)


# The whole dataset.


def measure(
    images: Iterable[Tensor],
    *,
    noise_std: float | None = None,     # of each real component of the images, if they are noisy
    sigma_min: float | None = None,     # smallest level; default SIGMA_MIN, and never below noise_std
    overlap: float = 0.5,               # of neighbouring levels
    repeats: int = 3,                   # Langevin steps a level
    seed: int = 0,                      # of the choice of real images for the largest distance
    subsample: int = 1000,              # at most so many of them
    global_phase: bool | None = None,   # whether training turns the phase; default: for complex images
) -> Parameters:  # fmt: skip
    """All numbers of a dataset in one pass over its training images, as the network sees them.

    Images of any number are never held together; without a global phase `subsample` of them are. The energy of noise is
    taken from sigma_max and sd, and sigma_min is at least noise_std: noisy images do not show what lies below it.
    Numbers are rounded to 6 digits.
    Errors: InputError for no images, unequal sizes, numbers that are not finite, and noise above the images' energy.
    """
    energies: list[float] = []
    means: list[float] = []
    kept: list[Tensor] = []
    phase, size, noise, chance = global_phase, 0, noise_std or 0.0, random.Random(seed)
    for number, (image, vector) in enumerate(_checked(images)):
        size = len(vector)
        energies.append(float(vector @ vector))
        means.append(float((image.abs() if image.is_complex() else image).double().mean()))
        phase = image.is_complex() if phase is None else phase
        place = number if number < subsample else chance.randrange(number + 1)
        if not phase and place < subsample:
            kept[place : place + 1] = [image]

    if phase:
        sigma_max = _rounded(_sum_of_two_largest(energies, size * noise**2))
    else:
        sigma_max = _rounded(largest_distance(kept, global_phase=False, noise_std=noise))
    sigma_min = max(SIGMA_MIN if sigma_min is None else sigma_min, noise)
    levels = level_count(sigma_max, sigma_min, level_ratio(size, overlap))
    return Parameters(
        sigma_max=sigma_max,
        sigma_min=sigma_min,
        levels=levels,
        step_size=_rounded(step_size((sigma_max / sigma_min) ** (1 / (levels - 1)), sigma_min, repeats)),
        repeats=repeats,
        mean=_rounded(math.fsum(means) / len(means)),
        sd=_rounded(_without_noise(math.fsum(energies) / len(energies) / size, noise**2) ** 0.5),
        noise_std=noise_std,
        count=len(energies),
        seed=seed,
        dimension=size,
    )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


# The file.


def write_parameters(path: str | Path, parameters: Parameters) -> None:
    """Write `key value  # where from` lines; what was not measured is left out."""
    origins = _origins(parameters)
    lines = [f"{key} {value!r}" for key in KEYS if (value := getattr(parameters, key)) is not None]
    write_text(path, "".join(f"{line:<24}  # {origins[line.split()[0]]}\n" for line in lines))


def _origins(p: Parameters) -> dict[str, str]:
    """Where each number is from."""
    clean = ", the energy of the noise subtracted" if p.noise_std else ""
    origins = {
        "sigma_max": f"technique 1: largest distance between two training images{clean}",
        "sigma_min": "smallest level; noisy images show nothing below noise_std" if p.noise_std else "smallest level",
        "levels": "technique 2",
        "step_size": f"technique 4, at sigma_min{f', for {p.repeats} steps a level' if p.repeats else ''}",
        "repeats": "Langevin steps a level",
        "mean": "of the magnitude of complex images, of real images themselves",
        "sd": f"of each real component, about zero{clean}",
        "noise_std": "of each real component of the training images",
        "count": "training images measured",
        "seed": "of the choice of images",
        "dimension": "real numbers an image",
    }
    if p.levels and p.dimension:
        overlap = level_overlap(p.dimension, (p.sigma_max / p.sigma_min) ** (1 / (p.levels - 1)))
        origins["levels"] += f": neighbouring levels overlap by {overlap:.3f}"
    return origins


def read_parameters(path: str | Path) -> Parameters:
    """Read `key value  # where from` lines; a file of one bare number holds sigma_max.

    Errors: InputError, with file, line and key, for what cannot be read, and where sigma_max is missing.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read parameters from {path}: {error}") from error
    numbered = [(number, line.partition("#")[0].split()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(f"{path}, line {number}", words) for number, words in numbered if words]
    if len(lines) == 1 and len(lines[0][1]) == 1 and lines[0][1][0] not in KEYS:
        lines = [(lines[0][0], ["sigma_max", *lines[0][1]])]
    values: dict[str, float] = {}
    for place, words in lines:
        if len(words) != 2:
            raise InputError(f"{place}: got {' '.join(words)!r}; a line is `key value  # where from`")
        key, value = words
        if key not in KEYS:
            raise InputError(f"{place}: unknown key {key!r}; known keys: {', '.join(KEYS)}")
        if key in values:
            raise InputError(f"{place}: {key} is given twice; keep one of the lines")
        values[key] = _number(key, value, place)
    if "sigma_max" not in values:
        raise InputError(f"{path} has no sigma_max; known keys: {', '.join(KEYS)}; add a line such as `sigma_max 230`")
    try:
        return Parameters(**values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _number(key: str, text: str, place: str) -> float:
    try:
        value = int(text) if key in WHOLE else float(text)
    except ValueError as error:
        kind = "whole number" if key in WHOLE else "number"
        raise InputError(f"{place}: {key} is {text!r}; it must be a {kind}") from error
    _check(key, value, place)
    return value


def _check(key: str, value: float, place: str) -> None:
    """Refuse what no dataset can have."""
    if not math.isfinite(value):
        raise InputError(f"{place}: {key} is {value}; it must be finite")
    if key in WHOLE and value < WHOLE[key]:
        raise InputError(f"{place}: {key} is {value}; it must be at least {WHOLE[key]}")
    if key not in WHOLE and value <= 0 and key not in ("mean", "noise_std"):
        raise InputError(f"{place}: {key} is {value}; it must be above 0")
    if key == "noise_std" and value < 0:
        raise InputError(f"{place}: {key} is {value}; it must not be negative")
