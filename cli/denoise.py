"""mri-score denoise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import (
    ANY_PATH,
    FOLDER,
    axes_option,
    bad_slices_option,
    coils_option,
    device_options,
    ignore_mask_option,
    one_channel_option,
    precision_option,
    prior_option,
    shard_option,
    slices_option,
)


@click.command("denoise")
@click.argument("scan", type=ANY_PATH)
@click.option("--out", "-o", type=FOLDER, default=Path("out"), show_default=True, help="Folder for the results.")
@prior_option
@one_channel_option
@slices_option
@axes_option
@bad_slices_option
@ignore_mask_option
@click.option(
    "--noise-std", type=click.FloatRange(0, min_open=True), metavar="X",
    help="Noise level: standard deviation of the real, and of the imaginary, part of a k-space sample, in the file's"
    " units.  [default: measured]",
)  # fmt: skip
@click.option(
    "--probes", type=click.IntRange(1), default=16, show_default=True,
    help="Number of random vectors that estimate the standard deviation; more give a smoother map.",
)  # fmt: skip
@click.option("--maps", type=ANY_PATH, help="File or folder of coil maps (.h5 or .npy).  [default: ESPIRiT]")
@coils_option
@click.option("--seed", default=0, show_default=True, help="Random seed of the probes.")
@precision_option
@device_options
@shard_option
def command(scan: Path, **options: Any) -> None:
    """Denoise SCAN, a fully sampled file or a folder of files, at the measured noise level of each slice.

    The coil images are combined with coil maps, so that the noise stays white. The prior's denoiser gives the posterior
    mean, and its Jacobian the posterior standard deviation. --out gets denoised/<file>.h5 with the datasets
    reconstruction, reconstruction_complex, std and noisy, and pictures.

    \b
    Examples:
      mri-score denoise scan.h5
      mri-score denoise noisy/ --prior runs/brain_noisy_sure --slices middle
    """
    from .run.denoise import DenoiseOptions, denoise_all

    denoise_all(scan, DenoiseOptions(**options))
