"""mri-score export-checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from mri_score.errors import InputError

from .log import note, say
from .options import ANY_PATH

LAYOUTS = ("ncsn", "ncsnv2", "score-diffusion-training", "score-sde")
"""The names of `mri_score.priors.published_layouts.LAYOUTS`, repeated here because --help must not import torch."""


@click.command("export-checkpoint")
@click.argument("prior")
@click.option("--layout", type=click.Choice(LAYOUTS), required=True, help="The project whose code is to load it.")
@click.option("--out", "-o", type=ANY_PATH, required=True, metavar="FILE", help="The checkpoint to write.")
@click.option(
    "--levels", type=click.IntRange(2), default=1000, show_default=True,
    help="Number of noise levels in the file, where the network itself has none (model.num_classes, num_scales).",
)  # fmt: skip
@click.option("--again", is_flag=True, help="Overwrite an existing file.")
def command(prior: str, layout: str, out: Path, levels: int, again: bool) -> None:
    """Export PRIOR as a checkpoint that the published code of another project loads.

    PRIOR is a run folder, a .safetensors file or the name of a bundled prior; its network must be one that the project
    has: ncsn; ncsnv2 for ncsnv2 and score-diffusion-training; ncsnpp or ddpm for score-sde. The keys of the config that
    the code needs are printed.

    \b
    Example:
      mri-score export-checkpoint runs/knee_384 --layout ncsnv2 --out checkpoint.pth
    """
    from mri_score.priors.published_layouts import export_published

    if out.exists() and not again:
        raise InputError(f"{out} exists already; choose another file with --out, or overwrite it with --again")
    facts = export_published(prior, layout, out, levels)
    say(f"{out}: layout of {layout}")
    for key, value in facts.items():
        say(f"  {key:<24} {value}")
    if layout == "score-diffusion-training":
        note("its config is a plain dict: DotMap(torch.load(FILE)['config']) gives what the code expects", indent=2)
