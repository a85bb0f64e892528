"""The report of a reconstruction: one self-contained HTML file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from mri_score import __version__
from mri_score.files import write_text

if TYPE_CHECKING:  # a summary of finished volumes needs no torch
    from mri_score.evaluation.uncertainty import EnsembleCalibration
    from mri_score.evaluation.viewer import Viewer

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
class Report:
    """Content of a report, in the order of the page; empty parts are left out.

    title: of the page. facts: name -> text about the run; names that contain "patient" are not printed. subtitle: the
    most important facts in a line, beside the title. viewer: the images. notes: warnings, counted at the top and
    listed before all figures. links: (title, relative address) of files that belong to the page. tables: of scores.
    calibration: of the draws. intervals: conformal, with their coverage. held_out: table of how well each method
    predicts left-out samples. date: of the run, for the foot of the page.
    """

    title: str
    facts: Mapping[str, str]
    subtitle: str = ""
    viewer: Viewer | None = None
    notes: Sequence[str] = ()
    links: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    calibration: EnsembleCalibration | None = None
    intervals: IntervalCheck | None = None
    held_out: Table | None = None
    date: str = ""


@dataclass(frozen=True)
class StudyRow:
    """One volume in the index of a study.

    title: its name. address: of its own page, relative. thumbnail: PNG of a slice, or None. numbers: column -> value;
    None where there is none. notes: its warnings.
    """

    title: str
    address: str
    thumbnail: bytes | None
    numbers: Mapping[str, float | None]
    notes: Sequence[str] = ()


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
    """The report as an HTML page that holds its images, its style and its script.

    All text is escaped. The page's content security policy allows this one style and this one script, known by their
    SHA-256, and no network access.
    """
    facts = {name: value for name, value in report.facts.items() if "patient" not in name.lower()}
    return _page("report.html.j2", "viewer.js", report=report, facts=facts)


def render_study(title: str, rows: Sequence[StudyRow], links: Sequence[tuple[str, str]] = ()) -> str:
    """The index of several volumes: a table with thumbnails, volumes with warnings first, sortable, with a filter.

    title: of the page. rows: one a volume. links: (title, relative address) of files that belong to all of them.
    """
    ordered = sorted(rows, key=lambda row: (not row.notes, row.title))
    columns = list(dict.fromkeys(name for row in rows for name in row.numbers))
    return _page("study.html.j2", "study.js", title=title, rows=ordered, columns=columns, links=links)


def _page(template: str, script: str, **content: object) -> str:
    from jinja2 import Environment, StrictUndefined  # slow to import

    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters["png"] = lambda png: "data:image/png;base64," + b64encode(png).decode()
    folder = files("mri_score.evaluation")
    read = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in (template, script, "report.css")}
    hashes = {name: b64encode(sha256(text.encode()).digest()).decode() for name, text in read.items()}
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:;"
        f" style-src 'sha256-{hashes['report.css']}'; script-src 'sha256-{hashes[script]}'"
    )
    parts = {"style": read["report.css"], "script": read[script]}
    return page.from_string(read[template]).render(policy=policy, version=__version__, **parts, **content)


def write_report(folder: str | Path, report: Report) -> Path:
    """Write a report to folder/index.html, see `render_report`; return its path.

    Errors: InputError where the folder cannot be written.
    """
    path = Path(folder) / "index.html"
    write_text(path, render_report(report))
    return path
