"""How well a prior denoises held-out images, level by level."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor

from mri_score.data.acquisition import Acquisition
from mri_score.losses.base import mean_square
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import generators, noise_like
from mri_score.score import ScoreModel

SIGMAS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


@torch.no_grad()
def denoising_errors(
    prior: ScoreModel, batches: list[Acquisition], sigmas: tuple[float, ...] = SIGMAS, seed: int = 0
) -> dict[float, float]:
    """For each sigma, the mean square error of D in units of the best linear guess without structure.

    That unit is sigma^2 sd^2 / (sigma^2 + sd^2): 1 is what a Gaussian of the prior's sd would reach, less is better.
    The noise is the same at every call, so that curves are smooth.
    """
    device = next(chain(prior.parameters(), prior.buffers())).device
    errors: dict[float, float] = {}
    for sigma in sigmas:
        found: list[Tensor] = []
        for number, batch in enumerate(batches):
            assert batch.image is not None
            image = batch.image.to(device)
            random = generators(seed, f"validation {sigma}", number, len(image))
            level = torch.full((len(image),), sigma, device=device)
            noisy = image + per_item(level, image) * noise_like(image, random)
            found.append(mean_square(prior.denoise(noisy, level) - image))
        unit = sigma**2 * prior.sd**2 / (sigma**2 + prior.sd**2)
        errors[sigma] = float(torch.cat(found).mean()) / unit
    return errors
