"""Plot of quality against time, with a panel for each acceleration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mri_score.benchmark.sections import QUALITY, Line, Section
from mri_score.files import whole_file

GREY = "0.45"
GAP = 12.0
"""Distance between the centres of two labels, in points."""
LEADER = {"arrowstyle": "-", "linewidth": 0.5, "alpha": 0.4, "shrinkB": 4, "relpos": (0, 0.5)}
"""Style of the line from a label to its point."""


def write_plot(path: Path, sections: Sequence[Section]) -> None:
    """PSNR of the mean of P draws against their time in seconds, on a log axis; P at the points, baselines in grey."""
    columns = min(len(sections), 2)
    rows = -(-len(sections) // columns)
    figure = Figure(figsize=(8.0 * columns, 5.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    titles = list(dict.fromkeys(line.title for section in sections for line in section.lines if _sampled(line)))
    colours = {title: colormaps["tab10"](place % 10) for place, title in enumerate(titles)}
    for axes, section in zip(figure.subplots(rows, columns, squeeze=False).flat, sections, strict=False):
        _panel(figure, axes, section, colours)
    for axes in figure.axes[len(sections) :]:
        axes.set_visible(False)
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=130)


def _sampled(line: Line) -> bool:
    return "calls" in line.estimates


def _panel(figure: Figure, axes: Axes, section: Section, colours: dict) -> None:
    ends: list[tuple[float, float, str, object]] = []
    for title in dict.fromkeys(line.title for line in section.lines if "seconds" in line.estimates):
        lines = [line for line in section.lines if line.title == title]
        seconds = [line.estimates["seconds"].mean for line in lines]
        quality = [line.estimates[QUALITY] for line in lines]
        means, colour = [one.mean for one in quality], colours.get(title, GREY)
        spread = np.array([[one.mean - one.low, one.high - one.mean] for one in quality]).T
        bars = None if np.isnan(spread).any() else spread
        style = {"marker": "o" if title in colours else "s", "color": colour, "markersize": 6, "linewidth": 1.5}
        axes.errorbar(seconds, means, bars, elinewidth=0.7, **style)
        ends.append((seconds[-1], means[-1], title, colour))
        for line, x, y in zip(lines, seconds, means, strict=True) if title in colours else ():
            axes.annotate(f"{line.draws}", (x, y), (4, -10), textcoords="offset points", fontsize=7, color=colour)
    axes.set(xscale="log", xlabel="seconds a slice", ylabel="PSNR (dB), |MVUE|, foreground", title=section.title)
    axes.grid(True, which="major", color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.06, y=0.08)
    _label(figure, axes, ends)


def _label(figure: Figure, axes: Axes, ends: list[tuple[float, float, str, object]]) -> None:
    """Titles in a column at the right of the panel, in the order of their points and without overlap."""
    low, high = axes.get_ylim()
    height = axes.get_position().height * figure.get_figheight() * 72
    step = GAP / float(height)
    ordered = sorted(ends, key=lambda end: end[1])
    places = [(y - low) / (high - low) for _, y, _, _ in ordered]
    for place in range(1, len(places)):
        places[place] = max(places[place], places[place - 1] + step)
    top = 1.0 - step / 2
    for place in reversed(range(len(places))):
        places[place] = min(places[place], top)
        top = places[place] - step
    for (x, y, title, colour), level in zip(ordered, places, strict=True):
        axes.annotate(
            title, (x, y), (1.02, level), textcoords="axes fraction", va="center", fontsize=8, color=colour,
            arrowprops={**LEADER, "color": colour},
        )  # fmt: skip
