"""What is read from a result file: whether it is finished, its scores, its pictures. Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from mri_score.errors import InputError
from mri_score.readers.hdf5 import open_hdf5, reading

MVUE = "|MVUE|, maps from full k-space"
RSS = "RSS of full k-space"
"""The ground-truth images that results are compared with."""
SCORES = ("target", "region", "method", "psnr", "ssim", "nmse", "seconds")
"""The columns of a result's table of scores."""


@dataclass(frozen=True)
class Pictures:
    """The pictures of a volume, as they are stored in its result file."""

    panels: dict[str, bytes]
    """File name -> PNG of one slice."""
    page: str
    """The report, a self-contained HTML page."""


def finished(folder: Path, name: str, identity: int) -> bool:
    """Whether <folder>/reconstructions/<name> is complete, and was made with the same settings and prior.

    identity: a number that settings and prior determine.
    """
    try:
        file = open_hdf5(folder / "reconstructions" / name)
    except InputError:
        return False
    complete = bool(file.attrs.get("complete")) and "pictures" in file  # earlier releases stored none
    return complete and file.attrs.get("identity") == str(identity)


def read_scores(result: Path) -> list[dict[str, Any]]:
    """The rows of `score_rows` in a result file; empty without ground truth. Errors: InputError for a damaged file."""
    with reading(result), h5py.File(result) as file:
        if "scores" not in file:
            return []
        table = file["scores"][()]
    rows = [dict(zip(SCORES, row, strict=True)) for row in table.tolist()]
    return [{key: value.decode() if isinstance(value, bytes) else value for key, value in row.items()} for row in rows]


def read_pictures(result: Path) -> Pictures:
    """The pictures in a result file. Errors: InputError for a damaged file."""
    with reading(result), h5py.File(result) as file:
        stored = file["pictures"]
        panels = {name: png[()].tobytes() for name, png in stored["panels"].items()}
        return Pictures(panels, stored["page"][()].tobytes().decode())
