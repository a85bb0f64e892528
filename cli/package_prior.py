"""mri-score package-prior."""

from __future__ import annotations

from pathlib import Path

import click

from .log import say
from .options import FOLDER


@click.command("package-prior")
@click.argument("prior")
@click.option("--name", help="Name of the prior, for --prior.  [default: that of the file or folder]")
@click.option("--version", default="1.0", show_default=True, help="Version of the package.")
@click.option("--out", "-o", type=FOLDER, default="dist", show_default=True, help="Folder of the wheel.")
def command(prior: str, name: str | None, version: str, out: str) -> None:
    """Pack PRIOR, a folder or a .safetensors file with its model card, as a wheel that pip installs.

    Once it is installed, --prior NAME finds it. The wheel holds weights and texts, and no code.

    \b
    Example:
      mri-score export-prior runs/knee_384 --name knee --summary "Adult knees." --out knee
      mri-score package-prior knee/knee.safetensors
      pip install dist/mri_score_prior_knee-1.0-py3-none-any.whl
      mri-score reconstruct scan.h5 --accel 4 --prior knee
    """
    from mri_score.priors.wheel import write_prior_wheel

    path = write_prior_wheel(prior, Path(out), name, version)
    say(f"{path}  {path.stat().st_size / 2**20:.1f} MB\nnext    pip install {path}", wheel=path)
