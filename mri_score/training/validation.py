"""Validation: denoising errors of a prior for each noise level, or PSNR of a supervised network."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from mri_score.data.training_item import TrainingItem
from mri_score.evaluation import metrics
from mri_score.losses.base import mean_square
from mri_score.models.base import ScoreModel
from mri_score.models.generator import expected_error
from mri_score.models.network import NetworkPrior
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import generators, noise_like

SIGMAS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Noise levels of validation; those outside the training range are skipped."""


class Stopped(Exception):
    """Validation was asked to end early; it has no result."""


def never() -> bool:
    """The answer to "shall validation end early?" where nothing can ask for it."""
    return False


def validate(
    model: NetworkPrior, batches: list[TrainingItem], stopped: Callable[[], bool] = never
) -> dict[str, Any]:
    """Results on held-out batches, for the log: denoising errors, or PSNR if the batches have estimates.

    stopped: asked before each network call, because schedulers kill a job seconds after they told it to end, and
    validation takes minutes on slow machines. Errors: Stopped once it answers True.
    """
    if any(batch.estimate is None for batch in batches):
        return {"denoising_errors": denoising_errors(model, batches, model.learned(SIGMAS), stopped=stopped)}
    return {"psnr": restored_psnr(model, batches, stopped)}


def _go_on(stopped: Callable[[], bool]) -> None:
    if stopped():
        raise Stopped


@torch.no_grad()
def restored_psnr(
    model: ScoreModel, batches: list[TrainingItem], stopped: Callable[[], bool] = never
) -> dict[str, dict[str, float]]:
    """Mean PSNR (dB) of the magnitude in the foreground, for each acceleration, of the estimate and of the network.

    A generator restores with a noise of zero. stopped: as in `validate`.
    """
    device = next(chain(model.parameters(), model.buffers())).device
    found: dict[str, list[tuple[float, float]]] = {}
    for batch in batches:
        images, estimates, noise_std, accelerations = batch.parts("image", "estimate", "noise_std", "acceleration")
        levels = expected_error(noise_std, accelerations) if model.generates else noise_std
        _go_on(stopped)
        restored = model.denoise(estimates.to(device), levels.to(device))
        items = zip(accelerations, images, estimates, restored, strict=True)
        for acceleration, truth, *both in items:
            inside = metrics.foreground(truth[None])
            before, after = (metrics.psnr(truth[None], image[None], inside) for image in both)
            found.setdefault(f"R = {float(acceleration):.0f}", []).append((before, after))
    means = {key: torch.tensor(pairs).mean(0).tolist() for key, pairs in sorted(found.items())}
    return {key: {"estimate": before, "network": after} for key, (before, after) in means.items()}


@torch.no_grad()
def denoising_errors(
    prior: ScoreModel,
    batches: list[TrainingItem],
    sigmas: tuple[float, ...] = SIGMAS,
    seed: int = 0,
    stopped: Callable[[], bool] = never,
) -> dict[float, float]:
    """Mean squared error of the denoiser for each sigma, relative to that of a white Gaussian prior.

    The unit is sigma^2 sd^2 / (sigma^2 + sd^2), the error for Gaussian images of the prior's sd; lower is better. The
    noise is the same in every call, so that curves over training are smooth.
    batches: with images (B, H, W). sigmas: noise levels. seed: of the noise. stopped: as in `validate`.
    """
    device = next(chain(prior.parameters(), prior.buffers())).device
    errors: dict[float, float] = {}
    for sigma in sigmas:
        found: list[Tensor] = []
        for number, batch in enumerate(batches):
            image = batch.parts("image")[0].to(device)
            random = generators(seed, f"validation {sigma}", number, len(image))
            level = torch.full((len(image),), sigma, device=device)
            noisy = image + per_item(level, image) * noise_like(image, random)
            _go_on(stopped)
            found.append(mean_square(prior.denoise(noisy, level) - image))
        unit = sigma**2 * prior.sd**2 / (sigma**2 + prior.sd**2)
        errors[sigma] = float(torch.cat(found).mean()) / unit
    return errors
