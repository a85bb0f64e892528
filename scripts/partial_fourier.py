"""Partial Fourier: a quarter of the lines left out of full scans, at R = 1, 2 and 4, by several methods.

    python scripts/partial_fourier.py SCAN [SCAN ...] --samples 2 --out docs/lab/partial_fourier.md

Every method gets the same samples: the lines of `variable-density` masks at acceleration R, without those of the first
quarter of k-space. The scores are those of `reconstruct`: PSNR and SSIM inside the foreground against |MVUE| of the
full scan, middle slice.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from mri_score.data.scan import Scan, Undersampling
from mri_score.files import write_text
from mri_score.pipeline.options import Options
from mri_score.pipeline.result import MVUE
from mri_score.pipeline.volume import reconstruct_volume
from mri_score.priors.store import find_prior, load_prior
from mri_score.readers import open_scan

ACCELERATIONS = (1, 2, 4)


def partial_mask(path: Path, acceleration: int, folder: Path) -> Path:
    """A mask file: `variable-density` at an acceleration, without the lines of the first quarter of k-space."""
    file = open_scan(path)
    columns = torch.ones(file.cols, dtype=torch.bool)
    if acceleration > 1:
        columns = Scan(file, Undersampling(acceleration, seed=0)).mask.reshape(-1)
    columns[: file.cols // 4] = False
    out = folder / f"{path.stem}-R{acceleration}.npy"
    np.save(out, columns.numpy())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--prior", default="brain")
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("partial_fourier.md"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    prior = load_prior(find_prior(given.prior))
    baselines = ("zero-filled", "pocs", "cg-sense", "l1-wavelet")
    options = Options(samples=given.samples, steps=given.steps, baselines=baselines)
    rows: dict[str, list[str]] = {}
    heads = []
    folder = given.out.parent
    folder.mkdir(parents=True, exist_ok=True)
    for path in given.scans:
        for acceleration in ACCELERATIONS:
            started = time.perf_counter()
            mask = partial_mask(path, acceleration, folder)
            file = open_scan(path)
            scan = Scan(file, Undersampling(1.0, str(mask)))
            volume = reconstruct_volume(scan, prior, options, [file.slices // 2])
            heads.append(f"{path.stem}, R = {acceleration} ({volume.acceleration:.2f})")
            for one in volume.scores(options.estimate)[MVUE]:
                values = one.foreground
                rows.setdefault(one.method, []).append(f"{values['psnr']:.2f}, {values['ssim']:.3f}")
            spread = volume.calibration()
            text = "–" if spread is None else f"{spread.spread_skill:.2f}"
            rows.setdefault("spread / skill", []).append(text)
            mask.unlink()
            scores = {name: found[-1] for name, found in rows.items()}
            print(heads[-1], scores, f"{time.perf_counter() - started:.0f} s", flush=True)
            table = [f"| PSNR (dB), SSIM | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
            table += [f"| {name} | {' | '.join(found)} |" for name, found in rows.items()]
            write_text(given.out, "\n".join(table) + "\n")


if __name__ == "__main__":
    main()
