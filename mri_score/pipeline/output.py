"""The result file of a volume: images, scores, pictures and report page in one HDF5 file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from mri_score import __version__
from mri_score.evaluation.intervals import TARGETS
from mri_score.evaluation.panel import choose_zoom, panel, picture, zoomed
from mri_score.evaluation.report import Film, Report, SliceFigures, Table, render_report, score_table
from mri_score.methods import METHODS
from mri_score.pipeline.options import Options
from mri_score.pipeline.placement import write_placement
from mri_score.pipeline.result import Volume
from mri_score.pipeline.result_file import MVUE, SCORES, Pictures
from mri_score.readers.hdf5 import new_hdf5

Value = TypeVar("Value")
LONGEST_FILM = 60
"""Largest number of frames of a film in a report."""
REPORTED_SLICES = 4
"""Largest number of slices in a report, evenly spaced; a page with all slices would be too large."""

def write_volume(
    folder: Path, volume: Volume, options: Options, attributes: dict[str, Any], facts: dict[str, str] | None = None
) -> Path:
    """Write reconstructions/<name>.h5, with `reconstruction` as fastMRI's tools read it; return its path.

    The file appears when all of it is there. It holds everything that a volume is finished with: other files
    (`pipeline.derived`) are made from it, and can be made again without the scan.
    Other datasets: reconstruction_complex, std, slices, mask or trajectory, scores (a table with the columns SCORES),
    the groups pictures (report page and panels) and geometry, ismrmrd_header where the scan has one, and if asked for
    interval, interval_complex, interval_blocks_4, _8 and _16 (half widths for means of blocks) and samples.
    folder: the output folder. options: the settings of the run. attributes: written beside the facts of the volume.
    facts: further entries of the report.
    Errors: InputError where the file cannot be written.
    """
    path = folder / "reconstructions" / volume.name
    pictures = draw_pictures(volume, options, facts or {})
    with new_hdf5(path) as file:
        unit = volume.unit
        file["reconstruction"] = (unit * volume.rss).numpy().astype(np.float32)
        file["reconstruction_complex"] = (unit * volume.image).numpy().astype(np.complex64)
        file["std"] = (unit * volume.std).numpy().astype(np.float32)
        for name, target in zip(("interval", "interval_complex"), TARGETS, strict=True):
            if (interval := volume.interval(target)) is not None:
                file[name] = (unit * interval).numpy().astype(np.float32)
        for side, factor in (volume.intervals.at(volume.acceleration).blocks if volume.intervals else {}).items():
            half = factor * np.stack(volume.block_std(int(side)))
            file[f"interval_blocks_{side}"] = (unit * half).astype(np.float32)
        if volume.mask is not None:
            masks = volume.mask[:, 0].numpy()
            file["mask"] = masks[0] if len(masks) == 1 else masks
        if volume.trajectory is not None:
            file["trajectory"] = volume.trajectory.numpy()
        file["slices"] = np.array(volume.slices)
        if options.keep_samples:
            file["samples"] = (unit * torch.stack(volume.samples, 1)).numpy().astype(np.complex64)
        if rows := score_rows(volume, options):
            file["scores"] = _table(rows)
        write_placement(file, volume.geometries, volume.header, volume.frames)
        stored = file.create_group("pictures")
        stored["page"] = np.frombuffer(pictures.page.encode(), np.uint8)
        for name, png in pictures.panels.items():
            stored[f"panels/{name}"] = np.frombuffer(png, np.uint8)
        file.attrs.update({name.lower().replace(" ", "_"): _value(text) for name, text in volume.facts.items()})
        numbers = {"acceleration": volume.acceleration, "true_acceleration": volume.acceleration, **_figures(volume)}
        file.attrs.update(numbers | attributes)  # the nominal acceleration, if there is one
        file.attrs.update({"mri_score": __version__, "complete": True})
    return path


def _value(text: str) -> str | int | float:
    """A number where a fact is one, such as the seed."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _figures(volume: Volume) -> dict[str, Any]:
    """Numbers for the file's attributes: out-of-distribution score, coverage of intervals, misfit of left-out lines."""
    figures: dict[str, Any] = {"noise_std": float(np.mean(volume.noise))} if volume.noise else {}
    figures |= {"misfit_ratio": max(volume.misfit_ratios)} if volume.misfit_ratios else {}
    if volume.left_out:
        figures["left_out"] = np.array(volume.left_out)
    if (check := volume.interval_check()) is not None:
        figures["interval_level"] = check.level
        figures |= {f"interval_factor_{target}": value for target, value in check.factors.items()}
        figures |= {f"interval_coverage_{target}": value for target, value in check.coverage.items()}
        figures |= {f"{name}_bound": min(values) for name, values in check.bounds.items()}
    if volume.held_out:
        judged = list(volume.held_out.values())[-1]  # the method itself; baselines stand before it
        figures["held_out_misfit"] = judged.misfit
        figures |= {} if judged.ratio is None else {"held_out_ratio": judged.ratio}
    return figures


def score_rows(volume: Volume, options: Options) -> list[dict[str, Any]]:
    """The scores of a volume, one row for each target, region and method, with the columns SCORES.

    PSNR is in dB; seconds are for the whole volume, NaN where they were not measured. Empty without ground truth.
    """
    return [
        {
            "target": target,
            "region": region,
            "method": one.method,
            **{key: float(getattr(one, region)[key]) for key in ("psnr", "ssim", "nmse")},
            "seconds": np.nan if one.seconds is None else one.seconds,
        }
        for target, methods in volume.scores(options.estimate).items()
        for one in methods
        for region in ("foreground", "whole")
    ]


def _table(rows: list[dict[str, Any]]) -> np.ndarray:
    """The rows as a table of texts in UTF-8 and of numbers."""
    cells = [[row[key].encode() if isinstance(row[key], str) else row[key] for key in SCORES] for row in rows]
    columns = zip(*cells, strict=True)
    kinds = [f"S{max(map(len, column))}" if isinstance(column[0], bytes) else "f8" for column in columns]
    return np.array([tuple(row) for row in cells], dtype=list(zip(SCORES, kinds, strict=True)))


def _misfit_table(volume: Volume) -> Table:
    """The table of left-out samples: one row per method, the lowest misfit in bold."""
    held_out = volume.held_out
    rows = [
        [name, f"{one.misfit:.2f}", *("–" if value is None else f"{value:.2f}" for value in (one.expected, one.ratio))]
        for name, one in held_out.items()
    ]
    least = min(range(len(rows)), key=lambda row: list(held_out.values())[row].misfit)
    best = frozenset({(least, 1)} if len(rows) > 1 else ())
    return Table(f"{volume.facts['Held out']} left out", ["Method", "Misfit", "Expected", "Ratio"], rows, best=best)


def draw_films(volume: Volume) -> list[Film]:
    """A film of each slice of which there are several images: contrasts, sets, phases or repetitions.

    volume: the result. At most REPORTED_SLICES slices and LONGEST_FILM frames, evenly spaced.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for place, item in enumerate(volume.items):
        groups.setdefault((item.slab, item.slice), []).append(place)
    series = [places for places in groups.values() if len(places) > 1]
    films = []
    for places in _spread(series, REPORTED_SLICES):
        shown = _spread(places, LONGEST_FILM)
        magnitude = torch.stack([volume.rss[place] for place in shown])
        std = torch.stack([volume.std[place] for place in shown]) if len(volume.samples[0]) > 1 else None
        white = float(np.percentile(magnitude.numpy(), 99.5))
        spread = None if std is None else (0.0, max(float(np.percentile(std.numpy(), 99.5)), 1e-12 * white))
        films.append(
            Film(
                f"Slice {volume.items[places[0]].slice}",
                [picture(one, (0.0, white)) for one in magnitude],
                [] if std is None else [picture(one, spread) for one in std],
                [str(volume.items[place]) for place in shown],
            )
        )
    return films


def _spread(values: Sequence[Value], most: int) -> list[Value]:
    """At most so many of the values, evenly spaced, the first and the last among them."""
    places = np.linspace(0, len(values) - 1, min(len(values), most)).round().astype(int)
    return [values[place] for place in places.tolist()]


def draw_pictures(volume: Volume, options: Options, facts: dict[str, str]) -> Pictures:
    """Draw a panel of each reported slice, and the report. facts: further entries of the report."""
    shown = _spread(range(len(volume.slices)), REPORTED_SLICES)
    titles = [str(one).capitalize() for one in volume.items] or [f"Slice {number}" for number in volume.slices]
    panels: dict[str, bytes] = {}
    figures = []
    scores = volume.scores(options.estimate).get(MVUE, [])
    captions = {one.method: f"{one.foreground['psnr']:.2f} dB, {one.foreground['ssim']:.3f}" for one in scores}
    std = volume.std if len(volume.samples[0]) > 1 else None
    for place in shown:
        images = {title: found[place] for title, found in volume.baselines.items()}
        images[options.estimate] = volume.rss[place]
        zoom = choose_zoom(volume.rss[place], None if std is None else std[place])
        png = panel(
            images,
            truth=volume.truth[place].abs() if volume.truth else None,
            std=None if std is None else std[place],
            captions=captions or None,
            zoom=zoom,
        )
        panels[f"{Path(volume.name).stem}-slice{volume.slices[place]:03d}.png"] = png
        white = float(np.percentile(volume.rss[place].numpy(), 99.5))
        draws = (volume.samples[place].abs() * volume.weight[place]).numpy()
        shown_draws = draws if len(draws) > 1 else draws[:0]
        flips = [picture(draw, (0.0, white)) for draw in shown_draws]
        zooms = [picture(zoomed(draw, zoom), (0.0, white)) for draw in shown_draws]
        figures.append(SliceFigures(titles[place], png, flips, zooms))
    notes = list(volume.notes)
    if not volume.truth:
        notes.append("The scan was acquired undersampled: there is no ground truth, so there are no scores.")
    if not METHODS[options.method].draws:
        notes.append(f"{options.method} gives point estimates: their spread does not measure uncertainty.")
    extra = {}
    if volume.complex_nrmse:
        extra["Complex NRMSE"] = f"{np.mean(volume.complex_nrmse):.4f} (truth combined with the maps used)"
    page = Report(
        title=Path(volume.name).stem,
        facts=volume.facts | facts | extra,
        notes=notes,
        tables=[score_table(target, methods) for target, methods in volume.scores(options.estimate).items()],
        calibration=volume.calibration() if METHODS[options.method].draws else None,
        intervals=volume.interval_check(),
        held_out=_misfit_table(volume) if volume.held_out else None,
        films=draw_films(volume),
        slices=figures,
    )
    return Pictures(panels, render_report(page))
