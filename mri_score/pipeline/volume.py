"""Reconstruction of a volume, slice by slice, with baselines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from mri_score.data.acquisition import Acquisition
from mri_score.data.noise_rings import whiten
from mri_score.data.noncartesian import NonCartesianScan
from mri_score.data.scan import Scan, coil_weight
from mri_score.errors import InputError
from mri_score.evaluation.metrics import complex_nrmse
from mri_score.evaluation.out_of_distribution import threshold_at, unlike_training
from mri_score.models.base import ScoreModel, Work, on_device
from mri_score.numerics.fourier import resize_image
from mri_score.operators.noncartesian import find_gain
from mri_score.pipeline.baselines import Classical, classical_methods
from mri_score.pipeline.facts import (
    calibration_lines,
    counted,
    few_lines,
    out_of_distribution_note,
    volume_facts,
    worse_than_cg_sense,
    worse_than_nothing,
)
from mri_score.pipeline.held_out import held_out_of, misfit, quick_check_of
from mri_score.pipeline.options import OPERATORS, Options
from mri_score.pipeline.placement import frames_of, geometries_of, header_of
from mri_score.pipeline.result import Volume
from mri_score.pipeline.result_file import MVUE
from mri_score.pipeline.sound import left_out_notes, none_left, sound_slices
from mri_score.readers.base import result_name
from mri_score.reconstruction import Progress, Reconstruction, find_device, sample_posterior

In = TypeVar("In")
Out = TypeVar("Out")


def reconstruct_volume(
    scan: Scan,
    prior: ScoreModel,
    options: Options,
    slices: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Volume:
    """Reconstruct slices of a scan with a prior, with baselines and, for a fully sampled file, the ground truth.

    scan: the prepared file. prior: a score model. options: settings. slices: their numbers; default all. progress:
    called with the number of network evaluations of each level.
    On a GPU, a batch has draws of several slices, and the next slices are read and prepared meanwhile. On a CPU this
    would need more memory without being faster.
    Slices with a fault (`Scan.fault`) are found before the first walk, and refused or left out with a note, as
    `options.bad_slices` says; so is a slice whose preparation or walk fails.
    Errors: InputError for options that do not fit the scan, and for slices that cannot be reconstructed.
    """
    refuse = options.bad_slices == "refuse"
    chosen, left_out = sound_slices(scan, range(scan.file.slices) if slices is None else slices, refuse)

    def leave_out(number: int, error: InputError) -> None:
        if refuse:
            raise error
        left_out[number] = error

    along = scan if isinstance(scan, NonCartesianScan) else None
    volume = Volume(
        result_name(scan.file.path),
        facts={},
        notes=scan.notes,
        intervals=options.intervals,
        unit=scan.unit,
        **_of(scan, chosen),
    )
    volume.header = header_of(scan.file)
    if along is not None:
        volume.trajectory = _coordinates(along, chosen)
    held: Mapping[int, Tensor] = {}
    if options.check_lines is not None:
        held = held_out_of(scan, options.check_lines, chosen)
    elif options.quick_check:
        held = quick_check_of(scan, chosen)
    classical = classical_methods(options.baselines, None if along is None else along.trajectory_of, options.seed)
    volume.seconds = dict.fromkeys([*classical, options.estimate], 0.0)
    prior = on_device(prior, find_device(options.device))
    basis = prior.about.get("ood_basis", {})
    side = max(scan.file.image_shape)
    threshold = threshold_at(volume.acceleration, prior.about.get("ood_thresholds"), side, basis)
    if basis.get("method", options.method) != options.method:  # another method's scores have another range
        threshold = None
    judged = classical_methods(["cg-sense"], None, options.seed)
    if options.check_lines is not None:
        judged = classical | judged
    prepare = partial(_prepare, scan, classical=classical, judged=judged, held=held)
    together = slices_together(options) if along is None or along.one_trajectory else 1
    groups = [chosen[first : first + together] for first in range(0, len(chosen), together)]
    levels: list[float] = []
    work: list[Work] = []

    def walk(group: list[_Slice]) -> None:
        """Walk the slices of a group together; if that fails, one by one, so that a bad one costs no other."""
        try:
            started = time.perf_counter()
            found = _sample([one.acquisition for one in group], group, prior, options, progress)
            seconds = time.perf_counter() - started
            kept = [one for one in group if one.kept is not None]
            checked = _without_held(kept, prior, options, progress) if kept else None
        except InputError as error:
            if refuse or len(group) == 1:
                leave_out(group[0].number, error)
                return
            for one in group:
                walk([one])
            return
        volume.seconds[options.estimate] += seconds
        levels.extend(one.level for one in group)
        work.append(_add(volume, scan, group, found))
        if checked is not None:
            _check(volume, kept, checked, title_of_check(options))

    for prepared in ahead(prepare, groups) if on_gpu(options) else map(prepare, groups):
        for number, one in prepared:
            if isinstance(one, InputError):
                leave_out(number, one)
        if group := [one for _, one in prepared if isinstance(one, _Slice)]:
            walk(group)
    if left_out:
        chosen = [number for number in chosen if number not in left_out]
        if not chosen:
            raise none_left(left_out)
        for name, value in _of(scan, chosen).items():
            setattr(volume, name, value)
        volume.left_out = sorted(left_out)
        volume.notes = [*volume.notes, *left_out_notes(left_out)]
    if (reason := worse_than_nothing(volume.scores(options.estimate).get(MVUE, []))) is not None:
        volume.notes = [*volume.notes, reason]
    volume.facts = volume_facts(scan, options, levels, chosen, sum(work, Work()))
    if judged_slices := {number: held[number] for number in chosen if number in held}:
        volume.facts["Held out"] = _counted_held_out(judged_slices)
        least = min(int(one.sum()) for one in judged_slices.values())
        warning = worse_than_cg_sense(volume.held_out, title_of_check(options), least)
        volume.notes = [*volume.notes, *([] if warning is None else [warning])]
    if options.intervals is not None:
        caution = options.intervals.caution(volume.acceleration, scan.sampling.law)
        volume.notes = [*volume.notes, *([] if caution is None else [caution])]
    if (warning := few_lines(calibration_lines(scan, chosen))) is not None:
        volume.notes = [*volume.notes, warning]
    law = None if scan.sampling.acceleration is None and not scan.sampling.from_file else scan.sampling.law
    if (warning := unlike_training(prior.about.get("scans"), volume.acceleration, law)) is not None:
        volume.notes = [*volume.notes, warning]
    if (warning := out_of_distribution_note(volume.misfit_ratios, threshold, basis)) is not None:
        volume.notes = [*volume.notes, warning]
    return volume


def _of(scan: Scan, chosen: list[int]) -> dict[str, Any]:
    """The fields of a volume that depend on its slices."""
    fields: dict[str, Any] = {
        "slices": chosen,
        "acceleration": scan.acceleration_of(chosen),
        "accelerations": [scan.acceleration_of([number]) for number in chosen],
        "geometries": geometries_of(scan.file, chosen),
        "frames": frames_of(scan.file, chosen),
        "items": [scan.file.item(number) for number in chosen],
    }
    if not isinstance(scan, NonCartesianScan):
        fields["mask"] = scan.mask[chosen] if len(scan.mask) > 1 else scan.mask
    return fields


def _counted_held_out(held: Mapping[int, Tensor]) -> str:
    """How many lines or points are left out of a slice, such as `8 lines`, or `7 to 9 lines`."""
    counts = [int(one.sum()) for one in held.values()]
    noun = "line" if all(1 in one.shape[-2:] for one in held.values()) else "point"
    least, most = min(counts), max(counts)
    return counted(most, noun) if least == most else f"{least} to {counted(most, noun)} of a slice"


def _coordinates(scan: NonCartesianScan, slices: Sequence[int]) -> Tensor:
    """(M, 2), or (S, M, 2) if the slices have different trajectories of one length; else that of the first slice."""
    each = [scan.trajectory_of(slice).coordinates for slice in slices]
    if scan.one_trajectory or len({len(one) for one in each}) > 1:
        return each[0]
    return torch.stack(each)


def _gain(acquisition: Acquisition) -> float:
    """Factor of k-space in the operator; 1 on the grid."""
    if acquisition.trajectory is None or acquisition.maps is None:
        return 1.0
    return find_gain(acquisition.trajectory, acquisition.maps.shape[-2:])


def on_gpu(options: Options) -> bool:
    """Whether a reconstruction with these options runs on a GPU, which leaves the CPU free."""
    return find_device(options.device).type != "cpu"


def slices_together(options: Options) -> int:
    """Number of slices per batch with these options: on a GPU, as many as fit with all of their draws; else 1."""
    return max(1, options.batch_size // options.samples) if on_gpu(options) else 1


def ahead(make: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    """Yield make(item) for each item, computed in a thread while the caller uses the item before.

    Exceptions of `make` are raised at the place of their item.
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
    """A slice that is ready for sampling, with its baselines and ground truth; images (H, W) in its scale."""

    number: int
    acquisition: Acquisition
    weight: Tensor
    level: float
    """Noise level without the gain of the operator."""
    classical: dict[str, Tensor]
    """Title -> image of a classical method."""
    seconds: dict[str, float]
    """Title -> seconds of a classical method."""
    kept: Acquisition | None
    """The acquisition without the left-out samples."""
    held: Tensor | None
    """The left-out samples, bool, broadcastable to the mask."""
    classical_kept: dict[str, Tensor]
    """Title -> image of a classical method from `kept`."""
    truth: tuple[Tensor, Tensor] | None
    """Image and coil images of the ground truth, as `Scan.truth`."""


def _prepare(
    scan: Scan,
    numbers: Sequence[int],
    *,
    classical: Mapping[str, Classical],
    judged: Mapping[str, Classical],
    held: Mapping[int, Tensor],
) -> list[tuple[int, _Slice | InputError]]:
    """Read slices, estimate coil maps and scale, and run the classical methods.

    judged: the methods that are compared on left-out samples. held: slice -> left-out samples.

    Returns number and slice, or the error where that is not possible.
    """
    found: list[tuple[int, _Slice | InputError]] = []
    for number in numbers:
        try:
            found.append((number, _prepare_one(scan, number, classical, judged, held.get(number))))
        except InputError as error:
            found.append((number, error))
    return found


def _prepare_one(
    scan: Scan,
    number: int,
    classical: Mapping[str, Classical],
    judged: Mapping[str, Classical],
    held: Tensor | None,
) -> _Slice:
    acquisition = scan.acquisition(number)
    images, seconds = {}, {}
    for title, method in classical.items():
        started = time.perf_counter()
        images[title] = method(acquisition, number)
        seconds[title] = time.perf_counter() - started
    kept = None
    if held is not None:
        mask = acquisition.cartesian.mask
        held = held & mask
        kept = replace(acquisition, kspace=acquisition.kspace * ~held, mask=mask & ~held)
    return _Slice(
        number,
        acquisition,
        coil_weight(acquisition)[0],
        float(acquisition.noise_std) / _gain(acquisition),
        images,
        seconds,
        kept,
        held,
        {} if kept is None else {title: method(kept, number) for title, method in judged.items()},
        scan.truth(number) if scan.has_truth else None,
    )


def _add(volume: Volume, scan: Scan, group: list[_Slice], found: Reconstruction) -> Work:
    """Add the results of some slices to the volume; return the work of their draws."""
    volume.group = found.group
    for place, (one, image, std) in enumerate(zip(group, found.image, found.std, strict=True)):
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
        if found.misfit_ratios is not None and not bool((ratio := found.misfit_ratios[:, place].nanmean()).isnan()):
            volume.misfit_ratios.append(float(ratio))
        if one.truth is not None:
            _add_truth(volume, scan, one.acquisition, *one.truth, image)
    return found.work


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
        options,
        slices=[one.number for one in group],
        operator=OPERATORS[options.operator],
        progress=progress,
    )


def _without_held(
    group: Sequence[_Slice], prior: ScoreModel, options: Options, progress: Progress | None
) -> Reconstruction | None:
    """The reconstruction without the left-out samples; None where the quick check, with its few levels, fails."""
    parts = [one.kept for one in group if one.kept is not None]
    own = options.of_check
    try:
        return _sample(parts, group, prior, own, progress)
    except InputError:
        if own is options:
            raise
        return None


def _stacked(parts: Sequence[Acquisition]) -> Acquisition:
    """Join slices of one scan into one acquisition."""
    if len(parts) == 1:
        return parts[0]
    kspace, maps, noise_std, scale = (
        torch.cat([getattr(one, name) for one in parts]) for name in ("kspace", "maps", "noise_std", "scale")
    )
    masks = [one.mask for one in parts if one.mask is not None]
    mask = parts[0].mask if all(torch.equal(one, masks[0]) for one in masks) else torch.cat(masks)
    return replace(parts[0], kspace=kspace, maps=maps, mask=mask, noise_std=noise_std, scale=scale)


def title_of_check(options: Options) -> str:
    """Title of the reconstruction without the left-out samples: that of the method, or of the quick check's walk."""
    own = options.of_check
    return options.estimate if own is options else f"one walk of {own.steps} levels"


def _check(volume: Volume, group: list[_Slice], found: Reconstruction, estimate: str) -> None:
    """Add to the volume how well each method predicts the left-out samples. found: the results without them."""
    for place, one in enumerate(group):
        scan = one.acquisition
        assert one.held is not None
        images: dict[str, tuple[Tensor, Tensor | None]] = {
            title: (image, None) for title, image in one.classical_kept.items()
        }
        images[estimate] = found.image[place] / scan.scale[0], found.samples[:, place] / scan.scale[0]
        for name, (image, samples) in images.items():
            part = misfit(image, scan.kspace[0], scan.coil_maps[0], one.held, one.level, samples)
            volume.held_out[name] = volume.held_out[name] + part if name in volume.held_out else part


def _add_truth(
    volume: Volume, scan: Scan, acquisition: Acquisition, truth: Tensor, coil_images: Tensor, image: Tensor
) -> None:
    maps = acquisition.coil_maps[0]
    mixed = coil_images if acquisition.whitening is None else whiten(coil_images, acquisition.whitening)
    volume.truth.append(_written(truth, scan))
    volume.truth_rss.append(_written(coil_images.abs().square().sum(0).sqrt(), scan))
    volume.projected.append(_written((maps.conj() * mixed).sum(0), scan))
    volume.complex_nrmse.append(complex_nrmse(mixed[None], maps[None], image[None]))


def _written(image: Tensor, scan: Scan) -> Tensor:
    """The image, cropped to the size that is written."""
    return resize_image(image, scan.file.crop)
