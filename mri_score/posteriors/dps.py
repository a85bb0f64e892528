"""Diffusion posterior sampling: one gradient of the misfit, through the denoiser, after every step."""

from __future__ import annotations

from torch import Tensor

from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import per_item, squared_norm
from mri_score.numerics.jacobian import linearise
from mri_score.operators.base import LinearOperator
from mri_score.posteriors.base import Posterior


class DPS(Posterior):
    """Corrects each ancestral step by zeta grad_x |y - A D(x)|, the norm and not its square, item by item.

    The correction has the same length at every level: zeta |J^T A^H r| / |r|, r = y - A D. It is no score, and the
    walk `GuidedAncestral` with its many small steps (1000) is part of the method. noise_std does not enter; zeta is of
    the paper's size, 0.3 to 1. Its own walk preserves the variance: carried over to sigma, the correction there would
    be about 1 + sigma^2 times as long; here it is as in codes whose variance explodes.
    Reference: Chung et al., Diffusion posterior sampling for general noisy inverse problems, ICLR 2023.
    """

    def __init__(
        self, prior: ScoreModel, operator: LinearOperator, kspace: Tensor, noise_std: Tensor | float, zeta: float = 1.0
    ) -> None:
        super().__init__(prior, operator, kspace, noise_std)
        self.zeta = zeta

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        raise InputError("DPS is a rule for its own walk and has no score: walk it with the sampler guided-ancestral")

    def guide(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """D(x) and what the step is to be corrected by."""
        clean, product = linearise(lambda x: self.prior.denoise(x, sigma), x)
        residual = self.kspace - self.operator(clean)
        length = squared_norm(residual).sqrt().clamp_min(1e-30)
        return clean, -self.zeta * product(self.operator.adjoint(residual) / per_item(length, x))
