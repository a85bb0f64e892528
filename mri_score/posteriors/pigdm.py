"""Pseudo-inverse guidance: the denoiser's error taken as white, one linear solve and one product with the Jacobian."""

from __future__ import annotations

from torch import Tensor

from mri_score.numerics.channels import per_item
from mri_score.numerics.jacobian import linearise
from mri_score.posteriors.base import Posterior


class PiGDM(Posterior):
    """D_y = D + J^T (A^H A + w)^-1 A^H (y - A D),    w = noise_std^2 / r^2,    J = dD/dx.

    p(x0 | x) is taken as N(D, r^2 I) with r^2 = sigma^2 sd^2 / (sigma^2 + sd^2), the paper's for images of sd 1. The
    gradient of log p(y | x) then is J^T (A^H A + w)^-1 A^H (y - A D) / r^2, and the paper's adaptive weight takes the
    r^2 away. The full gradient, sigma^2 / r^2 times this step, exceeds the misfit itself where an image varies more
    than sd, as all images do at low frequencies: walks with a network diverge by it. In the paper the step is added
    whole after each move; here it is part of D, of which the ancestral walk takes the share 1 - (sigma'/sigma)^2.
    Reference: Song et al., Pseudoinverse-guided diffusion models for inverse problems, ICLR 2023, algorithm 1.
    """

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        clean, product = linearise(lambda x: self.prior.denoise(x, sigma), x)
        noise = per_item(sigma, x) ** 2
        weight = per_item(self.noise_std, x) ** 2 * (noise + self.sd**2) / (noise * self.sd**2)
        b = self.backprojection - self.operator.normal(clean)
        return clean + product(self.operator.solve(b, weight.reshape(-1)))
