"""The report of a reconstruction: one HTML file that needs nothing but itself."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from mri_score.evaluation.uncertainty import EnsembleCalibration
from mri_score.files import write_text

FORMATS = {"psnr": "{:.2f}", "ssim": "{:.4f}", "nmse": "{:.4f}"}
HEADS = {"psnr": "PSNR (dB)", "ssim": "SSIM", "nmse": "NMSE"}


@dataclass(frozen=True)
class MethodScores:
    """What one method scored against one target, as `volume_scores` gives it, inside the foreground and over all."""

    method: str
    foreground: Mapping[str, float]
    whole: Mapping[str, float]
    seconds: float | None = None


@dataclass(frozen=True)
class Table:
    """A table of text: `spans` are the (title, columns) of the row above `columns`, `best` the cells in bold."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    spans: Sequence[tuple[str, int]] = ()
    best: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class Promise:
    """Intervals of a promised `level`: for each target the factor, and where it is known the share that they kept."""

    level: float
    factors: Mapping[str, float]
    kept: Mapping[str, float]
    fitted: str
    """On what, such as "88 slices of 1 volume at acceleration 4.00"."""


@dataclass(frozen=True)
class SliceFigures:
    """The pictures of one slice as PNG bytes: `panel`, the flip-book's `samples`, and their `zooms`."""

    title: str
    panel: bytes
    samples: Sequence[bytes] = ()
    zooms: Sequence[bytes] = ()


@dataclass(frozen=True)
class Report:
    """All that a report shows, in the order of the page; what is empty is left out.

    `facts` says what was run (name -> text); names that mention the patient are left out. `notes` are warnings
    that a reader must see before the figures; `held_out` says how methods predict samples that were left out.
    """

    title: str
    facts: Mapping[str, str]
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    calibration: EnsembleCalibration | None = None
    promise: Promise | None = None
    held_out: Table | None = None
    slices: Sequence[SliceFigures] = ()


def score_table(target: str, methods: Sequence[MethodScores]) -> Table:
    """The metric table against one target, such as "|MVUE| from full k-space": a row a method, the best in bold."""
    places = [(region, metric) for region in ("foreground", "whole") for metric in FORMATS]
    values = [[getattr(one, region)[metric] for region, metric in places] for one in methods]
    best = set()
    for column, (_, metric) in enumerate(places):
        scores = [row[column] for row in values]
        top = min(scores) if metric == "nmse" else max(scores)
        best |= {(row, column + 1) for row, score in enumerate(scores) if score == top and len(scores) > 1}
    rows = [
        [
            one.method,
            *(FORMATS[metric].format(value) for (_, metric), value in zip(places, row, strict=True)),
            "–" if one.seconds is None else f"{one.seconds:.1f}",
        ]
        for one, row in zip(methods, values, strict=True)
    ]
    heads = [HEADS[metric] for _, metric in places]
    spans = [("", 1), ("Foreground", len(FORMATS)), ("Whole image", len(FORMATS)), ("", 1)]
    return Table(f"Against {target}", ["Method", *heads, "Seconds"], rows, spans, frozenset(best))


def write_report(folder: str | Path, report: Report) -> Path:
    """Write folder/index.html, pictures inside; return its path.

    Every text is escaped, the page forbids itself all network, and scripts only turn the flip-books.
    Errors: InputError where the folder cannot be written.
    """
    path = Path(folder) / "index.html"
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters["png"] = lambda png: "data:image/png;base64," + b64encode(png).decode()
    template = files("mri_score.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    facts = {name: value for name, value in report.facts.items() if "patient" not in name.lower()}
    write_text(path, page.from_string(template).render(report=report, facts=facts))
    return path
