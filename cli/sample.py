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
@click.option(
    "--size", metavar="N|ROWSxCOLS", help="Image size, in pixels.  [default: of the prior's training images, else 256]"
)
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
    help="With an image to complete: which one of a stack (.h5, .npy, NIfTI, CIFAR).",
)  # fmt: skip
@click.option(
    "--super-resolve", "coarse", type=ANY_PATH, metavar="IMAGE",
    help="Draw images whose blocks of --factor x --factor pixels have the means IMAGE.",
)  # fmt: skip
@click.option(
    "--factor", type=click.IntRange(2), default=4, show_default=True, help="With --super-resolve: side of a block."
)
@click.option(
    "--colourise", "grey", type=ANY_PATH, metavar="IMAGE", help="Draw colour images with the grey values of IMAGE."
)
@click.option(
    "--noise-std", type=float, metavar="X",
    help="With an image to complete: noise level of its values (standard deviation of the real, and of the imaginary,"
    " part), relative to white or to the 99th percentile of their magnitude.  [default: 0.01]",
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
    help="Mean of the training images, which sampling starts from.  [default: as stored with the prior, by channel]",
)  # fmt: skip
@click.option("--png", "pictures", is_flag=True, help="Write each image as a picture of 8 bits too, into images/.")
@base_options
@precision_option
@batch_size_option
@device_options
def command(**options: Any) -> None:
    """Draw images from a prior; complete an image: missing pixels, resolution, colours; blend two samples.

    --out gets samples.h5 and a contact sheet (for complex images one of magnitudes and one of phases); with --inpaint
    inpainting.h5 and inpainting.png, likewise super_resolution, colourisation and interpolation. Grey and colour images
    are in [0, 1]. IMAGE and MASK are .npy, PNG, JPEG, NIfTI, or .h5 files with a dataset `image`.

    \b
    Examples:
      mri-score sample --prior brain -n 16
      mri-score sample -n 4 --method ancestral --steps 300
      mri-score sample -n 4 --inpaint head.png --keep mask.png
      mri-score sample --interpolate 8 --seed 3
      mri-score sample --prior runs/cifar10_ncsnv2 -n 4 --super-resolve small.png --factor 2
      mri-score sample --prior runs/cifar10_ncsnv2 -n 4 --colourise grey.png
    """
    from .run.sample import SampleOptions, sample

    sample(SampleOptions(**options))
