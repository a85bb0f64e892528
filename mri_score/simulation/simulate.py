"""Simulated scans as fastMRI files: heads to try every command on, and to test with the truth at hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mri_score.data.masks import make_mask, mask_seed
from mri_score.data.scale import percentile
from mri_score.errors import InputError
from mri_score.numerics.fourier import fft, ifft, resize_image, resize_kspace
from mri_score.numerics.noise import generators, key, noise_like
from mri_score.readers.fastmri import write_fastmri
from mri_score.simulation import phantom

UNIT = 2e-4
"""The 99th percentile of the magnitude image in the files: scanners' units, far from 1."""


def simulate(
    out: str | Path,
    *,
    volumes: int = 2,
    slices: int = 8,
    size: int | tuple[int, int] = 256,
    coils: int = 8,
    noise: float | None = 36.0,
    undersample: float | None = None,
    contrast: str = "T2",
    seed: int = 0,
    oversample: bool = True,
) -> list[Path]:
    """Write sim_<contrast>_0001.h5 and so on into the folder `out`, each another head; return their paths.

    The coil images are made on a grid of twice the size and their k-space is cropped, as a scanner does: no maps
    explain them exactly. With `oversample` the readout covers twice the field of view, and white noise fills all of it.
    `noise` is the SNR in dB of `phantom`; the attribute noise_std holds the level in the file's units. A fully sampled
    file holds reconstruction_rss of its noisy samples; `undersample` is an acceleration, whose mask follows the file's
    name. The same arguments write the same samples.
    Errors: InputError where `out` is a file, and for an acceleration that the size cannot give.
    """
    out = check_folder(out)
    if volumes < 1:
        raise InputError(f"simulate has volumes={volumes}; it needs at least 1")
    shape = phantom.image_shape(size)
    paths = [out / f"sim_{contrast}_{number + 1:04d}.h5" for number in range(volumes)]
    for number, path in enumerate(paths):
        kspace, noise_std = scan(key("simulate", seed, number), slices, shape, coils, noise, contrast, oversample)
        write_simulated(path, kspace, shape, noise_std, acquisition=f"AX{contrast}", undersample=undersample)
    return paths


def check_folder(out: str | Path) -> Path:
    """The folder that scans are written into, which need not exist."""
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; simulate writes a folder of scans: choose another --out")
    return out


def scan(
    seed: int, slices: int, shape: tuple[int, int], coils: int, noise: float | None, contrast: str, oversample: bool
) -> tuple[Tensor, float]:
    """Noisy k-space (slices, coils, rows, cols) of one head in the file's units, and its noise_std.

    rows is H, or 2 H where the readout is oversampled.
    """
    phantom.check_scan(coils, slices, contrast)
    heights = phantom.slice_heights(slices)
    clean = torch.stack([_coil_kspace(shape, z, seed, coils, contrast, oversample) for z in heights])
    images = resize_image(ifft(clean), shape)
    scale = UNIT / percentile(_rss(images).flatten(0, 1))
    noise_std = phantom.noise_std_of_snr(noise) * UNIT
    white = [noise_like(clean[:1], generators(seed, "simulate", slice)) for slice in range(slices)]
    return scale * clean + noise_std * torch.cat(white), noise_std


def _coil_kspace(shape: tuple[int, int], z: float, seed: int, coils: int, contrast: str, oversample: bool) -> Tensor:
    """Noise-free k-space (coils, rows, cols) of a slice: the central part of that of the fine coil images."""
    fine = phantom.fine_image(shape, z, seed, contrast)
    rows, cols = fine.shape
    profiles = phantom.coil_profiles((rows, cols), phantom.pixel_size(shape) / 2, z, coils)
    fold = 2 if oversample else 1
    wide = resize_kspace(profiles * fine, (fold * rows, cols))  # isocentre at N // 2, as DC is
    return resize_kspace(fft(wide), (fold * shape[0], shape[1])) / 2


def _rss(images: Tensor) -> Tensor:
    return images.abs().square().sum(1).sqrt()


def write_simulated(
    path: Path,
    kspace: Tensor,
    shape: tuple[int, int],
    noise_std: float,
    *,
    acquisition: str,
    undersample: float | None = None,
    attributes: Mapping[str, str | float] | None = None,
) -> None:
    """Write noisy k-space (slices, coils, rows, cols): with its RSS images of `shape`, or undersampled without."""
    rss = mask = None
    if undersample is None:
        rss = _rss(resize_image(ifft(kspace), shape))
    else:
        mask = make_mask("variable-density", shape, undersample, seed=mask_seed(path.name))
        kspace = kspace * mask
    write_fastmri(
        path,
        kspace,
        rss=rss,
        mask=None if mask is None else mask.flatten(),
        acquisition=acquisition,
        recon=shape,
        attributes={"noise_std": noise_std, "simulated": True, **(attributes or {})},
    )
