"""The probability flow, dx / dsigma = (x - D(x, sigma)) / sigma, with Heun's method or adaptive Runge-Kutta steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import per_item
from mri_score.numerics.descent import probability_flow
from mri_score.numerics.noise import Random, noise_like
from mri_score.numerics.runge_kutta import State, adaptive
from mri_score.samplers.base import Sampler


class Heun(Sampler):
    """One Heun step of the flow per level, with two evaluations; before it, some noise may be added (churn):

        s = (1 + g) sigma,  x <- x + churn_noise sqrt(s^2 - sigma^2) n,    g = min(churn / levels, sqrt(2) - 1),

    if churn_min <= sigma <= churn_max, with s at most the model's sigma_max. The last step is Euler's, and ends in D.
    Without churn the first iterate determines the result. Euler's method for the flow is `DDIM` with zeta = 0.
    churn: amount of added noise, summed over the walk. churn_min, churn_max: levels between which it is added.
    churn_noise: factor for the added noise.
    Errors: InputError for a negative churn or churn_noise.
    Reference: Karras et al., Elucidating the design space of diffusion-based generative models, NeurIPS 2022,
    algorithm 2 (S_churn, S_tmin, S_tmax, S_noise; for CIFAR-10 30, 0.01, 1, 1.007).
    """

    def __init__(
        self,
        sigmas: Tensor,
        churn: float = 0.0,
        churn_min: float = 0.0,
        churn_max: float = math.inf,
        churn_noise: float = 1.0,
    ) -> None:
        super().__init__(sigmas)
        if not (churn >= 0 and churn_noise >= 0):
            raise InputError(f"churn and churn_noise are {churn} and {churn_noise}; neither may be below 0")
        self.rise = min(churn / len(sigmas), math.sqrt(2) - 1)
        self.churn_min, self.churn_max, self.churn_noise = churn_min, churn_max, churn_noise

    def step(
        self, model: ScoreModel, x: Tensor, sigma: float, sigma_next: float, random: Sequence[Random]
    ) -> Tensor:
        high = sigma
        if self.rise and self.churn_min <= sigma <= self.churn_max:
            high = min((1 + self.rise) * sigma, model.sigma_max)
            x = x + self.churn_noise * math.sqrt(high**2 - sigma**2) * noise_like(x, random)
        ends = torch.tensor([high, sigma_next], dtype=torch.float64)
        return probability_flow(model.denoise, x, list(ends), heun=True)


class RungeKutta45(Sampler):
    """The flow from level to level with as many Dormand-Prince steps as the tolerances require; at the end D(x).

    rtol, atol: the error of a step stays below atol + rtol rms(x), for each item. Each item has its own steps and
    sigma, so that the model gets sigma (B,). Items that have reached a level are still evaluated with the others until
    all have. The levels only determine where the walk is watched and projected, not its accuracy. Each level takes
    seven evaluations or more: choose few levels.
    Errors: InputError for tolerances that are not positive.
    Reference: Song et al., Score-based generative modeling through stochastic differential equations, ICLR 2021,
    section 4.3 (both tolerances 1e-5, one step size for the batch).
    """

    def __init__(self, sigmas: Tensor, rtol: float = 1e-4, atol: float = 1e-4) -> None:
        super().__init__(sigmas)
        if not (rtol > 0 and atol > 0):
            raise InputError(f"rtol and atol of the flow are {rtol} and {atol}; both are positive, e.g. 1e-4")
        self.rtol, self.atol = rtol, atol

    def step(
        self, model: ScoreModel, x: Tensor, sigma: float, sigma_next: float, random: Sequence[Random]
    ) -> Tensor:
        def slope(level: Tensor, state: State) -> State:
            return ((state[0] - model.denoise(state[0], level)) / per_item(level, state[0]),)

        if not sigma_next:
            return model.denoise(x, sigma)
        return adaptive(slope, (x,), sigma, sigma_next, self.rtol, self.atol)[0]
