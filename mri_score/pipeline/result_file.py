"""What is read from a result file: whether it is finished, its scores, its pictures. Without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    """The report, a self-contained HTML page. Its links are relative to a folder beside that of the results."""
    thumbnail: bytes = b""
    """PNG of the middle slice, small; empty in files of earlier releases."""
    notes: Sequence[str] = ()
    """The warnings of the report."""


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
        small = stored["thumbnail"][()].tobytes() if "thumbnail" in stored else b""
        notes = json.loads(stored.attrs.get("notes", "[]"))
        return Pictures(panels, stored["page"][()].tobytes().decode(), small, [str(note) for note in notes])


def read_number(result: Path, name: str) -> float | None:
    """The number that is attribute `name` of a result file, or None. Errors: InputError for a damaged file."""
    value = open_hdf5(result).attrs.get(name)
    return float(value) if isinstance(value, (int, float)) else None
