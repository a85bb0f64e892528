"""The work of mri-score reconstruct, file by file. Files that fail are reported and skipped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from mri_score.data.noncartesian import MeasuredScan, NonCartesianScan
from mri_score.data.scan import Scan, Undersampling
from mri_score.data.trajectories import TRAJECTORIES
from mri_score.errors import InputError
from mri_score.evaluation.intervals import read_intervals
from mri_score.evaluation.metrics import AIR, REGIONS
from mri_score.evaluation.report import MethodScores
from mri_score.files import make_folder, sha256
from mri_score.memory import footprint
from mri_score.methods import METHODS
from mri_score.models.base import ScoreModel, Work
from mri_score.models.one_channel import digest_of_use, for_complex_images
from mri_score.pipeline.baselines import TRAJECTORY_BASELINES
from mri_score.pipeline.derived import Derived
from mri_score.pipeline.exports import check_placement
from mri_score.pipeline.facts import counted
from mri_score.pipeline.held_out import QUICK_SLICES
from mri_score.pipeline.options import Options
from mri_score.pipeline.output import write_volume
from mri_score.pipeline.result import Volume
from mri_score.pipeline.result_file import MVUE, RSS
from mri_score.pipeline.run_log import RunLog
from mri_score.pipeline.volume import on_gpu, reconstruct_volume, slices_together
from mri_score.priors.store import find_prior, load_prior
from mri_score.progress import progress
from mri_score.readers import open_scan, scan_files
from mri_score.readers.base import Reader, one_name_each, one_sided, result_name
from mri_score.reconstruction import find_device
from mri_score.simulation.simulate import simulate
from mri_score.work import draw_work

from ..log import note, say
from ..options import (
    Rest,
    chosen,
    each_file,
    make_sampling,
    maps_of,
    read_names,
    read_slices,
    take_precision,
    take_shard,
)
from .finished import ReconstructOptions, derived_of, finished_before, identity_of, run_facts, summary_of

CARTESIAN = (
    "law", "calibration_lines", "mask_seed", "axis", "maps", "full_maps", "check_lines", "intervals", "operator"
)  # fmt: skip
"""Options that exist for masks only, not for trajectories."""


def reconstruct_all(
    scan: Path | Sequence[Path] | None,
    given: ReconstructOptions,
    also: Callable[[Path], Sequence[Derived]] | None = None,
) -> None:
    """Reconstruct every file; print scores and where the results are.

    scan: a file, a folder, files of several folders, or None for a simulated head. given: the options. also: the
    further files, NIfTI among them, that are made from the result of a scan.
    Errors: InputError at the end if a file failed.
    """
    if given.threads:
        torch.set_num_threads(given.threads)
    out = given.out
    _check_combinations(scan, given)
    intervals = None if given.intervals is None else read_intervals(given.intervals)
    options = Options(
        method=given.method,
        steps=given.steps,
        samples=given.samples,
        seed=given.seed,
        batch_size=1 if given.batch_size == "auto" else given.batch_size,
        device=given.device,
        precision=take_precision(given.precision, given.device),
        operator=given.operator,
        warm_start=given.warm_start,
        bad_slices=given.bad_slices,
        baselines=_baselines(given),
        keep_samples=given.keep_samples,
        check_lines=_amount(given.check_lines),
        quick_check=given.check_lines is None,
        intervals=intervals,
    )
    formats = read_names(given.write)
    derived_of(Path(), given)  # unknown formats are refused before any work
    if not given.dry_run:
        make_folder(out)
    prior_path = find_prior(given.prior)
    prior = for_complex_images(load_prior(prior_path), given.one_channel)
    digest = sha256(prior_path)
    if intervals is not None:
        steps = options.steps or METHODS[options.method].steps
        used = digest_of_use(digest, given.one_channel)
        intervals.check(prior_sha256=used, sampler=options.method, steps=steps, samples=options.samples)
    sampling = make_sampling(given)
    if scan is None:
        if given.dry_run:
            raise InputError("--dry-run needs a SCAN: without one a head would be simulated and written")
        sampling = replace(sampling, acceleration=sampling.acceleration or 4.0)
        say("No SCAN given: reconstructing a simulated head (mri-score simulate makes more of them).")
        files = simulate(out / "scan", volumes=1, slices=1)
    else:
        files = scan_files(scan, axes=given.axes) if isinstance(scan, Path) else list(scan)
        one_name_each(files)

    log = None if given.dry_run else RunLog(out, files)

    def redo(path: Path) -> Rest | None:
        maps = maps_of(given.maps, path)
        identity = identity_of(path, given, digest, intervals)
        derived = [*derived_of(path, given, alone=len(files) == 1), *([] if also is None else also(path))]
        if finished_before(path, given, identity, derived):
            if log is not None:
                log.keep(path)
            return None
        file = open_scan(
            path, axes=given.axes, ignore_mask=given.ignore_mask, trajectory=given.trajectory_file
        )
        _check_sampling(file, sampling)
        slices = read_slices(given.slices, file.slices)
        check_placement(file, slices, formats if also is None else [*formats, "nifti"])
        view = _scan(file, sampling, replace(given, maps=maps))
        fitted = options
        if isinstance(view, MeasuredScan):
            fitted = replace(options, baselines=[name for name in options.baselines if name in TRAJECTORY_BASELINES])
        if given.batch_size == "auto":
            fitted = replace(options, batch_size=_fitting(view, slices, prior, options))
        if given.dry_run:
            _describe(view, slices, prior, fitted, out)
            return None
        volume = _one(view, slices, prior, fitted)
        attributes: dict[str, Any] = {
            "prior": str(given.prior),
            "prior_sha256": digest,
            "identity": str(identity),
        }
        if sampling.nominal is not None:
            attributes["acceleration"] = sampling.nominal
        facts = {"Prior": f"{given.prior} (SHA-256 {digest[:12]})", **run_facts()}
        rest = partial(_write, out, derived, volume, options, attributes, facts)
        if on_gpu(options):
            return rest
        rest()
        return None

    mine = take_shard(files, given.shard, folder=isinstance(scan, Path) and scan.is_dir())
    each_file(mine, redo, summary_of(files, given), log)


def _check_sampling(file: Reader, sampling: Undersampling) -> None:
    """Errors: InputError for a full scan that is not to be undersampled: hours of walks would return nearly itself.

    Partial Fourier and partial readouts leave unknown samples, and such scans are reconstructed as they are.
    """
    if sampling.acceleration is None and file.mask is None and file.coordinates(0) is None and not one_sided(file):
        raise InputError(
            f"{file.path} is fully sampled: give --accel R, such as --accel 4, to undersample it and score the result"
            f" against all samples; or remove its noise with: mri-score denoise {file.path}; --accel 1 reconstructs it"
            " from all samples"
        )


def _write(
    out: Path,
    derived: list[Derived],
    volume: Volume,
    options: Options,
    attributes: dict[str, Any],
    facts: dict[str, str],
) -> None:
    """Write all results of a volume; print their places and scores."""
    result = write_volume(out, volume, options, attributes, facts)
    panels, page, *others = [one.write(result)[0] for one in derived]
    _print(volume, volume.scores(options.estimate), options)
    places: dict[str, Any] = {"reconstruction": result, "pictures": panels.parent, "report": page}
    places |= {one.title: path.parent for one, path in zip(derived[3:], others[1:], strict=True)}
    say("\n".join(f"  {name:<16}{place}" for name, place in places.items()), file=volume.name, **places)


def _check_combinations(scan: Path | Sequence[Path] | None, given: ReconstructOptions) -> None:
    """Refuse options that contradict each other."""
    if given.warm_start is not None and given.intervals is not None:
        raise InputError(
            "--intervals is not valid with --warm-start: the intervals were fitted without it; leave out one of the"
            " two"
        )
    if (name := given.trajectory) is None:
        return
    if others := chosen(*CARTESIAN):
        raise InputError(
            f"--trajectory {name} cannot be combined with {', '.join(others)}, for masks only; leave out one of them"
        )
    if given.accel is None and scan is not None:
        raise InputError(f"--trajectory {name} needs --accel, the acceleration factor of the trajectory")
    if given.accel is not None and not 1 <= given.accel < float("inf"):
        raise InputError(f"--accel {given.accel:g} must be a finite number of at least 1 for --trajectory {name}")


def _baselines(given: ReconstructOptions) -> list[str]:
    """The names of --baselines. With a trajectory, baselines of the default that it does not have are left out."""
    names = [name.strip() for name in given.baselines.split(",") if name.strip() not in ("", "none")]
    if given.trajectory is None:
        return names
    if chosen("baselines") and (missing := [name for name in names if name not in TRAJECTORY_BASELINES]):
        known = ", ".join(TRAJECTORY_BASELINES)
        raise InputError(
            f"--baselines {', '.join(missing)}: not available with --trajectory; available: {known}, or none"
        )
    return [name for name in names if name in TRAJECTORY_BASELINES]


def _one(scan: Scan, slices: list[int], prior: ScoreModel, options: Options) -> Volume:
    total = _walks(slices, options) * _work(scan, prior, options).evaluations
    if (quick := options.of_check) is not options:
        total += min(len(slices), QUICK_SLICES) * _work(scan, prior, quick).evaluations
    name = scan.file.path.stem
    with progress(total, "call", name) as bar:
        return reconstruct_volume(scan, prior, options, slices, bar.update)


def _walks(slices: list[int], options: Options) -> int:
    """Number of draws for a volume, those of --check-lines included."""
    return len(slices) * options.samples * (1 if options.check_lines is None else 2)


def _work(scan: Scan, prior: ScoreModel, options: Options) -> Work:
    """The expected work of one draw."""
    return draw_work(options, prior, scan.coils or scan.file.coils)


def _needed(scan: Scan, slices: list[int], prior: ScoreModel, options: Options) -> Callable[[int], int] | None:
    """Function from the number of draws in parallel to bytes of memory: of the GPU if one is used, else of the CPU.

    None for trajectories and SigPy operators, whose memory cannot be predicted.
    """
    if isinstance(scan, NonCartesianScan) or options.operator != "torch":
        return None
    coils, shape, axis = scan.coils or scan.file.coils, scan.file.image_shape, footprint.line_axis(scan.mask)
    if on_gpu(options):
        maps = 2 * footprint.COMPLEX * coils * math.prod(shape)  # with conjugates, per draw in mixed batches

        def needed(walks: int) -> int:
            walk = footprint.walk_bytes(prior, coils, shape, walks, options.method, axis)
            return walk + (walks * maps if walks > options.samples else 0)

        return needed
    return lambda walks: footprint.reconstruct_bytes(prior, coils, shape, walks, options.method, axis, len(slices))


def _fitting(scan: Scan, slices: list[int], prior: ScoreModel, options: Options) -> int:
    """The batch size for --batch-size auto: what fits into memory, at most the draws that can share a batch.

    Draws of one slice can share a batch; on a GPU, draws of all slices.
    Errors: InputError where the memory cannot be predicted.
    """
    needed = _needed(scan, slices, prior, options)
    if needed is None:
        raise InputError("--batch-size auto works for masks with --operator torch only; give a number, such as 8")
    room = footprint.SHARE * footprint.available(find_device(options.device))
    meeting = options.samples * (len(slices) if on_gpu(options) else 1)
    return footprint.fitting(needed, room, min(meeting, footprint.MOST_WALKS))


def _describe(scan: Scan, slices: list[int], prior: ScoreModel, options: Options, out: Path) -> None:
    """Print what would be computed for a volume, how much memory it needs and where the results would be written."""
    file, walks = scan.file, _walks(slices, options)
    groups = -(-len(slices) // slices_together(options))
    batches = walks // (len(slices) * options.samples) * groups * -(-options.samples // options.batch_size)
    together = min(options.batch_size, options.samples * min(slices_together(options), len(slices)))
    work = _work(scan, prior, options)
    coils = str(file.coils) if scan.coils is None else f"{file.coils}, compressed to {scan.coils}"
    lines = {
        "slices": f"{len(slices)} of {file.slices}",
        "matrix": f"{file.image_shape[0]} x {file.image_shape[1]}, written {file.crop[0]} x {file.crop[1]}",
        "coils": coils,
        "acceleration": f"{scan.acceleration_of(slices):.2f}",
        "draws": f"{walks:,} by {options.method}",
        "network calls": f"{walks * work.calls:,}",
        **({"products": f"{walks * work.products:,} with the Jacobian of the network"} if work.products else {}),
        "batches": f"{batches:,} of {counted(together, 'draw')}" + (" at most" if batches * together > walks else ""),
        "memory": _memory(_needed(scan, slices, prior, options), together, find_device(options.device)),
        "results": str(out / "reconstructions" / result_name(file.path)),
    }
    click.secho(str(file.path), bold=True)
    for name, value in lines.items():
        click.echo(f"  {name:<15}{value}")


def _memory(needed: Callable[[int], int] | None, walks: int, device: torch.device) -> str:
    if needed is None:
        return "cannot be predicted for a trajectory or --operator sigpy"
    work = needed(walks)
    return footprint.peak_text(work) if device.type == "cpu" else f"{work / 2**20:,.0f} MiB of {device}, at the peak"


def _scan(file: Reader, sampling: Undersampling, given: ReconstructOptions) -> Scan:
    """The scan of a file, undersampled by a mask or along a trajectory, or as acquired along its own."""
    if file.coordinates(0) is not None:
        if others := chosen("accel", "trajectory", *CARTESIAN):
            raise InputError(f"{file.path} was acquired along a trajectory; leave out {', '.join(others)}")
        return MeasuredScan(file, coils=given.coils, noise_std=given.noise_std)
    if given.trajectory is not None:
        assert sampling.acceleration is not None
        trajectory = TRAJECTORIES[given.trajectory](file.image_shape, sampling.acceleration)
        return NonCartesianScan(file, trajectory, coils=given.coils, noise_std=given.noise_std)
    return Scan(
        file,
        sampling,
        maps=given.maps,
        cache=given.out / "maps",
        coils=given.coils,
        full_maps=given.full_maps,
        noise_std=given.noise_std,
    )


def _amount(text: str | None) -> float | None:
    """The number N|SHARE of --check-lines. Errors: InputError if it is no number."""
    try:
        return None if text in (None, "none") else float(text)
    except ValueError as error:
        raise InputError(
            f"--check-lines {text!r} should be a number of lines such as 5, a share such as 0.1, or none"
        ) from error


def _print(volume: Volume, scores: dict[str, list[MethodScores]], options: Options) -> None:
    """Print the scores and notes of one volume. scores: target -> those of each method."""
    count = counted(len(volume.slices), "slice")
    scored = [
        {"target": target, "region": region, "method": one.method, **getattr(one, region)}
        for target, region in SHOWN
        for one in scores.get(target, [])
    ]
    facts = {"file": volume.name, "acceleration": volume.acceleration, "slices": volume.slices, "scores": scored}
    say(f"\n{volume.name}: acceleration {volume.facts['Acceleration']}, {count}", bold=True, **facts)
    for text in volume.notes:
        note(text, indent=2, file=volume.name)
    if scores:
        _print_scores(volume, scores, options)
    else:
        say("  acquired undersampled: no ground truth, no scores", file=volume.name)
    for name, one in volume.held_out.items() if options.check_lines is not None else ():
        draws = "" if one.ratio is None else f", {one.ratio:.2f} times the expected (1 is calibrated)"
        say(f"  left-out samples, {name}: misfit {one.misfit:.2f} (1 is noise alone){draws}")


SHOWN = ((MVUE, "foreground"), (RSS, "whole"))
"""Targets and regions of the printed scores; metrics.csv and the report have all."""


def _print_scores(volume: Volume, scores: dict[str, list[MethodScores]], options: Options) -> None:
    lines = []
    for target, region in SHOWN:
        lines += [
            f"  against {target}, {REGIONS[region]}",
            f"  {'':<34}{'PSNR (dB)':>10}{'SSIM':>9}{'NMSE':>9}{'seconds':>9}",
        ]
        for one in scores[target]:
            seconds = "" if one.seconds is None else f"{one.seconds:.1f}"
            psnr, ssim, nmse = (getattr(one, region)[name] for name in ("psnr", "ssim", "nmse"))
            lines.append(f"  {one.method:<34}{psnr:>10.2f}{ssim:>9.4f}{nmse:>9.4f}{seconds:>9}")
    say("\n".join([*lines, f"  {AIR}"]), file=volume.name)
    if (spread := volume.calibration()) is not None and METHODS[options.method].draws:
        shares = ", ".join(f"{share:.0%} of {level:.0%}" for level, share in spread.coverage.items())
        say(f"  spread / skill {spread.spread_skill:.2f} (1 is calibrated); intervals cover {shares}")
        blocks = ", ".join(f"{side} x {side}: {ratio:.2f}" for side, ratio in spread.blocks.items() if side > 1)
        if blocks:
            say(f"  spread / skill of the means of blocks of pixels: {blocks}")
    if (check := volume.interval_check()) is not None and check.coverage:
        shares = ", ".join(f"{share:.1%} of the {target}s" for target, share in check.coverage.items())
        say(f"  conformal intervals of {check.level:.0%} cover {shares}")
