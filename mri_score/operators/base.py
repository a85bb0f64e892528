"""The base class of forward operators: a linear map with adjoint, normal map and an exact solver."""

from __future__ import annotations

from torch import Tensor, nn

from mri_score.numerics.channels import per_item
from mri_score.numerics.solve import conjugate_gradient

CG_SENSE_ITERATIONS = 15
"""Iterations for the image that determines the scale of a scan, and is the start of supervised networks and warm
starts.
"""


class LinearOperator(nn.Module):
    """A linear map A from images x (B, *image) to samples y (B, *samples), with a norm of at most 1 if possible.

    A subclass writes `forward` and `adjoint`, and `normal` if A^H A has a faster implementation.
    """

    iterations: int = 0
    """Number of conjugate-gradient iterations of `solve` so far, summed over items."""

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
        """Called at the start of a walk: an operator that stores data about its items deletes them."""

    def cg_sense(self, y: Tensor, iterations: int = CG_SENSE_ITERATIONS) -> Tensor:
        """argmin_x |A x - y|^2 by conjugate gradient from zero, stopped after `iterations`: (B, *image).

        y: (B, *samples). Each item stops independently.
        Reference: Pruessmann et al., Advances in sensitivity encoding with arbitrary k-space trajectories, MRM 2001.
        """
        # The tolerance is for operators that converge at once, as with one coil: further iterations only add rounding.
        return conjugate_gradient(self.normal, self.adjoint(y), tolerance=1e-6, max_iterations=iterations)[0]

    def solve(
        self,
        b: Tensor,
        weight: Tensor | float,
        start: Tensor | None = None,
        tolerance: Tensor | float = 1e-6,
        max_iterations: int = 500,
    ) -> Tensor:
        """x with (A^H A + weight) x = b, to a relative residual of `tolerance`, each item independently.

        start: first iterate of conjugate gradient, zero by default; it stops after at most max_iterations.
        Shapes: b and start (B, *image), weight () or (B,), positive; tolerance () or (B,).
        """
        weight = per_item(weight, b)
        solution, iterations = conjugate_gradient(
            lambda x: self.normal(x) + weight * x, b, start, tolerance=tolerance, max_iterations=max_iterations
        )
        self.iterations += iterations * len(b)
        return solution
