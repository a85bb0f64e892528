"""Decoupled annealing: a clean image by the probability flow, then one exact draw about it."""

from __future__ import annotations

from torch import Tensor

from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import per_item
from mri_score.numerics.descent import levels_below, probability_flow
from mri_score.operators.base import LinearOperator
from mri_score.posteriors.exact_draw import ExactDraw


class DAPS(ExactDraw):
    """One draw z ~ exp(-|y - A z|^2 / 2 noise_std^2 - |z - v|^2 / 2 sigma^2), v the prior's flow from x down to 0.

    The published chain of 100 Langevin steps for z is replaced by the draw that it approximates. Walked by `Renoise`.
    Bias: r = sigma is more than the prior leaves open, so that the draws spread too far: 1.5 times the posterior's
    variance at 200 levels of a Gaussian problem, 2.0 times at 20. Where the scan leaves much open, x then carries more
    noise than sigma says, a network passes the excess on, and the walk may run away; the published chain is too short
    to reach such places, and stays near v there. `ExactDraw` has the variance that keeps the noise as told.
    inner_steps: of the flow, one network call each; `heun` takes two, but for the last.
    Reference: Zhang et al., Improving diffusion inverse problem solving with decoupled noise annealing, CVPR 2025.
    """

    def __init__(
        self,
        prior: ScoreModel,
        operator: LinearOperator,
        kspace: Tensor,
        noise_std: Tensor | float,
        inner_steps: int = 5,
        heun: bool = False,
    ) -> None:
        super().__init__(prior, operator, kspace, noise_std)
        self.inner_steps, self.heun = inner_steps, heun

    def _split(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        levels = levels_below(sigma, self.inner_steps, least=self.sigma_min)
        v = probability_flow(self.prior.denoise, x, levels, self.heun)
        r = per_item(sigma, x)
        return v, r, per_item(self.noise_std, x) ** 2 / r**2


Daps = DAPS  # the former name
