"""Denoising: a fully sampled scan at its own noise level, and how far its denoised image can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from mri_score.data.scan import Scan, coil_weight
from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.models.network import NetworkPrior
from mri_score.numerics.jacobian import linearise
from mri_score.numerics.noise import generators, signs_like
from mri_score.sources.undersampled_scans import filled_image

WINDOW = 3
"""Side of the square over which the variance is averaged: single pixels are known from few probes only."""
PROBES = 16
"""Of the variance: of a posterior that keeps a tenth of the noise's, each window is known to about a fifth."""


@dataclass(frozen=True)
class Denoised:
    """One slice (H, W), in the file's units."""

    noisy: Tensor
    """Complex: the coils combined, sum_c conj(S_c) x_c."""
    image: Tensor
    """Complex: the posterior mean."""
    std: Tensor
    """Of each real component of the posterior."""
    weight: Tensor
    """|image| times this is the root-sum-of-squares image in the file's own coils."""
    noise_std: float
    """Of each real component of `noisy`."""
    level_ratio: float
    """Noise level given to the prior, divided by noise_std: 1 within the training range of the prior."""


def denoise(
    prior: ScoreModel,
    noisy: Tensor,
    noise_std: Tensor | float,
    *,
    probes: int = PROBES,
    seed: int = 0,
    name: str = "image",
    slice: int = 0,
    progress: Callable[[int], None] | None = None,      # called with the passes that were made
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """E[x0 | x] of an image x = x0 + noise_std n (H, W), and the standard deviation of x0 given x, each real component.

    Tweedie's formula of second order: the covariance of x0 given x is noise_std^2 J, J = dD/dx. Its diagonal is the
    mean over `probes` b of b * J^T b, b = +-1 in each real component, the two components and a WINDOW averaged.
    So it takes D at the scan's own level only: priors that learned from noisy scans know nothing below, where walks
    to draws of x0 would lead. Probes follow from (seed, name, slice).
    Errors: InputError for a level that is not positive, and for probes < 1.
    """
    if probes < 1 or not float(noise_std) > 0:
        raise InputError(f"{name}: {probes} probes at noise_std {float(noise_std):.4g}; both must be positive")
    random = generators(seed, name, slice)
    image, product = linearise(lambda x: prior.denoise(x, noise_std), noisy[None])
    diagonal = torch.zeros_like(noisy.real)
    for _ in range(probes):
        probe = signs_like(noisy[None], random)
        diagonal += (probe.conj() * product(probe)).real[0] / (2 * probes)
        if progress is not None:
            progress(1)
    mean = avg_pool2d(diagonal[None], WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)[0]
    return image[0], noise_std * mean.clamp_min(0).sqrt()


def denoise_slice(
    scan: Scan,
    number: int,
    prior: ScoreModel,
    *,
    noise_std: float | None = None,     # in the file's units; None: as measured
    probes: int = PROBES,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Denoised:  # fmt: skip
    """A slice of a full scan, its coils combined by maps of unit sum of squares, which keep the noise white.

    Columns of padding, which hold no noise, are given some. The prior is told the nearest level that it was trained on.
    Errors: InputError for an undersampled scan.
    """
    check_full(scan)
    item = scan.acquisition(number)
    assert item.noise_std is not None and item.scale is not None
    scale = float(item.scale)
    given = float(item.noise_std) if noise_std is None else noise_std / scale
    random = generators(seed, f"{scan.file.name}, padding", number)
    noisy = filled_image(item, random)[0].to(device)
    level = nearest_level(prior, given)
    image, std = denoise(
        prior.to(device), noisy, level, probes=probes, seed=seed, name=scan.file.name, slice=number, progress=progress
    )
    noisy, image, std = (scale * part.cpu() for part in (noisy, image, std))
    return Denoised(noisy, image, std, weight=coil_weight(item)[0], noise_std=given * scale, level_ratio=level / given)


def nearest_level(prior: ScoreModel, noise_std: float) -> float:
    """noise_std, within the range that the prior was trained on."""
    if isinstance(prior, NetworkPrior):
        return min(max(noise_std, prior.sigma_min), prior.sigma_max)
    return noise_std


def check_full(scan: Scan) -> None:
    if scan.acceleration > 1:
        raise InputError(
            f"{scan.file.path} is undersampled {scan.acceleration:.4g} fold, and its aliases are no white noise; run:"
            f" mri-score reconstruct {scan.file.path}"
        )
