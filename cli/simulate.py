"""mri-score simulate."""

from __future__ import annotations

from pathlib import Path

import click

from .options import FOLDER


@click.command("simulate")
@click.option("--out", "-o", type=FOLDER, default=Path("data/simulated"), show_default=True, help="The folder to fill.")
@click.option("--volumes", type=click.IntRange(1), default=2, show_default=True, help="Different heads.")
@click.option("--slices", type=click.IntRange(1), default=8, show_default=True, help="Slices of each.")
@click.option("--size", type=click.IntRange(16), default=256, show_default=True, help="Matrix of the image.")
@click.option("--coils", type=click.IntRange(1), default=8, show_default=True)
@click.option("--noise", type=float, default=36.0, show_default=True, metavar="SNR", help="Of a bright pixel, in dB.")
@click.option("--undersample", type=float, metavar="R", help="Write undersampled scans, without a truth.")
@click.option("--contrast", default="T2", show_default=True, help="T1, T2, PD or FLAIR.")
@click.option("--seed", default=0, show_default=True)
def command(**options: object) -> None:
    """Write simulated head scans in the fastMRI layout, to try every command without a download.

    \b
    Example:
      mri-score simulate --out data/simulated --volumes 4 --noise 20
    """
    from mri_score.data.simulate import simulate

    paths = simulate(**options)  # type: ignore[arg-type]
    for path in paths:
        click.echo(path)
