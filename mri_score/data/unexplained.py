"""The noise level where outer k-space still holds signal: from what the coil maps cannot explain there."""

from __future__ import annotations

import torch
from torch import Tensor

from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense

OUTER = 0.8
"""Outer k-space begins at this part of the half width, as a radius: there what maps explain badly is small."""

WEIGHT = 0.1
"""Tikhonov weight of the fit: small enough that what coils share does not leak, large enough for few iterations."""


def unexplained_noise(kspace: Tensor, maps: Tensor, mask: Tensor) -> float:
    """Standard deviation of the real and of the imaginary part of the noise, for one slice.

    With H y = A (A^H A + w)^-1 A^H y, what the coil maps explain, the residual (I - H) y of outer k-space is compared
    with that of white noise n of unit variance on the same samples:

        noise_std = median |(I - H) y| / median |(I - H) n|.

    An image with these coils has almost no residual, whatever its spectrum, so that signal in outer k-space does not
    count. What does leak makes the result too large, never too small, but for the scatter of n (below 1 %).
    Shapes: kspace and maps (1, C, H, W), mask broadcastable bool.
    """
    operator = Sense(maps, mask)
    noise = noise_like(kspace, generators(0, "unexplained noise")) * mask
    both = torch.cat([kspace / kspace.abs().square().mean().sqrt(), noise])
    fit = operator.solve(operator.adjoint(both), WEIGHT, tolerance=1e-4)
    residual = (both - operator(fit)).abs()
    rows, cols = (torch.linspace(-1, 1, size).square() for size in kspace.shape[-2:])
    outer = (rows[:, None] + cols) > OUTER**2
    chosen = (mask & outer).expand(1, *kspace.shape[1:])[0]
    data, white = (one[chosen] for one in residual)
    return float(data.median() / white.median() * kspace.abs().square().mean().sqrt())
