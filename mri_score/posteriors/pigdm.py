"""Pseudo-inverse guidance: one linear solve and one product with the Jacobian, for a white error of the denoiser."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mri_score.numerics.channels import per_item
from mri_score.numerics.jacobian import linearise
from mri_score.posteriors.base import Posterior


@dataclass(eq=False, repr=False)
class PiGDM(Posterior):
    """D_y = D + J^T (A^H A + w)^-1 A^H (y - A D),    w = noise_std^2 / r^2,    J = dD/dx.

    p(x0 | x) is approximated by N(D, r^2 I) with r^2 = sigma^2 sd^2 / (sigma^2 + sd^2), which is the paper's value for
    images of sd 1. Then grad log p(y | x) = J^T (A^H A + w)^-1 A^H (y - A D) / r^2; the adaptive weight of the paper
    removes 1 / r^2. The full gradient, sigma^2 / r^2 times the step here, exceeds the misfit itself where an image
    varies more than sd, as all images do at low frequencies, and walks with a network diverge.
    In the paper the whole step is added after each move. Here it is part of D, and the ancestral sampler uses
    1 - (sigma'/sigma)^2 of it.
    Reference: Song et al., Pseudoinverse-guided diffusion models for inverse problems, ICLR 2023, algorithm 1.
    """

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        clean, product = linearise(lambda x: self.prior.denoise(x, sigma), x)
        noise = per_item(sigma, x) ** 2
        weight = per_item(self.noise_std, x) ** 2 * (noise + self.sd**2) / (noise * self.sd**2)
        b = self.backprojection - self.operator.normal(clean)
        return clean + product(self.operator.solve(b, weight.reshape(-1)))
