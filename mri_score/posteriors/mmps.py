"""Moment matching: the denoiser's own covariance, sigma^2 times its Jacobian, in the posterior of every level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import inner, per_item
from mri_score.numerics.jacobian import Product, linearise, square_root
from mri_score.numerics.noise import Random, noise_like
from mri_score.operators.base import LinearOperator
from mri_score.posteriors.base import Posterior

TOLERANCE = 1e-5
"""The part of the misfit, as C measures it, at which an item is solved."""


class MMPS(Posterior):
    """D_y = D + C A^H v,    (noise_std^2 + A C A^H) v = y - A D,    C = sigma^2 J,    J = dD/dx.

    By Tweedie's formula C is the covariance of x0 given x, so that D_y is the posterior mean wherever x0 given x is
    Gaussian. `iterations` of conjugate gradient with one product with J each: what these few leave of the misfit is
    left to later levels.
    Reference: Rozet et al., Learning diffusion priors from observations by expectation maximization, NeurIPS 2024.
    """

    def __init__(
        self,
        prior: ScoreModel,
        operator: LinearOperator,
        kspace: Tensor,
        noise_std: Tensor | float,
        iterations: int = 3,
    ) -> None:
        super().__init__(prior, operator, kspace, noise_std)
        if iterations < 1:
            raise InputError(f"{type(self).__name__} needs at least 1 iteration, not {iterations}; the paper takes 3")
        self.iterations = iterations

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

        The matrix is symmetric in the inner product of C, <a, b>_C = a . C b. There conjugate gradient sees no noise
        that coils cannot share, and it holds for the Jacobians of networks, which are not quite symmetric; over
        samples, in the usual inner product, it diverges for them. An item stops where J is no covariance along its
        residual any more: the length of that is not positive.
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


class MMPSDraw(MMPS):
    """One x0 ~ N(D_y, C - C A^H (noise_std^2 + A C A^H)^-1 A C), by perturb and solve:

        x0 = D + e + C A^H (noise_std^2 + A C A^H)^-1 (y + noise_std n1 - A (D + e)),    e = C^(1/2) n2.

    e comes of `lanczos` products with J, the solve of `iterations` more; with enough of both the draw is exact, mean
    and covariance, wherever x0 given x is Gaussian, and so for Gaussian priors at any number of levels. With few, e
    keeps the trace of C but spreads it more evenly over directions. `denoise` is MMPS.
    Reference: Rozet et al. as for `MMPS`; Papandreou and Yuille, Gaussian sampling by local perturbations, NIPS 2010.
    """

    def __init__(
        self,
        prior: ScoreModel,
        operator: LinearOperator,
        kspace: Tensor,
        noise_std: Tensor | float,
        iterations: int = 3,
        lanczos: int = 3,
    ) -> None:
        super().__init__(prior, operator, kspace, noise_std, iterations)
        if lanczos < 1:
            raise InputError(f"MMPSDraw needs at least 1 Lanczos step, not {lanczos}; 3 is the default")
        self.lanczos = lanczos

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        clean, covariance = self._moments(x, sigma)
        noise = self.noise(x, random)
        guess = clean + square_root(covariance, noise_like(x, random), self.lanczos)
        b = self.backprojection + noise - self.operator.normal(guess)
        return guess + self._gain(covariance, b)
