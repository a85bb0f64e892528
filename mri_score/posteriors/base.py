"""The base class of posteriors: a prior, a forward operator, measured k-space and its noise level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mri_score.errors import InputError
from mri_score.models.base import Gathered, LevelError, ScoreModel, Work
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import Random, noise_like
from mri_score.operators.base import LinearOperator

TOLERANCE = 1e-6
"""Relative residual of the systems of a data step."""


@dataclass(eq=False, repr=False)
class Posterior(ScoreModel):
    """p(x0 | y) for y = A x0 + noise_std n on the sampled points, n with unit variance in each real component.

    prior: a score model of images (B, *image).
    operator: the forward operator A, from images to k-space samples.
    kspace: y (B, *samples), zero at unsampled points; or of one item, for all items of a walk.
    noise_std: () or (B,), standard deviation of the real and of the imaginary part of a sample, in the unit of kspace.
    Images have the unit of kspace, in which the prior expects a 99th percentile of the magnitude near 1: divide the
    scan by its `scale` first.
    A subclass writes `score`, `denoise` or `draw`. Its options are fields of a dataclass, decorated like this class;
    `__post_init__` checks them. A subclass with an `__init__` of its own calls this one with the four arguments.
    """

    needs_generator: ClassVar[bool] = False
    """Whether the prior is a `Generator`, and not a score model."""
    prior: ScoreModel
    operator: LinearOperator
    kspace: Tensor
    noise_std: Tensor | float
    backprojection: Tensor = field(init=False)
    """A^H y, (B, *image)."""
    mean: Tensor | None = field(default=None, init=False)
    """(B, *image): the estimate of the posterior mean during a walk; `end_walk` returns it."""
    errors: Sequence[LevelError] = field(default=(), init=False)
    """The errors measured so far, one for each level, during a walk; `end_walk` returns them."""

    def __setattr__(self, name: str, value: Any) -> None:
        if "_modules" not in self.__dict__:  # a dataclass assigns its fields first, and a module refuses them then
            nn.Module.__init__(self)
        super().__setattr__(name, value)

    def __post_init__(self) -> None:
        self._iterations = 0
        if self.needs_generator and not self.prior.generates:
            raise InputError(
                "the method one-step needs a generator as its prior, not a score model; train one: mri-score train -c"
                " brain_one_step.yml --from brain-fast"
            )
        if self.prior.generates and not self.needs_generator:
            raise InputError("this prior is a generator, which has no score; take --method one-step")
        self.sd, self.sigma_min, self.sigma_max = self.prior.sd, self.prior.sigma_min, self.prior.sigma_max
        y = self.kspace
        noise_std = torch.as_tensor(self.noise_std, dtype=y.real.dtype).to(y.device)
        for name, value in {"kspace": y, "noise_std": noise_std, "backprojection": self.operator.adjoint(y)}.items():
            self.__dict__.pop(name, None)
            self.register_buffer(name, value)

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
        """A^H (noise_std n), with n on every sample of each item of x: perturb-and-solve adds it to A^H y.

        x: (B, *image). random: one generator per item. Returns (B, *image).
        """
        kspace = self.kspace.expand(len(x), *self.kspace.shape[1:])
        return self.operator.adjoint(per_item(self.noise_std, kspace) * noise_like(kspace, random))

    def solve_near(self, b: Tensor, guess: Tensor, variance: Tensor) -> Tensor:
        """The solution z (B, *image) of (A^H A + w) z = b + w guess, with w = noise_std^2 / variance.

        b, guess: (B, *image). variance: of each real component of the guess, () or (B, 1, ...). An iterative solver
        starts from the guess, so that directions that no sample measures are exact at once, however small w is.
        """
        weight = per_item(self.noise_std, guess) ** 2 / variance
        b = b + weight * guess
        return self.operator.solve(b, weight.reshape(-1), start=guess, tolerance=self.tolerance(b, weight))

    def tolerance(self, b: Tensor, weight: Tensor) -> Tensor | float:
        """The relative residual, () or (B,), to which `solve_near` solves (A^H A + weight) z = b.

        b: (B, *image). weight: () or (B, 1, ...).
        """
        return TOLERANCE

    def expand(self, image: Tensor) -> Tensor:
        """The iterate of a walk for an image (B, *image): the image itself, except for walks over coil images."""
        return image

    def combine(self, x: Tensor) -> Tensor:
        """The image of an iterate: the inverse of `expand`."""
        return x
