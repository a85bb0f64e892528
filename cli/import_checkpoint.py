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
    "--sd", type=click.FloatRange(0, min_open=True),
    help="Standard deviation of the training images about zero, of the real and of the imaginary part."
    "  [default: 0.3; 0.5 for EDM's networks]",
)  # fmt: skip
@click.option(
    "--config", "-c", type=ANY_PATH, metavar="FILE",
    help="The config that it was trained with, for what its tensors do not show.  [default: config.yml, config.yaml or"
    " config.json beside FILE]",
)  # fmt: skip
@click.option(
    "--fir/--no-fir", default=None,
    help="NCSN++ only: whether it resamples by the filter 1, 3, 3, 1.  [default: as its tensors or config show, else as"
    " published]",
)  # fmt: skip
@click.option(
    "--skip-rescale/--no-skip-rescale", default=None,
    help="NCSN++ only: whether blocks divide by the square root of 2.  [default: as its config shows, else for biggan"
    " blocks]",
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
    help="What the tensors do not show: ddpm for a DDPM of discrete steps, sub-vp for weights of a sub-VP SDE, ncsn for"
    " a DDPM of a VE SDE, score for an NCSN++ without scale_by_sigma, vp for EDM's networks.",
)  # fmt: skip
@click.option("--again", is_flag=True, help="Overwrite an existing file.")
def command(
    file: Path,
    out: Path,
    again: bool,
    config: Path | None,
    fir: bool | None,
    skip_rescale: bool | None,
    **given: Any,
) -> None:
    """Import FILE, a published checkpoint of NCSN, NCSNv2, NCSN++ or EDM, as a prior.

    Supported are checkpoints of ermongroup/ncsn, of ermongroup/ncsnv2 and the MRI release built on it, of
    utcsilab/score-diffusion-training, of yang-song/score_sde_pytorch and its rewrite, and of EDM's networks, as
    InverseBench releases them, within DataParallel, torch.compile and Lightning. No code in FILE is executed.

    \b
    Example:
      mri-score import-checkpoint checkpoint_100000.pth --out priors/brain_csgm.safetensors
      mri-score reconstruct scan.h5 --prior priors/brain_csgm.safetensors
    """
    from mri_score.migration.published_configs import read_published_config
    from mri_score.priors.published import import_published
    from mri_score.priors.store import save_prior

    out = out if out.suffix == ".safetensors" else out.with_name(f"{out.name}.safetensors")
    if out.exists() and not again:
        raise InputError(f"{out} exists already; choose another file with --out, or overwrite it with --again")
    beside = (file.with_name(name) for name in ("config.yml", "config.yaml", "config.json"))
    config = next((path for path in beside if path.is_file()), None) if config is None else config
    if config is not None:
        given["settings"] = read_published_config(config).sections
        note(f"what the tensors do not show is as in {config}")
    if fir is not None:
        given["fir"] = [1.0, 3.0, 3.0, 1.0] if fir else []
    if skip_rescale is not None:
        given["skip_rescale"] = skip_rescale
    prior, network, about = import_published(file, **given)
    save_prior(out, prior, network, about)

    shape = ", ".join(f"{key} {value}" for key, value in network.items() if key != "name")
    parameters = sum(parameter.numel() for parameter in prior.network.parameters())
    say(f"{file}: layout of {about['layout']}, {about['weights']} weights, trained on: {about['trained_on']}")
    say(f"  network      {network['name']} ({shape}), {parameters:,} parameters")
    say(f"  noise levels {prior.sigma_max:g} to {prior.sigma_min:g}")
    if about.get("not_in_tensors"):
        note(f"not shown by the tensors, taken as published: {about['not_in_tensors']}", indent=2)
    if network["channels"] != 2:
        note(f"a prior of {network['channels']}-channel images; reconstruct needs 2 channels", indent=2)
    say(f"{out}: {about['licence']}")
