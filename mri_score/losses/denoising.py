"""Denoising score matching: add noise of a random level, ask for the clean image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor

from mri_score.data.acquisition import Acquisition
from mri_score.errors import InputError
from mri_score.losses.base import Loss, mean_square
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import noise_like
from mri_score.schedules import Schedule
from mri_score.score import ScoreModel


class Denoising(Loss):
    """weight(sigma) * mean |D(x0 + sigma n, sigma) - x0|^2 over the real components.

    anneal_power = p weighs the score's error by sigma^p as NCSN does: weight = sigma^(p - 4) / 2, with p = 2 there.
    None weighs as EDM does: (sigma^2 + sd^2) / (sigma sd)^2, each level's loss near 1 at the start of training.
    Reference: Vincent, A connection between score matching and denoising autoencoders, 2011.
    """

    def __init__(self, schedule: Schedule, anneal_power: float | None = None) -> None:
        self.schedule = schedule
        self.anneal_power = anneal_power

    def __call__(self, model: ScoreModel, batch: Acquisition, random: Sequence[Generator], step: int) -> Tensor:
        if batch.image is None:
            raise InputError(f"{batch.name} has no image to learn from")
        return self.at(model, batch.image, self.schedule.draw(random), random)

    def at(self, model: ScoreModel, image: Tensor, sigma: Tensor, random: Sequence[Generator]) -> Tensor:
        """The loss of each item at its own sigma (B,)."""
        sigma = sigma.to(image.real.dtype).to(image.device)
        noisy = image + per_item(sigma, image) * noise_like(image, random)
        return self.weight(sigma, model.sd) * mean_square(model.denoise(noisy, sigma) - image)

    def weight(self, sigma: Tensor, sd: float) -> Tensor:
        if self.anneal_power is None:
            return (sigma**2 + sd**2) / (sigma * sd) ** 2
        return sigma ** (self.anneal_power - 4) / 2
