"""Decomposed diffusion sampling: a few conjugate-gradient steps from the denoised image towards the data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mri_score.errors import InputError
from mri_score.numerics.solve import conjugate_gradient
from mri_score.posteriors.base import Posterior


@dataclass(eq=False, repr=False)
class DDS(Posterior):
    """denoise(x) = `iterations` of conjugate gradient from v = D(x, sigma) on (1 + gamma A^H A) z = v + gamma A^H y.

    Sampler: `DDIM` with zeta = 0.85^2. The published walk preserves the variance; sigma = sqrt(1 / abar - 1) and
    x / sqrt(abar) translate it step by step. In the publication e is computed from the prior's image, here from z; the
    difference is small.
    gamma: weight of the data; a published setting for multi-coil knees is 5, the default of the published code is 1.
    iterations: of conjugate gradient, at each level.
    Bias: not a posterior, because gamma does not depend on the noise level. On a Gaussian problem the results have
    half of the posterior's variance, and less than 1 % of it in directions that the samples measure.
    Errors: InputError if gamma is not positive, or for less than one iteration.
    Reference: Chung et al., Decomposed diffusion sampler for accelerating large-scale inverse problems, ICLR 2024.
    """

    gamma: float = 5.0
    iterations: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.gamma > 0 or self.iterations < 1:
            got = f"{self.gamma} and {self.iterations}"
            raise InputError(f"DDS needs a positive gamma and at least 1 iteration; got {got}")

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        v = self.prior.denoise(x, sigma)
        # Not `operator.solve`, which may be exact: stopping early is part of the method.
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
