"""A prior that counts what is asked of it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor

from mri_score.models.base import ScoreModel


class CountedPrior(ScoreModel):
    """A prior that counts what is asked of it, item by item: denoised images and vector-Jacobian products."""

    def __init__(self, prior: ScoreModel) -> None:
        super().__init__()
        self.prior, self.sd, self.about = prior, prior.sd, prior.about
        self.sigma_min, self.sigma_max = prior.sigma_min, prior.sigma_max
        self.calls = self.products = 0

    def begin_walk(self) -> None:
        self.prior.begin_walk()

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        self.calls += len(x)
        denoised = self.prior.denoise(x, sigma)
        if denoised.requires_grad:
            denoised.register_hook(self._product)
        return denoised

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Generator]) -> Tensor:
        self.calls += len(x)
        return self.prior.draw(x, sigma, random)

    def project(self, x: Tensor, sigma: Tensor | float, random: Sequence[Generator]) -> Tensor:
        return self.prior.project(x, sigma, random)

    def _product(self, gradient: Tensor) -> None:
        self.products += len(gradient)
