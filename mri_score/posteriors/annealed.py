"""Posterior of annealed Langevin dynamics: the noise of the iterate is added to the variance of the data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mri_score.numerics.channels import per_item
from mri_score.posteriors.base import Posterior


@dataclass(eq=False, repr=False)
class AnnealedLikelihood(Posterior):
    """score(x) = prior score + A^H (y - A x) / (noise_std^2 + sigma^2).

    The iterate is x = x0 + sigma n, so that y - A x contains both noises. The sum of their variances is exact where
    A A^H is the identity.
    Reference: Jalal et al., Robust compressed sensing MRI with deep generative priors, NeurIPS 2021, eq. 4.
    """

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        variance = per_item(self.noise_std, x) ** 2 + per_item(sigma, x) ** 2
        return self.prior.score(x, sigma) + (self.backprojection - self.operator.normal(x)) / variance
