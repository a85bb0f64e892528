"""The result file of a volume: images, scores, pictures and report page in one HDF5 file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np
import torch

from mri_score import __version__
from mri_score.evaluation.intervals import TARGETS
from mri_score.evaluation.panel import panel, thumbnail
from mri_score.evaluation.report import Report, Table, render_report, score_table
from mri_score.evaluation.viewer import ShownSlice, Viewer
from mri_score.methods import METHODS
from mri_score.pipeline.facts import CG_SENSE
from mri_score.pipeline.options import Options
from mri_score.pipeline.placement import write_placement
from mri_score.pipeline.result import Volume
from mri_score.pipeline.result_file import MVUE, SCORES, Pictures
from mri_score.readers.hdf5 import new_hdf5

Value = TypeVar("Value")
LONGEST_FILM = 60
"""Largest number of frames of a slice in a report."""
SHOWN_SLICES, FILMED_SLICES, SHOWN_DRAWS = 16, 4, 8
"""Largest number of slices in a report, of slices of a series, and of draws, so that the page stays small."""
REPORTED_SLICES = 4
"""Largest number of slices of which panels are drawn, evenly spaced."""

def write_volume(
    folder: Path, volume: Volume, options: Options, attributes: dict[str, Any], facts: dict[str, str] | None = None
) -> Path:
    """Write reconstructions/<name>.h5, with `reconstruction` as fastMRI's tools read it; return its path.

    The file appears when all of it is there. It holds everything that a volume is finished with: other files
    (`pipeline.derived`) are made from it, and can be made again without the scan.
    Other datasets: reconstruction_complex, std, slices, mask or trajectory, scores (a table with the columns SCORES),
    the groups pictures (report page, panels, thumbnail; the warnings as its attribute notes, in JSON) and geometry,
    ismrmrd_header where the scan has one, and if asked for interval, interval_complex, interval_blocks_4, _8 and _16
    (half widths for means of blocks) and samples.
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
        stored["thumbnail"] = np.frombuffer(pictures.thumbnail, np.uint8)
        stored.attrs["notes"] = json.dumps(list(pictures.notes))
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
        if (simple := volume.held_out.get(CG_SENSE)) is not None:
            figures["held_out_misfit_cg_sense"] = simple.misfit
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


def _spread(values: Sequence[Value], most: int) -> list[Value]:
    """At most so many of the values, evenly spaced, the first and the last among them."""
    places = np.linspace(0, len(values) - 1, min(len(values), most)).round().astype(int)
    return [values[place] for place in places.tolist()]


def draw_pictures(volume: Volume, options: Options, facts: dict[str, str]) -> Pictures:
    """Draw a panel of some slices, and the report. facts: further entries of the report; "Date" goes to its foot."""
    shown = _spread(range(len(volume.slices)), REPORTED_SLICES)
    panels: dict[str, bytes] = {}
    captions = _captions(volume, options)
    std = volume.std if len(volume.samples[0]) > 1 else None
    for place in shown:
        images = {title: found[place] for title, found in volume.baselines.items()}
        images[options.estimate] = volume.rss[place]
        panels[f"{Path(volume.name).stem}-slice{volume.slices[place]:03d}.png"] = panel(
            images,
            truth=volume.truth[place].abs() if volume.truth else None,
            std=None if std is None else std[place],
            captions=captions or None,
        )
    notes = _notes(volume, options)
    extra = {"mri_score": __version__}
    if volume.geometries:
        down, across, thick = volume.geometries[0].voxel_size
        extra["Voxel size"] = f"{down:.3g} x {across:.3g} x {thick:.3g} mm"
    if volume.complex_nrmse:
        extra["Complex NRMSE"] = f"{np.mean(volume.complex_nrmse):.4f} (truth combined with the maps used)"
    name = quote(Path(volume.name).name)
    links = [("result (HDF5)", f"../reconstructions/{name}"), ("pictures (PNG)", "../panels/")]
    page = Report(
        title=Path(volume.name).stem,
        subtitle=f"{options.estimate}, acceleration {volume.facts.get('Acceleration', f'{volume.acceleration:.2f}')}",
        facts=volume.facts | {key: text for key, text in facts.items() if key != "Date"} | extra,
        viewer=viewer_of(volume, options),
        notes=notes,
        links=[*links, ("scores (CSV)", "../metrics.csv")] if volume.truth else links,
        tables=[score_table(target, methods) for target, methods in volume.scores(options.estimate).items()],
        calibration=volume.calibration() if METHODS[options.method].draws else None,
        intervals=volume.interval_check(),
        held_out=_misfit_table(volume) if volume.held_out else None,
        date=facts.get("Date", ""),
    )
    middle = volume.rss[len(volume.rss) // 2].numpy()
    return Pictures(panels, render_report(page), thumbnail(middle), notes)


def _captions(volume: Volume, options: Options) -> dict[str, str]:
    """Title of an image -> its scores against |MVUE| in the foreground; empty without ground truth."""
    scores = volume.scores(options.estimate).get(MVUE, [])
    return {one.method: f"{one.foreground['psnr']:.2f} dB, {one.foreground['ssim']:.3f}" for one in scores}


def _notes(volume: Volume, options: Options) -> list[str]:
    """The warnings of the report."""
    notes = list(volume.notes)
    if not volume.truth:
        notes.append("The scan was acquired undersampled: there is no ground truth, so there are no scores.")
    if not METHODS[options.method].draws:
        notes.append(f"{options.method} gives point estimates: their spread does not measure uncertainty.")
    return notes


def viewer_of(volume: Volume, options: Options) -> Viewer:
    """The images of a volume for the viewer of its report.

    At most SHOWN_SLICES slices, evenly spaced; of a series the first frame of at most FILMED_SLICES slices with all
    images, and LONGEST_FILM frames with reconstruction and standard deviation.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for place, number in enumerate(volume.slices):
        item = volume.items[place] if volume.items else None
        groups.setdefault((0, number) if item is None else (item.slab, item.slice), []).append(place)
    series = any(len(places) > 1 for places in groups.values())
    chosen = _spread(list(groups.values()), FILMED_SLICES if series else SHOWN_SLICES)
    rss, std = volume.rss, volume.std if len(volume.samples[0]) > 1 else None
    shown = []
    for at, places in enumerate(chosen):
        for frame, place in enumerate(_spread(places, LONGEST_FILM)):
            title = str(volume.items[place]).capitalize() if volume.items else f"Slice {volume.slices[place]}"
            spread = None if std is None else std[place]
            if frame:
                shown.append(ShownSlice(title, rss[place], at, frame, spread))
                continue
            draws = volume.samples[place][:SHOWN_DRAWS].abs() * volume.weight[place]
            shown.append(
                ShownSlice(
                    title,
                    rss[place],
                    at,
                    std=spread,
                    truth=volume.truth[place] if volume.truth else None,
                    baselines={name: found[place] for name, found in volume.baselines.items()},
                    draws=list(draws) if len(draws) > 1 else [],
                )
            )
    geometry = volume.geometries[0] if volume.geometries else None
    return Viewer(
        shown,
        estimate=options.estimate,
        unit=volume.unit,
        captions=_captions(volume, options),
        pixel=None if geometry is None else geometry.voxel_size[:2],
        edges=geometry.edges if geometry is not None and geometry.oriented else "",
    )
