"""What every posterior is: a prior, a forward operator, samples and their noise level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mri_score.models.base import Gathered, LevelError, ScoreModel, Work
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import Random, noise_like
from mri_score.operators.base import LinearOperator


class Posterior(ScoreModel):
    """p(x0 | y), y = A x0 + noise_std n on the sampled points, n of unit variance in each real component.

    prior: a score model of images (B, *image). operator: A, which makes samples of images. kspace: y (B, *samples),
    unsampled points zero, or of one item for all. noise_std: () or (B,), standard deviation of the real and of the
    imaginary part of a sample, in the unit of kspace. Images are in that unit too, and the prior's scale is 1: an
    acquisition that is ready has been divided by its `scale`.
    A subclass writes `score`, `denoise` or `draw`.
    """

    kspace: Tensor
    noise_std: Tensor
    backprojection: Tensor
    mean: Tensor | None = None
    """(B, *image): the estimate of the posterior mean, while a walk is under way; `end_walk` hands it on."""
    errors: Sequence[LevelError] = ()
    """Of each level so far, while a walk is under way; `end_walk` hands them on."""

    def __init__(self, prior: ScoreModel, operator: LinearOperator, kspace: Tensor, noise_std: Tensor | float) -> None:
        super().__init__()
        self.prior, self.operator, self._iterations = prior, operator, 0
        self.sd, self.sigma_min, self.sigma_max = prior.sd, prior.sigma_min, prior.sigma_max
        self.register_buffer("kspace", kspace)
        self.register_buffer("noise_std", torch.as_tensor(noise_std, dtype=kspace.real.dtype).to(kspace.device))
        self.register_buffer("backprojection", operator.adjoint(kspace))

    def begin_walk(self) -> None:
        self.prior.begin_walk()
        self.operator.begin_walk()
        self.mean, self.errors, self._iterations = None, (), self.operator.iterations

    def end_walk(self) -> Gathered:
        found = self.prior.end_walk()
        iterations = Work(iterations=self.operator.iterations - self._iterations)
        work = None if found.work is None else found.work + iterations
        found = Gathered(self.mean, tuple(self.errors), work)
        self.mean, self.errors = None, ()
        return found

    def noise(self, x: Tensor, random: Sequence[Random]) -> Tensor:
        """A^H (noise_std n), n on every sample of each item of x: what perturb-and-solve adds to A^H y.

        x: (B, *image). random: one generator an item. Returns (B, *image).
        """
        kspace = self.kspace.expand(len(x), *self.kspace.shape[1:])
        return self.operator.adjoint(per_item(self.noise_std, kspace) * noise_like(kspace, random))

    def expand(self, image: Tensor) -> Tensor:
        """An image (B, *image) as the iterate of a walk; the same, but for posteriors that walk coil images."""
        return image

    def combine(self, x: Tensor) -> Tensor:
        """The image of an iterate: undoes `expand`."""
        return x
