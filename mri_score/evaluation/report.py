"""The report of a reconstruction: one self-contained HTML file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

from mri_score.files import write_text

if TYPE_CHECKING:  # a summary of finished volumes needs no torch
    from mri_score.evaluation.uncertainty import EnsembleCalibration

FORMATS = {"psnr": "{:.2f}", "ssim": "{:.4f}", "nmse": "{:.4f}"}
HEADS = {"psnr": "PSNR (dB)", "ssim": "SSIM", "nmse": "NMSE"}


@dataclass(frozen=True)
class MethodScores:
    """Scores of one method against one target, from `volume_scores`: inside the foreground, and of the whole image.

    seconds: for the volume; None if they were not measured.
    """

    method: str
    foreground: Mapping[str, float]
    whole: Mapping[str, float]
    seconds: float | None = None


@dataclass(frozen=True)
class Table:
    """A table of text.

    caption: the title. columns: the header. rows: the cells. spans: titles above the header, with the number of columns
    of each. best: (row, column) of cells in bold.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    spans: Sequence[tuple[str, int]] = ()
    best: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class IntervalCheck:
    """Conformal intervals of one volume, and their coverage."""

    level: float
    """Nominal coverage."""
    factors: Mapping[str, float]
    """Target ("magnitude", "component", "mean of 16 x 16 pixels") -> factor for the standard deviation."""
    coverage: Mapping[str, float]
    """Target -> share of the foreground that is covered; empty without ground truth."""
    fitted: str
    """The data of the fit, such as "88 slices of 1 volume at acceleration 4.00"."""
    bounds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """"psnr" (dB) or "ssim" -> its lower bound for each slice, inside the foreground against |MVUE|."""


@dataclass(frozen=True)
class SliceFigures:
    """Pictures of one slice, as PNG bytes: the panel, each of the samples, and each of them enlarged (zooms).

    title: above the pictures.
    """

    title: str
    panel: bytes
    samples: Sequence[bytes] = ()
    zooms: Sequence[bytes] = ()


@dataclass(frozen=True)
class Film:
    """Pictures of the frames of one slice, as PNG bytes, in one grey window.

    title: above the film. frames: the reconstruction of each frame. stds: its standard deviation, or nothing. labels:
    the text of each frame.
    """

    title: str
    frames: Sequence[bytes]
    stds: Sequence[bytes]
    labels: Sequence[str]


@dataclass(frozen=True)
class Report:
    """Content of a report, in the order of the page; empty parts are left out.

    title: of the page. facts: name -> text about the run; names that contain "patient" are not printed. notes:
    warnings, shown before all figures. tables: of scores. calibration: of the draws. intervals: conformal, with their
    coverage. held_out: table of how well each method predicts left-out samples. films: of series. slices: pictures.
    """

    title: str
    facts: Mapping[str, str]
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    calibration: EnsembleCalibration | None = None
    intervals: IntervalCheck | None = None
    held_out: Table | None = None
    films: Sequence[Film] = ()
    slices: Sequence[SliceFigures] = ()


def score_table(target: str, methods: Sequence[MethodScores]) -> Table:
    """The table of scores against one target, such as "|MVUE| from full k-space": one row per method, the best in bold.

    target: name of the ground-truth image, for the caption. methods: scores in the order of the rows.
    """
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


def render_report(report: Report) -> str:
    """The report as an HTML page with all pictures embedded.

    All text is escaped, the page's content security policy blocks network access, and its only script turns the pages
    of the flip-books and films.
    """
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters["png"] = lambda png: "data:image/png;base64," + b64encode(png).decode()
    template = files("mri_score.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    facts = {name: value for name, value in report.facts.items() if "patient" not in name.lower()}
    return page.from_string(template).render(report=report, facts=facts)


def write_report(folder: str | Path, report: Report) -> Path:
    """Write a report to folder/index.html, see `render_report`; return its path.

    Errors: InputError where the folder cannot be written.
    """
    path = Path(folder) / "index.html"
    write_text(path, render_report(report))
    return path
