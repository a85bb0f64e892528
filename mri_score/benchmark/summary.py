"""Summary of a comparison: means with intervals and gains over a reference, as text, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_score.benchmark.ledger import SUMMARISED, read_rows, require_columns
from mri_score.benchmark.sections import QUALITY, Line, Section
from mri_score.benchmark.statistics import Estimate, Row, Unit, cell_key, mean_interval, resampling_unit
from mri_score.benchmark.yardstick import BEST, CANDIDATES, HEADLINE, TITLE, best_classical
from mri_score.errors import InputError, unknown_name
from mri_score.files import write_text
from mri_score.untrusted.names import table_cell

Form = Callable[[float], str]


def _seconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


TARGETS = {"mvue": "|MVUE|", "rss": "RSS"}
REGIONS = ("foreground", "whole")
METRICS: dict[str, tuple[str, Form]] = {
    "psnr": ("PSNR (dB)", "{:.2f}".format),
    "ssim": ("SSIM", "{:.4f}".format),
    "nmse": ("NMSE", "{:.4f}".format),
}
COSTS: dict[str, tuple[str, Form]] = {
    "calls": ("network calls", "{:.0f}".format),
    "products": ("VJPs", "{:.0f}".format),
    "iterations": ("CG iterations", "{:.0f}".format),
    "seconds": ("seconds", _seconds),
    "memory_mib": ("MiB", "{:.0f}".format),
}
COVERAGES = ("coverage_50", "coverage_80", "coverage_95")
QUANTITIES = (
    *(f"{target}_{region}_{metric}" for target in TARGETS for region in REGIONS for metric in METRICS),
    "complex_nrmse", "spread_skill", "spread_skill_4", "spread_skill_8", "spread_skill_16", *COVERAGES, *COSTS,
)  # fmt: skip
"""Columns of a row for which mean and interval are given."""
SIGNED: dict[str, Form] = {"psnr": "{:+.2f}".format, "ssim": "{:+.3f}".format}
"""Format of a difference in a metric."""
TERMINAL = ("PSNR (dB)", "SSIM", "spread / skill", "network calls", "seconds")
"""Columns of the main table that fit into a terminal."""
LEAST_MVUE = 0.9
"""Lower bound of the median of |MVUE| / RSS in the foreground; below it the coil maps of the ground truth failed."""
MOST_SCANS = 6
"""Largest number of scans that have a table for each scan."""


def summarise(rows: Sequence[Row], reference: str | None = None) -> list[Section]:
    """A section for each law and acceleration; gains are paired, cell by cell, over the method `reference`.

    `BEST` is the better of the tuned classical methods, and the default if a cell has both. With a reference that
    draws, draws are compared with draws, and means of P with means of P; a section without the reference has no gains.
    Errors: InputError without rows, and for a reference that no row has.
    """
    if not rows:
        raise InputError("there are no finished cells to summarise; run: mri-score compare SCANS --out FOLDER")
    rows = [*rows, *best_classical(rows)]
    known = {row["method"] for row in rows}
    if reference is None and BEST in known:
        reference = BEST
    if reference is not None and reference not in known:
        if reference == BEST:
            raise InputError(f"the reference {BEST} needs cells of {' and '.join(CANDIDATES)}; run these baselines")
        raise unknown_name("the reference", reference, known)
    grouped = _grouped(rows, lambda row: (row["law"], row["nominal"]))
    return [_section(law, nominal, part, reference) for (law, nominal), part in sorted(grouped.items())]


def _section(law: str, nominal: float, rows: Sequence[Row], reference: str | None) -> Section:
    unit = resampling_unit(rows)
    priors: dict[str, set[str]] = {}
    for row in rows:
        priors.setdefault(row["method"], set()).add(row["prior"] or "")
    lines = _grouped(rows, lambda row: (_title(row, len(priors[row["method"]]) > 1), row["method"], row["draws"]))
    found = {key: _grouped(part, cell_key) for key, part in lines.items()}
    bases = {key[2]: cells for key, cells in found.items() if key[1] == reference}
    name = next((key[0] for key in found if key[1] == reference), None)
    sampled = any(row["steps"] is not None for row in rows if row["method"] == reference)
    titles = list(dict.fromkeys(title for title, _, _ in found))

    def place(key: tuple[str, str, int]) -> tuple:
        """Baselines first, then in order of appearance and number of draws."""
        return lines[key][0]["steps"] is not None, titles.index(key[0]), key[2]

    return Section(
        law,
        nominal,
        float(np.mean([row["true"] for row in rows])),
        unit,
        [_line(key, found[key], bases.get(key[2] if sampled else 1), unit) for key in sorted(found, key=place)],
        f"{name}, draws over draws and means of P over means of P" if sampled else name,
    )


def _title(row: Row, name_prior: bool) -> str:
    return f"{row['title']}, weights {row['prior'][:6]}" if name_prior and row["prior"] else row["title"]


def _line(
    key: tuple[str, str, int],
    cells: Mapping[tuple, Sequence[Row]],
    base: Mapping[tuple, Sequence[Row]] | None,
    unit: Unit,
) -> Line:
    estimates = {}
    for quantity in QUANTITIES:
        found = [(row[quantity], cell) for cell, rows in cells.items() for row in rows if row.get(quantity) is not None]
        if found:
            estimates[quantity] = mean_interval([value for value, _ in found], [unit.groups[cell] for _, cell in found])
    gains: dict[str, dict[tuple, float]] = {}
    if base is not None and (shared := [cell for cell in cells if cell in base]):
        for quantity in HEADLINE:
            ours, theirs = _values(cells, quantity), _values(base, quantity)
            gains[quantity] = {cell: ours[cell] - theirs[cell] for cell in shared}
    gain = {
        quantity: mean_interval(list(found.values()), [unit.groups[cell] for cell in found])
        for quantity, found in gains.items()
    }
    return Line(*key, cells, estimates, gains, gain)


def _values(cells: Mapping[tuple, Sequence[Row]], quantity: str) -> dict[tuple, float]:
    return {key: float(np.mean([row[quantity] for row in rows])) for key, rows in cells.items()}


def _grouped(rows: Sequence[Row], key: Any) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


# ---- As text.

Columns = list[tuple[str, list[str]]]
"""Titles of columns, each with one text per line of the section."""


def main_table(section: Section) -> Columns:
    """The four headline numbers, calibration and cost, without empty columns."""
    lines = section.lines
    shares = [[line.estimates[one].mean for one in COVERAGES if one in line.estimates] for line in lines]
    columns = [
        *_names(section),
        *((_heading(one), _column(section, one, _form(one), interval=one == QUALITY)) for one in HEADLINE),
        ("complex NRMSE", _column(section, "complex_nrmse", "{:.4f}".format)),
        ("spread / skill", _column(section, "spread_skill", "{:.2f}".format)),
        ("of 16 x 16 blocks", _column(section, "spread_skill_16", "{:.2f}".format)),
        ("coverage of 50, 80, 95 %", [", ".join(f"{100 * share:.0f}" for share in one) for one in shares]),
        *((name, _column(section, cost, form, zeros=False)) for cost, (name, form) in COSTS.items()),
        ("cells", [str(len(line.cells)) for line in lines]),
    ]
    return [(name, column) for name, column in columns if any(column)]


def gain_table(section: Section) -> Columns:
    """The gain of each method over the reference in the four headline numbers: mean with interval, and lowest cell."""
    lines = [line for line in section.lines if line.gains and line.method != BEST]
    columns = [
        ("method", [line.title for line in lines]),
        ("P", [str(line.draws) for line in lines]),
        ("cells", [str(len(line.gains[QUALITY])) for line in lines]),
    ]
    for quantity in HEADLINE:
        form = SIGNED[_metric(quantity)]
        columns.append((_heading(quantity), [line.gain[quantity].text(form) for line in lines]))
        columns.append(("lowest", [form(min(line.gains[quantity].values())) for line in lines]))
    return columns if lines else []


def other_table(section: Section) -> Columns:
    """The other targets, regions and metrics."""
    columns = _names(section)
    for target, label in TARGETS.items():
        for region in REGIONS:
            for metric, (name, form) in METRICS.items():
                if (quantity := f"{target}_{region}_{metric}") not in HEADLINE:
                    columns.append((f"{label}, {region}: {name}", _column(section, quantity, form)))
    return columns


def scan_table(section: Section) -> Columns:
    """The headline numbers scan by scan, those of |MVUE| with their gains."""
    columns = _names(section)
    for scan in section.scans:
        for quantity in HEADLINE:
            values = [_mean(line.values(quantity, scan), _form(quantity)) for line in section.lines]
            columns.append((f"{scan}: {_heading(quantity)}", values))
            if quantity.startswith("mvue"):
                found = [line.gains.get(quantity, {}) for line in section.lines]
                gains = [[gain for key, gain in one.items() if key[0] == scan] for one in found]
                columns.append(("gain", [_mean(one, SIGNED[_metric(quantity)]) for one in gains]))
    return [(name, column) for name, column in columns if any(column)]


def _heading(quantity: str) -> str:
    """Title of a headline number in a table; the text above the tables explains those of |MVUE| in the foreground."""
    name = METRICS[_metric(quantity)][0]
    return name if quantity.startswith("mvue") else f"RSS, whole: {name}"


def _metric(quantity: str) -> str:
    return quantity.rpartition("_")[2]


def _form(quantity: str) -> Form:
    return METRICS[_metric(quantity)][1]


def _names(section: Section) -> Columns:
    return [("method", [line.title for line in section.lines]), ("P", [str(line.draws) for line in section.lines])]


def _mean(values: Sequence[float], form: Form) -> str:
    return form(float(np.mean(values))) if values else ""


def _column(section: Section, quantity: str, form: Form, interval: bool = False, zeros: bool = True) -> list[str]:
    found = [line.estimates.get(quantity) for line in section.lines]
    return ["" if one is None or not (zeros or one.mean) else _show(one, form, interval) for one in found]


def _show(estimate: Estimate | None, form: Form, interval: bool) -> str:
    if estimate is None:
        return ""
    return estimate.text(form) if interval else form(estimate.mean)


def markdown(sections: Sequence[Section], rows: Sequence[Row]) -> str:
    """The page: description of the measurements, then the tables of each section."""
    slices = {(row["scan"], row["slice"]) for row in rows}
    doubtful = {(row["scan"], row["slice"]) for row in rows if row["mvue_over_rss"] < LEAST_MVUE}
    parts = [
        "# Comparison",
        f"Scans: {len({row['scan'] for row in rows})}, slices: {len(slices)}, masks of each:"
        f" {len({row['mask_seed'] for row in rows})}. All methods get the same masks, noise levels and coil maps, which"
        " come from the sampled calibration lines. PSNR, SSIM and NMSE are of magnitudes, slice by slice with the"
        " slice's own maximum as range, against |MVUE| (maps from full k-space) inside the foreground where a column"
        " says nothing else."
        f' The line "{TITLE}" is the yardstick: L1-wavelet with cycle spinning and total variation, each with the'
        " weight that has the best PSNR of |MVUE| in the foreground, and in each number the better of the two, cell by"
        " cell."
        " P draws are averaged as complex images; adaptive-draw, exact-draw and daps average their walks' conditional"
        " means instead, at P = 1 too. Network calls, VJPs and CG iterations are those of all P draws; systems that are"
        " solved directly, as line masks allow, make no iterations.",
        f"Cost on {', '.join(sorted({row['hardware'] for row in rows}))}. Seconds leave out coil maps and noise level;"
        " P draws take their share of the whole set, which ran in batches. MiB is the peak of the whole set above what"
        " was there before: on a CPU of the process's resident memory, on a GPU of what torch allocated.",
    ]
    if doubtful:
        names = ", ".join(f"{scan} slice {number}" for scan, number in sorted(doubtful))
        parts.append(
            f"**Doubtful truth**: |MVUE| is less than {LEAST_MVUE:.0%} of RSS in the foreground of {names}: the maps of"
            " full k-space failed there. Trust the columns against RSS."
        )
    parts.append("![quality against seconds](quality.png)")
    for section in sections:
        parts += [f"## {section.title}", _sentence(section), _markdown(main_table(section))]
        if gains := gain_table(section):
            parts += [f"Gains over {section.reference}, cell by cell:", _markdown(gains)]
        if 1 < len(section.scans) <= MOST_SCANS:
            parts += ["Scan by scan:", _markdown(scan_table(section))]
        parts += ["Other targets, regions and metrics:", _markdown(other_table(section))]
    return "\n\n".join(parts) + "\n"


def _sentence(section: Section) -> str:
    """Explanation of brackets and gains, and the methods that lack cells."""
    full = len(section.unit.groups)
    lacking = [line.name for line in section.lines if len(line.cells) < full]
    note = f" Fewer than all {full} cells, so that only gains compare: {'; '.join(lacking)}." if lacking else ""
    return f"Intervals: {section.unit}.{note}"


def _markdown(columns: Columns) -> str:
    names = [name for name, _ in columns]
    lines = [names, ["---"] * len(names), *zip(*(column for _, column in columns), strict=True)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def plain(section: Section) -> str:
    """A section as short tables for a terminal: scores and costs, then gains."""
    table = [column for column in main_table(section) if column[0] in ("method", "P", *TERMINAL)]
    parts = [section.title, _sentence(section), *_aligned(table)]
    if gains := gain_table(section):
        parts += [f"Gains over {section.reference}, cell by cell:", *_aligned(gains)]
    return "\n".join(parts)


def _aligned(columns: Columns) -> list[str]:
    widths = [max(map(len, [name, *column])) for name, column in columns]
    lines = [[name for name, _ in columns], *zip(*(column for _, column in columns), strict=True)]
    return [
        "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(cells))
        for cells in (list(zip(line, widths, strict=True)) for line in lines)
    ]


# ---- As numbers.

COLUMNS = ("law", "acceleration", "true_acceleration", "method", "draws", "quantity", "mean", "low", "high", "cells",
           "interval")  # fmt: skip


def summary_rows(sections: Sequence[Section]) -> Iterable[dict[str, Any]]:
    """One row per section, method, number of draws and quantity, including the gains in the headline numbers."""
    for section in sections:
        for line in section.lines:
            found = dict(line.estimates) | {f"gain_{quantity}": one for quantity, one in line.gain.items()}
            for quantity, one in found.items():
                cells = line.gains[QUALITY] if quantity.startswith("gain_") else line.cells
                yield dict(
                    zip(
                        COLUMNS,
                        (section.law, f"{section.nominal:g}", f"{section.true:.4f}", line.title, line.draws, quantity,
                         f"{one.mean:.6g}", f"{one.low:.6g}", f"{one.high:.6g}", len(cells), str(section.unit)),
                        strict=True,
                    )
                )  # fmt: skip


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The rows of a ledger's file, each with all that a summary needs.

    path: of cells.jsonl. Errors: InputError as in `read_rows`, and for rows that lack a column.
    """
    rows = read_rows(path)
    require_columns(rows, SUMMARISED, f"a row of {path}")
    require_columns(rows, ("true", "mvue_over_rss", *HEADLINE), f"a row of {path}", filled=True)
    return rows


def write_summary(folder: Path, reference: str | None = None) -> list[Section]:
    """Write summary.md, summary.csv and quality.png into a folder with cells.jsonl; return their sections.

    reference: the method that gains are measured from, as in `summarise`.
    """
    from mri_score.benchmark.quality_plot import write_plot

    rows = read_cells(folder / "cells.jsonl")
    sections = summarise(rows, reference)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    for row in summary_rows(sections):
        writer.writerow({key: table_cell(value) if isinstance(value, str) else value for key, value in row.items()})
    write_text(folder / "summary.csv", text.getvalue())
    write_text(folder / "summary.md", markdown(sections, rows))
    write_plot(folder / "quality.png", sections)
    return sections
