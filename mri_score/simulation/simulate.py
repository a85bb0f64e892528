"""Simulated scans of numerical heads as fastMRI files, for demonstrations and tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mri_score.data.masks import make_mask, mask_seed
from mri_score.data.scale import percentile
from mri_score.errors import InputError
from mri_score.numerics.fourier import fft, ifft, resize_image, resize_kspace
from mri_score.numerics.noise import generators, key, noise_like
from mri_score.progress import progress
from mri_score.readers.fastmri import write_fastmri
from mri_score.simulation import phantom

UNIT = 2e-4
"""The 99th percentile of the magnitude image in the files, as small as in scanners' units."""


@dataclass(frozen=True)
class SimulationOptions:
    """Settings of a simulation. Errors: InputError for less than one volume, and as `phantom` for the rest."""

    volumes: int = 2
    """Number of files, with one head each."""
    slices: int = 8
    """Slices of each volume."""
    size: int | tuple[int, int] = 256
    """Image matrix, N or (H, W), in pixels."""
    coils: int = 8
    """Number of receiver coils."""
    noise: float | None = 36.0
    """SNR in dB, as in `phantom`; None: no noise."""
    undersample: float | None = None
    """Acceleration of the k-space that is written, with a mask seeded by the file name; there is no ground truth then.
    """
    contrast: str = "T2"
    """T1, T2, PD or FLAIR."""
    seed: int = 0
    """Of heads and noise; equal options give equal samples."""
    oversample: bool = True
    """The readout covers twice the field of view."""

    def __post_init__(self) -> None:
        if self.volumes < 1:
            raise InputError(f"simulate has volumes={self.volumes}; it needs at least 1")
        phantom.check_scan(self.coils, self.slices, self.contrast)
        phantom.image_shape(self.size)


DEFAULTS = SimulationOptions()


def simulate(out: str | Path, options: SimulationOptions = DEFAULTS, **changes: Any) -> list[Path]:
    """Write scans of different numerical heads, sim_<contrast>_0001.h5 and so on, and return their paths.

    out: folder for the files. options, changes: `SimulationOptions`, and fields of it to replace.
    Coil images are computed on a grid of twice the size, and their k-space is cropped, as on a scanner; therefore no
    coil maps explain them exactly. Fully sampled files have the dataset reconstruction_rss, of the noisy samples. The
    attribute noise_std is the noise level in the file's units.
    Errors: InputError if `out` is a file, and for an acceleration that is not possible for the size.
    """
    o = replace(options, **changes)
    out = check_folder(out)
    paths = [out / f"sim_{o.contrast}_{number + 1:04d}.h5" for number in range(o.volumes)]
    with progress(o.volumes * o.slices, "slice", "simulate") as bar:
        for number, path in enumerate(paths):
            kspace, noise_std = scan(key("simulate", o.seed, number), o)
            shape = phantom.image_shape(o.size)
            write_simulated(path, kspace, shape, noise_std, acquisition=f"AX{o.contrast}", undersample=o.undersample)
            bar.update(o.slices)
    return paths


def check_folder(out: str | Path) -> Path:
    """The path of the output folder, which need not exist. Errors: InputError if it is a file."""
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, but simulate writes a folder of scans: choose another --out")
    return out


def scan(seed: int, options: SimulationOptions) -> tuple[Tensor, float]:
    """Noisy k-space (slices, coils, rows, cols) of one head in the file's units, and its noise_std.

    rows is H, or 2 H with an oversampled readout. seed: of the head and its noise.
    """
    shape = phantom.image_shape(options.size)
    heights = phantom.slice_heights(options.slices)
    coils = options.coils, options.contrast, options.oversample
    clean = torch.stack([_coil_kspace(shape, z, seed, *coils) for z in heights])
    images = resize_image(ifft(clean), shape)
    scale = UNIT / percentile(_rss(images).flatten(0, 1))
    noise_std = phantom.noise_std_of_snr(options.noise) * UNIT
    white = [noise_like(clean[:1], generators(seed, "simulate", slice)) for slice in range(options.slices)]
    return scale * clean + noise_std * torch.cat(white), noise_std


def _coil_kspace(shape: tuple[int, int], z: float, seed: int, coils: int, contrast: str, oversample: bool) -> Tensor:
    """Noise-free k-space (coils, rows, cols) of a slice: the central part of the k-space of fine coil images."""
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
    """Write noisy k-space (slices, coils, rows, cols): fully sampled with RSS images of `shape`, or undersampled.

    noise_std: stored as attribute, file's units. acquisition, attributes: as in `write_fastmri`. undersample:
    acceleration; None writes all samples.
    """
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
