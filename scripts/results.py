"""The tables of docs/results.md: every method on the same scans, masks, maps and noise levels.

python scripts/results.py measure SCAN [SCAN ...] --out results.jsonl      (resumes; a line a cell)
python scripts/results.py table results.jsonl > docs/results_tables.md
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from mri_score import baselines
from mri_score.data.fastmri import FastMRI
from mri_score.data.scan import Sampling, Scan, coil_weight
from mri_score.data.whitening import whiten
from mri_score.evaluation.metrics import foreground, volume_scores
from mri_score.evaluation.uncertainty import calibration
from mri_score.files import sha256
from mri_score.priors.store import find_prior, load_prior
from mri_score.reconstruction import METHODS, sample_posterior

DRAWS = (1, 4, 8)


@click.group()
def main() -> None:
    pass


@main.command()
@click.argument("scans", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--prior", default="brain")
@click.option("--methods", default="adaptive-draw,exact-draw,proximal", help="Samplers, on all masks.")
@click.option("--accelerations", default="4,8")
@click.option("--mask-seeds", default="0,1,2")
@click.option("--draws", default=8, help="The most draws of a method.")
@click.option("--steps", type=int, help="Levels, where not the method's own.")
@click.option("--no-baselines", is_flag=True)
def measure(scans, out, prior, methods, accelerations, mask_seeds, draws, steps, no_baselines) -> None:
    """Score all methods on each scan, acceleration and mask seed; one JSON line a method and number of draws."""
    model, digest = load_prior(prior), sha256(find_prior(prior))[:12]
    done = set()
    if out.exists():
        done = {_cell(json.loads(line)) for line in out.read_text().splitlines()}
    for path in scans:
        file = FastMRI(path)
        for acceleration in map(float, accelerations.split(",")):
            for seed in map(int, mask_seeds.split(",")):
                scan = Scan(file, Sampling(acceleration, seed=seed))
                for row in _rows(
                    scan,
                    model,
                    [] if methods == "none" else methods.split(","),
                    draws,
                    steps,
                    not no_baselines,
                    done,
                    seed,
                ):
                    with open(out, "a", encoding="utf-8") as log:
                        log.write(json.dumps({**row, "prior": digest}) + "\n")


def _cell(row: dict[str, Any]) -> tuple:
    return row["scan"], row["nominal"], row["seed"], row["method"]


def _rows(scan, model, methods, draws, steps, with_baselines, done, seed):  # type: ignore[no-untyped-def]
    middle = scan.file.slices // 2
    acquisition = scan.acquisition(middle)
    truth, coil_images = scan.truth(middle)
    inside = foreground(coil_images.abs().square().sum(0).sqrt()[None])
    mixed = coil_images if acquisition.whitening is None else whiten(coil_images, acquisition.whitening)
    projected = (acquisition.maps[0].conj() * mixed).sum(0)
    weight, scale = coil_weight(acquisition)[0], acquisition.scale[0]
    about = {"scan": scan.file.name, "nominal": scan.sampling.acceleration, "true": scan.acceleration, "seed": seed,
             "noise_std": float(acquisition.noise_std)}  # fmt: skip

    def scored(method: str, image: torch.Tensor, **more: Any) -> dict[str, Any]:
        scores = volume_scores(truth[None], (image.abs() * weight)[None], inside)
        return {**about, "method": method, **{key: scores[key] for key in ("psnr", "ssim", "nmse")}, **more}

    def missing(method: str) -> bool:
        return (about["scan"], about["nominal"], seed, method) not in done

    y, maps, mask, noise_std = acquisition.kspace[0], acquisition.maps[0], acquisition.mask[0], about["noise_std"]
    if with_baselines and missing("zero-filled"):
        tuned = baselines.tune_weight(
            baselines.l1_wavelet, y, maps, mask, noise_std, truth=truth / scale / weight, foreground=inside[0]
        )
        for method, run in {
            "zero-filled": lambda: baselines.zero_filled(y, maps, mask),
            "CG-SENSE": lambda: baselines.cg_sense(y, maps, mask),
            "L1-wavelet": lambda: baselines.l1_wavelet(y, maps, mask, noise_std),
            "L1-wavelet, weight tuned on the truth": lambda: baselines.l1_wavelet(
                y, maps, mask, noise_std, weight=tuned.weight
            ),
            "total variation": lambda: baselines.total_variation(y, maps, mask, noise_std),
        }.items():
            started = time.perf_counter()
            image = run() * scale
            yield scored(method, image, seconds=time.perf_counter() - started)
    for method in methods:
        if not missing(f"{method}, P = 1"):
            continue
        started = time.perf_counter()
        found = sample_posterior(acquisition, model, method, samples=draws, steps=steps, slices=[middle], batch_size=4)
        seconds = time.perf_counter() - started
        calls = METHODS[method].calls * (steps or METHODS[method].steps)
        samples = found.samples[:, 0]
        for count in (count for count in DRAWS if count <= draws):
            more: dict[str, Any] = {"seconds": seconds * count / draws, "calls": calls * count}
            if count > 1:
                found_calibration = calibration(samples[:count], projected, inside[0])
                more["spread_skill"] = found_calibration.spread_skill
                more["coverage"] = {str(level): share for level, share in found_calibration.coverage.items()}
            yield scored(f"{method}, P = {count}", samples[:count].mean(0), **more)


@main.command()
@click.argument("results", type=click.Path(exists=True, path_type=Path))
def table(results: Path) -> None:
    """Print the Markdown tables of a results file: a table a scan and acceleration, mean over mask seeds."""
    cells: dict[tuple[str, float], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for line in results.read_text().splitlines():
        row = json.loads(line)
        cells[row["scan"], row["nominal"]][row["method"]].append(row)
    for (scan, nominal), methods in cells.items():
        true = np.mean([row["true"] for rows in methods.values() for row in rows])
        click.echo(f"### {scan}, R = {nominal:g} (true {true:.2f})\n")
        click.echo("| method | masks | PSNR (dB) | lowest, highest | SSIM | NMSE | spread / skill | calls | seconds |")
        click.echo("|---|---|---|---|---|---|---|---|---|")
        for method, rows in methods.items():
            psnr = [row["psnr"] for row in rows]
            mean = {key: np.mean([row[key] for row in rows]) for key in ("ssim", "nmse", "seconds")}
            spread = [row["spread_skill"] for row in rows if "spread_skill" in row]
            click.echo(
                f"| {method} | {len(rows)} | {np.mean(psnr):.2f} | {min(psnr):.2f}, {max(psnr):.2f} |"
                f" {mean['ssim']:.4f} | {mean['nmse']:.4f} | {f'{np.mean(spread):.2f}' if spread else ''} |"
                f" {rows[0].get('calls', '')} | {mean['seconds']:.1f} |"
            )
        click.echo()


if __name__ == "__main__":
    main()
