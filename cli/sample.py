"""mri-score sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mri_score.methods import DEFAULT_FLOW, DEFAULT_INPAINTING, DEFAULT_WALK, INPAINTING, WALKS

from . import names
from .options import (
    ANY_PATH,
    FOLDER,
    base_options,
    batch_size_option,
    device_options,
    precision_option,
    prior_option,
    steps_option,
)


@click.command("sample")
@click.option("--out", "-o", type=FOLDER, default=Path("samples"), show_default=True, help="Folder for the results.")
@prior_option
@click.option("--number", "-n", type=click.IntRange(1), default=16, show_default=True, help="Number of images.")
@click.option("--size", default="256", show_default=True, metavar="N|ROWSxCOLS", help="Image size, in pixels.")
@click.option(
    "--method", "--sampler", type=names.SAMPLER,
    help=f"Sampler: {', '.join(WALKS)}; with --inpaint: {', '.join(INPAINTING)}."
    f"  [default: {DEFAULT_WALK}; with --interpolate {DEFAULT_FLOW}, with --inpaint {DEFAULT_INPAINTING}]",
)
@steps_option
@click.option("--seed", default=0, show_default=True, help="Random seed; image i depends on the seed and i only.")
@click.option(
    "--inpaint", "image", type=ANY_PATH, metavar="IMAGE", help="Inpaint the pixels of IMAGE where --keep is 0."
)
@click.option(
    "--keep", type=ANY_PATH, metavar="MASK", help="With --inpaint: an image that is 0 at the pixels to be inpainted."
)
@click.option(
    "--slice", "number_of_slice", type=click.IntRange(0), default=0, show_default=True, metavar="N",
    help="With --inpaint: the slice to use of a stack (.h5, or .npy with three axes).",
)  # fmt: skip
@click.option(
    "--noise-std", type=float, metavar="X",
    help="With --inpaint: noise level of the known pixels (standard deviation of the real, and of the imaginary, part),"
    " relative to the 99th percentile of their magnitude.  [default: 0.01]",
)  # fmt: skip
@click.option(
    "--interpolate", type=click.IntRange(2), metavar="N",
    help="Write N images from sample 0 to sample 1, by interpolating their starting noise.",
)  # fmt: skip
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Set an option of the sampler; may be repeated."
)
@click.option(
    "--mean", type=float,
    help="Mean of the training images, which sampling starts from.  [default: as stored with the prior]",
)  # fmt: skip
@base_options
@precision_option
@batch_size_option
@device_options
def command(**options: Any) -> None:
    """Draw images from a prior; with --inpaint, fill in missing pixels; with --interpolate, blend two samples.

    --out gets samples.h5 (complex images) and contact sheets of magnitude and phase; with --inpaint inpainting.h5 and
    inpainting.png, with --interpolate interpolation.h5 and interpolation.png. IMAGE and MASK are .npy, .png, or .h5
    files with a dataset `image`.

    \b
    Examples:
      mri-score sample --prior brain -n 16
      mri-score sample -n 4 --method ancestral --steps 300
      mri-score sample -n 4 --inpaint head.png --keep mask.png
      mri-score sample --interpolate 8 --seed 3
    """
    from .run.sample import SampleOptions, sample

    sample(SampleOptions(**options))
