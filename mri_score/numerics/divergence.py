"""Hutchinson's estimate of a divergence over real components, by finite differences or exact products."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mri_score.numerics.channels import inner, per_item
from mri_score.numerics.noise import Random, signs_like

Map = Callable[[Tensor], Tensor]


def divergence(f: Map, x: Tensor, at_x: Tensor, step: Tensor, random: Sequence[Random], probes: int = 1) -> Tensor:
    """sum_i d f_i / d x_i of each item by finite differences: the mean over probes b of b . (f(x + h b) - f(x)) / h.

    b is +-1 in each real component; h = `step` (B,) should be small relative to the noise in x; at_x = f(x).
    For f with kinks (maximum pooling, ReLU), gradients in its parameters include the part from the kinks, with a
    variance that grows as 1 / h.
    Reference: Ramani, Blu and Unser, Monte-Carlo SURE, IEEE Trans. Image Process. 2008.
    """
    total = torch.zeros_like(step)
    for _ in range(probes):
        probe = signs_like(x, random)
        total = total + inner(probe, f(x + per_item(step, x) * probe) - at_x)
    return total / (probes * step)


def exact_divergence(f: Map, x: Tensor, random: Sequence[Random], probes: int = 1) -> tuple[Tensor, Tensor]:
    """f(x), and its divergence as the mean over probes b of b . J^T b, differentiable in the parameters of f.

    Gradients are unbiased for smooth f only: for f with kinks, derivatives at x lack the part that comes from moving
    the kinks. Reverse products are used, because forward ones have wrong gradients through a batch norm (torch 2.13).
    """
    learning = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = f(x)
        total = torch.zeros(len(x), dtype=x.real.dtype, device=x.device)
        for _ in range(probes):
            probe = signs_like(x, random)
            (product,) = torch.autograd.grad(value, x, probe, create_graph=learning, retain_graph=True)
            total = total + inner(probe, product)
    total = total / probes
    return (value, total) if learning else (value.detach(), total.detach())


def value_and_divergence(
    f: Map, x: Tensor, step: Tensor | None, random: Sequence[Random], probes: int = 1
) -> tuple[Tensor, Tensor]:
    """f(x) and its divergence: by finite differences of `step` (B,), or exact products if step is None."""
    if step is None:
        return exact_divergence(f, x, random, probes)
    value = f(x)
    return value, divergence(f, x, value, step, random, probes)
