"""mri-score import-checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mri_score.errors import InputError

from .options import ANY_PATH


@click.command("import-checkpoint")
@click.argument("file", type=ANY_PATH)
@click.option("--out", "-o", type=ANY_PATH, required=True, metavar="PRIOR", help="The .safetensors file to write.")
@click.option("--raw", is_flag=True, help="The weights of the last step, not their average.")
@click.option("--sd", default=0.3, show_default=True, help="Of the training images, each real component, about zero.")
@click.option("--sigma-min", type=float, help="The lowest noise level.  [default: that of FILE]")
@click.option("--sigma-max", type=float, help="The highest noise level.  [default: that of FILE]")
@click.option(
    "--centred",
    is_flag=True,
    default=None,
    help="The network takes x as it is, not 2 x - 1: data.centered, rescaled or logit_transform of its config.",
)
@click.option("--precondition", metavar="ROW", help="sub-vp, for such weights: no tensor tells them from vp.")
@click.option("--again", is_flag=True, help="Also write a prior that exists.")
def command(file: Path, out: Path, again: bool, **given: Any) -> None:
    """Import FILE, a published checkpoint of NCSN, NCSNv2 or NCSN++, as a prior.

    Knows the layouts of ermongroup/ncsn, ermongroup/ncsnv2 and the MRI release built on it,
    utcsilab/score-diffusion-training and yang-song/score_sde_pytorch; nothing in FILE is run.

    \b
    Example:
      mri-score import-checkpoint checkpoint_100000.pth --out priors/brain_csgm.safetensors
      mri-score reconstruct scan.h5 --prior priors/brain_csgm.safetensors
    """
    from mri_score.priors.published import import_published
    from mri_score.priors.store import save_prior

    out = out if out.suffix == ".safetensors" else out.with_name(f"{out.name}.safetensors")
    if out.exists() and not again:
        raise InputError(f"{out} exists; name another with --out, or write it anew with --again")
    prior, network, about = import_published(file, **given)
    save_prior(out, prior, network, about)

    shape = ", ".join(f"{key} {value}" for key, value in network.items() if key != "name")
    parameters = sum(parameter.numel() for parameter in prior.network.parameters())
    click.echo(f"{file}: layout of {about['layout']}, {about['weights']} weights, trained on: {about['trained_on']}")
    click.echo(f"  network      {network['name']} ({shape}), {parameters:,} parameters")
    click.echo(f"  noise levels {prior.sigma_max:g} to {prior.sigma_min:g}")
    if network["channels"] != 2:
        click.secho(f"  note: for real images of {network['channels']} channels; reconstruct needs 2", fg="yellow")
    click.echo(f"{out}: {about['licence']}")
