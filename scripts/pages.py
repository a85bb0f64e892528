"""Pages of docs/ whose tables are made by scripts, between marks such as <!-- real --> and <!-- end of real -->."""

from __future__ import annotations

from pathlib import Path

from mri_score.errors import InputError
from mri_score.files import write_text


def check(page: Path | None, *names: str) -> None:
    """Check, before a long run, that an existing page has the marks of these tables."""
    if page is None:
        return
    text = page.read_text(encoding="utf-8")
    for name in names:
        start, end = _marks(name)
        if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
            raise InputError(f"{page} needs the marks {start.strip()} and {end}, once each, around what is renewed")


def fill(page: Path, **tables: str) -> None:
    """Put each text between the marks of its name; text outside of marks is written by hand, and not changed."""
    check(page, *tables)
    text = page.read_text(encoding="utf-8")
    for name, table in tables.items():
        start, end = _marks(name)
        before, rest = text.split(start)
        text = f"{before}{start}\n{table.strip()}\n\n{end}{rest.split(end)[1]}"
    write_text(page, text)


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name} -->\n", f"<!-- end of {name} -->"
