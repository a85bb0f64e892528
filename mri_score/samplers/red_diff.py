"""Regularisation by denoising diffusion: a point estimate by stochastic gradients."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.numerics.noise import Random, noise_like
from mri_score.samplers.base import Sampler, WalkResult, Watch


@runtime_checkable
class Measured(Protocol):
    """A posterior that keeps its prior and its data apart: `unannealed`."""

    prior: ScoreModel

    def residual(self, x: Tensor) -> Tensor:
        """A^H (y - A x)."""


class RedDiff(Sampler):
    """No walk of an iterate with noise but Adam on an image m, one step a level, down the levels:

        gradient = 2 A^H (A m - y) + weight (m - D(m + sigma n, sigma)).

    A point estimate, no posterior: it fits a Gaussian without width to the posterior, so that runs differ by the last
    steps' noise alone. m - D is sigma times the predicted less the true noise: the weight of that difference is the
    published one, proportional to sigma. It knows nothing of the scan's noise, and vanishes with sigma: many levels at
    low sigma fit the noise, so that more levels may be worse.
    Reference: Mardani et al., A variational perspective on solving inverse problems with diffusion models, ICLR 2024
    (weight 0.25, moments 0.9 and 0.99, 1000 steps); the rate as in Zheng et al., InverseBench, ICLR 2025, for MRI.
    Errors: InputError for a model that does not tell its data from its prior.
    """

    def __init__(self, sigmas: Tensor, weight: float = 0.25, rate: float = 0.04) -> None:
        super().__init__(sigmas)
        self.weight, self.rate = weight, rate

    def walk(
        self,
        model: ScoreModel,
        like: Tensor,
        random: Sequence[Random],
        watch: Watch | None = None,
        start: Tensor | None = None,
    ) -> WalkResult:
        # Adam has a state; it lives in a copy, and this sampler stays pure configuration.
        return Sampler.walk(copy(self), model, like, random, watch, start)

    def begin(self, model: ScoreModel, guess: Tensor, sigma: float, random: Sequence[Random]) -> Tensor:
        self._image = guess.clone()
        self._adam = torch.optim.Adam([self._image], lr=self.rate, betas=(0.9, 0.99))
        return guess

    def step(
        self, model: ScoreModel, x: Tensor, sigma: float, sigma_next: float, random: Sequence[Random]
    ) -> Tensor:
        if not isinstance(model, Measured):
            raise InputError(f"{type(model).__name__} mixes data and prior; red-diff walks the posterior 'unannealed'")
        clean = model.prior.denoise(x + sigma * noise_like(x, random), sigma)
        gradient = self.weight * (x - clean) - 2 * model.residual(x)
        self._image.grad = gradient.to(self._image.dtype)
        self._adam.step()
        return self._image.clone()
