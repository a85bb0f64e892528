"""The rows of a comparison, in one file to which several processes can append."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mri_score.errors import InputError
from mri_score.files import make_folder, no_link
from mri_score.numerics.noise import key
from mri_score.untrusted.text import read_text

IDENTITY = (
    "scan", "file", "slice", "law", "nominal", "mask_seed", "method", "steps", "prior", "precision", "seed", "draws",
)  # fmt: skip
"""Columns that identify a row: two rows that agree in them are the same row."""
TEXTS = ("scan", "patient", "file", "law", "method", "title", "prior", "precision", "hardware")
COUNTS = ("slice", "mask_seed", "draws", "steps", "seed")
NUMBERS = (*COUNTS, "nominal", "true", "noise_std", "mvue_over_rss", "seconds")
REQUIRED = ("scan", "slice", "law", "nominal", "method", "draws")
SUMMARISED = ("patient", "mask_seed", "title", "true", "mvue_over_rss", "hardware", "steps", "prior")
"""Columns that a summary needs besides REQUIRED."""
LARGEST_LEDGER = 1 << 28
"""Largest ledger, in bytes: half a million rows."""


class Ledger:
    """<folder>/cells.jsonl: one JSON object per line. Lines are only appended; readers skip cut and repeated lines.

    A claim is a lock on one byte of cells.lock, which the operating system releases when the process ends for any
    reason.
    Errors: InputError if the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self.path = folder / "cells.jsonl"
        try:
            self._locks = no_link(str(folder / "cells.lock"), os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise InputError(f"cannot write {folder}: {error.strerror}; choose another folder with --out") from error

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows with one write, which is on disk when this returns.

        Errors: InputError if the file cannot be written.
        """
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        try:
            with open(self.path, "ab+", buffering=0, opener=no_link) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write((b"" if _ends_a_line(file.fileno()) else b"\n") + lines.encode())
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}") from error

    @contextmanager
    def claim(self, *parts: object) -> Iterator[bool]:
        """A context: True if this process may run the cell named by `parts`, False while another process runs it."""
        place = key(*parts) >> 1
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, place)

    def rows(self) -> list[dict[str, Any]]:
        return read_rows(self.path)


def identity(row: Mapping[str, Any]) -> tuple:
    return tuple(row.get(column) for column in IDENTITY)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a ledger's file, the first of each identity; lines that were cut off are skipped.

    Errors: InputError for a file that cannot be read, and for values of another type than their columns have.
    """
    rows: dict[tuple, dict[str, Any]] = {}
    for number, line in enumerate(read_text(path, LARGEST_LEDGER).splitlines() if path.exists() else [], 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            _check_kinds(row, f"{path}, line {number}")
            rows.setdefault(identity(row), row)
    return list(rows.values())


def _check_kinds(row: Mapping[str, Any], place: str) -> None:
    """Text in the columns TEXTS, whole numbers in COUNTS, numbers or text in others; None where nothing was measured.
    """
    for column, value in row.items():
        kinds: tuple[type, ...] = (str,) if column in TEXTS else (int,) if column in COUNTS else (int, float, str)
        wrong = column in REQUIRED if value is None else not isinstance(value, kinds) or isinstance(value, bool)
        if wrong or (column not in TEXTS and isinstance(value, str) and column in NUMBERS):
            raise InputError(f"{place}: {column} is {str(value)[:80]!r}, not such a value; remove the line")
    require_columns([row], REQUIRED, place)


def require_columns(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], place: str, filled: bool = False
) -> None:
    """Check that every row has these columns. place: the file, for messages. filled: with numbers, not None.

    Errors: InputError that names a column.
    """
    for row in rows:
        if missing := [
            column for column in columns if column not in row or (filled and not isinstance(row[column], (int, float)))
        ]:
            raise InputError(f"{place} has no {missing[0]}; remove the line, whose cell is then measured again")


def _ends_a_line(file: int) -> bool:
    """Whether the file is empty or its last line whole."""
    size = os.fstat(file).st_size
    return size == 0 or os.pread(file, 1, size - 1) == b"\n"
