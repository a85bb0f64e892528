"""Coil maps from few calibration lines: what they leave unexplained, by the side of ESPIRiT's patches.

python scripts/kernel_study.py SCAN... --lines 6,8,10,13,16,20,24
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from mri_score.data.coils import coil_maps
from mri_score.data.espirit import kernel_side
from mri_score.data.scan import Scan
from mri_score.evaluation.metrics import foreground
from mri_score.numerics.fourier import ifft
from mri_score.readers import open_scan

SIDES = (3, 4, 5, 6)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--lines", default="6,8,10,13,16,20,24")
def main(paths: tuple[Path, ...], lines: str) -> None:
    """Norm of what is left of the coil images of the full scan over their norm, inside the foreground.

    It includes the noise of the scan, as do maps from 32 lines and the full readout (`floor`).
    """
    print("| scan | lines | " + " | ".join(f"kernel {side}" for side in SIDES) + " | chosen | floor |")
    print("|---" * (len(SIDES) + 4) + "|")
    for path in paths:
        file = open_scan(path)
        slice = file.slices // 2
        kspace = file.kspace(slice)[None]
        images = ifft(kspace)
        inside = torch.from_numpy(foreground(Scan(file).truth(slice)[1].abs().square().sum(0).sqrt()[None])[0])
        floor = unexplained(images, coil_maps(kspace)[0], inside)
        for count in map(int, lines.split(",")):
            mask = torch.zeros(1, 1, 1, kspace.shape[-1], dtype=torch.bool)
            start = kspace.shape[-1] // 2 - count // 2
            mask[..., start : start + count] = True
            left = (unexplained(images, coil_maps(kspace, mask, kernel=side)[0], inside) for side in SIDES)
            cells = " | ".join(f"{value:.4f}" for value in left)
            print(f"| {path.stem} | {count} | {cells} | {kernel_side(count)} | {floor:.4f} |")


def unexplained(images: torch.Tensor, maps: torch.Tensor, inside: torch.Tensor) -> float:
    left = images - maps * (maps.conj() * images).sum(1, keepdim=True)
    return float(left[..., inside].norm() / images[..., inside].norm())


if __name__ == "__main__":
    main()
