"""mri-score intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from mri_score.methods import DEFAULT_METHOD

from .options import ANY_PATH, each_file, precision_option, read_numbers, read_slices

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mri_score.evaluation.intervals import Factor
    from mri_score.models.base import ScoreModel
    from mri_score.pipeline.options import Options


@dataclass(frozen=True, kw_only=True)
class IntervalsOptions:
    """The options of the command, as click names and types them."""

    out: Path
    accel: str
    level: float
    samples: int
    prior: str
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
@click.option(
    "--out",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("intervals.json"),
    show_default=True,
    help="The file to write.",
)
@click.option("--accel", default="4", show_default=True, metavar="LIST", help="Accelerations, such as 4,8.")
@click.option("--level", type=float, default=0.9, show_default=True, help="What the intervals shall cover.")
@click.option("--samples", "-n", type=click.IntRange(2), default=8, show_default=True, help="Draws a slice.")
@click.option("--prior", "-p", default="brain", show_default=True, help="As for mri-score reconstruct.")
@click.option("--method", "--sampler", default=DEFAULT_METHOD, show_default=True, help="As for mri-score reconstruct.")
@precision_option
@click.option("--steps", type=click.IntRange(2), help="Noise levels of a walk.  [default: the method's own]")
@click.option("--seed", default=0, show_default=True, help="Of the draws; never of the mask.")
@click.option("--slices", metavar="LIST", help="Of each file: 3, 2:5, 0,4,9 or middle.  [default: all]")
@click.option("--mask", "law", default="variable-density", show_default=True, help="As for mri-score reconstruct.")
@click.option("--mask-seed", type=click.IntRange(0), metavar="N", help="Other masks than the file names'.")
@click.option(
    "--unit",
    type=click.Choice(["slice", "volume"]),
    default="slice",
    show_default=True,
    help="What a new one is promised for; volumes are the honest choice, where there are enough of them.",
)
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Walks at a time.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all cores]")
def command(folder: Path, **options: Any) -> None:  # fmt: skip
    """Fit intervals that keep their promise, on FOLDER: full scans of patients that no prior was trained on.

    The draws' standard deviation times the fitted factor then covers --level of the foreground of a new slice, on
    average: at least, and with n slices at most 2 / (n + 1) more, so that fifty are a good start. mri-score reconstruct
    --intervals writes such intervals, for the same prior, method and draws.

    \b
    Example:
      mri-score intervals held_out_patients --out intervals.json --accel 4,8 --samples 8
    """
    import torch
    from tqdm import tqdm

    from mri_score.evaluation.intervals import Intervals, require_units
    from mri_score.files import make_folder, sha256
    from mri_score.methods import METHODS
    from mri_score.pipeline.facts import counted
    from mri_score.pipeline.options import Options
    from mri_score.priors.store import find_prior, load_prior
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
        precision=given.precision,
        baselines=(),
    )
    path = find_prior(given.prior)
    prior = load_prior(path)
    files, found = scan_files(folder), []
    require_units(len(files) if unit == "volume" else sum(_slices(file, given.slices) for file in files), level)

    def measure(file: Path) -> None:
        found.append([_errors(file, acceleration, prior, walks, given) for acceleration in accelerations])
        bar.update()

    def fit() -> None:
        bar.close()
        factors = [_fit(volumes, level, unit) for volumes in zip(*found, strict=True)]
        for factor in factors:
            click.echo(
                f"acceleration {factor.acceleration:.2f}, {counted(factor.units, unit)}: {level:.0%} within std x"
                f" {factor.magnitude:.3f} (magnitude), {factor.component:.3f} (each component)"
            )
        Intervals(
            level=level,
            unit=unit,
            factors=tuple(factors),
            prior=str(given.prior),
            prior_sha256=sha256(path),
            sampler=walks.method,
            steps=walks.steps or METHODS[walks.method].steps,
            samples=walks.samples,
            mask=given.law,
            volumes=len(found),
            slices=sum(volumes[0].slices for volumes in found),
        ).write(given.out)
        click.echo(given.out)

    with tqdm(total=len(files), unit="volume", leave=False, disable=None) as bar:
        each_file(files, measure, fit)


def _slices(path: Path, chosen: str | None) -> int:
    """How many slices of a file count; none of one that cannot be read, which is reported when its turn comes."""
    from mri_score.errors import InputError
    from mri_score.readers import open_scan

    try:
        return len(read_slices(chosen, open_scan(path).slices))
    except InputError:
        return 0


class _Errors(NamedTuple):
    """What one volume at one acceleration tells, slice by slice, of each target."""

    acceleration: float
    scores: dict[str, list[NDArray[np.float32]]]

    @property
    def slices(self) -> int:
        return len(next(iter(self.scores.values())))


def _errors(path: Path, acceleration: float, prior: ScoreModel, options: Options, given: IntervalsOptions) -> _Errors:
    from mri_score.data.scan import Scan, Undersampling
    from mri_score.errors import InputError
    from mri_score.evaluation.intervals import TARGETS
    from mri_score.pipeline.volume import reconstruct_volume
    from mri_score.readers import open_scan

    scan = Scan(open_scan(path), Undersampling(acceleration, given.law, seed=given.mask_seed))
    if not scan.has_truth:
        raise InputError(f"{path} was acquired undersampled: intervals need full scans, with their truth")
    volume = reconstruct_volume(scan, prior, options, read_slices(given.slices, scan.file.slices))
    return _Errors(volume.acceleration, {target: volume.interval_scores(target) for target in TARGETS})


def _fit(volumes: Sequence[_Errors], level: float, unit: str) -> Factor:
    """The factor of one acceleration."""
    import numpy as np

    from mri_score.evaluation.intervals import TARGETS, Factor, conformal_factor

    scores: dict[str, list[NDArray[np.float32]]] = {target: [] for target in TARGETS}
    for volume in volumes:
        for target, found in volume.scores.items():
            scores[target] += found if unit == "slice" else [np.concatenate(found)]
    factors = {target: conformal_factor(found, level) for target, found in scores.items()}
    true = np.mean([volume.acceleration for volume in volumes])
    return Factor(float(true), units=len(scores["magnitude"]), **factors)
