"""Regularisation by denoising diffusion: a point estimate by stochastic gradients."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Protocol, cast

import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.numerics.noise import Random, noise_like
from mri_score.samplers.base import Sampler, WalkResult, Watch, has_parts


class Measured(Protocol):
    """A posterior with separate prior and data residual, such as `unannealed`."""

    prior: ScoreModel

    def residual(self, x: Tensor) -> Tensor:
        """A^H (y - A x)."""


class RedDiff(Sampler):
    """Adam on an image m instead of a noisy iterate, one step per level:

        gradient = 2 A^H (A m - y) + weight (m - D(m + sigma n, sigma)).

    A point estimate: the method fits a Gaussian of zero variance to the posterior, so that results differ only by the
    noise of the last steps. m - D is sigma times the difference of predicted and true noise, so that the weight of this
    difference is proportional to sigma, as published. It does not depend on the noise of the scan, and vanishes with
    sigma: many levels at low sigma fit the noise, and more levels can be worse.
    weight: of the prior. rate: learning rate of Adam.
    Errors: InputError for a model whose data and prior are not separate.
    Reference: Mardani et al., A variational perspective on solving inverse problems with diffusion models, ICLR 2024
    (weight 0.25, moments 0.9 and 0.99, 1000 steps); the rate as in Zheng et al., InverseBench, ICLR 2025, for MRI.
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
        # The state of Adam belongs to a copy: this sampler holds settings only.
        return Sampler.walk(copy(self), model, like, random, watch, start)

    def begin(self, model: ScoreModel, guess: Tensor, sigma: float, random: Sequence[Random]) -> Tensor:
        self._image = guess.clone()
        self._adam = torch.optim.Adam([self._image], lr=self.rate, betas=(0.9, 0.99))
        return guess

    def step(
        self, model: ScoreModel, x: Tensor, sigma: float, sigma_next: float, random: Sequence[Random]
    ) -> Tensor:
        if not has_parts(model, "prior", "residual"):
            raise InputError(
                f"{type(model).__name__} has no separate data and prior; red-diff needs the posterior 'unannealed'"
            )
        posterior = cast(Measured, model)
        clean = posterior.prior.denoise(x + sigma * noise_like(x, random), sigma)
        gradient = self.weight * (x - clean) - 2 * posterior.residual(x)
        self._image.grad = gradient.to(self._image.dtype)
        self._adam.step()
        return self._image.clone()
