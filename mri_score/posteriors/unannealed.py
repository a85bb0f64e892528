"""The likelihood as sharp as the scan gave it, at every level: what preconditioned Langevin and RED-diff walk."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import Random, noise_like
from mri_score.operators.base import LinearOperator
from mri_score.posteriors.base import Posterior


class Unannealed(Posterior):
    """score(x) = prior score + A^H (y - A x) / noise_std^2, the likelihood as sharp at every level.

    Along sampled directions it is (sigma / noise_std)^2 times stiffer than the prior: plain Langevin steps diverge.
    With the curvature of both terms, M = A^H A / noise_std^2 + 1 / sigma^2, a step of size g is stable for g < 2:

        M x' = M x + g score(x) + sqrt(2 g) (A^H n1 / noise_std + n2 / sigma),

    the noise having covariance M. One Langevin step on the prior alone and one on the samples alone,
    u = x + g sigma^2 prior score + sqrt(2 g) sigma n2 and z = A x + g (y - A x) + sqrt(2 g) noise_std n1, make it
    (A^H A + w) x' = A^H z + w u with w = noise_std^2 / sigma^2, which is what is solved, from u.
    iterations: of conjugate gradient at most, 10 as in the release: at high sigma that is far from solved along what
    the samples see weakly, and neither images nor spread gain by more, since lower levels decide there.
    Reference: Blumenthal et al., preconditioned unadjusted Langevin, 2025, arXiv 2512.05791 (`sample` of BART).
    """

    def __init__(
        self,
        prior: ScoreModel,
        operator: LinearOperator,
        kspace: Tensor,
        noise_std: Tensor | float,
        iterations: int = 10,
    ) -> None:
        super().__init__(prior, operator, kspace, noise_std)
        self.iterations = iterations

    def residual(self, x: Tensor) -> Tensor:
        """A^H (y - A x)."""
        return self.backprojection - self.operator.normal(x)

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return self.prior.score(x, sigma) + self.residual(x) / per_item(self.noise_std, x) ** 2

    def langevin(self, x: Tensor, sigma: Tensor | float, step_size: float, random: Sequence[Random]) -> Tensor:
        """One preconditioned step of size g = `step_size`."""
        noise = (2 * step_size) ** 0.5
        scale = per_item(sigma, x)
        u = x + step_size * scale**2 * self.prior.score(x, sigma) + noise * scale * noise_like(x, random)
        seen = self.operator.normal(x)
        z = seen + step_size * (self.backprojection - seen) + noise * self.noise(x, random)
        return self._solve(z, u, sigma)

    def begin(self, guess: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        """A draw of exp(-|y - A x|^2 / 2 noise_std^2 - |x - guess|^2 / 2 sigma^2), as far as `iterations` solve it."""
        u = guess + per_item(sigma, guess) * noise_like(guess, random)
        return self._solve(self.backprojection + self.noise(guess, random), u, sigma)

    def _solve(self, z: Tensor, u: Tensor, sigma: Tensor | float) -> Tensor:
        """(A^H A + w) x = z + w u; started from u, what no sample sees is exact at once."""
        weight = per_item(self.noise_std, u) ** 2 / per_item(sigma, u) ** 2
        return self.operator.solve(z + weight * u, weight.reshape(-1), start=u, max_iterations=self.iterations)
