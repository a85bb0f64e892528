"""Several output folders of reconstruct as one: their tables of scores, and a report page over all volumes."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from mri_score.errors import InputError
from mri_score.evaluation.report import FORMATS, HEADS, Report, Table, write_report
from mri_score.files import write_text
from mri_score.pipeline.derived import COLUMNS, read_metrics
from mri_score.pipeline.result_file import MVUE

Row = dict[str, str]
"""A row of metrics.csv."""
IDENTITY = ("file", "target", "region", "method")
"""Columns of which two rows with the same values are the same row."""


def merge_folders(folders: Sequence[Path], out: Path) -> tuple[Path, Path]:
    """Write out/metrics.csv with the rows of all folders, and out/report/index.html over all volumes.

    The pages of single volumes stay where they are; the report names their folders. A row that several folders have
    alike is taken once; measured seconds may differ.
    folders: output folders of `reconstruct`. out: may be one of them.
    Returns the paths of table and report.
    Errors: InputError for a folder without results, and for a volume whose scores differ between folders.
    """
    rows = _merged(folders)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / "metrics.csv", text.getvalue())
    facts = {
        "Volumes": str(len({row["file"] for row in rows} | {name for folder in folders for name in _results(folder)})),
        "Pages": ", ".join(str(folder / "report") for folder in folders),
    }
    tables = [mean_table(rows), volume_table(rows)] if rows else []  # scans without ground truth have no scores
    page = Report(title="All volumes", facts=facts, tables=tables)
    return out / "metrics.csv", write_report(out / "report", page)


def _results(folder: Path) -> set[str]:
    return {path.name for path in (folder / "reconstructions").glob("*.h5")}


def _merged(folders: Sequence[Path]) -> list[Row]:
    found: dict[tuple[str, ...], tuple[Row, Path]] = {}
    for folder in folders:
        if not (folder / "metrics.csv").is_file() and not _results(folder):
            raise InputError(f"{folder} has no results of mri-score reconstruct; give the folders that its --out named")
        for row in read_metrics(folder / "metrics.csv"):
            first, place = found.setdefault(tuple(row[column] for column in IDENTITY), (row, folder))
            if any(first[column] != row[column] for column in FORMATS):
                raise InputError(
                    f"{row['file']} has other scores of {row['method']} in {folder} than in {place}, so they were"
                    " made with other options; merge only folders that were made with the same options"
                )
    return sorted((row for row, _ in found.values()), key=lambda row: row["file"])


def volume_table(rows: Iterable[Row]) -> Table:
    """The scores of each volume and method against |MVUE| in the foreground. rows: of metrics.csv."""
    kept = [[row["file"], row["method"], row["psnr"], row["ssim"], row["nmse"]] for row in rows if _main(row)]
    return Table(f"Against {MVUE}, foreground", ["Volume", "Method", *HEADS.values()], kept)


def mean_table(rows: Iterable[Row]) -> Table:
    """The mean over volumes for each method against |MVUE| in the foreground. rows: of metrics.csv."""
    methods: dict[str, list[Row]] = {}
    for row in rows:
        if _main(row):
            methods.setdefault(row["method"], []).append(row)
    kept = []
    for method, own in methods.items():
        means = [form.format(statistics.fmean(float(one[key]) for one in own)) for key, form in FORMATS.items()]
        kept.append([method, str(len(own)), *means])
    heads = ["Method", "Volumes", *HEADS.values()]
    return Table(f"Mean over volumes, against {MVUE}, foreground", heads, kept)


def _main(row: Row) -> bool:
    return row["target"] == MVUE and row["region"] == "foreground"
