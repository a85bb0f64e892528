"""The work of mri-score bids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from mri_score.errors import InputError
from mri_score.pipeline.bids import BidsScan, Derivative, find_scans, write_description

from ..reconstruct import command as reconstruct
from .finished import ReconstructOptions
from .reconstruct import reconstruct_all


def defaults() -> dict[str, Any]:
    """The options of reconstruct as they are where none is given."""
    options = [one for one in reconstruct.params if one.expose_value]
    return click.Command("reconstruct", params=options).make_context("reconstruct", []).params


def bids_all(folder: Path, out: Path, more: Sequence[str], options: Mapping[str, Any]) -> None:
    """Reconstruct the scans of a dataset. folder: IN. out: OUT. more: labels after the first. options: of the command.

    Errors: InputError for a dataset without such scans, and as for reconstruct.
    """
    rest = dict(options)
    participants, sessions = rest.pop("participants"), rest.pop("sessions")
    if more and not participants:
        raise InputError(f"what does {' '.join(more)} mean? labels follow --participant-label")
    scans = find_scans(folder, [*participants, *more], sessions)
    every = {name: value for name, value in defaults().items() if name != "scan"}
    given = ReconstructOptions(**{**every, **rest, "out": out / "mri_score"})
    if not given.dry_run:
        write_description(out, folder)
    reconstruct_all(
        [scan.path for scan in scans], given, partial(_derivative, out, {scan.path: scan for scan in scans})
    )


def _derivative(out: Path, scans: Mapping[Path, BidsScan], path: Path) -> list[Derivative]:
    scan = scans[path]
    return [Derivative(out / scan.folder, records=out / "mri_score" / "written", scan=scan)]
