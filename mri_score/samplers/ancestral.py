"""Ancestral sampling: the step of DDPM and DDIM in terms of the denoised image and sigma."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from mri_score.errors import InputError, unknown_name
from mri_score.models.base import ScoreModel
from mri_score.numerics.descent import lower_noise
from mri_score.numerics.noise import Random, noise_like
from mri_score.samplers.base import Sampler

VARIANCES = ("posterior", "beta")


class Ancestral(Sampler):
    """x' = D + sqrt(sigma'^2 - tau^2) / sigma (x - D) + tau n,  tau = eta sigma' sqrt(1 - sigma'^2 / sigma^2).

    D = D(x, sigma). With eta = 1 this is q(x' | x, x0 = D), the reverse step of DDPM; eta = 0 is DDIM, which adds no
    noise. The last iterate is D.
    variance: "posterior" is tau as above. "beta", with eta = 1, is the other choice of DDPM: beta_t of the
    variance-preserving process, here tau^2 = (sigma^2 - sigma'^2) (1 + sigma'^2) / (1 + sigma^2). It is exact for data
    of unit variance, "posterior" for a single image. DDPM's samples of CIFAR-10 and Score SDE's ancestral sampling have
    "beta".
    Errors: InputError for an eta outside 0 to 1, for an unknown variance, and for "beta" with another eta than 1.
    Reference: Ho et al., Denoising diffusion probabilistic models, NeurIPS 2020; Song et al., Denoising diffusion
    implicit models, ICLR 2021, in variance-exploding coordinates.
    """

    def __init__(self, sigmas: Tensor, eta: float = 1.0, variance: str = "posterior") -> None:
        super().__init__(sigmas)
        if variance not in VARIANCES:
            raise unknown_name("variance of the ancestral walk", variance, VARIANCES)
        if not 0 <= eta <= 1:
            raise InputError(f"eta of the ancestral walk is {eta}; it lies between 0 (DDIM) and 1 (DDPM)")
        if variance == "beta" and eta != 1:
            raise InputError(f"eta of the ancestral walk is {eta}; with variance beta it is 1")
        self.eta, self.variance = eta, variance

    def step(
        self, model: ScoreModel, x: Tensor, sigma: float, sigma_next: float, random: Sequence[Random]
    ) -> Tensor:
        return self._towards(model.denoise(x, sigma), x, sigma, sigma_next, random)

    def _towards(
        self, clean: Tensor, x: Tensor, sigma: float, sigma_next: float, random: Sequence[Random]
    ) -> Tensor:
        if not sigma_next:
            return clean
        fresh = self.eta**2 * (1 - sigma_next**2 / sigma**2)
        if self.variance == "posterior":
            return lower_noise(clean, x, sigma, sigma_next, fresh, random)
        tau = math.sqrt((sigma**2 - sigma_next**2) * (1 + sigma_next**2) / (1 + sigma**2))
        return lower_noise(clean, x, sigma, sigma_next, fresh) + tau * noise_like(x, random)


class GuidedAncestral(Ancestral):
    """The ancestral step with the prior's D, then x' <- x' - correction, with the correction at x: the walk of DPS.

    The model must have a method `guide(x, sigma)` that returns D and the correction. The correction cannot be part of a
    score, because its length does not decrease with the step.
    Errors: InputError for a model without `guide`.
    Reference: Chung et al., Diffusion posterior sampling for general noisy inverse problems, ICLR 2023, algorithm 1.
    """

    def step(
        self, model: ScoreModel, x: Tensor, sigma: float, sigma_next: float, random: Sequence[Random]
    ) -> Tensor:
        guide = getattr(model, "guide", None)
        if not callable(guide):
            raise InputError(f"{type(model).__name__} has no guide; GuidedAncestral walks DPS, Ancestral the others")
        clean, correction = guide(x, sigma)
        return self._towards(clean, x, sigma, sigma_next, random) - correction
