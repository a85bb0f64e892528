"""The noise level measured on undersampled data, against the coil null space of the full data; the noise of the truth.

python scripts/noise_study.py SCAN [SCAN ...]
"""

from __future__ import annotations

from pathlib import Path

import click

from mri_score.data.coils import coil_maps
from mri_score.data.noise_level import unexplained_noise
from mri_score.data.noise_rings import measure_noise
from mri_score.data.scan import Scan, Undersampling
from mri_score.errors import InputError
from mri_score.evaluation.metrics import foreground, psnr, ssim
from mri_score.numerics.fourier import ifft
from mri_score.numerics.noise import generators, noise_like
from mri_score.readers.fastmri import FastMRI


def null_space_noise(file: FastMRI, slice: int) -> float:
    """From full k-space: the part of coil images outside the span of the maps is noise, of C - 1 coils."""
    kspace = file.kspace(slice)[None]
    maps = coil_maps(kspace)[0]
    images = ifft(kspace)
    rest = images - maps * (maps.conj() * images).sum(1, keepdim=True)
    return float((rest.abs().square().sum() / (2 * (file.coils - 1) * images[0, 0].numel())).sqrt())


def ceiling(file: FastMRI, slice: int, noise_std: float) -> tuple[float, float]:
    """PSNR (dB) and SSIM in the foreground of the truth with its own noise added once more.

    A perfect image has about this score, because it differs from the ground truth by the noise in the latter.
    """
    truth = Scan(file).truth(slice)[0][None]
    inside = foreground(truth.abs())
    again = truth + noise_std * noise_like(truth, generators(0, file.name))
    return psnr(truth.abs(), again.abs(), inside), ssim(truth.abs(), again.abs(), inside)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(paths: tuple[Path, ...]) -> None:
    print("| scan | R | outer ring / truth | unexplained by the maps / truth |\n|---|---|---|---|")
    for path in paths:
        file = FastMRI(path)
        slice = file.slices // 2
        truth = null_space_noise(file, slice)
        for acceleration in (2.0, 4.0, 8.0):
            scan = Scan(file, Undersampling(acceleration))
            kspace = scan.kspace(slice)[None]
            try:
                maps = coil_maps(kspace, scan.mask)[0]
            except InputError as error:
                print(f"| {file.name} | {acceleration:g} | | {error} |")
                continue
            found = unexplained_noise(kspace, maps, scan.mask)
            ring = measure_noise(kspace, scan.mask[0]).noise_std
            print(f"| {file.name} | {acceleration:g} | {ring / truth:.3f} | {found / truth:.3f} |")
    print("\n| scan | ceiling of PSNR (dB) | of SSIM |\n|---|---|---|")
    for path in paths:
        file = FastMRI(path)
        slice = file.slices // 2
        scores = ceiling(file, slice, null_space_noise(file, slice))
        print(f"| {file.name} | {scores[0]:.1f} | {scores[1]:.3f} |")


if __name__ == "__main__":
    main()
