"""Names and text from files and folders, made harmless for terminals, logs and tables."""

from __future__ import annotations

import re
from pathlib import Path

from mri_score.errors import InputError, visible


def require_plain_name(path: Path) -> None:
    """Check that a path can be printed and stored as it is.

    Errors: InputError for control characters, which could forge lines of a log or steer the terminal, and for bytes
    that are not UTF-8.
    """
    text = str(path)
    if visible(text) != text:
        raise InputError(f"the file name {visible(text)} has control characters or is not UTF-8; rename the file")


def table_cell(text: str) -> str:
    """The `text` for a cell of a CSV file: visible, and never taken for a formula by a spreadsheet."""
    text = visible(text)
    return f"'{text}" if re.match(r"\s*[=+\-@]", text) and not _number(text) else text


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
