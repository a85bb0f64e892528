"""Plug-and-play reconstruction with the denoiser BM3D."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mri_score.baselines.problem import Array, pose
from mri_score.errors import InputError

STEPS = 16
SIGMA_START = 0.1
"""Noise level of the first denoising, in scaled units."""

Denoiser = Callable[[Tensor, float], Tensor]
"""A function of images (B, H, W) complex and the standard deviation of their noise, each real component."""


@torch.no_grad()
def pnp_bm3d(
    kspace: Array,
    maps: Array,
    mask: Array,
    noise_std: float | Tensor,
    weight: float | str = "rule",
    iterations: int = STEPS,
    *,
    denoiser: Denoiser | None = None,
) -> Tensor:
    """Half-quadratic splitting with BM3D, an exact data step and a decreasing noise level.

    It starts from CG-SENSE. For `iterations` levels sigma, evenly spaced in the logarithm from 0.1 to
    max(noise_std, 0.005):

        z = BM3D(x, sigma),    x = argmin_x |A x - y|^2 + weight (noise_std / sigma)^2 |x - z|^2,

    with real and imaginary part denoised separately. The last z is the image.

    kspace, maps: (C, H, W) complex; mask: bool or real, broadcastable to them; noise_std: that of each real component.
    weight: factor of the penalty, "rule" for 1. denoiser: in place of BM3D.
    Returns the image, (H, W) complex64.
    Errors: InputError for shapes that do not fit, a weight or noise_std that is not positive, and if the package bm3d
    is not installed.
    Reference: Zhang et al., Plug-and-play image restoration with deep denoiser prior, TPAMI 2021; Dabov et al., Image
    denoising by sparse 3-D transform-domain collaborative filtering, IEEE TIP 2007.
    """
    noise = float(noise_std)
    if not noise > 0:
        raise InputError(f"noise_std is {noise}, not positive: plug-and-play weights the data by it; measure it")
    factor = 1.0 if weight == "rule" else weight
    if isinstance(factor, str) or not 0 < factor < float("inf"):
        raise InputError(f'the weight of a baseline is {weight!r}; pass "rule" or a positive number')
    denoise = bm3d_denoiser() if denoiser is None else denoiser
    A, y = pose(kspace, maps, mask)
    b = A.adjoint(y)
    x = A.cg_sense(y)
    if not bool(b.any()):
        return x[0]
    last = max(noise, 0.005)
    levels = np.geomspace(max(SIGMA_START, last), last, iterations)
    z = x
    for sigma in levels:
        z = denoise(x, float(sigma))
        share = factor * (noise / float(sigma)) ** 2
        x = A.solve(b + share * z, share)
    return z[0]


def bm3d_denoiser() -> Denoiser:
    """BM3D of complex images, real and imaginary part separately.

    Errors: InputError if the package bm3d is not installed.
    """
    try:
        from bm3d import bm3d
    except ImportError as error:
        raise InputError("the baseline pnp-bm3d needs the package bm3d; run: pip install bm3d") from error

    def denoise(images: Tensor, sigma: float) -> Tensor:
        parts = torch.view_as_real(images).movedim(-1, 1).flatten(0, 1).numpy()
        clean = np.stack([np.asarray(bm3d(part, sigma), dtype=np.float32) for part in parts])
        return torch.view_as_complex(torch.from_numpy(clean).unflatten(0, (-1, 2)).movedim(1, -1).contiguous())

    return denoise
