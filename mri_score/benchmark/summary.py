"""What a comparison found: means with intervals, gains over a reference, as text, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_score.benchmark.ledger import read_rows
from mri_score.benchmark.sections import QUALITY, Line, Section
from mri_score.benchmark.statistics import Estimate, Row, Unit, cell_key, mean_interval, resampling_unit
from mri_score.errors import InputError, unknown_name
from mri_score.files import write_text

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
    "complex_nrmse", "spread_skill", *COVERAGES, *COSTS,
)  # fmt: skip
"""Columns of a row that have a mean and an interval."""
TERMINAL = ("method", "P", "PSNR (dB)", "gain (dB)", "spread / skill", "network calls", "seconds")
"""Columns that a terminal has room for."""
LEAST_MVUE = 0.9
"""Median of |MVUE| / RSS in the foreground: less means that the truth's maps failed."""
MOST_SCANS = 6
"""More scans than these get no table of their own."""


def summarise(rows: Sequence[Row], reference: str | None = None) -> list[Section]:
    """A section for each law and acceleration; gains are paired, cell by cell, over the method `reference`.

    A reference with several numbers of draws counts with the most; one that a section lacks gives it no gains.
    Errors: InputError for no rows, and for a reference that no row has.
    """
    if not rows:
        raise InputError("there are no finished cells to summarise; run: mri-score compare SCANS --out FOLDER")
    if reference is not None and reference not in (known := {row["method"] for row in rows}):
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
    best = max((key for key in found if key[1] == reference), key=lambda key: key[2], default=None)
    base = None if best is None else _quality(found[best])
    titles = list(dict.fromkeys(title for title, _, _ in found))

    def place(key: tuple[str, str, int]) -> tuple:
        """Baselines first, then by appearance and number of draws."""
        return lines[key][0]["steps"] is not None, titles.index(key[0]), key[2]

    return Section(
        law,
        nominal,
        float(np.mean([row["true"] for row in rows])),
        unit,
        [_line(key, found[key], base, unit) for key in sorted(found, key=place)],
        None if best is None else best[0] if best[2] == 1 else f"{best[0]}, mean of {best[2]}",
    )


def _title(row: Row, name_prior: bool) -> str:
    return f"{row['title']}, weights {row['prior'][:6]}" if name_prior and row["prior"] else row["title"]


def _line(
    key: tuple[str, str, int], cells: Mapping[tuple, Sequence[Row]], base: Mapping[tuple, float] | None, unit: Unit
) -> Line:
    estimates = {}
    for quantity in QUANTITIES:
        found = [(row[quantity], cell) for cell, rows in cells.items() for row in rows if row.get(quantity) is not None]
        if found:
            estimates[quantity] = mean_interval([value for value, _ in found], [unit.groups[cell] for _, cell in found])
    quality = _quality(cells)
    gains = {} if base is None else {cell: value - base[cell] for cell, value in quality.items() if cell in base}
    gain = mean_interval(list(gains.values()), [unit.groups[cell] for cell in gains]) if gains else None
    return Line(*key, cells, estimates, gains, gain)


def _quality(cells: Mapping[tuple, Sequence[Row]]) -> dict[tuple, float]:
    return {key: float(np.mean([row[QUALITY] for row in rows])) for key, rows in cells.items()}


def _grouped(rows: Sequence[Row], key: Any) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


# ---- As text.

Columns = list[tuple[str, list[str]]]
"""Titles, each with one text a line of the section."""


def main_table(section: Section) -> Columns:
    """Quality against |MVUE| inside the foreground, gain, calibration and cost, without columns that stay empty."""
    lines = section.lines
    psnr, ssim, nmse = METRICS.values()
    shares = [[line.estimates[one].mean for one in COVERAGES if one in line.estimates] for line in lines]
    columns = [
        *_names(section),
        (psnr[0], _column(section, QUALITY, psnr[1], interval=True)),
        ("gain (dB)", [_show(line.gain, "{:+.2f}".format, interval=True) for line in lines]),
        ("lowest gain", [f"{min(line.gains.values()):+.2f}" if line.gains else "" for line in lines]),
        (ssim[0], _column(section, "mvue_foreground_ssim", ssim[1], interval=True)),
        (nmse[0], _column(section, "mvue_foreground_nmse", nmse[1])),
        ("complex NRMSE", _column(section, "complex_nrmse", "{:.4f}".format)),
        ("spread / skill", _column(section, "spread_skill", "{:.2f}".format)),
        ("coverage of 50, 80, 95 %", [", ".join(f"{100 * share:.0f}" for share in one) for one in shares]),
        *((name, _column(section, cost, form, zeros=False)) for cost, (name, form) in COSTS.items()),
        ("cells", [str(len(line.cells)) for line in lines]),
    ]
    return [(name, column) for name, column in columns if any(column)]


def other_table(section: Section) -> Columns:
    """The other target and the other region."""
    columns = _names(section)
    for target, label in TARGETS.items():
        for region in REGIONS:
            if f"{target}_{region}_psnr" != QUALITY:
                for metric, (name, form) in METRICS.items():
                    columns.append(
                        (f"{label}, {region}: {name}", _column(section, f"{target}_{region}_{metric}", form))
                    )
    return columns


def scan_table(section: Section) -> Columns:
    """PSNR, its gain and SSIM, scan by scan."""
    columns = _names(section)
    for scan in section.scans:
        gains = [[gain for key, gain in line.gains.items() if key[0] == scan] for line in section.lines]
        columns += [
            (f"{scan}: PSNR (dB)", [_mean(line.values(QUALITY, scan), METRICS["psnr"][1]) for line in section.lines]),
            ("gain (dB)", [_mean(one, "{:+.2f}".format) for one in gains]),
            ("SSIM", [_mean(line.values("mvue_foreground_ssim", scan), METRICS["ssim"][1]) for line in section.lines]),
        ]
    return [(name, column) for name, column in columns if any(column)]


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
    """The page: what was measured and how, then the tables of each section."""
    slices = {(row["scan"], row["slice"]) for row in rows}
    doubtful = {(row["scan"], row["slice"]) for row in rows if row["mvue_over_rss"] < LEAST_MVUE}
    parts = [
        "# Comparison",
        f"Scans: {len({row['scan'] for row in rows})}, slices: {len(slices)}, masks of each:"
        f" {len({row['mask_seed'] for row in rows})}. All methods get the same masks, noise levels and coil maps, which"
        " come from the sampled calibration lines. PSNR, SSIM and NMSE are of magnitudes, slice by slice with the"
        " slice's own maximum as range, against |MVUE| (maps from full k-space) inside the foreground where a column"
        " says nothing else."
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
        if 1 < len(section.scans) <= MOST_SCANS:
            parts += ["Scan by scan:", _markdown(scan_table(section))]
        parts += ["Other targets and regions:", _markdown(other_table(section))]
    return "\n\n".join(parts) + "\n"


def _sentence(section: Section) -> str:
    """What the brackets and the gains are, and which methods lack cells."""
    full = len(section.unit.groups)
    gains = f" Gains over {section.reference}, cell by cell." if section.reference else ""
    lacking = [line.name for line in section.lines if len(line.cells) < full]
    note = f" Fewer than all {full} cells, so that only gains compare: {'; '.join(lacking)}." if lacking else ""
    return f"Intervals: {section.unit}.{gains}{note}"


def _markdown(columns: Columns) -> str:
    names = [name for name, _ in columns]
    lines = [names, ["---"] * len(names), *zip(*(column for _, column in columns), strict=True)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def plain(section: Section) -> str:
    """A short table for a terminal."""
    columns = [column for column in main_table(section) if column[0] in TERMINAL]
    widths = [max(map(len, [name, *column])) for name, column in columns]
    lines = [[name for name, _ in columns], *zip(*(column for _, column in columns), strict=True)]
    texts = [
        "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(cells))
        for cells in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    return "\n".join([section.title, _sentence(section), *texts])


# ---- As numbers.

COLUMNS = ("law", "acceleration", "true_acceleration", "method", "draws", "quantity", "mean", "low", "high", "cells",
           "interval")  # fmt: skip


def summary_rows(sections: Sequence[Section]) -> Iterable[dict[str, Any]]:
    """A row a section, method, number of draws and quantity; the gain in PSNR is one of them."""
    for section in sections:
        for line in section.lines:
            found = dict(line.estimates) | ({} if line.gain is None else {"gain": line.gain})
            for quantity, one in found.items():
                cells = line.gains if quantity == "gain" else line.cells
                yield dict(
                    zip(
                        COLUMNS,
                        (section.law, f"{section.nominal:g}", f"{section.true:.4f}", line.title, line.draws, quantity,
                         f"{one.mean:.6g}", f"{one.low:.6g}", f"{one.high:.6g}", len(cells), str(section.unit)),
                        strict=True,
                    )
                )  # fmt: skip


def write_summary(folder: Path, reference: str | None = None) -> list[Section]:
    """Write summary.md, summary.csv and quality.png of a folder that holds cells.jsonl; return what they show."""
    from mri_score.benchmark.quality_plot import write_plot

    rows = read_rows(folder / "cells.jsonl")
    sections = summarise(rows, reference)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(summary_rows(sections))
    write_text(folder / "summary.csv", text.getvalue())
    write_text(folder / "summary.md", markdown(sections, rows))
    write_plot(folder / "quality.png", sections)
    return sections
