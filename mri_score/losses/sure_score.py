"""SURE-Score: one network learns jointly to denoise images and the score of the denoised images."""

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
    """`Sure` with a weight of the score matching that increases from 0 to `score_weight` over the first `rise` steps.

    published=True is the objective as published: SURE is not divided by the noise variance; score matching has the
    weight sigma^2 / 2 and is summed over the image, while SURE is a mean; its factor score_weight * (step // rise),
    with rise one epoch, starts at 0 and has no limit; and its gradient flows through the denoised image, which changes
    the denoiser.
    Two errors of the published code are not reproduced: it uses the noise level of the first item for the whole batch;
    and it computes the second term of the divergence at another noise level, which adds noise to the divergence.
    schedule, anneal_power, step, probes: as in `Sure`.
    Errors: InputError for a rise below 1.
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
        """Weight of the score matching at a training step."""
        return self.score_weight * (step // self.rise if self.published else min(1.0, step / self.rise))

    def _score_part(
        self, model: ScoreModel, batch: TrainingItem, images: Tensor, random: Sequence[Generator], step: int
    ) -> Tensor:
        return self.denoising(model, TrainingItem(name=batch.name, image=images), random, step)
