"""The work of mri-score bids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mri_score.errors import InputError
from mri_score.pipeline.bids import BidsScan, Derivative, find_scans, write_description

from .reconstruct import ReconstructOptions, reconstruct_all

FIXED: dict[str, Any] = {
    "trajectory": None, "warm_start": None, "slices": None, "axes": None, "ignore_mask": False, "maps": None,
    "full_maps": False, "operator": "torch", "check_lines": None, "intervals": None, "keep_samples": False,
    "shard": None, "write": "hdf5", "dicom_like": None,
}  # fmt: skip
"""Options of reconstruct that bids does not have."""


def bids_all(folder: Path, out: Path, more: Sequence[str], options: Mapping[str, Any]) -> None:
    """Reconstruct the scans of a dataset. folder: IN. out: OUT. more: labels after the first. options: of the command.

    Errors: InputError for a dataset without such scans, and as for reconstruct.
    """
    rest = dict(options)
    participants, sessions = rest.pop("participants"), rest.pop("sessions")
    if more and not participants:
        raise InputError(f"what does {' '.join(more)} mean? labels follow --participant-label")
    scans = find_scans(folder, [*participants, *more], sessions)
    given = ReconstructOptions(**{**FIXED, **{name: rest[name] for name in rest}, "out": out / "mri_score"})
    if not given.dry_run:
        write_description(out, folder)
    reconstruct_all(
        [scan.path for scan in scans], given, partial(_derivative, out, {scan.path: scan for scan in scans})
    )


def _derivative(out: Path, scans: Mapping[Path, BidsScan], path: Path) -> list[Derivative]:
    scan = scans[path]
    return [Derivative(out / scan.folder, records=out / "mri_score" / "written", scan=scan)]
