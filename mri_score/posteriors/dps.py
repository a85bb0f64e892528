"""Diffusion posterior sampling: after every step, one gradient of the misfit through the denoiser."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mri_score.errors import InputError
from mri_score.numerics.channels import per_item, squared_norm
from mri_score.numerics.jacobian import linearise
from mri_score.posteriors.base import Posterior


@dataclass(eq=False, repr=False)
class DPS(Posterior):
    """Corrects each ancestral step by zeta grad_x |y - A D(x)|: the gradient of the norm, not of its square, per item.

    With the residual r = y - A D, the correction is zeta |J^T A^H r| / |r| at every level. It is not a score, and the
    sampler `GuidedAncestral` with its many small steps (1000) is part of the method. noise_std is not used.
    zeta: the paper uses 0.3 to 1. The published walk preserves the variance; translated to sigma its correction would
    be about 1 + sigma^2 times as long. Here it has the length used in codes for variance-exploding processes.
    Reference: Chung et al., Diffusion posterior sampling for general noisy inverse problems, ICLR 2023.
    """

    zeta: float = 1.0

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        raise InputError("DPS has no score, only a correction for its own walk: use the sampler guided-ancestral")

    def guide(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """D(x) and the correction, which the sampler subtracts from the next iterate: each (B, *image)."""
        clean, product = linearise(lambda x: self.prior.denoise(x, sigma), x)
        residual = self.kspace - self.operator(clean)
        length = squared_norm(residual).sqrt().clamp_min(1e-30)
        return clean, -self.zeta * product(self.operator.adjoint(residual) / per_item(length, x))
