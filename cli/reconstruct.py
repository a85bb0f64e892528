"""mri-score reconstruct."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import ANY_PATH, FOLDER, TRAJECTORIES, method_option, precision_option, sampling_options, shard_option


class Walks(click.IntRange):
    """A number of walks, or `auto`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "auto" else super().convert(value, param, ctx)


@click.command("reconstruct")
@click.argument("scan", required=False, type=ANY_PATH)
@sampling_options
@click.option(
    "--prior", "-p", default="brain", show_default=True, help="A bundled prior, a run folder or a .safetensors."
)
@click.option(
    "--trajectory",
    type=click.Choice(TRAJECTORIES),
    help="Simulate a scan along spokes or spirals from a full one, in place of a mask.",
)
@method_option
@click.option("--samples", "-n", type=click.IntRange(1), default=4, show_default=True, help="Posterior draws a slice.")
@click.option("--steps", type=click.IntRange(2), help="Noise levels of a walk.  [default: the method's own]")
@click.option(
    "--warm-start",
    type=float,
    metavar="SIGMA",
    help="Start walks from CG-SENSE, at the first level at or below SIGMA: fewer levels, less of the posterior.",
)
@precision_option
@click.option("--seed", default=0, show_default=True, help="Of the draws; never of the mask.")
@click.option("--slices", metavar="LIST", help="Such as 3, 2:5, 0,4,9 or middle.  [default: all]")
@click.option("--maps", type=ANY_PATH, help="Coil maps to use (.h5 or .npy).  [default: ESPIRiT from the sampled data]")
@click.option("--full-maps", is_flag=True, help="Maps from full k-space: for studies; the report says so.")
@click.option("--coils", type=click.IntRange(1), metavar="N", help="Compress to N virtual coils.")
@click.option(
    "--baselines",
    default="zero-filled,cg-sense,l1-wavelet,tv",
    show_default=True,
    help="Classical methods for comparison: also pnp-bm3d (minutes; needs the package bm3d), bart-l1-wavelet and"
    " bart-tv (need BART), or none. Along a --trajectory gridding takes the place of zero-filled, and l1-wavelet, tv"
    " and the others are not offered.",
)
@click.option(
    "--operator", default="torch", show_default=True, help="torch, or sigpy: the same job through SigPy's linop."
)
@click.option(
    "--check-lines",
    is_flag=False,
    flag_value="0.1",
    metavar="N|SHARE",
    help="Leave out N or a share (0.1 unless said) of the sampled lines, reconstruct from the rest too, and report how"
    " well that predicts them.",
)
@click.option(
    "--intervals",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="From mri-score intervals: writes the half width `interval` beside `std`.",
)
@click.option(
    "--batch-size",
    type=Walks(1),
    default=8,
    show_default=True,
    metavar="N|auto",
    help="Walks at a time: bounds memory; auto takes what fits half of the free memory. Results stay the same.",
)
@click.option("--keep-samples", is_flag=True, help="Write every draw into the file.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all cores]")
@shard_option
@click.option("--out", "-o", type=FOLDER, default=Path("out"), show_default=True, help="Where results go.")
@click.option("--again", is_flag=True, help="Also redo files that are finished.")
@click.option("--dry-run", is_flag=True, help="Say what would be done with each file and what it needs, and stop.")
def command(scan: Path | None, **options: Any) -> None:  # fmt: skip
    """Reconstruct SCAN: a fastMRI file, or a folder of them; without it, a simulated head.

    A full scan is undersampled by --accel and scored against its own truth; a scan that was acquired undersampled
    is taken as it is. Writes reconstructions/, panels/, report/ and metrics.csv into --out.

    \b
    Examples:
      mri-score reconstruct --accel 4
      mri-score reconstruct scan.h5 --accel 8 --samples 8 --out results
      mri-score reconstruct multicoil_val/ --accel 4 --batch-size auto --dry-run
      mri-score reconstruct undersampled/ --prior runs/knee_384 --check-lines 0.1
      mri-score reconstruct scan.h5 --accel 4 --samples 8 --intervals intervals.json
      mri-score reconstruct scan.h5 --accel 4 --trajectory radial
    """
    from .run.reconstruct import ReconstructOptions, reconstruct_all

    reconstruct_all(scan, ReconstructOptions(**options))
