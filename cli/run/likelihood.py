"""The work of mri-score likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mri_score.data.pixel_values import PixelValues, pixel_values
from mri_score.errors import InputError
from mri_score.files import write_text
from mri_score.generation import prior_mean
from mri_score.likelihood import FlowOptions, bits_per_dimension, log_likelihood, pixel_bits
from mri_score.models.base import on_device
from mri_score.numerics.noise import generators
from mri_score.priors.store import find_prior, image_channels, load_prior, read_record
from mri_score.progress import progress
from mri_score.reconstruction import find_device
from mri_score.sample_quality.images import RealImages
from mri_score.sources.plain_images import PlainImages

from ..log import say


@dataclass(frozen=True, kw_only=True)
class LikelihoodOptions:
    """The options of the command, named and typed as by click."""

    paths: tuple[Path, ...]
    prior: str
    most: int | None
    probes: int
    steps: int | None
    tolerance: float
    seed: int
    batch_size: int
    device: str
    threads: int | None
    out: Path


def likelihood(given: LikelihoodOptions) -> None:
    """Compute, print and write bits per dimension."""
    if given.threads:
        torch.set_num_threads(given.threads)
    if not 0 < given.tolerance < 1:
        raise InputError(f"--tolerance is {given.tolerance}; it lies between 0 and 1, such as 1e-4")
    path = find_prior(given.prior)
    record = read_record(path)
    about, channels = record.get("about") or {}, image_channels(record["network"])
    place = find_device(given.device)
    prior = on_device(load_prior(path), place)
    flow = FlowOptions(given.probes, given.steps, given.tolerance, given.tolerance)
    images: Any
    if channels == 2:
        images, unit = RealImages(given.paths, most=given.most), "the 99th percentile of the magnitude"
    else:
        kept = about.get("pixels") or {}
        source = PlainImages(given.paths, channels, size=kept.get("size"), scale=_scale(kept))
        images, unit = _Pixels(source, given.most), "one grey value of 256" if _quantised(source) else "white"
    values = pixel_values(about) or PixelValues()
    centre = _mean(prior_mean(path, channels == 2), channels)
    found: list[Tensor] = []
    with progress(len(images), "image", "likelihood") as bar:
        for first in range(0, len(images), given.batch_size):
            numbers = range(first, min(first + given.batch_size, len(images)))
            random = generators(given.seed, "likelihood", draws=numbers)
            batch = torch.stack([images[number] for number in numbers]).to(place)
            mean = centre.expand(batch.shape[1:]).to(batch)
            if channels == 2:
                x = batch.to(torch.complex64)
                density = log_likelihood(prior, x, prior.sigma_min, prior.sigma_max, random, flow)
                found.append(bits_per_dimension(density, x).cpu())
            else:
                levels = 256 if unit != "white" else None
                found.append(pixel_bits(prior, batch, random, values, levels, flow, mean=mean).cpu())
            bar.update(len(numbers))
    bits = torch.cat(found)
    rows = [f"{images.name(number)},{float(one):.6g}" for number, one in enumerate(bits)]
    table = given.out / "likelihood.csv"
    write_text(table, "\n".join(["image,bits_per_dimension", *rows]) + "\n")
    error = float(bits.std()) / math.sqrt(len(bits)) if len(bits) > 1 else math.nan
    say(
        f"bits per dimension  {float(bits.mean()):.4f} +/- {error:.2g} (standard error over {len(bits)} images)\n"
        f"unit                {unit}; density at sigma {prior.sigma_min:g}\n{table}"
    )


class _Pixels:
    """Pixels in [0, 1] of at most `most` images of a source, evenly spaced."""

    def __init__(self, source: PlainImages, most: int | None) -> None:
        count = min(most or len(source), len(source))
        self.source, self.numbers = source, [index * len(source) // count for index in range(count)]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Tensor:
        values, scale = self.source.stored(self.numbers[index])
        x = values / scale
        return x[0] if self.source.channels == 1 else x

    def name(self, index: int) -> str:
        return self.source.name(self.numbers[index])


def _quantised(source: PlainImages) -> bool:
    """Whether the first image has 8 bits, and white at 255."""
    values, scale = source.stored(0)
    return scale == 255 and bool((values == values.round()).all())


def _scale(kept: dict[str, Any]) -> str | float | None:
    """The rule of the prior's training; `bits` applies to whole numbers only."""
    scale = kept.get("scale")
    return None if scale == "bits" else scale


def _mean(mean: float | list[float], channels: int) -> Tensor:
    values = torch.tensor(mean)
    return values[:, None, None] if values.ndim and channels == 3 else values.mean()
