"""Projections onto convex sets: partial Fourier by the phase of the symmetric centre of k-space."""

from __future__ import annotations

import torch
from torch import Tensor

from mri_score.baselines.problem import Array, pose
from mri_score.operators.sense import Sense


@torch.no_grad()
def pocs(kspace: Array, maps: Array, mask: Array, iterations: int = 50) -> Tensor:
    """An image with the phase of its own low frequencies: projections, in turn, onto two sets.

    1. Images |x| exp(i phase), with the phase of the CG-SENSE image of the symmetric centre of k-space, Hann-windowed.
    2. Images that agree with the samples: x + A^H (y - A x); exactly a projection for a single coil or no acceleration.

    The phase must be smooth. With a mask that is symmetric about DC, the phase has no narrower window than the image.
    kspace, maps: (C, H, W) complex of one slice. mask: broadcastable to kspace. iterations: pairs of projections.
    Returns the image (H, W). Errors: InputError as in `pose`.
    Reference: Haacke, Lindskog and Lin, A fast, iterative, partial-Fourier technique capable of local phase recovery,
    JMR 1991; Samsonov et al., POCSENSE: POCS-based reconstruction for sensitivity encoded MRI, MRM 2004.
    """
    A, y = pose(kspace, maps, mask)
    window = symmetric_window(A.mask.bool().expand(1, 1, *y.shape[-2:])[0, 0])
    low = Sense(A.maps, A.mask.bool() & (window > 0)).cg_sense(y * window)
    phase = torch.polar(torch.ones_like(low.real), low.angle())
    x = A.cg_sense(y)
    for _ in range(iterations):
        x = (x * phase.conj()).real.clamp_min(0) * phase
        x = x + A.adjoint(y - A(x))
    return x[0]


def symmetric_window(sampled: Tensor) -> Tensor:
    """Hann window (H, W) over the largest centred box whose edges are sampled on both sides. sampled: bool (H, W)."""
    window = torch.ones(sampled.shape, device=sampled.device)
    for axis, size in enumerate(sampled.shape):
        places = sampled.any(1 - axis).nonzero().flatten().tolist()
        half = max(1, min(size // 2 - places[0], places[-1] + 1 - size // 2))
        distance = (torch.arange(size, device=sampled.device) - size // 2).abs() / half
        hann = (0.5 + 0.5 * torch.cos(torch.pi * distance)) * (distance < 1)
        window = window * (hann[:, None] if axis == 0 else hann)
    return window
