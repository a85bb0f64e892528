"""mri-score import-checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mri_score.errors import InputError

from .log import note, say
from .options import ANY_PATH


@click.command("import-checkpoint")
@click.argument("file", type=ANY_PATH)
@click.option("--out", "-o", type=ANY_PATH, required=True, metavar="PRIOR", help="The .safetensors file to write.")
@click.option("--raw", is_flag=True, help="Import the weights of the last training step, not their moving average.")
@click.option(
    "--sd", default=0.3, show_default=True,
    help="Standard deviation of the training images about zero, of the real and of the imaginary part.",
)  # fmt: skip
@click.option("--sigma-min", type=float, help="The lowest noise level.  [default: as in FILE]")
@click.option("--sigma-max", type=float, help="The highest noise level.  [default: as in FILE]")
@click.option(
    "--centred",
    is_flag=True,
    default=None,
    help="The network takes x itself, not 2 x - 1. Set this if the config of the checkpoint has data.centered, rescaled"
    " or logit_transform.",
)
@click.option(
    "--precondition", metavar="ROW",
    help="Set to sub-vp for weights of a sub-VP SDE; the checkpoint alone looks the same as one of a VP SDE.",
)  # fmt: skip
@click.option("--again", is_flag=True, help="Overwrite an existing file.")
def command(file: Path, out: Path, again: bool, **given: Any) -> None:
    """Import FILE, a published checkpoint of NCSN, NCSNv2 or NCSN++, as a prior.

    Supported are checkpoints of ermongroup/ncsn, of ermongroup/ncsnv2 and the MRI release built on it, of
    utcsilab/score-diffusion-training and of yang-song/score_sde_pytorch. No code in FILE is executed.

    \b
    Example:
      mri-score import-checkpoint checkpoint_100000.pth --out priors/brain_csgm.safetensors
      mri-score reconstruct scan.h5 --prior priors/brain_csgm.safetensors
    """
    from mri_score.priors.published import import_published
    from mri_score.priors.store import save_prior

    out = out if out.suffix == ".safetensors" else out.with_name(f"{out.name}.safetensors")
    if out.exists() and not again:
        raise InputError(f"{out} exists already; choose another file with --out, or overwrite it with --again")
    prior, network, about = import_published(file, **given)
    save_prior(out, prior, network, about)

    shape = ", ".join(f"{key} {value}" for key, value in network.items() if key != "name")
    parameters = sum(parameter.numel() for parameter in prior.network.parameters())
    say(f"{file}: layout of {about['layout']}, {about['weights']} weights, trained on: {about['trained_on']}")
    say(f"  network      {network['name']} ({shape}), {parameters:,} parameters")
    say(f"  noise levels {prior.sigma_max:g} to {prior.sigma_min:g}")
    if network["channels"] != 2:
        note(f"a prior of {network['channels']}-channel images; reconstruct needs 2 channels", indent=2)
    say(f"{out}: {about['licence']}")
