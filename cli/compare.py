"""mri-score compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import names
from .options import (
    ANY_PATH,
    FOLDER,
    axes_option,
    batch_size_option,
    device_options,
    one_channel_option,
    precision_option,
    prior_option,
)


@click.command("compare")
@click.argument("scans", nargs=-1, type=ANY_PATH)
@axes_option
@click.option("--out", "-o", type=FOLDER, default=Path("comparison"), show_default=True, help="Folder for the results.")
@click.option(
    "--methods", type=names.METHOD_LIST, default="matched-draw", show_default=True, metavar="LIST",
    help="Methods as for mri-score reconstruct, or none. Also deepinv-pigdm, deepinv-mmps, deepinv-dps and"
    " deepinv-diffpir: methods of the package deepinv, with the same prior.",
)  # fmt: skip
@click.option(
    "--baselines", metavar="LIST", show_default=True,
    default="zero-filled,cg-sense,l1-wavelet,tv,l1-wavelet-tuned,tv-tuned",
    help="Classical methods, or none. Those named -tuned use the regularisation weight that is best for the ground"
    " truth. Also available: pocs (partial Fourier), pnp-bm3d (needs bm3d;"
    " takes minutes), bart-l1-wavelet, bart-tv (need BART),"
    " and -tuned versions of these.",
)  # fmt: skip
@click.option(
    "--supervised", metavar="WEIGHTS", help="Also compare a supervised network: its run folder or .safetensors file."
)
@click.option("--accel", default="4,8", show_default=True, metavar="LIST", help="Acceleration factors.")
@click.option(
    "--mask", "laws", default="variable-density", show_default=True, metavar="LIST",
    help="Sampling patterns, as for mri-score reconstruct.",
)  # fmt: skip
@click.option(
    "--mask-seeds", default="0,1,2", show_default=True, metavar="LIST", help="Random seeds, one mask for each: the"
    " masks of mri-score reconstruct --mask-seed."
)
@click.option(
    "--slices", default="middle", show_default=True, metavar="LIST",
    help="Slices of each scan, such as 3, 2:5, 0,4,9 or middle.",
)  # fmt: skip
@click.option(
    "--samples", "-n", type=click.IntRange(1), default=8, show_default=True, help="Number of draws per method."
)
@click.option("--steps", multiple=True, metavar="METHOD=N", help="Number of noise levels of METHOD; may be repeated.")
@prior_option
@one_channel_option
@click.option(
    "--reference", metavar="METHOD", help="Report gains relative to this method.  [default: best-classical]"
)
@click.option(
    "--summary", type=FOLDER, metavar="DIR", help="Run nothing; write the tables and the plot of DIR again."
)
@click.option("--seed", default=0, show_default=True, help="Random seed of the draws; the masks have their own.")
@precision_option
@batch_size_option
@device_options
def command(scans: tuple[Path, ...], **options: Any) -> None:
    """Compare methods on SCANS: fully sampled files in any format, or folders of them.

    All methods get the same masks, coil maps and noise levels. Each finished cell (scan, slice, acceleration, mask,
    method) is a line of cells.jsonl in --out and is not run again; several processes may share one --out. Also writes
    summary.md, summary.csv and quality.png.

    Gains are given in PSNR and SSIM, for |MVUE| inside the foreground and for RSS in the whole image. By default they
    are relative to the best classical method tuned on the ground truth: l1-wavelet-tuned or tv-tuned, whichever is
    better in that cell and metric.

    \b
    Examples:
      mri-score compare scans/ --out comparison
      mri-score compare scans/ --methods matched-draw,langevin --steps langevin=100 --accel 4
      mri-score compare scans/ --methods matched-draw,deepinv-mmps --baselines tv-tuned,l1-wavelet-tuned,bart-tv-tuned
      mri-score compare --summary comparison
    """
    from .run.compare import CompareOptions, compare, summarise

    given = CompareOptions(**options)
    if given.summary is not None:
        summarise(given.summary, given.reference)
    else:
        compare(scans, given)
