"""Total variation by FISTA, with the proximal step solved in the dual."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mri_score.baselines.problem import Array, largest_eigenvalue, pose
from mri_score.baselines.weights import find_weight

INNER_ITERATIONS = 4
"""Iterations of the proximal step, which starts from the dual variable of the previous one."""
LARGEST = 8.0
"""The largest eigenvalue of D^H D on a plane."""


@torch.no_grad()
def total_variation(
    kspace: Array,
    maps: Array,
    mask: Array,
    noise_std: float | Tensor,
    weight: float | str = "rule",
    iterations: int = 100,
    *,
    inner_iterations: int = INNER_ITERATIONS,
) -> Tensor:
    """argmin_x |A x - y|^2 / 2 + weight sum_p |(D x)_p| by FISTA from CG-SENSE: isotropic total variation.

    (D x)_p are the two complex differences of pixel p to its neighbours above and to the left, circular, and |.| is
    their common Euclidean norm. Each iteration applies A^H A once. The proximal step is solved in the dual by fast
    gradient projection, starting from the previous solution.

    kspace, maps: (C, H, W) complex; mask: bool or real, broadcastable to them; noise_std: that of each real component,
    which only the rule uses; weight: as in `l1_wavelet`, BART's `pics -w 1 -R T:3:0:weight`.
    inner_iterations: of each proximal step; with few, the result differs from the limit by some 1e-3.
    Returns the image, (H, W) complex64.
    Errors: InputError for shapes that do not fit and a weight that is not positive.
    Reference: Block, Uecker and Frahm, Undersampled radial MRI with multiple coils, MRM 2007; Beck and Teboulle, Fast
    gradient-based algorithms for constrained total variation, IEEE TIP 2009.
    """
    A, y = pose(kspace, maps, mask)
    x = A.cg_sense(y)
    weight = find_weight(weight, lambda: x, lambda image: norm(differences(image)), noise_std)
    step, b = 1 / largest_eigenvalue(A), A.adjoint(y)
    ahead, momentum, dual = x, 1.0, torch.zeros_like(differences(x))
    for _ in range(iterations):
        before = x
        x, dual = _proximal(ahead + step * (b - A.normal(ahead)), weight * step, dual, inner_iterations)
        momentum, last = (1 + math.sqrt(1 + 4 * momentum**2)) / 2, momentum
        ahead = x.add(x - before, alpha=(last - 1) / momentum)
    return x[0]


def differences(x: Tensor) -> Tensor:
    """D x: (*, H, W) -> (2, *, H, W), to the neighbour above and to the left, circular."""
    return torch.stack([x - x.roll(1, -2), x - x.roll(1, -1)])


def norm(pairs: Tensor) -> Tensor:
    """(2, *, H, W) complex -> (*, H, W): the common Euclidean norm of each pixel's two differences."""
    rows, cols = torch.view_as_real(pairs).square()
    both = rows + cols  # a sum over an axis of length two takes ten times as long
    return (both[..., 0] + both[..., 1]).sqrt()


def _adjoint(pairs: Tensor) -> Tensor:
    rows, cols = pairs
    return rows - rows.roll(-1, -2) + cols - cols.roll(-1, -1)


def _proximal(x: Tensor, weight: float, dual: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """argmin_z |z - x|^2 / 2 + weight sum |D z| = x - D^H p, with the p that minimises |x - D^H p| over |p| <= weight.

    Also returns p.
    """
    ahead, momentum = dual, 1.0
    for _ in range(iterations):
        moved = ahead.add(differences(x - _adjoint(ahead)), alpha=1 / LARGEST)
        before, dual = dual, moved * (weight / norm(moved).clamp_min(weight))
        momentum, last = (1 + math.sqrt(1 + 4 * momentum**2)) / 2, momentum
        ahead = dual.add(dual - before, alpha=(last - 1) / momentum)
    return x - _adjoint(dual), dual
