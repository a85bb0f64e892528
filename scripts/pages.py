"""Pages of docs/ whose tables are made by scripts, between marks such as <!-- real --> and <!-- end of real -->."""

from __future__ import annotations

from pathlib import Path

from mri_score.errors import InputError
from mri_score.files import write_text


def fill(page: Path, **tables: str) -> None:
    """Put each text between the marks of its name; all that stands outside of them is written by hand, and stays."""
    text = page.read_text(encoding="utf-8")
    for name, table in tables.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        if text.count(start) != 1 or text.count(end) != 1:
            raise InputError(f"{page} needs the marks {start.strip()} and {end}, once each, around what is renewed")
        before, rest = text.split(start)
        text = f"{before}{start}\n{table.strip()}\n\n{end}{rest.split(end)[1]}"
    write_text(page, text)
