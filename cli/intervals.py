"""mri-score intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from mri_score.methods import DEFAULT_METHOD

from . import names
from .log import say
from .options import (
    ANY_PATH,
    axes_option,
    batch_size_option,
    device_options,
    each_file,
    one_channel_option,
    precision_option,
    prior_option,
    read_numbers,
    read_slices,
    slices_option,
    steps_option,
    take_precision,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mri_score.evaluation.intervals import Factor
    from mri_score.models.base import ScoreModel
    from mri_score.pipeline.options import Options


@dataclass(frozen=True, kw_only=True)
class IntervalsOptions:
    """The options of the command, as click names and types them."""

    axes: tuple[str, ...] | None
    out: Path
    accel: str
    level: float
    samples: int
    prior: str
    one_channel: str | None
    method: str
    precision: str
    steps: int | None
    seed: int
    slices: str | None
    law: str
    mask_seed: int | None
    unit: str
    batch_size: int
    device: str
    threads: int | None


@click.command("intervals")
@click.argument("folder", type=ANY_PATH)
@axes_option
@click.option(
    "--out", "-o", type=click.Path(dir_okay=False, path_type=Path), default=Path("intervals.json"), show_default=True,
    help="The file to write.",
)  # fmt: skip
@click.option(
    "--accel", default="4", show_default=True, metavar="LIST", help="Acceleration factors to fit for, such as 4,8."
)
@click.option(
    "--level", type=float, default=0.9, show_default=True, help="Coverage of the intervals, between 0 and 1."
)
@click.option(
    "--samples", "-n", type=click.IntRange(2), default=8, show_default=True, help="Number of draws per slice."
)
@prior_option
@one_channel_option
@click.option(
    "--method", "--sampler", type=names.METHOD, default=DEFAULT_METHOD, show_default=True,
    help="As for mri-score reconstruct.",
)  # fmt: skip
@steps_option
@slices_option
@click.option(
    "--mask", "law", type=names.MASK, default="variable-density", show_default=True,
    help="As for mri-score reconstruct.",
)  # fmt: skip
@click.option(
    "--mask-seed", type=click.IntRange(0), metavar="N", help="Random seed of the masks.  [default: from the file names]"
)
@click.option(
    "--unit", type=click.Choice(["slice", "volume", "patient"]), default="slice", show_default=True,
    help="What counts as one independent observation. Slices of a volume, and volumes of a patient, are not"
    " independent: patient is the rigorous choice, but needs more scans, and few patients give wide intervals.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Random seed of the draws; the masks have their own.")
@precision_option
@batch_size_option
@device_options
def command(folder: Path, **options: Any) -> None:
    """Fit conformal intervals on FOLDER: fully sampled scans of patients that the prior was not trained on.

    The result is a factor for the standard deviation of the draws. Mean +/- factor x standard deviation then covers
    the ground truth at a share of at least --level of the foreground pixels, on average over new slices; with n slices
    in FOLDER, by at most 2 / (n + 1) more. Fifty slices are a good start. mri-score reconstruct --intervals writes the
    intervals; prior, method, steps and number of draws must be the same as here. The means of blocks of 4, 8 and 16
    pixels have factors of their own, and PSNR and SSIM of a slice get lower bounds.

    \b
    Example:
      mri-score intervals held_out_patients --out intervals.json --accel 4,8 --samples 8
    """
    import torch

    from mri_score.evaluation.intervals import Intervals, require_units
    from mri_score.files import make_folder, sha256
    from mri_score.methods import METHODS
    from mri_score.models.one_channel import digest_of_use, for_complex_images
    from mri_score.pipeline.facts import counted
    from mri_score.pipeline.options import Options
    from mri_score.priors.store import find_prior, load_prior
    from mri_score.progress import progress
    from mri_score.readers import scan_files

    given = IntervalsOptions(**options)
    level, unit = given.level, given.unit
    if given.threads:
        torch.set_num_threads(given.threads)
    accelerations = read_numbers(float, "--accel", given.accel)
    make_folder(given.out.parent)
    walks = Options(
        method=given.method,
        steps=given.steps,
        samples=given.samples,
        seed=given.seed,
        batch_size=given.batch_size,
        device=given.device,
        precision=take_precision(given.precision, given.device),
        baselines=(),
        bad_slices="skip",
    )
    path = find_prior(given.prior)
    prior = for_complex_images(load_prior(path), given.one_channel)
    files, found = scan_files(folder, axes=given.axes), []
    count = sum(_slices(file, given) for file in files) if unit == "slice" else len(files)
    require_units(len({_patient(file, given.axes) for file in files}) if unit == "patient" else count, level)

    def measure(file: Path) -> None:
        found.append([_errors(file, acceleration, prior, walks, given) for acceleration in accelerations])
        bar.update()

    def fit() -> None:
        bar.close()
        factors = [_fit(volumes, level, unit) for volumes in zip(*found, strict=True)]
        for factor in factors:
            blocks = "".join(f", {value:.3f} ({side} x {side} blocks)" for side, value in factor.blocks.items())
            say(
                f"acceleration {factor.acceleration:.2f}, {counted(factor.units, unit)}: {level:.0%} within std x"
                f" {factor.magnitude:.3f} (magnitude), {factor.component:.3f} (each component){blocks}"
            )
        Intervals(
            level=level,
            unit=unit,
            factors=tuple(factors),
            prior=str(given.prior),
            prior_sha256=digest_of_use(sha256(path), given.one_channel),
            sampler=walks.method,
            steps=walks.steps or METHODS[walks.method].steps,
            samples=walks.samples,
            mask=given.law,
            volumes=len(found),
            slices=sum(volumes[0].slices for volumes in found),
        ).write(given.out)
        say(given.out)

    with progress(len(files), "volume") as bar:
        each_file(files, measure, fit)


def _slices(path: Path, given: IntervalsOptions) -> int:
    """The number of slices used of a file; 0 if it cannot be read, which `each_file` reports later."""
    from mri_score.errors import InputError
    from mri_score.readers import open_scan

    try:
        return len(read_slices(given.slices, open_scan(path, axes=given.axes).slices))
    except InputError:
        return 0


def _patient(path: Path, axes: Sequence[str] | None) -> str:
    """Who was scanned, as the file states it, or else its name; the name too if it cannot be read."""
    from mri_score.errors import InputError
    from mri_score.readers import open_scan

    try:
        return str(open_scan(path, axes=axes).attributes.get("patient_id") or path.stem)
    except InputError:
        return path.stem


class _Errors(NamedTuple):
    """Relative errors of one volume at one acceleration: for each target one array per slice; and its shortfalls."""

    acceleration: float
    patient: str
    scores: dict[str, list[NDArray[np.float32]]]
    shortfalls: list[dict[str, float]]

    @property
    def slices(self) -> int:
        return len(next(iter(self.scores.values())))


def _errors(path: Path, acceleration: float, prior: ScoreModel, options: Options, given: IntervalsOptions) -> _Errors:
    from mri_score.data.scan import Scan, Undersampling
    from mri_score.errors import InputError
    from mri_score.evaluation.intervals import SIDES, TARGETS
    from mri_score.pipeline.volume import reconstruct_volume
    from mri_score.readers import open_scan

    scan = Scan(open_scan(path, axes=given.axes), Undersampling(acceleration, given.law, seed=given.mask_seed))
    if not scan.has_truth:
        raise InputError(f"{path} was acquired undersampled; intervals are fitted on fully sampled scans only")
    volume = reconstruct_volume(scan, prior, options, read_slices(given.slices, scan.file.slices))
    scores = {target: volume.interval_scores(target) for target in TARGETS}
    scores |= {str(side): volume.block_scores(side) for side in SIDES}
    return _Errors(volume.acceleration, _patient(path, given.axes), scores, volume.shortfalls())


def _fit(volumes: Sequence[_Errors], level: float, unit: str) -> Factor:
    """The conformal factors at one acceleration, over slices, volumes or patients."""
    import numpy as np

    from mri_score.evaluation.intervals import BOUNDS, SIDES, TARGETS, Factor, conformal_factor, least_margin

    def units(lists: Sequence[list]) -> list[list]:
        """What each volume has of its slices, joined to units."""
        if unit == "slice":
            return [[one] for found in lists for one in found]
        groups: dict[object, list] = {}
        for number, (volume, found) in enumerate(zip(volumes, lists, strict=True)):
            groups.setdefault(volume.patient if unit == "patient" else number, []).extend(found)
        return list(groups.values())

    factors = {}
    for target in (*TARGETS, *map(str, SIDES)):
        scores = [np.concatenate(one) for one in units([volume.scores[target] for volume in volumes]) if one]
        if scores or target in TARGETS:
            factors[target] = conformal_factor(scores, level)
    together = units([volume.shortfalls for volume in volumes])
    means = {name: [float(np.mean([one[name] for one in part])) for part in together] for name in BOUNDS}
    margins = {name: least_margin(found, level) for name, found in means.items()}
    return Factor(
        float(np.mean([volume.acceleration for volume in volumes])),
        magnitude=factors.pop("magnitude"),
        component=factors.pop("component"),
        units=len(together),
        blocks=factors,
        margins=margins,
    )
