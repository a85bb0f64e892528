"""mri-score bids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import names
from .options import (
    FOLDER,
    coils_option,
    device_options,
    method_option,
    precision_option,
    prior_option,
    sampling_options,
    steps_option,
)


@click.command("bids")
@click.argument("folder", metavar="IN", type=FOLDER)
@click.argument("out", metavar="OUT", type=FOLDER)
@click.argument("level", type=click.Choice(["participant"]))
@click.argument("more", metavar="[LABEL]...", nargs=-1)
@click.option(
    "--participant-label", "--participant_label", "participants", multiple=True, metavar="LABEL...",
    help="Participants to do, with or without sub-; several may follow.  [default: all]",
)  # fmt: skip
@click.option(
    "--session-label", "--session_label", "sessions", multiple=True, metavar="LABEL",
    help="Sessions to do, with or without ses-; may be repeated.  [default: all]",
)  # fmt: skip
@sampling_options
@prior_option
@method_option
@click.option(
    "--samples", "-n", type=click.IntRange(1), default=4, show_default=True, help="Number of draws per slice."
)
@steps_option
@click.option(
    "--baselines", type=names.BASELINE_LIST, default="none", show_default=True, metavar="LIST",
    help="Classical methods, for the report.",
)
@coils_option
@click.option("--seed", default=0, show_default=True, help="Random seed of the draws; the mask has its own.")
@precision_option
@click.option(
    "--batch-size", type=click.IntRange(1), default=8, show_default=True,
    help="Number of draws computed at the same time; lower it to save memory.",
)  # fmt: skip
@device_options
@click.option("--again", is_flag=True, help="Redo scans that are already finished.")
@click.option("--dry-run", is_flag=True, help="Print what would be done and how much memory it needs, then stop.")
def command(folder: Path, out: Path, level: str, more: tuple[str, ...], **options: Any) -> None:
    """Reconstruct a BIDS dataset as a BIDS App: IN OUT participant.

    Raw data are scans that are named as BIDS names images, such as sub-01/anat/sub-01_T2w.h5, in IN or IN/sourcedata.
    OUT becomes a derivative dataset: for each scan magnitude, phase and standard deviation as NIfTI with sidecars.
    Result files and reports are in OUT/mri_score.

    \b
    Examples:
      mri-score bids data derivatives/mri_score participant
      mri-score bids data derivatives/mri_score participant --participant-label 01 02
    """
    from .run.bids import bids_all

    bids_all(folder, out, more, options)
