"""mri-score compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import ANY_PATH, FOLDER, precision_option


@click.command("compare")
@click.argument("scans", nargs=-1, type=ANY_PATH)
@click.option("--out", "-o", type=FOLDER, default=Path("comparison"), show_default=True, help="Where results go.")
@click.option(
    "--methods", default="adaptive-draw", show_default=True, metavar="LIST",
    help="Methods, or none. Also deepinv-pigdm, deepinv-mmps, deepinv-dps and deepinv-diffpir: deepinv's, with the"
    " same prior (need the package deepinv).",
)  # fmt: skip
@click.option(
    "--baselines", metavar="LIST", show_default=True,
    default="zero-filled,cg-sense,l1-wavelet,tv,l1-wavelet-tuned,tv-tuned",
    help="Classical methods, or none; the tuned ones have their weight tuned on the truth. Also pnp-bm3d (minutes;"
    " needs the package bm3d), bart-l1-wavelet and bart-tv (need BART), and these -tuned.",
)  # fmt: skip
@click.option("--supervised", metavar="WEIGHTS", help="A supervised network's run folder or .safetensors.")
@click.option("--accel", default="4,8", show_default=True, metavar="LIST", help="Accelerations.")
@click.option("--mask", "laws", default="variable-density", show_default=True, metavar="LIST", help="Mask laws.")
@click.option("--mask-seeds", default="0,1,2", show_default=True, metavar="LIST", help="A mask each.")
@click.option("--slices", default="middle", show_default=True, metavar="LIST", help="Such as 3, 2:5, 0,4,9 or middle.")
@click.option("--samples", "-n", type=click.IntRange(1), default=8, show_default=True, help="Draws of a method.")
@click.option("--steps", multiple=True, metavar="METHOD=N", help="Noise levels of one method; repeatable.")
@click.option(
    "--prior", "-p", default="brain", show_default=True, help="A bundled prior, a run folder or a .safetensors."
)
@precision_option
@click.option("--reference", metavar="METHOD", help="What gains are over.  [default: best-classical]")
@click.option("--seed", default=0, show_default=True, help="Of the draws; never of the masks.")
@click.option(
    "--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Walks at a time: bounds memory."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all cores]")
@click.option("--summary", type=FOLDER, metavar="DIR", help="Only write the tables and the plot of DIR again.")
def command(scans: tuple[Path, ...], **options: Any) -> None:
    """Compare methods on SCANS, fully sampled fastMRI files or folders of them.

    Every method gets the same masks, coil maps and noise levels. Each finished cell (scan, slice, acceleration, mask,
    method) is a line of cells.jsonl in --out, and is not run again; several processes may share one --out. Writes
    summary.md, summary.csv and quality.png. Gains are over the best classical method with its weight tuned on the
    truth (l1-wavelet-tuned or tv-tuned, the better one in each number and cell), in PSNR and SSIM of |MVUE| inside the
    foreground and of RSS in the whole image.

    \b
    Examples:
      mri-score compare scans/ --out comparison
      mri-score compare scans/ --methods adaptive-draw,langevin --steps langevin=100 --accel 4
      mri-score compare scans/ --methods adaptive-draw,deepinv-mmps --baselines tv-tuned,l1-wavelet-tuned,bart-tv-tuned
      mri-score compare --summary comparison
    """
    from .run.compare import CompareOptions, compare, summarise

    given = CompareOptions(**options)
    if given.summary is not None:
        summarise(given.summary, given.reference)
    else:
        compare(scans, given)
