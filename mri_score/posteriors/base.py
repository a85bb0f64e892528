"""What every posterior is: a prior, a forward operator, samples and their noise level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import noise_like
from mri_score.operators.base import LinearOperator


class LevelError(NamedTuple):
    """How far the denoised image missed the samples at a level, as a mean square error of its real components."""

    sigma: Tensor | float
    """() or (B,)."""
    error: Tensor
    """(B,): beyond the noise, so that it may fall below zero."""
    noise: Tensor
    """(B,): what was taken off for the noise."""


class Posterior(ScoreModel):
    """p(x0 | y), y = A x0 + noise_std n on the sampled points, n of unit variance in each real component.

    Shapes: kspace (B, *samples), noise_std () or (B,); items of the walk are items of kspace.
    """

    kspace: Tensor
    noise_std: Tensor
    backprojection: Tensor
    mean: Tensor | None = None
    """(B, *image): what a walk has found of the posterior mean, from posteriors that gather more than its result."""
    errors: Sequence[LevelError] = ()
    """Of each level of a walk, from posteriors that look."""

    def __init__(self, prior: ScoreModel, operator: LinearOperator, kspace: Tensor, noise_std: Tensor | float) -> None:
        super().__init__()
        self.prior, self.operator = prior, operator
        self.sd, self.sigma_min, self.sigma_max = prior.sd, prior.sigma_min, prior.sigma_max
        self.register_buffer("kspace", kspace)
        self.register_buffer("noise_std", torch.as_tensor(noise_std, dtype=kspace.real.dtype).to(kspace.device))
        self.register_buffer("backprojection", operator.adjoint(kspace))

    def begin_walk(self) -> None:
        self.prior.begin_walk()
        self.operator.begin_walk()

    def noise(self, x: Tensor, random: Sequence[Generator]) -> Tensor:
        """A^H (noise_std n), n on every sample of each item of x: what perturb-and-solve adds to A^H y."""
        kspace = self.kspace.expand(len(x), *self.kspace.shape[1:])
        return self.operator.adjoint(per_item(self.noise_std, kspace) * noise_like(kspace, random))

    def expand(self, image: Tensor) -> Tensor:
        """An image (B, *image) as the iterate of a walk; the same, but for posteriors that walk coil images."""
        return image

    def combine(self, x: Tensor) -> Tensor:
        """The image of an iterate: undoes `expand`."""
        return x
