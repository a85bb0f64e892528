"""How well a prior denoises held-out images, level by level; how well a supervised network restores them."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor

from mri_score.data.acquisition import Acquisition
from mri_score.evaluation import metrics
from mri_score.losses.base import mean_square
from mri_score.models.base import ScoreModel
from mri_score.models.network import NetworkPrior
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import generators, noise_like

SIGMAS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Of these a run is validated at those that it learns."""


def validate(model: NetworkPrior, batches: list[Acquisition]) -> dict[str, Any]:
    """What the log says about held-out batches: denoising errors, or PSNR where the batches have estimates."""
    if any(batch.estimate is None for batch in batches):
        return {"denoising_errors": denoising_errors(model, batches, model.learned(SIGMAS))}
    return {"psnr": restored_psnr(model, batches)}


@torch.no_grad()
def restored_psnr(model: ScoreModel, batches: list[Acquisition]) -> dict[str, dict[str, float]]:
    """Mean PSNR (dB) of magnitude in the foreground, for each nominal acceleration: of the estimate, of the network."""
    device = next(chain(model.parameters(), model.buffers())).device
    found: dict[str, list[tuple[float, float]]] = {}
    for batch in batches:
        assert batch.image is not None and batch.estimate is not None
        assert batch.noise_std is not None and batch.acceleration is not None
        restored = model.denoise(batch.estimate.to(device), batch.noise_std.to(device))
        items = zip(batch.acceleration, batch.image, batch.estimate, restored, strict=True)
        for acceleration, truth, *images in items:
            inside = metrics.foreground(truth[None])
            before, after = (metrics.psnr(truth[None], image[None], inside) for image in images)
            found.setdefault(f"R = {float(acceleration):.0f}", []).append((before, after))
    means = {key: torch.tensor(pairs).mean(0).tolist() for key, pairs in sorted(found.items())}
    return {key: {"estimate": before, "network": after} for key, (before, after) in means.items()}


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
