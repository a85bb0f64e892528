"""The work of mri-score compare. Scans and cells that fail are reported and skipped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from mri_score.benchmark.comparison import REFERENCE, SUPERVISED, Cell, Comparison, Outcome, Plan, Weights
from mri_score.benchmark.ledger import Ledger, read_rows
from mri_score.benchmark.summary import QUALITY, plain, write_summary
from mri_score.errors import InputError, unknown_name
from mri_score.files import sha256
from mri_score.models.network import NetworkPrior
from mri_score.models.one_channel import digest_of_use, for_complex_images
from mri_score.priors.store import find_prior, load_prior, load_supervised
from mri_score.progress import duration, progress
from mri_score.readers import open_scan, scan_files
from mri_score.readers.base import Reader

from ..exits import SomeFailed
from ..log import fail, say
from ..options import read_names, read_numbers, read_slices, take_precision


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """The options of the command, named and typed as by click."""

    axes: tuple[str, ...] | None
    out: Path
    methods: str
    baselines: str
    supervised: str | None
    accel: str
    laws: str
    mask_seeds: str
    slices: str
    samples: int
    steps: tuple[str, ...]
    prior: str
    one_channel: str | None
    precision: str
    reference: str | None
    seed: int
    batch_size: int
    device: str
    threads: int | None
    summary: Path | None


def compare(scans: tuple[Path, ...], given: CompareOptions) -> None:
    """Run the cells that are not finished, then write the summary.

    Errors: SomeFailed at the end if a scan or a cell failed.
    """
    plan = _plan(given)
    files = _files(scans, given.axes)
    if given.threads:
        torch.set_num_threads(given.threads)
    _check_reference(given.reference, plan, given.out)
    supervised = None if given.supervised is None else _weights(given.supervised, load_supervised)
    out = given.out
    comparison = Comparison(plan, Ledger(out), _prior_weights(given), supervised, maps=out / "maps")

    failures: list[str] = []
    work: list[tuple[Reader, list[Cell]]] = []
    total = 0
    for path in files:
        try:
            file = open_scan(path, axes=given.axes)
            cells = comparison.cells(file, read_slices(given.slices, file.slices))
        except InputError as error:
            failures.append(_failed(f"{path.name}: {error}"))
            continue
        total += len(cells)
        work.append((file, comparison.missing(cells)))
    todo = [cell for _, cells in work for cell in cells]
    say(f"{total} cells, {total - len(todo)} of them finished before")
    failures += _run(comparison, work, todo)
    if not read_rows(out / "cells.jsonl"):
        raise InputError(f"no cell was finished: {failures[0]}" if failures else "no cell was finished")
    summarise(out, given.reference)
    if failures:
        raise SomeFailed(f"{len(failures)} failures, the first of them: {failures[0]}")


def _run(comparison: Comparison, work: list[tuple[Reader, list[Cell]]], todo: list[Cell]) -> list[str]:
    """Run the cells with a progress bar in network evaluations; return the messages of cells that failed."""
    failures = []
    ends = [0]
    for cell in todo:
        ends.append(ends[-1] + comparison.work(cell))
    with progress(ends[-1], "call") as bar:
        number, started = 0, time.monotonic()
        for file, cells in work:
            for outcome in comparison.run(file, cells, bar.update):
                number += 1
                bar.update(ends[number] - bar.done)
                left = (time.monotonic() - started) * (ends[-1] / ends[number] - 1)
                line = f"[{number}/{len(todo)}, {duration(left)} left] {outcome.cell}: {_result(outcome)}"
                if outcome.error is None:
                    say(line)
                else:
                    failures.append(_failed(line))
            file.close()
    return failures


def _result(outcome: Outcome) -> str:
    if outcome.error is not None:
        return outcome.error
    if not outcome.rows:
        return "done by another process"
    last = outcome.rows[-1]
    of = f" (mean of {last['draws']})" if last["draws"] > 1 else ""
    return f"{last[QUALITY]:.2f} dB{of}, {last['seconds']:.1f} s"


def _failed(message: str) -> str:
    fail(message)
    return message


def summarise(folder: Path, reference: str | None) -> None:
    """Write the summary of a comparison folder, and print it."""
    for section in write_summary(folder, reference):
        say(f"\n{plain(section)}")
    say(f"\nTables  {folder / 'summary.md'}\nNumbers {folder / 'summary.csv'}\nPlot    {folder / 'quality.png'}")


def _plan(given: CompareOptions) -> Plan:
    return Plan(
        methods=read_names(given.methods),
        baselines=[*read_names(given.baselines), *([SUPERVISED] if given.supervised else [])],
        accelerations=read_numbers(float, "--accel", given.accel),
        laws=read_names(given.laws),
        mask_seeds=read_numbers(int, "--mask-seeds", given.mask_seeds),
        samples=given.samples,
        steps=dict(_steps(one) for one in given.steps),
        precision=take_precision(given.precision, given.device),
        seed=given.seed,
        batch_size=given.batch_size,
        device=given.device,
    )


def _check_reference(name: str | None, plan: Plan, out: Path) -> None:
    known = {REFERENCE, *plan.methods, *plan.baselines, *(row["method"] for row in read_rows(out / "cells.jsonl"))}
    if name is not None and name not in known:
        raise unknown_name("the reference", name, known)


def _steps(text: str) -> tuple[str, int]:
    method, _, count = text.partition("=")
    if not count.isdigit() or int(count) < 2:
        raise InputError(f"--steps {text!r} should read METHOD=N with N at least 2, such as langevin=100")
    return method, int(count)


def _files(scans: tuple[Path, ...], axes: tuple[str, ...] | None) -> list[Path]:
    files = list(dict.fromkeys(path for scan in scans for path in scan_files(scan, axes=axes)))
    if not files:
        raise InputError("give fully sampled scans: files or a folder; mri-score simulate makes simulated ones")
    repeated = [name for name, count in Counter(path.stem for path in files).items() if count > 1]
    if repeated:
        raise InputError(
            f"two input files are named {repeated[0]}; names must be unique because they seed the masks and label the"
            " results"
        )
    return files


def _weights(name: str, load: Callable[[Path], NetworkPrior]) -> Weights:
    path = find_prior(name)
    return Weights(load(path), sha256(path))


def _prior_weights(given: CompareOptions) -> Weights:
    """The prior, for complex images; one of one channel has another digest for its second use."""
    path = find_prior(given.prior)
    prior, digest = for_complex_images(load_prior(path), given.one_channel), sha256(path)
    return Weights(prior, digest_of_use(digest, given.one_channel))
