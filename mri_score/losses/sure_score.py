"""SURE-Score: one network learns to denoise noisy images and the score of what it made of them, jointly."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor

from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.losses.sure import STEP, Sure, noisy_images
from mri_score.models.base import ScoreModel
from mri_score.noise.schedules import Schedule
from mri_score.numerics.channels import real_size


class SureScore(Sure):
    """`Sure` whose score matching comes in over the first `rise` steps: the denoiser learns before its images teach.

    published=True is the objective as published: SURE not divided by the noise; score matching with sigma^2 / 2,
    summed over the image where SURE is a mean; its weight score_weight * (step // rise) is 0 at first and grows without
    end, rise being an epoch; and its gradient runs through the denoised image, which it pulls towards what is easily
    scored. Two slips of the released code are left out: one noise level for a whole batch, the first item's; and a
    second pass of the divergence at another noise level, which adds noise to the divergence rather than bias.
    Reference: Aali et al., Solving inverse problems with score-based generative priors learned from noisy data,
    Asilomar 2023.
    """

    def __init__(
        self,
        schedule: Schedule,
        anneal_power: float | None = None,
        score_weight: float = 1.0,
        rise: int = 1000,
        published: bool = False,
        step: float | None = STEP,
        probes: int = 1,
    ) -> None:
        if rise < 1:
            raise InputError(f"loss.rise is {rise}; give a number of steps, at least 1")
        anneal_power = 2.0 if published and anneal_power is None else anneal_power
        super().__init__(schedule, anneal_power, score_weight, step, probes)
        self.rise, self.published = rise, published

    def __call__(self, model: ScoreModel, batch: TrainingItem, random: Sequence[Generator], step: int) -> Tensor:
        noisy, noise_std = noisy_images(batch, "SURE-Score")
        risk, denoised = self.risk(model, noisy, noise_std, random)
        if self.published:
            return risk + self.weight(step) * real_size(noisy) * self._score_part(model, batch, denoised, random, step)
        score = self._score_part(model, batch, denoised.detach(), random, step)
        return risk / noise_std**2 + self.weight(step) * score

    def weight(self, step: int) -> float:
        """Of the score matching at a training step."""
        return self.score_weight * (step // self.rise if self.published else min(1.0, step / self.rise))

    def _score_part(
        self, model: ScoreModel, batch: TrainingItem, images: Tensor, random: Sequence[Generator], step: int
    ) -> Tensor:
        return self.denoising(model, TrainingItem(name=batch.name, image=images), random, step)
