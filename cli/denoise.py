"""mri-score denoise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import ANY_PATH, FOLDER, precision_option, shard_option


@click.command("denoise")
@click.argument("scan", type=ANY_PATH)
@click.option(
    "--prior", "-p", default="brain", show_default=True, help="A bundled prior, a run folder or a .safetensors."
)
@click.option(
    "--noise-std", type=click.FloatRange(0, min_open=True), metavar="X",
    help="Of the real and of the imaginary part of a sample, in the file's units.  [default: as measured]",
)  # fmt: skip
@click.option(
    "--probes", type=click.IntRange(1), default=16, show_default=True,
    help="Random directions that the std is found by: more make it smoother.",
)  # fmt: skip
@click.option("--slices", metavar="LIST", help="Such as 3, 2:5, 0,4,9 or middle.  [default: all]")
@click.option("--maps", type=ANY_PATH, help="Coil maps to use (.h5 or .npy).  [default: ESPIRiT]")
@click.option("--coils", type=click.IntRange(1), metavar="N", help="Compress to N virtual coils.")
@precision_option
@click.option("--seed", default=0, show_default=True, help="Of the probes.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all cores]")
@shard_option
@click.option("--out", "-o", type=FOLDER, default=Path("out"), show_default=True, help="Where results go.")
def command(scan: Path, **options: Any) -> None:
    """Denoise SCAN: a fully sampled fastMRI file, or a folder of them, at each slice's own noise level.

    The coils are combined so that the noise stays white; the prior gives the posterior mean, and its Jacobian the
    posterior's standard deviation. Writes denoised/<file>.h5 (reconstruction, reconstruction_complex, std, noisy) and
    pictures into --out.

    \b
    Examples:
      mri-score denoise scan.h5
      mri-score denoise noisy/ --prior runs/brain_noisy_sure --slices middle
    """
    from .run.denoise import DenoiseOptions, denoise_all

    denoise_all(scan, DenoiseOptions(**options))
