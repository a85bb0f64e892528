"""Files that mri-score reconstruct finished before: found and completed without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import click

from mri_score import __version__
from mri_score.errors import visible
from mri_score.evaluation.report import StudyRow, render_study
from mri_score.files import alone as locked
from mri_score.files import sha256, write_text
from mri_score.keys import key
from mri_score.pipeline.derived import Derived, Metrics, Page, Panels, restore
from mri_score.pipeline.exports import exports
from mri_score.pipeline.result_file import MVUE, finished, read_number, read_pictures, read_scores
from mri_score.priors.record import find_prior
from mri_score.readers import scan_files
from mri_score.readers.base import one_name_each, result_name
from mri_score.readers.sampling import MASK_FILES

from ..log import say
from ..names import COMMAND_LINE
from ..options import MaskOptions, content, each_file, maps_of, read_names, take_shard

NO_INFLUENCE = ("out", "again", "threads", "device", "batch_size", "shard", "dry_run", "write", "dicom_like", "maps")
"""Options that do not change a result: a finished file stays finished when they change. Of maps, the content counts."""

@dataclass(frozen=True, kw_only=True)
class ReconstructOptions(MaskOptions):
    """The options of the command, named and typed as by click."""

    prior: str
    one_channel: str | None
    trajectory: str | None
    trajectory_file: Path | None
    method: str
    samples: int
    steps: int | None
    warm_start: float | None
    precision: str
    seed: int
    slices: str | None
    axes: tuple[str, ...] | None
    ignore_mask: bool
    maps: Path | None
    full_maps: bool
    noise_std: float | None
    coils: int | None
    baselines: str
    operator: str
    check_lines: str | None
    intervals: Path | None
    batch_size: int | Literal["auto"]
    keep_samples: bool
    bad_slices: str
    device: str
    threads: int | None
    shard: str | None
    out: Path
    again: bool
    dry_run: bool
    write: str
    dicom_like: Path | None

    def identity(self) -> list[tuple[str, str]]:
        """Names and values of all options that change a result; a file with a mask counts by its content."""
        given = {name: value for name, value in vars(self).items() if name not in NO_INFLUENCE}
        if Path(self.law).suffix in MASK_FILES:
            given["law"] = content(Path(self.law))
        return sorted((name, str(value)) for name, value in given.items())


def nothing_left(scan: Path | None, given: ReconstructOptions) -> bool:
    """Whether all files were finished before; then says so, and makes what is missing beside their results.

    scan: as given to the command. Errors: InputError for a prior or scans that do not exist.
    """
    prior = find_prior(given.prior)
    files = [] if scan is None else scan_files(scan, axes=given.axes)
    one_name_each(files)
    if scan is None or given.again or given.intervals is not None or not (given.out / "reconstructions").is_dir():
        return False
    digest = sha256(prior)
    try:
        identities = {path: identity_of(path, given, digest) for path in files}
    except OSError:  # a file that has vanished is reported in its turn
        return False
    if not all(finished(given.out, result_name(path), identity) for path, identity in identities.items()):
        return False

    def complete(path: Path) -> None:
        finished_before(path, given, identities[path], derived_of(path, given, alone=len(files) == 1))

    each_file(take_shard(files, given.shard, scan.is_dir()), complete, summary_of(files, given))
    return True


def identity_of(path: Path, given: ReconstructOptions, digest: str, intervals: object = None) -> int:
    """A number that scan, options, prior, coil maps and version determine: a result with this number is of them.

    path: the scan. digest: SHA-256 of the prior. intervals: the conformal intervals, if any.
    Errors: OSError for a scan that does not exist.
    """
    settings = [*given.identity(), ("intervals", str(intervals))]
    maps = maps_of(given.maps, path)
    of_maps = "None" if maps is None else content(maps)
    status = path.stat()
    return key(__version__, settings, digest, of_maps, path.resolve(), status.st_size, status.st_mtime_ns)


def derived_of(path: Path, given: ReconstructOptions, alone: bool = False) -> list[Derived]:
    """What is written beside the result of a scan, in this order. alone: whether it is the only scan.

    Errors: InputError for an unknown format of --write.
    """
    out, report = given.out, given.out / "report"
    own = [Panels(out / "panels"), Page(report if alone else report / path.stem), Metrics(out / "metrics.csv")]
    return [*own, *exports(out, read_names(given.write), given.dicom_like)]


def finished_before(path: Path, given: ReconstructOptions, identity: int, derived: Sequence[Derived]) -> bool:
    """Whether a scan is finished; then says so, and makes what is missing beside its result, but for a dry run."""
    if given.again or not finished(given.out, result_name(path), identity):
        return False
    made = [] if given.dry_run else restore(given.out / "reconstructions" / result_name(path), derived)
    more = f"; made from its result: {', '.join(made)}" if made else ""
    say(f"{path.name}: finished before (--again redoes it){more}", file=path.name, finished=True)
    return True


def run_facts() -> dict[str, str]:
    """The command line and the date of this run, for reports."""
    line = click.get_current_context().meta.get(COMMAND_LINE)
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return {"Date": now} | ({} if line is None else {"Command": visible(line)})


def summary_of(files: Sequence[Path], given: ReconstructOptions) -> Callable[[], None] | None:
    """A function that writes the report page of all scans; None for a single scan and for a dry run."""
    if len(files) < 2 or given.dry_run:
        return None

    def write() -> None:
        with locked(given.out / "metrics.csv"):  # another process may write the same summary
            page = _summary(given.out, [result_name(path) for path in files])
        say(f"Report of all volumes: {page}", report=page)

    return write


def _summary(out: Path, names: list[str]) -> Path:
    """Write the index of all volumes, with those finished earlier; return its path."""
    rows = []
    for name in names:
        result, stem = out / "reconstructions" / name, Path(name).stem
        if not (out / "report" / stem / "index.html").exists() or not result.exists():
            continue
        pictures, scores = read_pictures(result), read_scores(result)
        ours = [row for row in scores if row["target"] == MVUE and row["region"] == "foreground"][-1:]
        numbers = {title: float(row[key]) for row in ours for title, key in (("PSNR (dB)", "psnr"), ("SSIM", "ssim"))}
        columns = {"Acceleration": read_number(result, "true_acceleration"), **numbers}
        rows.append(StudyRow(stem, f"{quote(stem)}/index.html", pictures.thumbnail or None, columns, pictures.notes))
    links = [("scores (CSV)", "../metrics.csv")] if (out / "metrics.csv").exists() else []
    path = out / "report" / "index.html"
    write_text(path, render_study("All volumes", rows, links))
    return path
