"""Effect of each augmentation of training images: the same small training without it, tested on scans.

python scripts/ablation.py SCAN [SCAN ...] --images STACK.h5 [--images ...] --out results/ablation

The stacks must name a patient19, whom brain.yml excludes. Every run trains the network of brain.yml at half its widths
with the same seed and steps, and reconstructs the same scans with the same masks. Finished runs are not repeated, so
use another --out for other settings. A training of 1500 steps takes some 4 minutes of one core,
the reconstruction of three scans at two accelerations under one mask one more.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from pages import check, fill

from mri_score.benchmark.statistics import mean_interval
from mri_score.errors import InputError, unknown_name
from mri_score.sources.magnitude_images import AUGMENTATIONS

NOTHING = "nothing"
CASES = (NOTHING, *AUGMENTATIONS, "susceptibility,fat_shift", ",".join(AUGMENTATIONS))
"""Augmentations that are left out."""
Scores = dict[tuple[str, float, int, int], float]
"""PSNR by scan, acceleration, mask seed and seed of the training."""


def mri_score(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "mri_score", *map(str, arguments)], check=True)


def run(case: str, seed: int, out: Path, scans: Sequence[Path], images: Sequence[Path], steps: int, masks: str) -> None:
    """Train without the augmentations of a case, and reconstruct."""
    name = f"{'all' if case == ','.join(AUGMENTATIONS) else case.replace(',', '+')}-{seed}"
    left_out = [] if case == NOTHING else case.split(",")
    settings = {
        "data.paths": [str(path.resolve()) for path in images], "data.without": left_out, "validation": None,
        "data.patch": 96, "network.widths": [32, 64, 128], "training.steps": steps, "training.batch_size": 8,
        "training.workers": 0, "seed": seed,
    }  # fmt: skip
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    threads = ["--threads", 1]
    mri_score("train", "--config", "brain.yml", *changes, "--out", out / "runs" / name, "--quiet", *threads)
    mri_score(
        "compare", *scans, "--prior", out / "runs" / name, "--out", out / "cells" / name, "--baselines", "none",
        "--samples", 2, "--mask-seeds", masks, "--precision", "bfloat16", *threads,
    )  # fmt: skip


def scores(out: Path) -> dict[str, Scores]:
    """PSNR of the means of two draws, by omitted augmentation."""
    found: dict[str, Scores] = {}
    for path in sorted((out / "cells").glob("*/cells.jsonl")):
        name, _, seed = path.parent.name.rpartition("-")
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            if row["draws"] == 2:
                key = row["scan"], row["nominal"], row["mask_seed"], int(seed)
                found.setdefault(name, {})[key] = row["mvue_foreground_psnr"]
    return found


def table(found: dict[str, Scores]) -> Iterator[str]:
    """The mean with all augmentations, and the loss without each, with a 95 % interval over trainings if there are
    enough.
    """
    whole = found.get(NOTHING)
    if whole is None:
        raise InputError(f"the run that leaves out {NOTHING} is not finished")
    columns = sorted({(scan, factor) for scan, factor, _, _ in whole})
    yield "| left out | " + " | ".join(f"{scan}, R = {factor:g}" for scan, factor in columns) + " | all of these |"
    yield "|---" * (len(columns) + 2) + "|"
    for name in (NOTHING, *(one for one in found if one != NOTHING)):
        cells = []
        for chosen in (*([column] for column in columns), columns):
            items = [key for key in found[name] if key[:2] in chosen and key in whole]
            if name == NOTHING:
                cells.append(f"{sum(whole[key] for key in items) / len(items):.2f} dB")
                continue
            gain = mean_interval([found[name][key] - whole[key] for key in items], [key[3] for key in items])
            cells.append(gain.text())
        yield f"| {name} | " + " | ".join(cells) + " |"


FILES = click.Path(exists=True, path_type=Path)


@click.command()
@click.argument("scans", nargs=-1, required=True, type=FILES)
@click.option("--images", multiple=True, required=True, type=FILES, help="Stacks of magnitude images.")
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--steps", type=int, default=1500, show_default=True)
@click.option("--seeds", type=int, default=3, show_default=True, help="Trainings of each case.")
@click.option("--masks", default="0,1", show_default=True, help="Mask seeds.")
@click.option("--only", multiple=True, help="Cases, by what they leave out.  [default: all of them]")
@click.option("--page", type=FILES, help="A page that the table is written into, between its marks.")
def main(
    scans: tuple[Path, ...], images: tuple[Path, ...], out: Path, steps: int, seeds: int, masks: str,
    only: tuple[str, ...], page: Path | None,
) -> None:  # fmt: skip
    check(page, "ablation")
    chosen = [case.strip() for case in only] or list(CASES)
    for name in (part for case in chosen for part in case.split(",") if case != NOTHING):
        if name not in AUGMENTATIONS:
            raise unknown_name("--only", name, [NOTHING, *AUGMENTATIONS])
    chosen = list(dict.fromkeys([NOTHING, *chosen]))  # the reference of all others
    for seed in range(seeds):
        for case in chosen:
            run(case, seed, out, scans, images, steps, masks)
    text = "\n".join(table(scores(out))) + "\n"
    click.echo(text)
    if page is not None:
        fill(page, ablation=text)


if __name__ == "__main__":
    main()
