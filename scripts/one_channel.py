"""Priors of magnitudes (one real channel) and of complex images of the same size, like for like, on numerical heads.

python scripts/one_channel.py STACK [STACK ...] --out results/one_channel --page docs/samplers.md

Trains one U-Net on magnitudes and one on complex images with simulated phase, both for the same steps on the same
images, then reconstructs undersampled numerical heads with each. A training that is finished is not repeated.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import click
import torch
from pages import check, fill

import mri_score
from mri_score.evaluation.metrics import magnitude_psnr
from mri_score.models.base import ScoreModel
from mri_score.models.one_channel import MagnitudePrior, PartsPrior
from mri_score.priors.store import load_prior

PATCH, SIZE, COILS, LEVELS, DRAWS = 64, 64, 4, 15, 2
MAGNITUDES: dict[str, Any] = {
    "name": "plain_images", "channels": 1, "scale": "percentile", "rescale": True, "turns": True, "skip_empty": True,
}  # fmt: skip
COMPLEX: dict[str, Any] = {"name": "images"}


def train(name: str, data: dict[str, Any], stacks: tuple[Path, ...], steps: int, out: Path) -> ScoreModel:
    """The prior of a U-Net trained on `data`, in the run folder `out`/`name`."""
    config = {
        "dataset": name,
        "data": {**data, "paths": [str(stack.resolve()) for stack in stacks], "patch": PATCH},
        "network": {"name": "unet", "widths": [24, 48, 96], "channels": data.get("channels", 2)},
        "prior": {"precondition": "edm"},
        "schedule": {"name": "lognormal", "centre": 0.12, "spread": 1.5, "share": 0.1},
        "loss": {"name": "denoising"},
        "calibration": {"count": 200},
        "training": {"steps": steps, "batch_size": 6, "learning_rate": 1.0e-3, "workers": 0, "precision": "float32"},
    }
    path = out / f"{name}.yml"
    path.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML too
    command = ["train", "--config", path, "--out", out / name, "--threads", 1]
    subprocess.run([sys.executable, "-m", "mri_score", *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    return load_prior(str(out / name))


def scores(priors: dict[str, ScoreModel], heads: int) -> dict[str, list[float]]:
    """PSNR in the foreground (dB) of each method, one number a head."""
    found = defaultdict(list)
    for seed in range(heads):
        head = mri_score.phantom(coils=COILS, size=SIZE, seed=seed)
        scan = mri_score.undersample(head, acceleration=4, seed=seed)
        operator = scan.operator()
        found["zero-filled"].append(magnitude_psnr(head.image, operator.adjoint(scan.kspace)))
        found["CG-SENSE"].append(magnitude_psnr(head.image, operator.cg_sense(scan.kspace)))
        for name, prior in priors.items():
            result = mri_score.reconstruct(
                scan.kspace, scan.maps, scan.mask, noise_std=float(scan.noise_std), prior=prior, seed=0,
                method="adaptive-draw", steps=LEVELS, samples=DRAWS,
            )  # fmt: skip
            found[name].append(magnitude_psnr(head.image, result.image))
    return found


def table(found: dict[str, list[float]], reference: str) -> str:
    """Mean PSNR, and the difference from the reference with its standard error over the heads."""
    lines = [f"| | PSNR | minus {reference} |", "|---|---|---|"]
    for name, values in found.items():
        differences = [value - other for value, other in zip(values, found[reference], strict=True)]
        error = stdev(differences) / len(differences) ** 0.5
        difference = "" if name == reference else f"{mean(differences):+.2f} ± {error:.2f}"
        lines.append(f"| {name} | {mean(values):.2f} | {difference} |")
    return "\n".join(lines)


@click.command()
@click.argument("stacks", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the two trainings.")
@click.option("--steps", type=click.IntRange(1), default=400, show_default=True, help="Of each training.")
@click.option("--heads", type=click.IntRange(2), default=5, show_default=True, help="Numerical heads.")
@click.option("--page", type=click.Path(exists=True, path_type=Path), help="A page whose table is renewed.")
def main(stacks: tuple[Path, ...], out: Path, steps: int, heads: int, page: Path | None) -> None:
    check(page, "one channel")
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    one = train("magnitudes", MAGNITUDES, stacks, steps, out)
    two = train("complex", COMPLEX, stacks, steps, out)
    reference = f"two channels, {steps:,} steps"
    priors = {
        reference: two,
        f"one channel, `parts`, {steps:,} steps": PartsPrior(one),
        f"one channel, `magnitude`, {steps:,} steps": MagnitudePrior(one),
        "`brain-fast` (two channels, 16,000 steps)": load_prior("brain-fast"),
    }
    text = table(scores(priors, heads), reference)
    click.echo(text)
    if page is not None:
        fill(page, **{"one channel": text})


if __name__ == "__main__":
    main()
