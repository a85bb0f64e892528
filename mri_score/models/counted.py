"""A prior that counts its evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from mri_score.models.base import Gathered, ScoreModel, Work
from mri_score.numerics.noise import Random


class CountedPrior(ScoreModel):
    """A prior that counts, for each item, denoised images and vector-Jacobian products."""

    def __init__(self, prior: ScoreModel) -> None:
        super().__init__()
        self.prior, self.sd, self.about = prior, prior.sd, prior.about
        self.sigma_min, self.sigma_max = prior.sigma_min, prior.sigma_max
        self.any_orientation, self.generates = prior.any_orientation, prior.generates
        self.calls = self.products = 0
        self._before = self._reported = Work()

    def begin_walk(self) -> None:
        self.prior.begin_walk()
        self._before = Work(self.calls, self.products)

    def end_walk(self) -> Gathered:
        work = Work(self.calls - self._before.calls, self.products - self._before.products)
        return replace(self.prior.end_walk(), work=work)

    def new_evaluations(self) -> int:
        """The network evaluations since this was called last, as `Work.evaluations` counts them."""
        done = Work(self.calls, self.products)
        new = done.evaluations - self._reported.evaluations
        self._reported = done
        return new

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        self.calls += len(x)
        denoised = self.prior.denoise(x, sigma)
        if denoised.requires_grad:
            denoised.register_hook(self._product)
        return denoised

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        self.calls += len(x)
        return self.prior.draw(x, sigma, random)

    def project(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        return self.prior.project(x, sigma, random)

    def _product(self, gradient: Tensor) -> None:
        self.products += len(gradient)
