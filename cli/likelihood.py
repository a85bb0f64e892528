"""mri-score likelihood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import ANY_PATH, FOLDER, batch_size_option, device_options, prior_option


@click.command("likelihood")
@click.argument("paths", type=ANY_PATH, nargs=-1, required=True, metavar="IMAGES...")
@prior_option
@click.option(
    "--images", "most", type=click.IntRange(2), metavar="N", help="Use at most N images, evenly spaced over all."
)
@click.option(
    "--probes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Random vectors for the divergence of an image.",
)
@click.option(
    "--steps", type=click.IntRange(1), metavar="N",
    help="Integrate with N steps of Heun's method.  [default: adaptive steps, to --tolerance]",
)  # fmt: skip
@click.option(
    "--tolerance",
    type=float,
    default=1e-4,
    show_default=True,
    help="Relative and absolute tolerance of the adaptive steps.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed of probes and dequantisation.")
@batch_size_option
@device_options
@click.option(
    "--out", "-o", type=FOLDER, default=Path("likelihood"), show_default=True, help="Folder for likelihood.csv."
)
def command(**options: Any) -> None:
    """Bits per dimension of images under a prior, by the probability flow: mean, standard error, one row per image.

    IMAGES are pictures, stacks (.npy, HDF5, NIfTI), files of CIFAR or folders of them. Under a prior of grey or colour
    images, uniform noise of one grey value is added to images of 8 bits, and the result is an upper bound of their code
    length. Under a prior of complex images the unit is the 99th percentile of the magnitude. Compare results only if
    unit, image size and sigma_min are the same.

    \b
    Example:
      mri-score likelihood data/cifar-10-batches-py/test_batch --prior runs/cifar10_ncsnpp --images 100
    """
    from .run.likelihood import LikelihoodOptions, likelihood

    likelihood(LikelihoodOptions(**options))
