"""Files that are made from a result file alone: rows of metrics.csv, panels and the report page.

A volume is finished when its result file and all of these are there. A run that was stopped between them leaves the
result file, and the next run makes the rest from it. A further format is one more class here that offers what `Derived`
says, and takes what it needs from the result file.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any, ClassVar, Protocol
from urllib.parse import quote

from mri_score.errors import InputError
from mri_score.files import alone, whole_file, write_text
from mri_score.pipeline.result_file import SCORES, read_pictures, read_scores
from mri_score.untrusted.names import table_cell
from mri_score.untrusted.text import read_text

COLUMNS = ("file", *SCORES)
"""The columns of metrics.csv."""
LARGEST_TABLE = 64 << 20
"""Largest metrics.csv, in bytes."""


class Derived(Protocol):
    """One kind of file that is made from result files."""

    title: ClassVar[str]
    """What it is, for messages, such as "report"."""

    def current(self, result: Path) -> bool:
        """Whether everything that `write` would write is there already, and is of this result. result: its file."""
        ...

    def write(self, result: Path) -> list[Path]:
        """Write it, each file complete or not at all; return the paths. result: the result file. Errors: InputError."""
        ...


def restore(result: Path, derived: Iterable[Derived]) -> list[str]:
    """Write what is missing beside a result file; return the titles of what was written.

    result: the result file. derived: the kinds of files that belong to it. Errors: InputError.
    """
    missing = [one for one in derived if not one.current(result)]
    for one in missing:
        one.write(result)
    return [one.title for one in missing]


@dataclass(frozen=True)
class Metrics(Derived):
    """The rows of a volume in metrics.csv. `path`: of that table, which has rows of all volumes of a folder."""

    path: Path
    title = "scores"

    def current(self, result: Path) -> bool:
        return self._rows(result) == [row for row in read_metrics(self.path) if row["file"] == table_cell(result.name)]

    def write(self, result: Path) -> list[Path]:
        if self.current(result):  # so that scans without ground truth make no empty table
            return [self.path]
        with alone(self.path):
            kept = [row for row in read_metrics(self.path) if row["file"] != table_cell(result.name)]
            rows = sorted([*kept, *self._rows(result)], key=lambda row: row["file"])
            text = io.StringIO()
            writer = csv.DictWriter(text, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
            write_text(self.path, text.getvalue())
        return [self.path]

    def _rows(self, result: Path) -> list[dict[str, str]]:
        return [{"file": table_cell(result.name), **_as_text(row)} for row in read_scores(result)]


def _as_text(row: dict[str, Any]) -> dict[str, str]:
    numbers = {key: f"{row[key]:.6g}" for key in ("psnr", "ssim", "nmse")}
    texts = {key: table_cell(value) for key, value in row.items() if isinstance(value, str)}
    return {**row, **texts, **numbers, "seconds": "" if isnan(row["seconds"]) else f"{row['seconds']:.2f}"}


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv with the columns COLUMNS; empty if the file does not exist.

    path: of the file. Errors: InputError for a file that is no table, or is larger than LARGEST_TABLE.
    """
    if not path.exists():
        return []
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path, LARGEST_TABLE), newline="")))
    except csv.Error as error:
        raise InputError(f"cannot read {path}: it is no table ({error}); remove it, to write it again") from error
    return [{key: str(row.get(key) or "") for key in COLUMNS} for row in rows]


@dataclass(frozen=True)
class Panels(Derived):
    """A picture of each reported slice. `folder`: where they go."""

    folder: Path
    title = "pictures"

    def current(self, result: Path) -> bool:
        return all(_holds(self.folder / name, png) for name, png in read_pictures(result).panels.items())

    def write(self, result: Path) -> list[Path]:
        panels = {self.folder / name: png for name, png in read_pictures(result).panels.items()}
        for path, png in panels.items():
            _write(path, png)
        return list(panels)


@dataclass(frozen=True)
class Page(Derived):
    """The report page of a volume. `folder`: where its index.html goes."""

    folder: Path
    title = "report"

    def current(self, result: Path) -> bool:
        return _holds(self.folder / "index.html", self._content(result))

    def write(self, result: Path) -> list[Path]:
        path = self.folder / "index.html"
        _write(path, self._content(result))
        return [path]

    def _content(self, result: Path) -> bytes:
        """The page, with links from its folder to the output folder, which has the folder of the result."""
        back = Path(os.path.relpath(result.parent.parent, self.folder)).as_posix()
        return read_pictures(result).page.replace('href="../', f'href="{quote(back)}/').encode()


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as part:
        part.write_bytes(content)
