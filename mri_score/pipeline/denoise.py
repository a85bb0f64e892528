"""Denoising of fully sampled scans: posterior mean and standard deviation at the scan's noise level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from mri_score.data.scan import Scan, coil_weight
from mri_score.errors import InputError
from mri_score.models.base import ScoreModel, clamped, on_device
from mri_score.numerics.jacobian import linearise
from mri_score.numerics.noise import generators, signs_like
from mri_score.sources.undersampled_scans import filled_image

WINDOW = 3
"""Side of the square over which the variance is averaged, because few probes give single pixels poorly."""
PROBES = 16
"""Number of probes. If the posterior variance is a tenth of the noise variance, a window has about 20 % error."""


@dataclass(frozen=True)
class Denoised:
    """One denoised slice; images (H, W) in the file's units."""

    noisy: Tensor
    """Complex: the combined coil images, sum_c conj(S_c) x_c."""
    image: Tensor
    """Complex: the posterior mean."""
    std: Tensor
    """Posterior standard deviation, each real component."""
    weight: Tensor
    """|image| times this is the root-sum-of-squares image in the file's own coils."""
    noise_std: float
    """Noise level of `noisy`, each real component."""
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
    progress: Callable[[int], None] | None = None,      # called with the number of new passes
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Posterior mean and standard deviation of an image x0 given x = x0 + noise_std n.

    By the second-order Tweedie formula, the covariance of x0 given x is noise_std^2 J, with J = dD/dx the Jacobian of
    the denoiser. Its diagonal is estimated as the mean of b * J^T b over random `probes` b, +-1 in each real component,
    then averaged over the two components and over windows. Only the denoiser at the scan's noise level is used; priors
    that were trained on noisy scans have no lower levels.
    prior: a score model. noisy: complex (H, W), in the prior's scale. noise_std: of each real component, same units.
    probes: number of random vectors. seed, name, slice: determine the probes.
    Returns the posterior mean, complex (H, W), and the standard deviation (H, W), each real component.
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
    noise_std: float | None = None,
    probes: int = PROBES,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Denoised:
    """Denoise slice `number` of a fully sampled scan.

    The coil images are combined with maps of unit sum of squares, which keeps the noise white. Zero-padded columns are
    filled with noise. If the noise level is outside the training range of the prior, the nearest level is used.
    scan: a prepared file. number: of the slice. prior: a score model. noise_std: standard deviation of the real and of
    the imaginary part of a sample, in the file's units; None: measured. device: where the network computes. probes,
    seed, progress: as in `denoise`.
    Errors: InputError for an undersampled scan.
    """
    check_full(scan)
    item = scan.acquisition(number)
    scale = float(item.scale) * scan.unit
    given = float(item.noise_std) if noise_std is None else noise_std / scale
    random = generators(seed, f"{scan.file.name}, padding", number)
    noisy = filled_image(item, random)[0].to(device)
    level = clamped(prior, given)
    model = on_device(prior.for_scan(item.operator(), item.kspace), torch.device(device))
    name = scan.file.name
    image, std = denoise(model, noisy, level, probes=probes, seed=seed, name=name, slice=number, progress=progress)
    noisy, image, std = (scale * part.cpu() for part in (noisy, image, std))
    return Denoised(noisy, image, std, weight=coil_weight(item)[0], noise_std=given * scale, level_ratio=level / given)


def check_full(scan: Scan) -> None:
    """Errors: InputError for an undersampled scan."""
    if scan.acceleration > 1:
        raise InputError(
            f"{scan.file.path} is undersampled {scan.acceleration:.4g} fold, and aliasing is not white noise; run:"
            f" mri-score reconstruct {scan.file.path}"
        )
