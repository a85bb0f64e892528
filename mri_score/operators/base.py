"""What every forward operator is: a linear map with its adjoint, its normal map and one exact solver."""

from __future__ import annotations

from torch import Tensor, nn

from mri_score.numerics.channels import per_item
from mri_score.numerics.solve import conjugate_gradient

CG_SENSE_ITERATIONS = 15
"""Of the image that gives a scan its scale, starts a supervised network and warms a walk."""


class LinearOperator(nn.Module):
    """A linear map A from images x (B, *image) to samples y (B, *samples), norm at most 1 where it can be had.

    A subclass writes `forward` and `adjoint`; `normal` when A^H A has a shorter way.
    """

    iterations: int = 0
    """Conjugate-gradient iterations that `solve` has made so far, summed over items."""

    def forward(self, x: Tensor) -> Tensor:
        """A x: (B, *samples)."""
        raise NotImplementedError

    def adjoint(self, y: Tensor) -> Tensor:
        """A^H y: (B, *image)."""
        raise NotImplementedError

    def normal(self, x: Tensor) -> Tensor:
        """A^H A x."""
        return self.adjoint(self(x))

    def begin_walk(self) -> None:
        """Called as a walk begins: an operator that keeps something of its items drops it."""

    def cg_sense(self, y: Tensor, iterations: int = CG_SENSE_ITERATIONS) -> Tensor:
        """argmin_x |A x - y|^2 by conjugate gradient from zero, stopped after so many `iterations`: (B, *image).

        y: (B, *samples). Each item stops by itself.
        Reference: Pruessmann et al., Advances in sensitivity encoding with arbitrary k-space trajectories, MRM 2001.
        """
        # The tolerance is for operators that converge at once, as one coil does: what follows would be rounding.
        return conjugate_gradient(self.normal, self.adjoint(y), tolerance=1e-6, max_iterations=iterations)[0]

    def solve(
        self,
        b: Tensor,
        weight: Tensor | float,
        start: Tensor | None = None,
        tolerance: Tensor | float = 1e-6,
        max_iterations: int = 500,
    ) -> Tensor:
        """x with (A^H A + weight) x = b, to a relative residual of `tolerance`, each item by itself.

        start: where conjugate gradient begins, zero if not given; it stops after max_iterations at most.
        Shapes: b and start (B, *image), weight () or (B,), positive; tolerance () or (B,).
        """
        weight = per_item(weight, b)
        solution, iterations = conjugate_gradient(
            lambda x: self.normal(x) + weight * x, b, start, tolerance=tolerance, max_iterations=max_iterations
        )
        self.iterations += iterations * len(b)
        return solution
