"""A prior that counts what is asked of it."""

from __future__ import annotations

from torch import Tensor

from mri_score.models.base import ScoreModel


class CountedPrior(ScoreModel):
    """A prior that counts what is asked of it, item by item: denoised images and vector-Jacobian products."""

    def __init__(self, prior: ScoreModel) -> None:
        super().__init__()
        self.prior, self.sd, self.sigma_min = prior, prior.sd, prior.sigma_min
        self.calls = self.products = 0

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        self.calls += len(x)
        denoised = self.prior.denoise(x, sigma)
        if denoised.requires_grad:
            denoised.register_hook(self._product)
        return denoised

    def _product(self, gradient: Tensor) -> None:
        self.products += len(gradient)
