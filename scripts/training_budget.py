"""Results by training time: denoising errors and reconstructions of the priors that runs kept during training.

python scripts/training_budget.py runs/brain_fast runs/brain_ncsnv2 --scan SCAN.h5 --images VAL.h5 --out results/budget

Train the runs with training.keep_every. Hours are from the run's log, on the machine that trained it. For a kept prior
the learning rate has not decreased yet as at the end of a run; a shorter run of the same number of steps is better.
Finished reconstructions are not repeated.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import click
import torch
from denoising_errors import held_out
from pages import check, fill
from results_page import cell

from mri_score.benchmark.ledger import read_rows
from mri_score.benchmark.yardstick import CANDIDATES, best_classical
from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.models.precision import find_precision
from mri_score.priors.store import load_prior, read_record
from mri_score.training.validation import denoising_errors

SIGMAS = (0.03, 0.1, 0.3, 1.0)
PATCH, IMAGES = 128, 64
"""Noise levels of the denoising errors, the same for all priors."""
Row = Mapping[str, Any]
DRAWS = 2


def hours(log: Sequence[Row], step: int) -> float:
    """Hours of training up to a step; `seconds` restarts when a run is resumed, which a decrease shows."""
    total = before = 0.0
    for entry in log:
        if "seconds" in entry and entry["step"] <= step:
            total += entry["seconds"] - before if entry["seconds"] > before else entry["seconds"]
            before = entry["seconds"]
    return total / 3600


def kept(run: Path, every: int) -> list[Path]:
    """Every n-th of the priors that a run kept, and the last."""
    found = sorted((run / "kept").glob("prior-*.safetensors"))
    if not found:
        raise InputError(f"{run} kept no priors; train it with --set training.keep_every=N")
    return found[::-every][::-1]


def rows(run: Path, every: int, cells: Sequence[Row], images: Sequence[TrainingItem]) -> Iterator[str]:
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    for path in kept(run, every):
        record, prior = read_record(path), load_prior(path)
        step = record["about"]["step"]
        prior.precision = find_precision("bfloat16")
        errors = denoising_errors(prior, images, SIGMAS)
        mine = [row for row in cells if row["prior"] == record["sha256"][:12] and row["draws"] == DRAWS]
        found = [*(f"{errors[sigma]:.3f}" for sigma in SIGMAS), *gains(mine, cells)]
        yield f"| {run.name} | {hours(log, step):.2f} | {step:,} | " + " | ".join(found) + " |"


def gains(mine: Sequence[Row], cells: Sequence[Row]) -> list[str]:
    """Mean PSNR at each acceleration, with its gain over the best classical method, tuned on the ground truth."""
    found = []
    for factor in factors(cells):
        tuned = {cell(row): row for row in best_classical(cells) if row["nominal"] == factor}
        pairs = [(row, tuned[cell(row)]) for row in mine if cell(row) in tuned]
        if not pairs:
            raise InputError(f"no reconstruction at R = {factor:g} beside {' and '.join(CANDIDATES)}; run this again")
        ours, theirs = (mean(pair[side]["mvue_foreground_psnr"] for pair in pairs) for side in (0, 1))
        found.append(f"{ours:.2f} ({ours - theirs:+.2f})")
    return found


def factors(cells: Sequence[Row]) -> list[float]:
    return sorted({row["nominal"] for row in cells})


FILES = click.Path(exists=True, path_type=Path)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=FILES)
@click.option("--scan", "scans", multiple=True, required=True, type=FILES, help="Fully sampled scans.")
@click.option("--images", multiple=True, required=True, type=FILES, help="Held-out stacks, for denoising errors.")
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--every", type=click.IntRange(1), default=1, show_default=True, help="Of the kept priors, from the end.")
@click.option("--threads", type=int, default=1, show_default=True)
@click.option("--page", type=FILES, help="A page that the table is written into, between its marks.")
def main(
    runs: tuple[Path, ...], scans: tuple[Path, ...], images: tuple[Path, ...], out: Path, every: int, threads: int,
    page: Path | None,
) -> None:  # fmt: skip
    check(page, "budget")
    torch.set_num_threads(threads)
    for path in (path for run in runs for path in kept(run, every)):
        command = [
            "compare", *scans, "--prior", path, "--out", out, "--baselines", ",".join(CANDIDATES), "--samples", DRAWS,
            "--mask-seeds", 0, "--precision", "bfloat16", "--threads", threads,
        ]  # fmt: skip
        subprocess.run([sys.executable, "-m", "mri_score", *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    cells, batches = read_rows(out / "cells.jsonl"), held_out(images, PATCH, IMAGES)
    head = ["run", "hours", "steps", *(f"sigma {sigma}" for sigma in SIGMAS), *(f"R = {f:g}" for f in factors(cells))]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    text = "\n".join([*lines, *(line for run in runs for line in rows(run, every, cells, batches))])
    click.echo(text)
    if page is not None:
        fill(page, budget=text)


if __name__ == "__main__":
    main()
