"""A volume from file to results: reconstructed slice by slice, scored where there is a truth, written, reported."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import sigpy.mri.linop
import torch
from torch import Tensor

from mri_score import __version__, baselines
from mri_score.data.acquisition import Acquisition
from mri_score.data.held_out import Misfit, hold_out, misfit
from mri_score.data.masks import mask_seed
from mri_score.data.scan import Scan, coil_weight
from mri_score.data.whitening import whiten
from mri_score.errors import InputError, unknown_name
from mri_score.evaluation.conformal import TARGETS, Intervals, covered, predicted_std, relative_errors
from mri_score.evaluation.metrics import complex_nrmse, foreground, volume_scores
from mri_score.evaluation.panel import choose_zoom, panel, picture, save_png, zoomed
from mri_score.evaluation.report import (
    MethodScores,
    Promise,
    Report,
    SliceFigures,
    Table,
    score_table,
    write_report,
)
from mri_score.evaluation.uncertainty import Calibration, calibration
from mri_score.files import whole_file, write_text
from mri_score.numerics.fourier import resize_image
from mri_score.numerics.noise import generators, key
from mri_score.operators.base import LinearOperator
from mri_score.operators.sense import Sense
from mri_score.operators.sigpy import SigpyOperator
from mri_score.reconstruction import DEFAULT_METHOD, METHODS, Progress, Reconstruction, sample_posterior
from mri_score.score import ScoreModel

MVUE = "|MVUE|, maps from full k-space"
RSS = "RSS of full k-space"
REPORTED_SLICES = 4
"""Slices that a report shows, evenly spaced: a page of a whole volume would not open."""


def _sigpy(maps: Tensor, mask: Tensor) -> LinearOperator:
    weights = mask.expand(len(maps), *mask.shape[1:]).cpu().numpy().astype(np.float32)
    linops = [
        sigpy.mri.linop.Sense(one.cpu().numpy(), weights=np.broadcast_to(weight, one.shape[-2:]))
        for one, weight in zip(maps, weights[:, 0], strict=True)
    ]
    return SigpyOperator(linops if len(linops) > 1 else linops[0])


OPERATORS: dict[str, Callable[[Tensor, Tensor], LinearOperator]] = {"torch": Sense, "sigpy": _sigpy}
Baseline = Callable[[Tensor, Tensor, Tensor, float], Tensor]
BASELINES: dict[str, tuple[str, Baseline]] = {
    "zero-filled": ("zero-filled", lambda y, maps, mask, noise_std: baselines.zero_filled(y, maps, mask)),
    "cg-sense": ("CG-SENSE", lambda y, maps, mask, noise_std: baselines.cg_sense(y, maps, mask)),
    "l1-wavelet": ("L1-wavelet", baselines.l1_wavelet),
    "tv": ("total variation", baselines.total_variation),
}
DEFAULT_BASELINES = ("zero-filled", "cg-sense", "l1-wavelet")


@dataclass(frozen=True)
class Options:
    """How a volume is reconstructed; the same for all volumes of a run."""

    method: str = DEFAULT_METHOD
    steps: int | None = None
    samples: int = 4
    seed: int = 0
    batch_size: int = 8
    device: str = "auto"
    operator: str = "torch"
    baselines: Sequence[str] = DEFAULT_BASELINES
    keep_samples: bool = False
    check_lines: float | None = None
    """A number or share of sampled lines, left out of a second reconstruction that must predict them."""
    intervals: Intervals | None = None
    """What makes an interval of the standard deviation."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise unknown_name("the sampler", self.method, METHODS)
        if self.operator not in OPERATORS:
            raise unknown_name("the operator", self.operator, OPERATORS)
        for name in self.baselines:
            if name not in BASELINES:
                raise unknown_name("the baseline", name, BASELINES)

    @property
    def estimate(self) -> str:
        """What the mean of the results is called."""
        if not METHODS[self.method].draws:
            return f"{self.method} estimate" if self.samples == 1 else f"mean of {self.samples} {self.method} estimates"
        return "one posterior draw" if self.samples == 1 else f"posterior mean of {self.samples} draws"


@dataclass
class Volume:
    """What was found of one volume; images in the file's units, cropped to the written size."""

    name: str
    slices: list[int]
    mask: Tensor
    acceleration: float
    """The true one."""
    facts: dict[str, str]
    notes: list[str]
    intervals: Intervals | None = None
    images: list[Tensor] = field(default_factory=list)
    """(h, w) complex, one a slice: what the reconstruction gives as its image."""
    samples: list[Tensor] = field(default_factory=list)
    """(P, h, w) complex, one a slice."""
    stds: list[Tensor] = field(default_factory=list)
    """(h, w): of each real component of the draws."""
    noise: list[float] = field(default_factory=list)
    """Of each real component of k-space, one a slice."""
    weight: list[Tensor] = field(default_factory=list)
    truth: list[Tensor] = field(default_factory=list)
    """(h, w) complex: the MVUE of full k-space."""
    truth_rss: list[Tensor] = field(default_factory=list)
    projected: list[Tensor] = field(default_factory=list)
    """(h, w) complex: the truth's coil images on the maps of the reconstruction."""
    complex_nrmse: list[float] = field(default_factory=list)
    baselines: dict[str, list[Tensor]] = field(default_factory=dict)
    """(h, w) magnitudes in the file's coils."""
    seconds: dict[str, float] = field(default_factory=dict)
    held_out: dict[str, Misfit] = field(default_factory=dict)
    """Of each method, over all slices."""

    @property
    def image(self) -> Tensor:
        """(S, h, w) complex."""
        return torch.stack(self.images)

    @property
    def rss(self) -> Tensor:
        """Magnitude as fastMRI's tools expect it: (S, h, w)."""
        return self.image.abs() * torch.stack(self.weight)

    @property
    def one_draw(self) -> Tensor:
        return torch.stack([draws[0] for draws in self.samples]).abs() * torch.stack(self.weight)

    @property
    def std(self) -> Tensor:
        """(S, h, w), of each real component, in units of the RSS image; zero for one draw."""
        return torch.stack(self.stds) * torch.stack(self.weight)

    @property
    def predicted(self) -> list[np.ndarray]:
        """(h, w) a slice: the standard deviation of the error against a full scan, as `predicted_std` defines it."""
        return [predicted_std(std, noise, self.acceleration) for std, noise in zip(self.stds, self.noise, strict=True)]

    def interval(self, target: str) -> Tensor | None:
        """(S, h, w): half the width of the intervals of one of `TARGETS`, in units of the RSS image."""
        if self.intervals is None:
            return None
        factor = getattr(self.intervals.at(self.acceleration), target)
        return factor * torch.from_numpy(np.stack(self.predicted)) * torch.stack(self.weight)

    def interval_scores(self, target: str) -> list[np.ndarray]:
        """For each slice the errors inside the foreground, in units of `predicted`; none without a truth."""
        if not self.truth:
            return []
        images, truths = self.images, self.projected
        if target == "magnitude":
            images, truths = [image.abs() for image in images], [truth.abs() for truth in truths]
        slices = zip(images, self.predicted, truths, self.foreground, strict=True)
        return [relative_errors(*one) for one in slices if one[-1].any()]

    def promise(self) -> Promise | None:
        """What the intervals promise, and where there is a truth what they keep."""
        if self.intervals is None:
            return None
        factor = self.intervals.at(self.acceleration)
        factors = {target: getattr(factor, target) for target in TARGETS}
        scores = {target: self.interval_scores(target) for target in TARGETS if self.truth}
        fitted = f"{counted(self.intervals.slices, 'slice')} of {counted(self.intervals.volumes, 'volume')}"
        return Promise(
            self.intervals.level,
            factors,
            {target: covered(found, factors[target]) for target, found in scores.items()},
            f"{fitted} at acceleration {factor.acceleration:.2f}",
        )

    @property
    def foreground(self) -> np.ndarray:
        return foreground(torch.stack(self.truth_rss))

    def scores(self, estimate: str) -> dict[str, list[MethodScores]]:
        """For each target, the methods' scores; nothing without a truth."""
        if not self.truth:
            return {}
        methods = {BASELINES[name][0]: torch.stack(images) for name, images in self.baselines.items()}
        if len(self.samples[0]) > 1:
            methods["one draw"] = self.one_draw
        methods[estimate] = self.rss
        inside = self.foreground
        return {
            target: [
                MethodScores(
                    name, volume_scores(truth, image, inside), volume_scores(truth, image), self.seconds.get(name)
                )
                for name, image in methods.items()
            ]
            for target, truth in ((MVUE, torch.stack(self.truth).abs()), (RSS, torch.stack(self.truth_rss)))
        }

    def calibration(self) -> Calibration | None:
        """Whether the draws spread as they err, inside the foreground."""
        if not self.projected or len(self.samples[0]) < 2:
            return None
        return calibration(torch.stack(self.samples, 1), torch.stack(self.projected), self.foreground)


def reconstruct_volume(
    scan: Scan,
    prior: ScoreModel,
    options: Options,
    slices: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Volume:
    """Reconstruct the slices of a scan (default: all), with baselines, and the truth where the file holds it."""
    chosen = list(range(scan.file.slices)) if slices is None else list(slices)
    volume = Volume(scan.file.path.name, chosen, scan.mask, scan.acceleration, {}, scan.notes, options.intervals)
    held = None if options.check_lines is None else _held_out(scan, options.check_lines)
    names = {name: BASELINES[name][0] for name in options.baselines}
    volume.seconds = dict.fromkeys([*names.values(), options.estimate], 0.0)
    levels: list[float] = []
    for number in chosen:
        acquisition = scan.acquisition(number)
        assert acquisition.scale is not None and acquisition.noise_std is not None
        levels.append(float(acquisition.noise_std))
        weight = coil_weight(acquisition)[0]

        for name, title in names.items():
            started = time.perf_counter()
            image = _baseline(name, acquisition) * acquisition.scale[0]
            volume.seconds[title] += time.perf_counter() - started
            volume.baselines.setdefault(name, []).append(_written(image.abs() * weight, scan))

        started = time.perf_counter()
        found = _sample(acquisition, prior, options, number, progress)
        volume.seconds[options.estimate] += time.perf_counter() - started
        volume.images.append(_written(found.image[0], scan))
        volume.samples.append(_written(found.samples[:, 0], scan))
        volume.stds.append(_written(found.std[0], scan))
        volume.noise.append(float(acquisition.noise_std * acquisition.scale))
        volume.weight.append(_written(weight, scan))
        if scan.has_truth:
            _add_truth(volume, scan, number, acquisition, found.image[0])
        if held is not None:
            _check(volume, acquisition, held, prior, options, number, progress)
    volume.facts = _facts(scan, options, levels)
    if held is not None:
        volume.facts["Held out"] = counted(int(held.sum()), "line" if 1 in held.shape[-2:] else "point")
    if options.intervals is not None:
        caution = options.intervals.caution(volume.acceleration)
        volume.notes = [*volume.notes, *([] if caution is None else [caution])]
    return volume


def _sample(
    acquisition: Acquisition, prior: ScoreModel, options: Options, number: int, progress: Progress | None
) -> Reconstruction:
    return sample_posterior(
        acquisition,
        prior,
        options.method,
        steps=options.steps,
        samples=options.samples,
        seed=options.seed,
        batch_size=options.batch_size,
        device=options.device,
        slices=[number],
        operator=OPERATORS[options.operator],
        progress=progress,
    )


def _held_out(scan: Scan, amount: float) -> Tensor:
    """The left-out samples of a volume, which follow from the seed of its mask."""
    seed = key("held-out lines", *mask_seed(scan.file.path.name, scan.sampling.seed))
    return hold_out(scan.mask, scan.file.image_shape, amount, generators(seed)[0])


def _check(
    volume: Volume,
    acquisition: Acquisition,
    held: Tensor,
    prior: ScoreModel,
    options: Options,
    number: int,
    progress: Progress | None,
) -> None:
    """Reconstruct a slice from the other samples, by every method, and let the left-out ones judge."""
    assert acquisition.kspace is not None and acquisition.maps is not None
    assert acquisition.mask is not None and acquisition.noise_std is not None and acquisition.scale is not None
    kept = replace(acquisition, kspace=acquisition.kspace * ~held, mask=acquisition.mask & ~held)
    found = _sample(kept, prior, options, number, progress)
    scale = acquisition.scale[0]
    images: dict[str, tuple[Tensor, Tensor | None]] = {
        BASELINES[name][0]: (_baseline(name, kept), None) for name in options.baselines
    }
    images[options.estimate] = found.image[0] / scale, found.samples[:, 0] / scale
    noise_std = float(acquisition.noise_std)
    for name, (image, samples) in images.items():
        one = misfit(image, acquisition.kspace[0], acquisition.maps[0], held, noise_std, samples)
        volume.held_out[name] = volume.held_out[name] + one if name in volume.held_out else one


def _baseline(name: str, acquisition: Acquisition) -> Tensor:
    assert acquisition.kspace is not None and acquisition.maps is not None
    assert acquisition.mask is not None and acquisition.noise_std is not None
    method = BASELINES[name][1]
    return method(acquisition.kspace[0], acquisition.maps[0], acquisition.mask[0], float(acquisition.noise_std))


def _add_truth(volume: Volume, scan: Scan, number: int, acquisition: Acquisition, image: Tensor) -> None:
    truth, coil_images = scan.truth(number)
    assert acquisition.maps is not None
    maps = acquisition.maps[0]
    mixed = coil_images if acquisition.whitening is None else whiten(coil_images, acquisition.whitening)
    volume.truth.append(_written(truth, scan))
    volume.truth_rss.append(_written(coil_images.abs().square().sum(0).sqrt(), scan))
    volume.projected.append(_written((maps.conj() * mixed).sum(0), scan))
    volume.complex_nrmse.append(complex_nrmse(mixed[None], maps[None], image[None]))


def _written(image: Tensor, scan: Scan) -> Tensor:
    """Cropped to the size that is written."""
    return resize_image(image, scan.file.crop)


def counted(number: int, noun: str) -> str:
    """`1 slice`, `2 slices`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _facts(scan: Scan, options: Options, levels: list[float]) -> dict[str, str]:
    file = scan.file
    nominal = scan.sampling.nominal
    seed = scan.sampling.seed
    level = METHODS[options.method]
    steps = level.steps if options.steps is None else options.steps
    if scan.given_maps is not None:
        source = f"given ({Path(scan.given_maps).name})"
    else:
        source = (
            "full k-space (a study: no real scan has it)"
            if scan.full_maps
            else "the calibration region of the sampled data"
        )
    return {
        "File": file.path.name,
        "Acquisition": f"{file.acquisition}, {counted(file.slices, 'slice')}, {counted(file.coils, 'coil')},"
        f" {file.rows} x {file.cols}",
        "Sampling": scan.sampling.law if scan.sampling.acceleration is not None else "as acquired",
        "Acceleration": f"{scan.acceleration:.2f}" + ("" if nominal is None else f" (nominal {nominal:g})"),
        "Mask seed": "from the file name" if seed is None else str(seed),
        "Coil maps": f"ESPIRiT from {source}" if scan.given_maps is None else source,
        "Coils": "whitened" if scan.noise.whitening is not None and scan.mixing is not None else "as stored",
        "Noise": f"{scan.noise_std:.4g} in the file's units; {np.mean(levels):.4f} of the image scale",
        "Method": f"{options.method}, {steps} levels, {steps * level.calls} network calls a draw",
        "Draws": str(options.samples),
        "Seed": str(options.seed),
        "Operator": options.operator,
    }


def write_volume(folder: Path, volume: Volume, options: Options, attributes: dict[str, Any]) -> Path:
    """Write reconstructions/<name>.h5: `reconstruction` as fastMRI's tools read it, and beside it what made it."""
    path = folder / "reconstructions" / volume.name
    try:
        with whole_file(path) as part, h5py.File(part, "w") as file:
            file["reconstruction"] = volume.rss.numpy().astype(np.float32)
            file["reconstruction_complex"] = volume.image.numpy().astype(np.complex64)
            file["std"] = volume.std.numpy().astype(np.float32)
            for name, target in zip(("interval", "interval_complex"), TARGETS, strict=True):
                if (interval := volume.interval(target)) is not None:
                    file[name] = interval.numpy().astype(np.float32)
            file["mask"] = volume.mask[0, 0].expand(-1, volume.mask.shape[-1]).numpy()
            file["slices"] = np.array(volume.slices)
            if options.keep_samples:
                file["samples"] = torch.stack(volume.samples, 1).numpy().astype(np.complex64)
            file.attrs.update({name.lower().replace(" ", "_"): value for name, value in volume.facts.items()})
            file.attrs.update({"true_acceleration": volume.acceleration, **_figures(volume), **attributes})
            file.attrs.update({"mri_score": __version__, "complete": True})
    except RuntimeError as error:  # what h5py raises where the disk is full
        raise InputError(f"cannot write {path}: {error}; is the disk full?") from error
    return path


def _figures(volume: Volume) -> dict[str, float]:
    """The promise of the intervals and the verdict of the left-out lines, as numbers."""
    figures: dict[str, float] = {}
    if (promise := volume.promise()) is not None:
        figures["interval_level"] = promise.level
        figures |= {f"interval_factor_{target}": value for target, value in promise.factors.items()}
        figures |= {f"interval_coverage_{target}": value for target, value in promise.kept.items()}
    if volume.held_out:
        judged = list(volume.held_out.values())[-1]  # the method itself; baselines stand before it
        figures["held_out_misfit"] = judged.misfit
        figures |= {} if judged.ratio is None else {"held_out_ratio": judged.ratio}
    return figures


def finished(folder: Path, name: str, identity: int) -> bool:
    """Whether reconstructions/<name> is there, whole, from the same settings and prior."""
    try:
        with h5py.File(folder / "reconstructions" / name) as file:
            return bool(file.attrs.get("complete")) and file.attrs.get("identity") == str(identity)
    except OSError:
        return False


COLUMNS = ("file", "target", "region", "method", "psnr", "ssim", "nmse", "seconds")


def score_rows(volume: Volume, options: Options) -> list[dict[str, Any]]:
    """One row a target, region and method, for metrics.csv; seconds are those of the whole volume."""
    return [
        {
            "file": volume.name,
            "target": target,
            "region": region,
            "method": one.method,
            **{key: f"{getattr(one, region)[key]:.6g}" for key in ("psnr", "ssim", "nmse")},
            "seconds": "" if one.seconds is None else f"{one.seconds:.2f}",
        }
        for target, methods in volume.scores(options.estimate).items()
        for one in methods
        for region in ("foreground", "whole")
    ]


def read_scores(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv; none where there is no such file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_scores(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write metrics.csv, keeping the rows of files that this run did not touch."""
    new = {row["file"] for row in rows}
    old = [row for row in read_scores(path) if row.get("file") not in new]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    writer.writerows([*old, *rows])
    write_text(path, text.getvalue())


def _misfit_table(volume: Volume) -> Table:
    """A row a method; in bold the least misfit."""
    held_out = volume.held_out
    rows = [
        [name, f"{one.misfit:.2f}", *("–" if value is None else f"{value:.2f}" for value in (one.expected, one.ratio))]
        for name, one in held_out.items()
    ]
    least = min(range(len(rows)), key=lambda row: list(held_out.values())[row].misfit)
    best = frozenset({(least, 1)} if len(rows) > 1 else ())
    return Table(
        f"{volume.facts['Held out']} left out", ["Method", "Misfit", "Foretold by the draws", "Ratio"], rows, best=best
    )


def write_pictures(
    folder: Path, report: Path, volume: Volume, options: Options, facts: dict[str, str]
) -> tuple[list[Path], Path]:
    """Write a panel for each reported slice into `folder`, and the page into `report`; return their paths."""
    count = len(volume.slices)
    shown = sorted({round(place) for place in np.linspace(0, count - 1, min(count, REPORTED_SLICES))})
    panels, figures = [], []
    scores = volume.scores(options.estimate).get(MVUE, [])
    captions = {one.method: f"{one.foreground['psnr']:.2f} dB, {one.foreground['ssim']:.3f}" for one in scores}
    std = volume.std if len(volume.samples[0]) > 1 else None
    for place in shown:
        images = {BASELINES[name][0]: found[place] for name, found in volume.baselines.items()}
        images[options.estimate] = volume.rss[place]
        zoom = choose_zoom(volume.rss[place], None if std is None else std[place])
        png = panel(
            images,
            truth=volume.truth[place].abs() if volume.truth else None,
            std=None if std is None else std[place],
            captions=captions or None,
            zoom=zoom,
        )
        path = folder / "panels" / f"{Path(volume.name).stem}-slice{volume.slices[place]:03d}.png"
        save_png(path, png)
        panels.append(path)
        white = float(np.percentile(volume.rss[place].numpy(), 99.5))
        draws = (volume.samples[place].abs() * volume.weight[place]).numpy()
        shown_draws = draws if len(draws) > 1 else draws[:0]
        flips = [picture(draw, (0.0, white)) for draw in shown_draws]
        zooms = [picture(zoomed(draw, zoom), (0.0, white)) for draw in shown_draws]
        figures.append(SliceFigures(f"Slice {volume.slices[place]}", png, flips, zooms))
    notes = list(volume.notes)
    if not volume.truth:
        notes.append("The scan was acquired undersampled: there is no truth, so nothing is scored.")
    if not METHODS[options.method].draws:
        notes.append(f"{options.method} gives point estimates: their spread says nothing about uncertainty.")
    extra = {}
    if volume.complex_nrmse:
        extra["Complex NRMSE"] = f"{np.mean(volume.complex_nrmse):.4f} (truth's coil images on the maps used)"
    page = Report(
        title=Path(volume.name).stem,
        facts=volume.facts | facts | extra,
        notes=notes,
        tables=[score_table(target, methods) for target, methods in volume.scores(options.estimate).items()],
        calibration=volume.calibration() if METHODS[options.method].draws else None,
        promise=volume.promise(),
        held_out=_misfit_table(volume) if volume.held_out else None,
        slices=figures,
    )
    return panels, write_report(report, page)
