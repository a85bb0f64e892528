"""Learning from noisy images alone: Stein's unbiased risk estimate, then score matching on what was denoised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from mri_score.data.acquisition import Acquisition
from mri_score.errors import InputError
from mri_score.losses.base import Loss, mean_square
from mri_score.losses.denoising import Denoising
from mri_score.numerics.channels import real_size
from mri_score.numerics.divergence import divergence
from mri_score.schedules import Schedule
from mri_score.score import ScoreModel


class Sure(Loss):
    """SURE of the denoiser at each item's own noise_std, plus denoising score matching on its detached result.

    SURE(y) = mean |D(y) - y|^2 + 2 noise_std^2 div D(y) / n - noise_std^2, in expectation the mean square error of
    D(y, noise_std) against the clean image that nobody has seen. It is divided by noise_std^2, so that the noise
    level does not set the learning rate; the score matching part counts `score_weight`.
    Always in fp32: the finite difference of the divergence does not survive bfloat16.
    Reference: Stein, Ann. Stat. 1981; Aali et al., Solving inverse problems with score-based generative priors
    learned from noisy data, Asilomar 2023 (there without the stop-gradient and with a weight that grows).
    """

    def __init__(
        self, schedule: Schedule, anneal_power: float | None = None, score_weight: float = 1.0, step: float = 1e-2
    ) -> None:
        self.denoising = Denoising(schedule, anneal_power)
        self.score_weight = score_weight
        self.step = step  # of the finite difference, in units of noise_std

    def __call__(self, model: ScoreModel, batch: Acquisition, random: Sequence[Generator], step: int) -> Tensor:
        if batch.image is None or batch.noise_std is None:
            raise InputError(f"{batch.name}: SURE needs noisy images and their noise_std")
        noise_std = batch.noise_std.expand(len(batch.image))
        with torch.autocast(batch.image.device.type, enabled=False):
            risk, denoised = self.risk(model, batch.image, noise_std, random)
        clean = Acquisition(name=batch.name, image=denoised.detach())
        return risk / noise_std**2 + self.score_weight * self.denoising(model, clean, random, step)

    def risk(
        self, model: ScoreModel, noisy: Tensor, noise_std: Tensor, random: Sequence[Generator]
    ) -> tuple[Tensor, Tensor]:
        """The estimated mean square error of each item (B,), and the denoised images."""
        denoised = model.denoise(noisy, noise_std)
        spread = divergence(lambda x: model.denoise(x, noise_std), noisy, denoised, self.step * noise_std, random)
        risk = mean_square(denoised - noisy) + noise_std**2 * (2 * spread / real_size(noisy) - 1)
        return risk, denoised
