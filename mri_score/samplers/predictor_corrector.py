"""Predictors of the reverse diffusion with Langevin corrections, for samples and posteriors that project."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from mri_score.errors import InputError, unknown_name
from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import per_item, squared_norm
from mri_score.numerics.noise import Random, noise_like
from mri_score.samplers.base import Sampler


def reverse_diffusion(sigma: float, sigma_next: float) -> tuple[float, float]:
    """The difference of the variances of two levels: d = v = sigma^2 - sigma_next^2."""
    d = sigma**2 - sigma_next**2
    return d, d


def euler_maruyama(sigma: float, sigma_next: float) -> tuple[float, float]:
    """Euler's method in log sigma: d = v = 2 sigma^2 log(sigma / sigma_next)."""
    d = 2 * sigma**2 * math.log(sigma / sigma_next)
    return d, d


def ancestral(sigma: float, sigma_next: float) -> tuple[float, float]:
    """The mean and variance of q(x' | x, x0 = D): d as in `reverse_diffusion`, v = d (sigma_next / sigma)^2."""
    d = sigma**2 - sigma_next**2
    return d, d * (sigma_next / sigma) ** 2


Predictor = Callable[[float, float], tuple[float, float]]
PREDICTORS: dict[str, Predictor | None] = {
    "ancestral": ancestral,
    "euler-maruyama": euler_maruyama,
    "none": None,
    "reverse-diffusion": reverse_diffusion,
}


class PredictorCorrector(Sampler):
    """At each level `repeats` Langevin steps, then a predictor's step to the next level:

        x <- x + a score(x) + sqrt(2 a) n,          a = 2 (snr |n| / |score|)^2, with the norms of each item,
        x <- x + d score(x) + sqrt(v) n,            d and v from `PREDICTORS`; at the end of the walk D(x).

    The model projects after each of these steps.
    repeats: corrections per level; 0 for none. snr: size of the corrections. predictor: a name of `PREDICTORS`; with
    "none" only the corrections remain, which is a Langevin walk. predict_first: corrections follow the predictor, at
    the new level, as in the paper; the published code, and False, correct first. The published code takes the norms
    over the batch, so that a sample depends on the others of its batch; here it does not.
    Errors: InputError for an unknown predictor, a negative `repeats`, and for neither predictor nor corrector.
    Reference: Song et al., Score-based generative modeling through stochastic differential equations, ICLR 2021,
    algorithm 2 (variance exploding) and appendices E to G.
    """

    def __init__(
        self,
        sigmas: Tensor,
        repeats: int = 1,
        snr: float = 0.16,
        predictor: str = "reverse-diffusion",
        predict_first: bool = False,
    ) -> None:
        super().__init__(sigmas)
        if predictor not in PREDICTORS:
            raise unknown_name("the predictor", predictor, PREDICTORS)
        self.predictor = PREDICTORS[predictor]
        if repeats < (0 if self.predictor else 1):
            raise InputError(
                f"the predictor {predictor!r} with {repeats} corrections a level is no walk;"
                " repeats is 0 or more, and at least 1 without a predictor"
            )
        self.repeats, self.snr, self.predict_first = repeats, snr, predict_first

    def step(
        self, model: ScoreModel, x: Tensor, sigma: float, sigma_next: float, random: Sequence[Random]
    ) -> Tensor:
        if not self.predict_first:
            for _ in range(self.repeats):
                x = model.project(self._correct(model, x, sigma, random), sigma, random)
            return self._predict(model, x, sigma, sigma_next, random)
        x = self._predict(model, x, sigma, sigma_next, random)
        for _ in range(self.repeats if sigma_next else 0):
            x = self._correct(model, model.project(x, sigma_next, random), sigma_next, random)
        return x

    def _predict(
        self, model: ScoreModel, x: Tensor, sigma: float, sigma_next: float, random: Sequence[Random]
    ) -> Tensor:
        if not sigma_next:
            return model.denoise(x, sigma)
        if self.predictor is None:
            return x
        d, v = self.predictor(sigma, sigma_next)
        return x + d * model.score(x, sigma) + v**0.5 * noise_like(x, random)

    def _correct(self, model: ScoreModel, x: Tensor, sigma: float, random: Sequence[Random]) -> Tensor:
        score, noise = model.score(x, sigma), noise_like(x, random)
        a = per_item(2 * self.snr**2 * squared_norm(noise) / squared_norm(score).clamp_min(1e-30), x)
        return x + a * score + (2 * a).sqrt() * noise
