"""Conjugate gradient for Hermitian positive systems, item by item."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mri_score.numerics.channels import inner, per_item, squared_norm


def conjugate_gradient(
    matrix: Callable[[Tensor], Tensor],
    b: Tensor,
    start: Tensor | None = None,
    *,
    tolerance: Tensor | float = 1e-6,
    max_iterations: int = 500,
) -> tuple[Tensor, int]:
    """Solve matrix(x) = b; return x and the number of applications of the matrix to the batch.

    An item is frozen once its residual is `tolerance` times its b: its result does not depend on its batch mates.
    Shapes: b, start, x (B, *shape), real or complex.
    Reference: Hestenes and Stiefel, Methods of conjugate gradients for solving linear systems, 1952.
    """
    x = torch.zeros_like(b) if start is None else start.clone()
    r = b - matrix(x) if start is not None else b.clone()
    p = r.clone()
    rr = squared_norm(r)
    goal = tolerance**2 * squared_norm(b)
    iterations = 0
    while iterations < max_iterations and bool((rr > goal).any()):
        active = rr > goal
        q = matrix(p)
        iterations += 1
        step = torch.where(active, rr / inner(p, q).clamp_min(torch.finfo(rr.dtype).tiny), 0.0)
        x = x + per_item(step, x) * p
        r = r - per_item(step, r) * q
        rr_next = torch.where(active, squared_norm(r), rr)
        p = torch.where(_column(active, p), r + per_item(rr_next / rr.clamp_min(torch.finfo(rr.dtype).tiny), p) * p, p)
        rr = rr_next
    return x, iterations


def _column(flags: Tensor, like: Tensor) -> Tensor:
    return flags.reshape(-1, *[1] * (like.ndim - 1))
