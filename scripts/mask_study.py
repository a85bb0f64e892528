"""Variation of the result with the mask: CG-SENSE for several mask seeds of each law.

python scripts/mask_study.py SCAN --seeds 10
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from mri_score import baselines
from mri_score.data.coils import coil_maps
from mri_score.data.scan import Scan, Undersampling
from mri_score.evaluation.metrics import foreground, psnr
from mri_score.readers.fastmri import FastMRI


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--seeds", default=10)
@click.option("--laws", default="random,variable-density,equispaced")
def main(path: Path, seeds: int, laws: str) -> None:
    """PSNR of |MVUE| in the foreground, with maps from full k-space, so that only the mask differs."""
    file = FastMRI(path)
    slice = file.slices // 2
    truth, coils = Scan(file).truth(slice)
    inside = foreground(coils.abs().square().sum(0).sqrt()[None])
    maps = coil_maps(file.kspace(slice)[None])[0][0]
    print(f"{path.name}, CG-SENSE, {seeds} mask seeds\n")
    print("| law | R | true R | PSNR (dB) | standard deviation | lowest, highest | largest gap |")
    print("|---|---|---|---|---|---|---|")
    for acceleration in (4.0, 8.0):
        for law in laws.split(","):
            scores, gaps, true = [], [], []
            for seed in range(seeds):
                scan = Scan(file, Undersampling(acceleration, law, seed=seed))
                image = baselines.cg_sense(scan.kspace(slice), maps, scan.mask[0])
                scores.append(psnr(truth[None], image[None], inside))
                gaps.append(np.diff(np.flatnonzero(scan.mask.flatten().numpy())).max())
                true.append(scan.acceleration)
            print(
                f"| {law} | {acceleration:g} | {np.mean(true):.2f} | {np.mean(scores):.2f} | {np.std(scores):.2f} |"
                f" {min(scores):.2f}, {max(scores):.2f} | {max(gaps)} |"
            )


if __name__ == "__main__":
    main()
