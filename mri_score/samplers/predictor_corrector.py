"""Reverse diffusion with Langevin corrections: unconditional samples, and posteriors that project."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor

from mri_score.numerics.channels import per_item, squared_norm
from mri_score.numerics.noise import noise_like
from mri_score.samplers.base import Sampler
from mri_score.score import ScoreModel


class PredictorCorrector(Sampler):
    """At each level `repeats` Langevin steps, then one step of the reverse diffusion to the next level:

        x <- x + a score(x) + sqrt(2 a) n,          a = 2 (snr |n| / |score|)^2, norms of each item by itself,
        x <- x + d score(x) + sqrt(d) n,            d = sigma^2 - sigma_next^2; without noise at the end, which is D(x).

    The model projects after each. The release takes its norms over the batch, so that a sample depends on its mates.
    Reference: Song et al., Score-based generative modeling through stochastic differential equations, ICLR 2021,
    algorithm 2 (variance exploding), in the order of its code.
    """

    def __init__(self, sigmas: Tensor, repeats: int = 1, snr: float = 0.16) -> None:
        super().__init__(sigmas)
        self.repeats, self.snr = repeats, snr

    def step(
        self, model: ScoreModel, x: Tensor, sigma: float, sigma_next: float, random: Sequence[Generator]
    ) -> Tensor:
        for _ in range(self.repeats):
            x = model.project(self._correct(model, x, sigma, random), sigma, random)
        d = sigma**2 - sigma_next**2
        x = x + d * model.score(x, sigma)
        return x + d**0.5 * noise_like(x, random) if sigma_next else x

    def _correct(self, model: ScoreModel, x: Tensor, sigma: float, random: Sequence[Generator]) -> Tensor:
        score, noise = model.score(x, sigma), noise_like(x, random)
        a = per_item(2 * self.snr**2 * squared_norm(noise) / squared_norm(score).clamp_min(1e-30), x)
        return x + a * score + (2 * a).sqrt() * noise
