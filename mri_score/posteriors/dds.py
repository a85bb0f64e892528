"""Decomposed diffusion sampling: a few conjugate-gradient steps towards the data from the denoised image."""

from __future__ import annotations

from torch import Tensor

from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.numerics.solve import conjugate_gradient
from mri_score.operators.base import LinearOperator
from mri_score.posteriors.base import Posterior


class DDS(Posterior):
    """denoise(x) = `iterations` of conjugate gradient from v = D(x, sigma) on (1 + gamma A^H A) z = v + gamma A^H y.

    Walked by `DDIM` with zeta = 0.85^2; sigma = sqrt(1 / abar - 1) and x / sqrt(abar) carry the published
    variance-preserving walk over to this one, step for step. There e is the prior's, here that of z: it matters little.
    Bias: no posterior; gamma knows no noise level, so that on a Gaussian problem the results spread with half of the
    posterior's variance, and with less than 1 % of it where samples see the image.
    gamma: 5 is a published setting for multi-coil knees; the release's default is 1.
    Errors: InputError for a gamma that is not positive, or no iteration.
    Reference: Chung et al., Decomposed diffusion sampler for accelerating large-scale inverse problems, ICLR 2024.
    """

    def __init__(
        self,
        prior: ScoreModel,
        operator: LinearOperator,
        kspace: Tensor,
        noise_std: Tensor | float,
        gamma: float = 5.0,
        iterations: int = 5,
    ) -> None:
        super().__init__(prior, operator, kspace, noise_std)
        if not gamma > 0 or iterations < 1:
            raise InputError(f"DDS needs a positive gamma and at least 1 iteration; got {gamma} and {iterations}")
        self.gamma, self.iterations = gamma, iterations

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        v = self.prior.denoise(x, sigma)
        # Never the operator's own solver: where it solves exactly, stopping early would mean nothing.
        z, iterations = conjugate_gradient(
            lambda z: z + self.gamma * self.operator.normal(z),
            v + self.gamma * self.backprojection,
            v,
            tolerance=0.0,
            max_iterations=self.iterations,
        )
        self.operator.iterations += iterations * len(x)
        return z


Dds = DDS  # the former name
