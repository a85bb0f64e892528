"""mri-score reconstruct."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import names
from .options import (
    ANY_PATH,
    FOLDER,
    TRAJECTORIES,
    axes_option,
    bad_slices_option,
    coils_option,
    device_options,
    ignore_mask_option,
    method_option,
    one_channel_option,
    precision_option,
    prior_option,
    sampling_options,
    shard_option,
    slices_option,
    steps_option,
)


class BatchSize(click.IntRange):
    """A number of draws, or `auto`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "auto" else super().convert(value, param, ctx)


@click.command("reconstruct")
@click.argument("scan", required=False, type=ANY_PATH)
@click.option("--out", "-o", type=FOLDER, default=Path("out"), show_default=True, help="Folder for the results.")
@sampling_options
@click.option(
    "--trajectory", type=click.Choice(TRAJECTORIES),
    help="Simulate a non-Cartesian scan from a fully sampled one, in place of a mask; needs --accel.",
)  # fmt: skip
@click.option(
    "--trajectory-file", type=ANY_PATH, metavar="FILE",
    help="BART's trajectory (.cfl) of the samples in SCAN, a .cfl file. ISMRMRD files hold their own.",
)  # fmt: skip
@prior_option
@one_channel_option
@method_option
@click.option(
    "--samples", "-n", type=click.IntRange(1), default=4, show_default=True, help="Number of draws per slice."
)
@steps_option
@slices_option
@axes_option
@ignore_mask_option
@click.option(
    "--baselines", type=names.BASELINE_LIST, default="zero-filled,cg-sense,l1-wavelet,tv", show_default=True,
    metavar="LIST",
    help="Classical methods to compare with, or none. Also available: pocs (partial Fourier), pnp-bm3d (needs bm3d;"
    " takes minutes),"
    " bart-l1-wavelet and bart-tv (need BART). With --trajectory only zero-filled (as gridding) and cg-sense.",
)  # fmt: skip
@click.option(
    "--intervals", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write conformal intervals, using FILE from mri-score intervals: the half width is saved as `interval`.",
)  # fmt: skip
@click.option(
    "--check-lines", is_flag=False, flag_value="0.1", metavar="N|SHARE|none",
    help="Check the result without ground truth: leave out N lines, or a share of them (0.1 if no number is given),"
    " reconstruct a second time without them, and report how well the result predicts them.  [default: a quick check,"
    " one walk of half the levels, that warns if CG-SENSE predicts them better; none: no check]",
)  # fmt: skip
@click.option(
    "--write", default="hdf5", show_default=True, metavar="LIST",
    help="Formats of the results: hdf5 (always written), nifti, dicom, cfl (BART); such as nifti,dicom.",
)  # fmt: skip
@click.option(
    "--dicom-like", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="A DICOM file of the same exam: --write dicom takes patient and study from it.  [default: no identity]",
)  # fmt: skip
@bad_slices_option
@click.option("--keep-samples", is_flag=True, help="Save every draw in the result file.")
@click.option(
    "--maps", type=ANY_PATH,
    help="File or folder of coil maps (.h5 or .npy).  [default: ESPIRiT from the sampled k-space]",
)  # fmt: skip
@click.option(
    "--full-maps", is_flag=True,
    help="Estimate coil maps from fully sampled k-space, for studies only; the report states it.",
)  # fmt: skip
@click.option(
    "--noise-std", type=click.FloatRange(0, min_open=True), metavar="X",
    help="Noise level of k-space: standard deviation of the real, and of the imaginary, part of a sample, in SCAN's"
    " units.  [default: measured in outer k-space]",
)  # fmt: skip
@coils_option
@click.option("--seed", default=0, show_default=True, help="Random seed of the draws; the mask has its own.")
@click.option(
    "--warm-start", type=float, metavar="SIGMA",
    help="Start from the CG-SENSE image with noise of level SIGMA: faster, but the draws may be less diverse.",
)  # fmt: skip
@precision_option
@click.option(
    "--operator",
    type=names.OPERATOR,
    default="torch",
    show_default=True,
    help="Forward operator: torch, or sigpy (the same operator, built from SigPy linops).",
)
@click.option(
    "--batch-size", type=BatchSize(1), default=8, show_default=True, metavar="N|auto",
    help="Number of draws computed at the same time; lower it to save memory. auto uses at most half of the free"
    " memory. The results do not depend on it.",
)  # fmt: skip
@device_options
@shard_option
@click.option("--again", is_flag=True, help="Redo files that are already finished.")
@click.option("--dry-run", is_flag=True, help="Print what would be done and how much memory it needs, then stop.")
def command(scan: Path | None, **options: Any) -> None:
    """Reconstruct SCAN, a file or a folder of files. Without SCAN a simulated head is reconstructed.

    A fully sampled scan is undersampled by --accel, and the result is scored against the fully sampled image. A scan
    that was acquired undersampled is reconstructed as it is. --out gets reconstructions/ (image, standard deviation),
    panels/ (pictures), report/ (a web page) and, with ground truth, metrics.csv.

    \b
    Examples:
      mri-score reconstruct --accel 4
      mri-score reconstruct scan.h5 --accel 8 --samples 8 --out results
      mri-score reconstruct multicoil_val/ --accel 4 --batch-size auto --dry-run
      mri-score reconstruct undersampled/ --prior runs/knee_384 --check-lines 0.1
      mri-score reconstruct scan.h5 --accel 4 --samples 8 --intervals intervals.json
      mri-score reconstruct scan.h5 --accel 4 --trajectory radial
      mri-score reconstruct scan.h5 --write nifti,dicom --dicom-like exam/0001.dcm
    """
    from .run.finished import ReconstructOptions, nothing_left

    given = ReconstructOptions(**options)
    if nothing_left(scan, given):
        return
    from .run.reconstruct import reconstruct_all

    reconstruct_all(scan, given)
