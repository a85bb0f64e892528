"""Moment matching: the covariance of the image at each level is sigma^2 times the Jacobian of the denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.numerics.channels import inner, per_item
from mri_score.numerics.jacobian import Product, linearise, square_root
from mri_score.numerics.noise import Random, noise_like
from mri_score.posteriors.base import Posterior

TOLERANCE = 1e-5
"""Relative size of the residual, in the norm of C, at which an item counts as solved."""


@dataclass(eq=False, repr=False)
class MMPS(Posterior):
    """D_y = D + C A^H v,    (noise_std^2 + A C A^H) v = y - A D,    C = sigma^2 J,    J = dD/dx.

    By Tweedie's formula C is the covariance of x0 given x, so that D_y is the posterior mean if x0 given x is Gaussian.
    iterations: of conjugate gradient, with one product with J each. Few suffice: later levels reduce the rest of the
    misfit.
    Errors: InputError for less than one iteration.
    Reference: Rozet et al., Learning diffusion priors from observations by expectation maximization, NeurIPS 2024.
    """

    iterations: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1:
            name = type(self).__name__
            raise InputError(f"{name} needs at least 1 iteration, not {self.iterations}; the paper takes 3")

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        clean, covariance = self._moments(x, sigma)
        return clean + self._gain(covariance, self.backprojection - self.operator.normal(clean))

    def _moments(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Product]:
        """D and v -> C v."""
        clean, product = linearise(lambda x: self.prior.denoise(x, sigma), x)
        variance = per_item(sigma, x) ** 2
        return clean, lambda v: variance * product(v)

    def _gain(self, covariance: Product, b: Tensor) -> Tensor:
        """z = C w with (noise_std^2 + A^H A C) w = b = A^H (y - A D), so that w = A^H v.

        The matrix is symmetric in the inner product <a, b>_C = a . C b. Conjugate gradient in this inner product is
        not slowed down by noise that no image explains, and it tolerates the Jacobians of networks, which are only
        nearly symmetric; with the usual inner product over samples it diverges for them. An item stops once C is not
        positive along its residual, where J is not a covariance.
        """
        noise = per_item(self.noise_std, b) ** 2
        z, r = torch.zeros_like(b), b
        p = covered = torch.zeros_like(b)  # the search direction and C p
        goal, last = None, torch.full((len(b),), torch.inf, dtype=b.real.dtype, device=b.device)
        active = torch.ones_like(last, dtype=torch.bool)
        for _ in range(self.iterations):
            c = covariance(r)
            rho = inner(r, c)
            goal = TOLERANCE**2 * rho.abs() if goal is None else goal
            active = active & (rho > goal)
            if not bool(active.any()):
                break
            turn = torch.where(active, rho / last, 0.0)
            p, covered = r + per_item(turn, r) * p, c + per_item(turn, c) * covered
            image = noise * p + self.operator.normal(covered)
            curvature = inner(covered, image)
            active = active & (curvature > 0)
            step = torch.where(active, rho / curvature, 0.0)
            z, r, last = z + per_item(step, z) * covered, r - per_item(step, r) * image, rho
        return z


@dataclass(eq=False, repr=False)
class MMPSDraw(MMPS):
    """One x0 ~ N(D_y, C - C A^H (noise_std^2 + A C A^H)^-1 A C), by perturb and solve:

        x0 = D + e + C A^H (noise_std^2 + A C A^H)^-1 (y + noise_std n1 - A (D + e)),    e = C^(1/2) n2.

    With many `lanczos` and `iterations` the draw is exact in mean and covariance if x0 given x is Gaussian, and so for
    Gaussian priors with any number of levels. With few, e has the trace of C, but a covariance that is more even over
    directions. `denoise` is that of MMPS.
    iterations: products with J for the solve. lanczos: products with J for e.
    Errors: InputError for less than one iteration or Lanczos step.
    Reference: Rozet et al. as for `MMPS`; Papandreou and Yuille, Gaussian sampling by local perturbations, NIPS 2010.
    """

    lanczos: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lanczos < 1:
            raise InputError(f"MMPSDraw needs at least 1 Lanczos step, not {self.lanczos}; 3 is the default")

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        clean, covariance = self._moments(x, sigma)
        noise = self.noise(x, random)
        guess = clean + square_root(covariance, noise_like(x, random), self.lanczos)
        b = self.backprojection + noise - self.operator.normal(guess)
        return guess + self._gain(covariance, b)
