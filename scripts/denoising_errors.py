"""Denoising errors of priors on the same held-out images, for each level, with all augmentations.

python scripts/denoising_errors.py brain runs/another --images VAL.h5 --patch 256
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import torch

from mri_score.data.training_item import TrainingItem
from mri_score.models.precision import find_precision
from mri_score.priors.store import load_prior
from mri_score.sources.magnitude_images import ImageStacks
from mri_score.training.batches import Batches
from mri_score.training.validation import SIGMAS, denoising_errors


def held_out(images: Sequence[Path], patch: int, count: int) -> list[TrainingItem]:
    """The same images for every prior, in batches of four."""
    batches = Batches(ImageStacks(images, patch=patch), 4, seed=1234)
    return [batches[number] for number in range(max(1, count // 4))]


@click.command()
@click.argument("priors", nargs=-1, required=True)
@click.option("--images", multiple=True, required=True, type=click.Path(exists=True, path_type=Path), help="Stacks.")
@click.option("--patch", type=int, default=256, show_default=True, help="Side of the squares, cut or padded to.")
@click.option("--count", type=int, default=24, show_default=True, help="Images, in fours.")
@click.option("--precision", default="auto", show_default=True, help="Of the priors' networks.")
@click.option("--threads", type=int, default=1, show_default=True)
def main(
    priors: tuple[str, ...], images: tuple[Path, ...], patch: int, count: int, precision: str, threads: int
) -> None:
    """The error of each of PRIORS, in units of sigma^2 sd^2 / (sigma^2 + sd^2): 1 is the error of a white Gaussian
    prior.
    """
    torch.set_num_threads(threads)
    batches = held_out(images, patch, count)
    click.echo("| prior | " + " | ".join(f"sigma {sigma:g}" for sigma in SIGMAS) + " |")
    click.echo("|---" * (len(SIGMAS) + 1) + "|")
    for name in priors:
        prior = load_prior(name)
        prior.precision = find_precision(precision)
        errors = denoising_errors(prior, batches, prior.learned(SIGMAS))
        click.echo(f"| {name} | " + " | ".join(f"{errors[s]:.3f}" if s in errors else "" for s in SIGMAS) + " |")


if __name__ == "__main__":
    main()
