"""The likelihood with the noise level of the scan at every sigma, for preconditioned Langevin and RED-diff."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import Random, noise_like
from mri_score.posteriors.base import Posterior


@dataclass(eq=False, repr=False)
class Unannealed(Posterior):
    """score(x) = prior score + A^H (y - A x) / noise_std^2, with the same data term at every level.

    Along sampled directions the data term is (sigma / noise_std)^2 times stiffer than the prior, so that plain
    Langevin steps diverge. With M = A^H A / noise_std^2 + 1 / sigma^2, the curvature of both terms, a step of size g
    is stable for g < 2:

        M x' = M x + g score(x) + sqrt(2 g) (A^H n1 / noise_std + n2 / sigma),

    where the noise has covariance M. It is computed from one Langevin step on the prior and one on the samples,
    u = x + g sigma^2 prior score + sqrt(2 g) sigma n2 and z = A x + g (y - A x) + sqrt(2 g) noise_std n1, as the
    solution of (A^H A + w) x' = A^H z + w u with w = noise_std^2 / sigma^2.
    iterations: largest number of conjugate-gradient iterations, started from u; 10 in the published code. At high sigma
    10 are far from a solution in directions that the samples measure weakly. More improve neither images nor spread,
    because lower levels determine those directions.
    Reference: Blumenthal et al., preconditioned unadjusted Langevin, 2025, arXiv 2512.05791 (`sample` of BART).
    """

    iterations: int = 10

    def residual(self, x: Tensor) -> Tensor:
        """A^H (y - A x): (B, *image)."""
        return self.backprojection - self.operator.normal(x)

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return self.prior.score(x, sigma) + self.residual(x) / per_item(self.noise_std, x) ** 2

    def langevin(self, x: Tensor, sigma: Tensor | float, step_size: float, random: Sequence[Random]) -> Tensor:
        """One preconditioned step of size g = `step_size`: (B, *image). random: one generator per item."""
        noise = (2 * step_size) ** 0.5
        scale = per_item(sigma, x)
        u = x + step_size * scale**2 * self.prior.score(x, sigma) + noise * scale * noise_like(x, random)
        seen = self.operator.normal(x)
        z = seen + step_size * (self.backprojection - seen) + noise * self.noise(x, random)
        return self._solve(z, u, sigma)

    def begin(self, guess: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        """A draw of exp(-|y - A x|^2 / 2 noise_std^2 - |x - guess|^2 / 2 sigma^2), solved with `iterations`.

        guess: (B, *image). random: one generator per item.
        """
        u = guess + per_item(sigma, guess) * noise_like(guess, random)
        return self._solve(self.backprojection + self.noise(guess, random), u, sigma)

    def _solve(self, z: Tensor, u: Tensor, sigma: Tensor | float) -> Tensor:
        """The solution of (A^H A + w) x = z + w u, as `solve_near`, but stopped after `iterations`."""
        weight = per_item(self.noise_std, u) ** 2 / per_item(sigma, u) ** 2
        return self.operator.solve(z + weight * u, weight.reshape(-1), start=u, max_iterations=self.iterations)
