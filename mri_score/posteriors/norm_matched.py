"""The rule of the published MRI Langevin sampler: a data gradient as long as the prior's score, times a weight."""

from __future__ import annotations

from torch import Tensor

from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import per_item, squared_norm
from mri_score.operators.base import LinearOperator
from mri_score.posteriors.base import Posterior


class NormMatched(Posterior):
    """score(x) = s - weight |s| g / |g|,  s the prior's score, g = A^H (A x - y), norms of each item by itself.

    The noise level of the scan does not enter. The release takes its norms over the whole batch, so that a slice's
    result depends on its batch mates; here it does not.
    Reference: the code of Jalal et al., NeurIPS 2021 (weight 5).
    """

    def __init__(
        self,
        prior: ScoreModel,
        operator: LinearOperator,
        kspace: Tensor,
        noise_std: Tensor | float,
        weight: float = 5.0,
    ) -> None:
        super().__init__(prior, operator, kspace, noise_std)
        self.weight = weight

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        s = self.prior.score(x, sigma)
        g = self.operator.normal(x) - self.backprojection
        length = (squared_norm(s) / squared_norm(g).clamp_min(1e-30)).sqrt()
        return s - self.weight * per_item(length, x) * g
