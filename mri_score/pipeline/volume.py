"""A volume: reconstructed slice by slice, with what it is compared with, and scored where there is a truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import sigpy.mri.linop
import torch
from torch import Tensor

from mri_score import baselines
from mri_score.data.acquisition import Acquisition
from mri_score.data.masks import mask_seed
from mri_score.data.noise_rings import whiten
from mri_score.data.noncartesian import NonCartesianScan, gridding
from mri_score.data.scan import Scan, coil_weight
from mri_score.data.trajectories import Trajectory
from mri_score.errors import InputError, unknown_name
from mri_score.evaluation.intervals import TARGETS, Intervals, covered, predicted_std, relative_errors
from mri_score.evaluation.metrics import complex_nrmse, foreground, volume_scores
from mri_score.evaluation.out_of_distribution import threshold_at
from mri_score.evaluation.report import MethodScores, Promise
from mri_score.evaluation.uncertainty import Calibration, calibration
from mri_score.methods import DEFAULT_METHOD, METHODS
from mri_score.models.base import ScoreModel
from mri_score.models.network import NetworkPrior, find_precision
from mri_score.numerics.fourier import resize_image
from mri_score.numerics.noise import generators, key
from mri_score.operators.base import LinearOperator
from mri_score.operators.noncartesian import find_gain
from mri_score.operators.sense import Sense
from mri_score.operators.sigpy import SigpyOperator
from mri_score.pipeline.held_out import Misfit, hold_out, misfit
from mri_score.reconstruction import Progress, Reconstruction, find_device, sample_posterior

In = TypeVar("In")
Out = TypeVar("Out")
MVUE = "|MVUE|, maps from full k-space"
RSS = "RSS of full k-space"


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
TrajectoryBaseline = Callable[[Acquisition, Trajectory], Tensor]
TRAJECTORY_BASELINES: dict[str, tuple[str, TrajectoryBaseline]] = {
    "zero-filled": ("gridding", gridding),
    "cg-sense": ("CG-SENSE", lambda scan, trajectory: scan.operator().cg_sense(scan.kspace)),  # type: ignore[arg-type]
}
"""Those of `BASELINES` that are offered for non-Cartesian scans, and what they are there."""
Classical = Callable[[Acquisition], Tensor]
"""From one slice to its image (H, W), in its scale."""
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
    precision: str = "float32"
    """What the prior's network computes in."""
    warm_start: float | None = None
    """The sigma at or below which walks start, about CG-SENSE; None for walks from noise."""
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
        find_precision(self.precision)
        for name in self.baselines:
            if name not in BASELINES:
                raise unknown_name("the baseline", name, BASELINES)

    @property
    def estimate(self) -> str:
        """What the mean of the results is called."""
        if not METHODS[self.method].draws:
            return f"{self.method} estimate" if self.samples == 1 else f"mean of {self.samples} {self.method} estimates"
        return "posterior mean of one walk" if self.samples == 1 else f"posterior mean of {self.samples} draws"


@dataclass
class Volume:
    """What was found of one volume; images in the file's units, cropped to the written size."""

    name: str
    slices: list[int]
    acceleration: float
    """The true one."""
    facts: dict[str, str]
    notes: list[str]
    mask: Tensor | None = None
    """As `Scan.mask`, or in its place:"""
    trajectory: Tensor | None = None
    """(M, 2), as `Acquisition.trajectory`."""
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
    """By title: (h, w) magnitudes in the file's coils, one a slice."""
    seconds: dict[str, float] = field(default_factory=dict)
    held_out: dict[str, Misfit] = field(default_factory=dict)
    """Of each method, over all slices."""
    unlike: list[float] = field(default_factory=list)
    """One a slice, where it is known: `misfit_ratio`, mean over its walks."""
    _scores: dict[str, dict[str, list[MethodScores]]] = field(default_factory=dict, repr=False)

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
        """(S, h, w): half the width of the intervals of one of `TARGETS`: magnitudes in units of the RSS image,
        components in those of the complex image.
        """
        if self.intervals is None:
            return None
        factor = getattr(self.intervals.at(self.acceleration), target)
        half = factor * torch.from_numpy(np.stack(self.predicted))
        return half * torch.stack(self.weight) if target == "magnitude" else half

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
        """For each target, the methods' scores, once all slices are there; nothing without a truth."""
        if not self.truth:
            return {}
        if estimate not in self._scores:
            self._scores[estimate] = self._find_scores(estimate)
        return self._scores[estimate]

    def _find_scores(self, estimate: str) -> dict[str, list[MethodScores]]:
        methods = {title: torch.stack(images) for title, images in self.baselines.items()}
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
    """Reconstruct the slices of a scan (default: all), with baselines, and the truth where the file holds it.

    Where walks run on a GPU, a batch holds those of several slices, and meanwhile the next are read and prepared. On a
    CPU both would cost memory alone: walks keep its cores busy, and the factors of every slice would be held.
    """
    chosen = list(range(scan.file.slices)) if slices is None else list(slices)
    trajectory = scan.trajectory if isinstance(scan, NonCartesianScan) else None
    volume = Volume(scan.file.path.name, chosen, scan.acceleration, {}, scan.notes, intervals=options.intervals)
    if trajectory is None:
        volume.mask = scan.mask
    else:
        volume.trajectory = trajectory.coordinates
    gain = 1.0 if trajectory is None else find_gain(trajectory.coordinates, trajectory.shape)
    held = None if options.check_lines is None else _held_out(scan, options.check_lines)
    classical = _baselines(options.baselines, trajectory)
    volume.seconds = dict.fromkeys([*classical, options.estimate], 0.0)
    if isinstance(prior, NetworkPrior):
        prior.precision = find_precision(options.precision)
    threshold = threshold_at(volume.acceleration, prior.about.get("ood_thresholds"))
    prepare = partial(_prepare, scan, classical=classical, held=held, gain=gain)
    together = slices_together(options)
    groups = [chosen[first : first + together] for first in range(0, len(chosen), together)]
    levels: list[float] = []
    for group in ahead(prepare, groups) if on_gpu(options) else map(prepare, groups):
        levels += [one.level for one in group]
        _add(volume, scan, group, prior, options, progress)
        if held is not None:
            _check(volume, group, held, prior, options, progress)
    volume.facts = _facts(scan, options, levels)
    if held is not None:
        volume.facts["Held out"] = counted(int(held.sum()), "line" if 1 in held.shape[-2:] else "point")
    if options.intervals is not None:
        caution = options.intervals.caution(volume.acceleration, scan.sampling.law)
        volume.notes = [*volume.notes, *([] if caution is None else [caution])]
    if (warning := unlike_note(volume.unlike, threshold, prior.about.get("ood_basis", {}))) is not None:
        volume.notes = [*volume.notes, warning]
    return volume


def unlike_note(ratios: Sequence[float], threshold: float | None, basis: Mapping[str, object]) -> str | None:
    """The warning that some slices of a volume look unlike what the prior knows; None without a reason.

    basis: what the threshold was measured on, as `scripts/calibrate_ood.py` records it.
    """
    above = [] if threshold is None else [ratio for ratio in ratios if ratio > threshold]
    if not above:
        return None
    measured = f" ({basis['slices']} slices, {basis['law']} masks)" if {"slices", "law"} <= set(basis) else ""
    where = "" if len(ratios) == 1 else f"; {len(above)} of {len(ratios)} slices are above that"
    return (
        f"unlike what the prior knows: its denoised images misfit k-space by {max(above):.1f}, and on scans like its"
        f" validation images{measured} hardly ever by more than {threshold:.1f} at this acceleration{where}"
    )


def on_gpu(options: Options) -> bool:
    """Whether walks leave the CPU free."""
    return find_device(options.device).type != "cpu"


def slices_together(options: Options) -> int:
    """Slices whose walks share a batch: on a GPU as many as it holds all draws of."""
    return max(1, options.batch_size // options.samples) if on_gpu(options) else 1


def ahead(make: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    """make(item) for each item in turn, made by a thread while the caller is at the item before.

    What `make` raises, the caller meets in its place.
    """
    with ThreadPoolExecutor(1) as thread:
        now: Future[Out] | None = None
        for item in items:
            now, last = thread.submit(make, item), now
            if last is not None:
                yield last.result()
        if now is not None:
            yield now.result()


@dataclass(frozen=True)
class _Slice:
    """A slice that is ready to be walked, and what stands beside its result; images (H, W) in its scale."""

    number: int
    acquisition: Acquisition
    weight: Tensor
    level: float
    """noise_std without the gain of the operator."""
    classical: dict[str, Tensor]
    """By title."""
    seconds: dict[str, float]
    """What each of these took."""
    kept: Acquisition | None
    """Without the left-out samples, and what the classical methods make of that:"""
    classical_kept: dict[str, Tensor]
    truth: tuple[Tensor, Tensor] | None
    """As `Scan.truth`."""


def _prepare(
    scan: Scan, numbers: Sequence[int], *, classical: Mapping[str, Classical], held: Tensor | None, gain: float
) -> list[_Slice]:
    """Some slices: read, their maps and scale found, their classical images made."""
    return [_prepare_one(scan, number, classical, held, gain) for number in numbers]


def _prepare_one(
    scan: Scan, number: int, classical: Mapping[str, Classical], held: Tensor | None, gain: float
) -> _Slice:
    acquisition = scan.acquisition(number)
    assert acquisition.kspace is not None and acquisition.noise_std is not None
    images, seconds = {}, {}
    for title, method in classical.items():
        started = time.perf_counter()
        images[title] = method(acquisition)
        seconds[title] = time.perf_counter() - started
    kept = None
    if held is not None:
        assert acquisition.mask is not None
        kept = replace(acquisition, kspace=acquisition.kspace * ~held, mask=acquisition.mask & ~held)
    return _Slice(
        number,
        acquisition,
        coil_weight(acquisition)[0],
        float(acquisition.noise_std) / gain,
        images,
        seconds,
        kept,
        {} if kept is None else {title: method(kept) for title, method in classical.items()},
        scan.truth(number) if scan.has_truth else None,
    )


def _add(
    volume: Volume, scan: Scan, group: list[_Slice], prior: ScoreModel, options: Options, progress: Progress | None
) -> None:
    """Walk some slices, and take the results into the volume."""
    started = time.perf_counter()
    found = _sample([one.acquisition for one in group], group, prior, options, progress)
    volume.seconds[options.estimate] += time.perf_counter() - started
    for place, (one, image, std) in enumerate(zip(group, found.image, found.std, strict=True)):
        assert one.acquisition.scale is not None
        scale = float(one.acquisition.scale)
        for title, classical in one.classical.items():
            magnitude = _written(classical.abs() * (scale * one.weight), scan)
            volume.baselines.setdefault(title, []).append(magnitude)
            volume.seconds[title] += one.seconds[title]
        volume.images.append(_written(image, scan))
        volume.samples.append(_written(found.samples[:, place], scan))
        volume.stds.append(_written(std, scan))
        volume.noise.append(one.level * scale)
        volume.weight.append(_written(one.weight, scan))
        if found.unlike is not None and not bool((unlike := found.unlike[:, place].nanmean()).isnan()):
            volume.unlike.append(float(unlike))
        if one.truth is not None:
            _add_truth(volume, scan, one.acquisition, *one.truth, image)


def _sample(
    parts: Sequence[Acquisition],
    group: Sequence[_Slice],
    prior: ScoreModel,
    options: Options,
    progress: Progress | None,
) -> Reconstruction:
    return sample_posterior(
        _stacked(parts),
        prior,
        options.method,
        steps=options.steps,
        samples=options.samples,
        seed=options.seed,
        batch_size=options.batch_size,
        device=options.device,
        slices=[one.number for one in group],
        operator=OPERATORS[options.operator],
        progress=progress,
        warm_start=options.warm_start,
    )


def _stacked(parts: Sequence[Acquisition]) -> Acquisition:
    """Slices of one scan as one acquisition."""
    if len(parts) == 1:
        return parts[0]
    kspace, maps, noise_std, scale = (
        torch.cat([getattr(one, name) for one in parts]) for name in ("kspace", "maps", "noise_std", "scale")
    )
    return replace(parts[0], kspace=kspace, maps=maps, noise_std=noise_std, scale=scale)


def _held_out(scan: Scan, amount: float) -> Tensor:
    """The left-out samples of a volume, which follow from the seed of its mask."""
    if isinstance(scan, NonCartesianScan):
        raise InputError(f"{scan.file.path}: --check-lines leaves out samples of a mask, not of a trajectory")
    seed = key("held-out lines", *mask_seed(scan.file.path.name, scan.sampling.seed))
    return hold_out(scan.mask, scan.file.image_shape, amount, generators(seed)[0])


def _check(
    volume: Volume,
    group: list[_Slice],
    held: Tensor,
    prior: ScoreModel,
    options: Options,
    progress: Progress | None,
) -> None:
    """Reconstruct some slices from the other samples, by every method, and let the left-out ones judge."""
    found = _sample([one.kept for one in group if one.kept is not None], group, prior, options, progress)
    for place, one in enumerate(group):
        scan = one.acquisition
        assert scan.kspace is not None and scan.maps is not None and scan.scale is not None
        images: dict[str, tuple[Tensor, Tensor | None]] = {
            title: (image, None) for title, image in one.classical_kept.items()
        }
        images[options.estimate] = found.image[place] / scan.scale[0], found.samples[:, place] / scan.scale[0]
        for name, (image, samples) in images.items():
            part = misfit(image, scan.kspace[0], scan.maps[0], held, one.level, samples)
            volume.held_out[name] = volume.held_out[name] + part if name in volume.held_out else part


def _baselines(names: Sequence[str], trajectory: Trajectory | None) -> dict[str, Classical]:
    """The classical methods of these names, by title."""
    if trajectory is None:
        return {BASELINES[name][0]: partial(_on_grid, BASELINES[name][1]) for name in names}
    for name in names:
        if name not in TRAJECTORY_BASELINES:
            raise InputError(
                f"the baseline {name} is not offered along a trajectory; known there:"
                f" {', '.join(TRAJECTORY_BASELINES)} (gridding takes the place of zero-filled)"
            )
    chosen = [TRAJECTORY_BASELINES[name] for name in names]
    return {title: partial(_along, method, trajectory) for title, method in chosen}


def _on_grid(method: Baseline, acquisition: Acquisition) -> Tensor:
    assert acquisition.kspace is not None and acquisition.maps is not None
    assert acquisition.mask is not None and acquisition.noise_std is not None
    kspace, maps, mask = acquisition.kspace, acquisition.maps, acquisition.mask
    return method(kspace[0], maps[0], mask[0], float(acquisition.noise_std))


def _along(method: TrajectoryBaseline, trajectory: Trajectory, acquisition: Acquisition) -> Tensor:
    return method(acquisition, trajectory)[0]


def _add_truth(
    volume: Volume, scan: Scan, acquisition: Acquisition, truth: Tensor, coil_images: Tensor, image: Tensor
) -> None:
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
    method = METHODS[options.method]
    steps = method.steps if options.steps is None else options.steps
    cost = f"{steps} levels, {steps * method.calls} network calls a draw"
    warm = {}
    if options.warm_start is not None:
        cost = f"of {steps} levels those of the warm start"
        warm["Warm start"] = f"at sigma {options.warm_start:g}, about CG-SENSE"
    along = isinstance(scan, NonCartesianScan)
    return {
        "File": file.path.name,
        "Acquisition": f"{file.acquisition}, {counted(file.slices, 'slice')}, {counted(file.coils, 'coil')},"
        f" {file.rows} x {file.cols}",
        **_sampling(scan),
        "Coil maps": _source_of_maps(scan),
        "Coils": "whitened" if scan.noise.whitening is not None and scan.mixing is not None else "as stored",
        "Noise": f"{scan.noise_std:.4g} in the file's units; {np.mean(levels):.4f} of the image scale",
        "Method": f"{options.method}, {cost}",
        **warm,
        "Draws": str(options.samples),
        "Seed": str(options.seed),
        "Precision": options.precision,
        "Operator": "non-uniform Fourier transform" if along else options.operator,
    }


def _sampling(scan: Scan) -> dict[str, str]:
    if isinstance(scan, NonCartesianScan):
        trajectory = scan.trajectory
        return {
            "Sampling": f"{trajectory.name} trajectory, {counted(len(trajectory.coordinates), 'sample')} a coil,"
            " simulated from full k-space",
            "Acceleration": f"{scan.acceleration:.2f}",
        }
    nominal, seed = scan.sampling.nominal, scan.sampling.seed
    return {
        "Sampling": scan.sampling.law if scan.sampling.acceleration is not None else "as acquired",
        "Acceleration": f"{scan.acceleration:.2f}" + ("" if nominal is None else f" (nominal {nominal:g})"),
        "Mask seed": "from the file name" if seed is None else str(seed),
    }


def _source_of_maps(scan: Scan) -> str:
    if isinstance(scan, NonCartesianScan):
        return "ESPIRiT from the samples near the centre of k-space"
    if scan.given_maps is not None:
        return f"given ({Path(scan.given_maps).name})"
    if scan.full_maps:
        return "ESPIRiT from full k-space (a study: no real scan has it)"
    return "ESPIRiT from the calibration region of the sampled data"
