"""The score of clean images, learned from noisy ones: regression above their noise level, SURE at it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.losses.base import Loss, mean_square
from mri_score.losses.denoising import Denoising
from mri_score.losses.sure import STEP, SureRisk, noisy_images
from mri_score.models.base import ScoreModel
from mri_score.noise.schedules import Schedule
from mri_score.numerics.channels import inner, per_item, real_size
from mri_score.numerics.noise import noise_like, uniform

HAND_OVER = 1.1
"""Levels below this multiple of noise_std use SURE: at 1 the noise of the regression target is infinite."""
BELOW = 0.8
"""The ratio of the two levels in the consistency term."""


class NoisyScore(Loss):
    """weight(sigma) * share * mean |D(x, sigma) - x0|^2 in expectation, estimated from noisy images y = x0 + s n.

    For sigma above the noise s = noise_std, the image x = y + sqrt(sigma^2 - s^2) n' has the target

        t = (sigma^2 y - s^2 x) / (sigma^2 - s^2),    E[t | x] = E[x0 | x].

    The noise of the target is independent of that in x; its variance s^2 sigma^2 / (sigma^2 - s^2) is subtracted.
    share = (1 - s^2 / sigma^2) sd^2 / (sd^2 + s^2), which is 1 without noise, reduces the weight of levels with noisy
    targets. Items whose level is below HAND_OVER s, and a share `sure_share` of the others, use SURE at s:
    weight(s) * SURE.
    Levels below s are not identified by the data. `consistency` > 0 adds a condition for items drawn there: along the
    model's own reverse diffusion D keeps its mean, E[D(x', sigma') | x] = D(x, sigma). It takes four to five further
    evaluations.
    schedule: of the noise levels. anneal_power: as in `Denoising`. step, probes: of SURE, as in `SureRisk`.
    Errors: InputError for a sure_share outside 0 to 1.
    Reference: Daras, Dimakis and Daskalakis, Consistent diffusion meets Tweedie, ICML 2024; the independence of noise
    and target is that of Pang et al., Recorrupted-to-recorrupted, CVPR 2021.
    """

    def __init__(
        self,
        schedule: Schedule,
        anneal_power: float | None = None,
        sure_share: float = 0.1,
        consistency: float = 0.0,
        step: float | None = STEP,
        probes: int = 1,
    ) -> None:
        if not 0 <= sure_share <= 1:
            raise InputError(f"loss.sure_share is {sure_share}; it is a share of the items, from 0 to 1")
        self.denoising = Denoising(schedule, anneal_power)
        self.sure_share, self.consistency = sure_share, consistency
        self.risk = SureRisk(step, probes)

    def __call__(self, model: ScoreModel, batch: TrainingItem, random: Sequence[Generator], step: int) -> Tensor:
        noisy, noise_std = noisy_images(batch, "noisy_score")
        sigma = self.denoising.schedule.draw(random).to(noise_std)
        chosen = uniform(random).to(noise_std) < self.sure_share
        at_noise = chosen | (sigma < HAND_OVER * noise_std)
        losses = torch.zeros_like(noise_std)
        parts = [(~at_noise, self.above), (at_noise, self.at_noise)]
        if self.consistency:
            parts.append((sigma < noise_std, self.below))
        for items, loss in parts:
            if bool(items.any()):
                some = [one for one, taken in zip(random, items.tolist(), strict=True) if taken]
                found = loss(model, noisy[items], noise_std[items], sigma[items], some)
                losses = losses.index_put((items,), found, accumulate=True)
        return losses

    def above(
        self, model: ScoreModel, noisy: Tensor, noise_std: Tensor, sigma: Tensor, random: Sequence[Generator]
    ) -> Tensor:
        """The regression at sigma > noise_std, each (B,)."""
        x, target = recorrupt(noisy, noise_std, sigma, noise_like(noisy, random))
        error = mean_square(model.denoise(x, sigma) - target) - target_variance(noise_std, sigma)
        return self.denoising.weight(sigma, model.sd) * share(noise_std, sigma, model.sd) * error

    def at_noise(
        self, model: ScoreModel, noisy: Tensor, noise_std: Tensor, sigma: Tensor, random: Sequence[Generator]
    ) -> Tensor:
        """SURE at noise_std; sigma is not used."""
        return self.denoising.weight(noise_std, model.sd) * self.risk(model, noisy, noise_std, random)[0]

    def below(
        self, model: ScoreModel, noisy: Tensor, noise_std: Tensor, sigma: Tensor, random: Sequence[Generator]
    ) -> Tensor:
        """consistency * weight(sigma) * mean |E[D(x', BELOW sigma) | x] - D(x, sigma)|^2, x drawn given y.

        Two independent x' make the square of the mean unbiased; no gradient flows through the draws.
        """
        lower = BELOW * sigma
        with torch.no_grad():
            x = _draw_below(noisy, model.denoise(noisy, noise_std), noise_std, sigma, random)
            denoised = model.denoise(x, sigma)
            first, second = (_draw_below(x, denoised, sigma, lower, random) for _ in range(2))
        now = model.denoise(x, sigma)
        gaps = [model.denoise(x_lower, lower) - now for x_lower in (first, second)]
        return self.consistency * self.denoising.weight(sigma, model.sd) * inner(*gaps) / real_size(noisy)


def recorrupt(y: Tensor, noise_std: Tensor, sigma: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """x with noise of sigma, and an unbiased target whose noise is independent of that in x, from y with noise_std."""
    added = torch.sqrt(sigma**2 - noise_std**2)
    return y + per_item(added, y) * noise, y - per_item(noise_std**2 / added, y) * noise


def target_variance(noise_std: Tensor, sigma: Tensor) -> Tensor:
    """Variance of the noise of the target, each real component: s^2 sigma^2 / (sigma^2 - s^2)."""
    return (noise_std * sigma) ** 2 / (sigma**2 - noise_std**2)


def share(noise_std: Tensor, sigma: Tensor, sd: float) -> Tensor:
    """The variance of x0 given x, divided by that of the target given x, for white images with the prior's sd."""
    return (1 - (noise_std / sigma) ** 2) * sd**2 / (sd**2 + noise_std**2)


def _draw_below(x: Tensor, denoised: Tensor, sigma: Tensor, lower: Tensor, random: Sequence[Generator]) -> Tensor:
    """x' at the level `lower` given x: Gaussian with the exact mean; for small steps the distribution is exact too."""
    kept = (lower / sigma) ** 2
    mean = denoised + per_item(kept, x) * (x - denoised)
    return mean + per_item(lower * torch.sqrt(1 - kept), x) * noise_like(x, random)
