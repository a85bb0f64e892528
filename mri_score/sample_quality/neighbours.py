"""Memorisation: distances of samples to training images, relative to those of held-out images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mri_score.errors import InputError
from mri_score.evaluation.panel import DPI, GROUND, INK, QUIET
from mri_score.files import whole_file, write_text

BLOCK = 16
"""Training images at a time."""
SHOWN = 8
"""Samples of the figure: those that come nearest."""
COPY = 0.02
"""Median distance of held-out images below which they are the training images themselves."""


def nearest(samples: Tensor, images: Iterable[Tensor], k: int = 5, turns: bool = True) -> tuple[Tensor, Tensor]:
    """The k training images nearest to each sample: distances (N, k), nearest first, and their numbers (N, k).

    d(a, b) = min over s of || |a| - s |b| || / || |a| || = sqrt(1 - cos^2 of the angle between |a| and |b|), in [0, 1]:
    phase and scale do not count, nor with `turns` the eight symmetries of the square (of other images the four that
    keep their shape). Shifts and other rotations do count: a copy that moved by a few pixels is not found.
    Shapes: samples (N, H, W), images (M, H, W) or any iterable of (H, W), read BLOCK at a time; real or complex; with
    a further axis of 3 for colours.
    Errors: InputError for images of another shape than the samples, or fewer than k of them.
    """
    rows = _unit(samples)
    cosines = torch.zeros(len(samples), 0, dtype=torch.float64)
    numbers = torch.zeros(len(samples), 0, dtype=torch.long)
    first = 0
    for block in _blocks(images):
        if block.shape[1:] != samples.shape[1:]:
            raise InputError(
                f"training images have shape {tuple(block.shape[1:])} and samples {tuple(samples.shape[1:])};"
                " crop them to one size"
            )
        found = torch.stack([rows @ _unit(version).T for version in _versions(block.abs(), turns)]).amax(0)
        cosines = torch.cat([cosines, found], dim=1)
        numbers = torch.cat([numbers, torch.arange(first, first + len(block)).expand(len(samples), -1)], dim=1)
        cosines, places = cosines.topk(min(k, cosines.shape[1]))
        numbers = numbers.gather(1, places)
        first += len(block)
    if first < k:
        raise InputError(f"there are {first} training images; {k} neighbours need as many or more")
    return (1 - cosines.square()).clamp_min(0).sqrt(), numbers


def _versions(images: Tensor, turns: bool) -> Iterator[Tensor]:
    """The images, flipped and turned in every way that keeps their shape."""
    if not turns:
        yield images
        return
    for quarters in range(4) if images.shape[-2] == images.shape[-1] else (0, 2):
        turned = torch.rot90(images, quarters, (-2, -1))
        yield from (turned, turned.flip(-1))


def _unit(images: Tensor) -> Tensor:
    """Magnitudes as rows of norm 1, (B, H W) float64: float32 would find copies only to 3e-4."""
    rows = images.abs().double().flatten(1)
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def _blocks(images: Iterable[Tensor]) -> Iterator[Tensor]:
    remaining = iter(images)
    while block := list(islice(remaining, BLOCK)):
        yield torch.stack(block)


@dataclass(frozen=True)
class Memorisation:
    """Nearest distances of samples, and of images that the training never saw: the scale that they are read on.

    Shapes: distances and numbers (N, k), held_out (M,).
    """

    distances: Tensor
    numbers: Tensor
    held_out: Tensor

    @property
    def unit(self) -> float:
        """The median distance of a held-out image to its nearest training image."""
        return float(self.held_out.median())

    @property
    def ratios(self) -> Tensor:
        """(N,): smallest distance of each sample divided by `unit`; near 1 or above is evidence against memorisation.
        """
        return self.distances[:, 0] / self.unit

    @property
    def suspicious(self) -> int:
        """Number of samples that are nearer to a training image than every held-out image."""
        return int((self.distances[:, 0] < self.held_out.min()).sum())


def compare(
    samples: Tensor, training: Iterable[Tensor], held_out: Tensor, k: int = 5, turns: bool = True
) -> Memorisation:
    """Neighbours of samples (N, H, W) among the training images, and of held-out images (M, H, W) for comparison.

    Samples are often smoother than images, which brings them nearer to everything: a ratio a little below 1 is no
    copy yet; look at the figure.
    Errors: InputError as for `nearest`, and where the held-out images are training images.
    """
    distances, numbers = nearest(torch.cat([samples.abs(), held_out.abs()]), training, k, turns)
    found = Memorisation(distances[: len(samples)], numbers[: len(samples)], distances[len(samples) :, 0])
    if found.unit < COPY:
        raise InputError(
            f"half of the held-out images have a training image at a distance below {COPY}: they are training images;"
            " use images of subjects that the prior was not trained on"
        )
    return found


def write_table(path: Path, found: Memorisation, names: Callable[[int], str]) -> None:
    """Write a CSV file with one row per sample: distance, ratio to held-out images, name of the nearest image."""
    lines = ["sample,distance,ratio,nearest"]
    rows = zip(found.distances[:, 0].tolist(), found.ratios.tolist(), found.numbers[:, 0].tolist(), strict=True)
    lines += [f"{sample},{distance:.6g},{ratio:.6g},{names(n)}" for sample, (distance, ratio, n) in enumerate(rows)]
    write_text(path, "\n".join(lines) + "\n")


def write_figure(path: Path, samples: Tensor, found: Memorisation, image: Callable[[int], Tensor]) -> None:
    """Write a picture with a row for each of the nearest samples: the sample, then its neighbours with distances."""
    chosen = found.ratios.argsort()[:SHOWN].tolist()
    columns = 1 + found.distances.shape[1]
    height, width = samples.shape[-2:]
    figure = Figure(
        figsize=(1.7 * columns, (1.7 * height / width + 0.25) * len(chosen)), dpi=DPI, facecolor=GROUND,
        layout="constrained",
    )  # fmt: skip
    for axes, sample in zip(figure.subplots(len(chosen), columns, squeeze=False), chosen, strict=True):
        _show(axes[0], samples[sample], f"sample {sample}", INK)
        for place, distance, number in zip(axes[1:], found.distances[sample], found.numbers[sample], strict=True):
            title = f"{float(distance):.3f} = {float(distance) / found.unit:.2f} × held out"
            _show(place, image(int(number)), title, QUIET)
    with whole_file(path) as part:
        figure.savefig(part, format="png", facecolor=GROUND)


def _show(axes: Any, image: Tensor, title: str, colour: str) -> None:
    if image.ndim == 3:
        axes.imshow(image.clamp(0, 1).movedim(0, -1).numpy())
    else:
        grey = image.abs().double().numpy()
        axes.imshow(grey, cmap="gray", vmin=0, vmax=float(np.percentile(grey, 99.5)) or 1.0)
    axes.set_title(title, color=colour, fontsize=7)
    axes.set_axis_off()
