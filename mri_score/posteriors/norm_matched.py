"""The rule of the published MRI Langevin sampler: a data gradient scaled to the length of the prior's score."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mri_score.numerics.channels import per_item, squared_norm
from mri_score.posteriors.base import Posterior


@dataclass(eq=False, repr=False)
class NormMatched(Posterior):
    """score(x) = s - weight |s| g / |g|,  with the prior's score s, g = A^H (A x - y), and norms of each item.

    noise_std is not used. The published code takes the norms over the whole batch, so that a slice depends on the
    other slices of its batch; here it does not.
    weight: of the data; 5 in the published code.
    Reference: the code of Jalal et al., NeurIPS 2021.
    """

    weight: float = 5.0

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        s = self.prior.score(x, sigma)
        g = self.operator.normal(x) - self.backprojection
        length = (squared_norm(s) / squared_norm(g).clamp_min(1e-30)).sqrt()
        return s - self.weight * per_item(length, x) * g
