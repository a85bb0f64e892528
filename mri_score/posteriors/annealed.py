"""Annealed Langevin's posterior: the likelihood softened by the noise of the iterate."""

from __future__ import annotations

from torch import Tensor

from mri_score.numerics.channels import per_item
from mri_score.posteriors.base import Posterior


class AnnealedLikelihood(Posterior):
    """score(x) = prior score + A^H (y - A x) / (noise_std^2 + sigma^2).

    The iterate x = x0 + sigma n misses y by both noises, as far as A A^H is near the identity.
    Reference: Jalal et al., Robust compressed sensing MRI with deep generative priors, NeurIPS 2021, eq. 4.
    """

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        variance = per_item(self.noise_std, x) ** 2 + per_item(sigma, x) ** 2
        return self.prior.score(x, sigma) + (self.backprojection - self.operator.normal(x)) / variance
