"""mri-score sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mri_score.methods import DEFAULT_FLOW, DEFAULT_INPAINTING, DEFAULT_WALK, INPAINTING, WALKS

from .options import ANY_PATH, FOLDER, base_options, precision_option


@click.command("sample")
@click.option(
    "--prior", "-p", default="brain", show_default=True, help="A bundled prior, a run folder or a .safetensors."
)
@base_options
@click.option("--number", "-n", type=click.IntRange(1), default=16, show_default=True, help="How many samples.")
@click.option("--size", default="256", show_default=True, metavar="N|ROWSxCOLS", help="Of the image, in pixels.")
@click.option(
    "--method", "--sampler",
    help=f"Of bare priors: {', '.join(WALKS)}; with --inpaint: {', '.join(INPAINTING)}."
    f"  [default: {DEFAULT_WALK}; with --interpolate {DEFAULT_FLOW}, with --inpaint {DEFAULT_INPAINTING}]",
)
@click.option("--steps", type=click.IntRange(2), help="Noise levels of a walk.  [default: the method's own]")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change an option of the method.")
@click.option("--mean", type=float, help="Of the data, which walks start about.  [default: what the prior knows of it]")
@click.option("--inpaint", "image", type=ANY_PATH, metavar="IMAGE", help="Sample what --keep hides of this image.")
@click.option("--keep", type=ANY_PATH, metavar="MASK", help="With --inpaint: known pixels are those not 0.")
@click.option(
    "--slice", "number_of_slice", type=click.IntRange(0), default=0, show_default=True, metavar="N",
    help="With --inpaint: of stacks (.h5, .npy of three axes).",
)  # fmt: skip
@click.option(
    "--noise-std", type=float, metavar="X",
    help="With --inpaint: noise of each real component of a known pixel, the 99th percentile of the known ones being 1."
    "  [default: 0.01]",
)  # fmt: skip
@click.option(
    "--interpolate",
    type=click.IntRange(2),
    metavar="N",
    help="N images on the way from sample 0 of --method heun to its sample 1.",
)
@precision_option
@click.option("--seed", default=0, show_default=True, help="Sample i follows from seed and i alone.")
@click.option(
    "--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Walks at a time: bounds memory."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all cores]")
@click.option("--out", "-o", type=FOLDER, default=Path("samples"), show_default=True, help="Where results go.")
def command(**options: Any) -> None:
    """Sample a prior: images from noise alone, of what is hidden of an image, or on the way between two samples.

    Writes samples.h5 (complex images) with sheets of magnitude and phase into --out; with --inpaint inpainting.h5 and
    .png, with --interpolate interpolation.h5 and .png. Images and masks are .npy, .png, or .h5 with `image`.

    \b
    Examples:
      mri-score sample --prior brain -n 16
      mri-score sample -n 4 --method ancestral --steps 300
      mri-score sample -n 4 --inpaint head.png --keep mask.png
      mri-score sample --interpolate 8 --seed 3
    """
    from .run.sample import SampleOptions, sample

    sample(SampleOptions(**options))
