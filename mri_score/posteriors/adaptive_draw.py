"""Exact draws with a prior variance that is estimated from the misfit of the samples, level by level."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mri_score.models.base import LevelError
from mri_score.numerics.channels import per_item, real_size, squared_norm
from mri_score.numerics.noise import generators, noise_like
from mri_score.posteriors.exact_draw import ExactDraw

LEAST = 0.02
"""Lower bound for r^2, as a fraction of ExactDraw's r^2; without it r^2 could become zero or negative."""


@dataclass(eq=False, repr=False)
class AdaptiveDraw(ExactDraw):
    """`ExactDraw` with r^2 estimated from the misfit of the denoised image v to the samples:

        r^2 = (|y - A v|^2 - m noise_std^2) / trace(A^H A),    at most sigma^2 sd^2 / (sigma^2 + sd^2).

    Because y - A v = A (x0 - v) + noise, this is in expectation the mean square error of the denoiser at sigma on this
    scan. m is the number of real components of the samples; a sample that is zero counts as unsampled. Each item has
    its own r^2, and no ground truth is used. The upper bound holds for white images; a good denoiser of MR images errs
    ten times less, and draws with the bound keep too much noise. A value from training would be too small for scans
    that differ from the training images.
    spread: factor for the estimated r^2.
    `errors` of the `WalkResult` are the estimates before the bounds; the out-of-distribution score uses them.
    """

    spread: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        probe = noise_like(self.backprojection, [generators(0, "trace")[0] for _ in self.kspace])
        self.trace = squared_norm(self.operator(probe)) * real_size(probe) / squared_norm(probe)
        self.count = (self.kspace != 0).flatten(1).sum(1) * (2 if self.kspace.is_complex() else 1)

    def variance(self, v: Tensor, sigma: Tensor | float) -> Tensor:
        bound = super().variance(v, sigma)
        error = self.spread * per_item(self.misfit(v, sigma), v)
        return torch.minimum(torch.maximum(error, LEAST * bound), bound)

    def misfit(self, v: Tensor, sigma: Tensor | float) -> Tensor:
        """Mean square error (B,) of each real component of v, estimated from the samples; appended to `errors`."""
        noise = self.count * self.noise_std**2
        error = (squared_norm(self.kspace - self.operator(v)) - noise) / self.trace
        self.errors = [*self.errors, LevelError(sigma, error, noise / self.trace)]
        return error
