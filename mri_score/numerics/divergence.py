"""Hutchinson's estimate of a divergence over real components."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Generator, Tensor

from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import signs_like


def divergence(
    f: Callable[[Tensor], Tensor], x: Tensor, at_x: Tensor, step: Tensor, random: Sequence[Generator]
) -> Tensor:
    """sum_i d f_i / d x_i of each item by one probe and a finite difference: b . (f(x + h b) - f(x)) / h.

    b is +-1 in each real component, h = `step` (B,) wants to be small against the noise in x; at_x = f(x).
    Reference: Ramani, Blu and Unser, Monte-Carlo SURE, IEEE Trans. Image Process. 2008.
    """
    probe = signs_like(x, random)
    change = f(x + per_item(step, x) * probe) - at_x
    return (probe.conj() * change).real.flatten(1).sum(1) / step
