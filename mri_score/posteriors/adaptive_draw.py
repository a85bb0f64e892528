"""Exact draws whose prior variance is read off the scan's own misfit, level by level: the default."""

from __future__ import annotations

import torch
from torch import Tensor

from mri_score.models.base import LevelError, ScoreModel
from mri_score.numerics.channels import per_item, real_size, squared_norm
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.base import LinearOperator
from mri_score.posteriors.exact_draw import ExactDraw

LEAST = 0.02
"""Of the variance that `ExactDraw` takes: the estimate from a misfit below the noise would be none."""


class AdaptiveDraw(ExactDraw):
    """`ExactDraw` with r^2 estimated from how far the denoised image v misses the samples:

        r^2 = (|y - A v|^2 - m noise_std^2) / trace(A^H A),    at most sigma^2 sd^2 / (sigma^2 + sd^2).

    y - A v = A (x0 - v) + noise, so that in expectation this is the denoiser's error at sigma, for this scan. Images
    are far from white: a good denoiser errs ten times less than the bound, which alone leaves too much noise in the
    draws; and it errs more on a scan unlike its training set, where a number from training would trust it too much.
    No truth enters, each item has its own r, and m counts real components of the samples, zeros being unsampled.
    `errors` of the `WalkResult` holds the estimates before they are bounded: from them comes the out-of-distribution
    score of the scan.
    """

    spread: float = 1.0
    """Times the estimated r^2."""

    def __init__(self, prior: ScoreModel, operator: LinearOperator, kspace: Tensor, noise_std: Tensor | float) -> None:
        super().__init__(prior, operator, kspace, noise_std)
        probe = noise_like(self.backprojection, [generators(0, "trace")[0] for _ in kspace])
        self.trace = squared_norm(operator(probe)) * real_size(probe) / squared_norm(probe)
        self.count = (kspace != 0).flatten(1).sum(1) * (2 if kspace.is_complex() else 1)

    def variance(self, v: Tensor, sigma: Tensor | float) -> Tensor:
        bound = super().variance(v, sigma)
        error = self.spread * per_item(self.misfit(v, sigma), v)
        return torch.minimum(torch.maximum(error, LEAST * bound), bound)

    def misfit(self, v: Tensor, sigma: Tensor | float) -> Tensor:
        """Mean square error of each real component of v as the samples show it, (B,); kept in `errors`."""
        noise = self.count * self.noise_std**2
        error = (squared_norm(self.kspace - self.operator(v)) - noise) / self.trace
        self.errors = [*self.errors, LevelError(sigma, error, noise / self.trace)]
        return error
