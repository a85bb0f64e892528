"""The numbers of a dataset: noise levels, step size and statistics, measured once and stored as text."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.files import write_text
from mri_score.noise.ncsnv2_levels import (
    checked_vectors,
    largest_distance,
    level_count,
    level_overlap,
    level_ratio,
    step_size,
    sum_of_two_largest,
    without_noise,
)
from mri_score.untrusted.text import read_text

SIGMA_MIN = 0.004
"""Default smallest level: 0.4 % of a bright pixel (the 99th percentile is 1), below the noise of a scan."""


@dataclass(frozen=True)
class Parameters:
    """Numbers of a dataset that a prior needs, for images as the network gets them; None: not measured.

    sigma_max, sigma_min, noise_std and sd are those of each real component: sd = sqrt(mean |x|^2 / 2) for complex
    images, sqrt(mean x^2) for real ones. mean: of |x| for complex images, of x for real ones; channel_means: of each
    channel, for images of several. step_size: of Langevin
    steps at sigma_min, with `repeats` per level. dimension: number of real components of an image. data: fingerprint of
    the data they were measured on, see `experiment.data_fingerprint`.
    Errors: InputError unless 0 < sigma_min < sigma_max.
    """

    sigma_max: float
    sigma_min: float = SIGMA_MIN
    levels: int | None = None
    step_size: float | None = None
    repeats: int | None = None
    mean: float | None = None
    channel_means: tuple[float, ...] | None = None
    sd: float | None = None
    noise_std: float | None = None
    count: int | None = None
    seed: int | None = None
    dimension: int | None = None
    data: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise InputError(f"parameters need 0 < sigma_min < sigma_max; got {self.sigma_min} and {self.sigma_max}")


def measure(
    images: Iterable[Tensor],
    *,
    noise_std: float | Sequence[float] | None = None,  # of noisy images, each real component
    sigma_min: float | None = None,    # smallest level; default SIGMA_MIN, and never below noise_std
    overlap: float = 0.5,              # overlap of neighbouring levels
    repeats: int = 3,                  # Langevin steps per level
    global_phase: bool | None = None,  # whether training uses a random global phase; default: for complex images
    subsample: int = 1000,             # without global phase, largest number of images that are compared in pairs
    seed: int = 0,                     # of the choice of these images
) -> Parameters:  # fmt: skip
    """All numbers of a dataset, in one pass over its training images (*shape) as the network gets them.

    With a global phase, only one image is in memory at a time. For noisy images, the energy of the noise is subtracted
    from sigma_max and sd, with the level of each image if they differ; noise_std is then their root mean square.
    sigma_min is at least noise_std, because noisy images do not identify lower levels. Rounded to 6 digits.
    Errors: InputError without images, for unequal sizes, numbers that are not finite, and no energy above the noise.
    """
    energies: list[float] = []
    means: list[float] = []
    by_channel: list[Tensor] = []
    kept: list[Tensor] = []
    chance, size = random.Random(seed), 0
    for number, (image, vector) in enumerate(checked_vectors(images)):
        global_phase, size = image.is_complex() if global_phase is None else global_phase, len(vector)
        energies.append(float(vector @ vector))
        means.append(float((image.abs() if image.is_complex() else image).double().mean()))
        if image.ndim == 3 and not image.is_complex():
            by_channel.append(image.double().mean((1, 2)))
        place = number if number < subsample else chance.randrange(number + 1)
        if not global_phase and place < subsample:  # reservoir sampling: every image is kept with the same probability
            kept[place : place + 1] = [image]

    levels_of = [noise_std or 0.0] * len(energies) if not isinstance(noise_std, Sequence) else list(noise_std)
    noise = (math.fsum(level**2 for level in levels_of) / len(levels_of)) ** 0.5
    if global_phase:
        distance = sum_of_two_largest(energies, [size * level**2 for level in levels_of])
    else:
        distance = largest_distance(kept, global_phase=False, noise_std=noise)
    sigma_max = _rounded(distance)
    sigma_min = max(SIGMA_MIN if sigma_min is None else sigma_min, noise)
    levels = level_count(sigma_max, sigma_min, level_ratio(size, overlap))
    return Parameters(
        sigma_max=sigma_max,
        sigma_min=sigma_min,
        levels=levels,
        step_size=_rounded(step_size((sigma_max / sigma_min) ** (1 / (levels - 1)), sigma_min, repeats)),
        repeats=repeats,
        mean=_rounded(math.fsum(means) / len(means)),
        channel_means=tuple(map(_rounded, torch.stack(by_channel).mean(0).tolist())) if by_channel else None,
        sd=_rounded(without_noise(math.fsum(energies) / len(energies) / size, noise**2) ** 0.5),
        noise_std=None if noise_std is None else noise,
        count=len(energies),
        seed=seed,
        dimension=size,
    )


def bare_parameters(path: Path) -> Parameters | None:
    """The sigma_max of a file that holds nothing else, as the seed systems write it; None for any other file."""
    try:
        found = read_parameters(path) if path.is_file() else None
    except InputError:
        return None
    return found if found == (found and Parameters(found.sigma_max)) else None


def completed(given: Parameters, measured: Parameters) -> Parameters:
    """The numbers of a file that states sigma_max, and perhaps few others, and measured ones for all else.

    The number of levels and the step size follow from the given sigma_max.
    Errors: InputError for a given sigma_max that is not above the measured sigma_min.
    """
    sigma_max, sigma_min = given.sigma_max, measured.sigma_min
    if not sigma_min < sigma_max or not measured.levels:
        raise InputError(f"sigma_max is {sigma_max:g}; it must be above sigma_min, here {sigma_min:g}")
    ratio = (measured.sigma_max / sigma_min) ** (1 / (measured.levels - 1))
    levels = given.levels or level_count(sigma_max, sigma_min, ratio)
    repeats = given.repeats or measured.repeats or 3
    step = step_size((sigma_max / sigma_min) ** (1 / (levels - 1)), sigma_min, repeats)
    return replace(
        measured, sigma_max=sigma_max, levels=levels, repeats=repeats, step_size=given.step_size or _rounded(step)
    )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


# The file.

KEYS = [field.name for field in fields(Parameters)]
WHOLE = {
    "levels": (2, 100_000), "repeats": (1, 10_000), "count": (1, 10**12), "seed": (0, 2**64 - 1),
    "dimension": (1, 10**12),
}  # fmt: skip
"""Keys of whole numbers, and the smallest and largest of each."""
POSITIVE = ("sigma_max", "step_size", "sd")
"""Keys of positive numbers."""
LARGEST_FILE = 1 << 16
"""Largest file of parameters, in bytes."""


def write_parameters(path: str | Path, parameters: Parameters) -> None:
    """Write the measured `parameters` to the file `path`, as lines of `key value  # where from`."""
    lines = []
    for key, origin in _origins(parameters).items():
        if (value := getattr(parameters, key)) is not None:
            value = ",".join(map(str, value)) if isinstance(value, tuple) else value
            lines.append(f"{f'{key} {value}':<24}  # {origin}\n")
    write_text(path, "".join(lines))


def _origins(p: Parameters) -> dict[str, str]:
    """The origin of each number."""
    cleaned = ", the energy of the noise subtracted" if p.noise_std else ""
    levels = "technique 2"
    if p.levels and p.dimension:
        ratio = (p.sigma_max / p.sigma_min) ** (1 / (p.levels - 1))
        levels += f": neighbours overlap by {level_overlap(p.dimension, ratio):.3f}"
    return {
        "sigma_max": f"technique 1: largest distance between two training images{cleaned}",
        "sigma_min": "smallest level" + (": noisy images show nothing below noise_std" if p.noise_std else ""),
        "levels": levels,
        "step_size": "technique 4: step of annealed Langevin at sigma_min",
        "repeats": "Langevin steps a level",
        "mean": "of the magnitude of complex images, of the value of real ones",
        "channel_means": "of each channel, where walks start",
        "sd": f"of each real component, about zero{cleaned}",
        "noise_std": "of each real component of the training images",
        "count": "training images",
        "seed": "of the choice of images that are compared in pairs",
        "dimension": "real numbers an image",
        "data": "fingerprint of the files and the data settings",
    }


def read_parameters(path: str | Path) -> Parameters:
    """Read `key value  # where from` lines; a file of one bare number holds sigma_max.

    Errors: InputError, with file, line and key, for a file that cannot be read, and without sigma_max.
    """
    text = read_text(path, LARGEST_FILE)
    lines = [(number, line.partition("#")[0].split()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, words) for number, words in lines if words]
    if len(lines) == 1 and len(lines[0][1]) == 1 and lines[0][1][0] not in KEYS:
        lines[0][1].insert(0, "sigma_max")

    values: dict[str, Any] = {}
    for number, words in lines:
        place = f"{path}, line {number}"
        if len(words) != 2:
            raise InputError(f"{place} is {' '.join(words)!r}; a line must be `key value  # where from`")
        key, value = words
        if key not in KEYS:
            raise InputError(f"{place}: unknown key {key!r}; known keys: {', '.join(KEYS)}")
        if key in values:
            raise InputError(f"{place}: {key} is given twice; keep one of the lines")
        if key == "channel_means":
            values[key] = tuple(_number(key, one, place) for one in value.split(","))
        else:
            values[key] = value if key == "data" else _number(key, value, place)
    if "sigma_max" not in values:
        raise InputError(f"{path} has no sigma_max; add a line such as `sigma_max 230`")
    try:
        return Parameters(**values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _number(key: str, text: str, place: str) -> float:
    try:
        value = int(text) if key in WHOLE else float(text)
    except ValueError:
        value = math.nan
    if not -math.inf < value < math.inf:
        kind = "whole" if key in WHOLE else "finite"
        raise InputError(f"{place}: {key} is {text!r}; it must be a {kind} number")
    least, most = WHOLE.get(key, (0, math.inf))
    if key not in ("mean", "channel_means") and not least <= value <= most:
        raise InputError(f"{place}: {key} is {text!r}; it must be at least {least} and at most {most}")
    if key in POSITIVE and value == 0:
        raise InputError(f"{place}: {key} is {text!r}; it must be positive")
    return value
