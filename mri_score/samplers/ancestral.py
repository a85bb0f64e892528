"""Ancestral sampling: the step of DDPM and DDIM in terms of the denoised image and sigma."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.numerics.descent import lower_noise
from mri_score.numerics.noise import Random
from mri_score.samplers.base import Sampler


class Ancestral(Sampler):
    """x' = D + sqrt(sigma'^2 - tau^2) / sigma (x - D) + tau n,  tau = eta sigma' sqrt(1 - sigma'^2 / sigma^2).

    D = D(x, sigma). With eta = 1 this is q(x' | x, x0 = D), the reverse step of DDPM; eta = 0 is DDIM, which adds no
    noise. The last iterate is D.
    Errors: InputError for an eta outside 0 to 1.
    Reference: Ho et al., Denoising diffusion probabilistic models, NeurIPS 2020; Song et al., Denoising diffusion
    implicit models, ICLR 2021, in variance-exploding coordinates.
    """

    def __init__(self, sigmas: Tensor, eta: float = 1.0) -> None:
        super().__init__(sigmas)
        if not 0 <= eta <= 1:
            raise InputError(f"eta of the ancestral walk is {eta}; it lies between 0 (DDIM) and 1 (DDPM)")
        self.eta = eta

    def step(
        self, model: ScoreModel, x: Tensor, sigma: float, sigma_next: float, random: Sequence[Random]
    ) -> Tensor:
        return self._towards(model.denoise(x, sigma), x, sigma, sigma_next, random)

    def _towards(
        self, clean: Tensor, x: Tensor, sigma: float, sigma_next: float, random: Sequence[Random]
    ) -> Tensor:
        fresh = self.eta**2 * (1 - sigma_next**2 / sigma**2)
        return lower_noise(clean, x, sigma, sigma_next, fresh, random) if sigma_next else clean


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
