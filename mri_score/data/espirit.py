"""ESPIRiT: coil maps as the eigenvectors of what the calibration data say about every pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mri_score.errors import InputError

BLOCK = 2**18
"""How many entries of the pixels' (C, C) matrices are held at once: 4 MiB in double precision."""

POWERS = 4
"""Power iterations that find the scale of the top eigenvalue, ..."""
DEGREE = 16
"""... and the degree of the Chebyshev polynomial that then singles out its eigenvector."""
DAMPED = 0.85
"""Eigenvalues up to this part of the top one, as the power iterations found it, are damped; ..."""
SECOND = 0.85
"""... the second one must lie below this part of it, or the pixel goes to the eigensolver."""
ACCURACY = 5e-6
"""Bound of the sine between a map that was found so and the eigenvector."""


def espirit(
    calibration: Tensor,
    shape: Sequence[int],
    kernel: int = 6,
    threshold: float = 0.02,
    sampled: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Coil maps S with sum_c |S_c|^2 = 1 at every pixel, and the eigenvalue (about 1 where the object is).

    The patches of the calibration region span a space with projector P, of which singular values above `threshold`
    times the largest are kept. At pixel r, S is the top eigenvector of the (C, C) matrix
    G_cd(r) = 1/kernel^2 sum_l R_cd(l) exp(2 pi i l.r / N),  R_cd(l) = sum of P[(c, i), (d, j)] over i - j = l.
    Phase: that of the dominant virtual coil (the first singular vector of the coils) is zero, so that the maps stay
    smooth where any single coil is dark. The matrices are made in double precision, and so are the eigenvectors where
    two eigenvalues nearly meet, in air: rounding would else make the maps depend on batch and device. Elsewhere maps
    in single precision come from a polynomial, each within a certified ACCURACY (`_filtered`).

    Shapes: calibration (B, C, h, w), centred and of any proportions; shape (H, W) of the maps; `sampled` (h, w) bool
    leaves out every patch with a hole; maps (B, C, H, W) complex, eigenvalue (B, H, W) real.
    Errors: InputError for a region smaller than the kernel, without a whole patch, not finite, or with a zero coil.
    Reference: Uecker et al., ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI, MRM 2014.
    """
    _check(calibration, kernel)
    patches = _patches(calibration, kernel, sampled)
    correlation = _autocorrelation(_projector(patches, threshold), calibration.shape[1], kernel)
    reference = _virtual_coil(calibration)
    (height, width), (items, coils) = shape, calibration.shape[:2]
    rows, cols = _waves(height, kernel, correlation), _waves(width, kernel, correlation)
    along_cols = torch.einsum("bcdlm,xm->blxcd", correlation / kernel**2, cols).flatten(2).contiguous()
    maps = calibration.new_empty(items, coils, height, width)
    eigenvalue = maps.real.new_empty(items, height, width)
    step = max(1, BLOCK // (items * width * coils**2))
    for start in range(0, height, step):
        block = slice(start, start + step)
        matrices = (rows[block] @ along_cols).reshape(items, -1, width, coils, coils)
        value, top = _top_eigenpairs(matrices, reference, calibration.dtype)
        phase = torch.sgn(top @ reference[:, None, :, None].conj())
        top = top * torch.where(phase == 0, 1, phase).conj()
        maps[:, :, block] = top.movedim(-1, 1)
        eigenvalue[:, block] = value
    return maps, eigenvalue


def _top_eigenpairs(matrices: Tensor, start: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Top eigenvalue (B, h, W) and unit eigenvector (B, h, W, C), in double precision, of Hermitian (B, h, W, C, C).

    For a result of single precision they are filtered out of `start` (B, C), but for the pixels where that fails.
    """
    if dtype != torch.complex64:
        values, vectors = torch.linalg.eigh(matrices)
        return values[..., -1], vectors[..., -1]
    starts = start[:, None, None].expand(matrices.shape[:-1])
    found = _filtered(matrices.flatten(0, 2), starts.flatten(0, 2))
    value, top, good = (part.unflatten(0, matrices.shape[:3]) for part in found)
    if not bool(good.all()):
        values, vectors = torch.linalg.eigh(matrices[~good])
        value[~good], top[~good] = values[..., -1], vectors[..., -1]
    return value, top


def _filtered(matrices: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Top eigenvalue (n,) and unit eigenvector (n, C) of (n, C, C) out of v, and where they are certain, (n,) bool.

    The Chebyshev polynomial T of 2 G / (DAMPED * scale) - 1 stays within 1 for eigenvalues from 0 to DAMPED * scale and
    grows fast beyond. By Weyl's inequality the second eigenvalue is below c = SECOND * top if c - (G - top v v^H) is
    positive definite, which a Cholesky factorisation tells; by Davis and Kahan's theorem the sine between v and the
    eigenvector is then at most |G v - top v| / (top - c). All in single precision.
    Reference: Saad, Numerical methods for large eigenvalue problems, 2011.
    """
    G, v = matrices.to(torch.complex64), v.to(torch.complex64).unsqueeze(-1)
    for _ in range(POWERS):
        before, v = v, G @ v
    scale = _norm(v) / _norm(before)
    G /= DAMPED / 2 * scale
    before, v = v, G @ v - v
    for _ in range(DEGREE - 1):
        before, v = v, torch.baddbmm(before, G, v, beta=-1, alpha=2).sub_(v, alpha=2)
    v /= _norm(v)
    image = G @ v
    top = (v.conj() * image).sum(1, keepdim=True).real
    error = _norm(image - top * v) / ((1 - SECOND) * top)
    rest = (top * v * v.mH).sub_(G)
    rest.diagonal(dim1=1, dim2=2).add_(SECOND * top[..., 0])
    good = (error.flatten() <= ACCURACY) & (torch.linalg.cholesky_ex(rest).info == 0)
    return (DAMPED / 2 * scale * top).flatten().double(), v[..., 0].to(matrices.dtype), good


def _norm(v: Tensor) -> Tensor:
    """Of the columns (n, C, 1), over real components, which is faster."""
    return torch.linalg.vector_norm(torch.view_as_real(v), dim=(1, 3)).unsqueeze(1)


def _check(calibration: Tensor, kernel: int) -> None:
    lines = min(calibration.shape[-2:])
    if lines < kernel:
        raise InputError(
            f"coil maps: the calibration region is {calibration.shape[-2]} x {calibration.shape[-1]}, which is"
            f" {lines} lines; a kernel of {kernel} needs at least {kernel}: sample more centre lines, or give maps"
        )
    if not torch.isfinite(torch.view_as_real(calibration)).all():
        raise InputError("coil maps: the calibration region holds NaN or infinity; look at the file's k-space")
    silent = (calibration == 0).flatten(2).all(2)
    if bool(silent.any()):
        item, coil = torch.nonzero(silent)[0].tolist()
        what = "is zero in all coils" if bool(silent[item].all()) else f"is zero in coil {coil}: leave that coil out"
        raise InputError(f"coil maps: the calibration region of slice {item} of {len(calibration)} {what}")


def _patches(calibration: Tensor, kernel: int, sampled: Tensor | None) -> Tensor:
    """(B, C, h, w) -> (B, C * kernel^2, patches) in double precision."""
    patches = calibration.unfold(-2, kernel, 1).unfold(-2, kernel, 1)
    patches = patches.permute(0, 1, 4, 5, 2, 3).flatten(4).flatten(1, 3)
    if sampled is not None:
        patches = patches[..., whole_patches(sampled, kernel).flatten()]
    if patches.shape[-1] == 0:
        raise InputError(
            f"coil maps: the {calibration.shape[-2]} x {calibration.shape[-1]} calibration region has no fully"
            f" sampled {kernel} x {kernel} patch; take a larger region, or give maps"
        )
    return patches.to(torch.complex128)


def whole_patches(sampled: Tensor, kernel: int) -> Tensor:
    """Which kernel x kernel patches of a region (h, w) have no hole: (h - kernel + 1, w - kernel + 1) bool."""
    if min(sampled.shape) < kernel:
        return sampled.new_zeros(0, 0)
    return sampled.unfold(-2, kernel, 1).unfold(-2, kernel, 1).flatten(2).all(2)


def _projector(patches: Tensor, threshold: float) -> Tensor:
    """The projector onto the patches' span, without the singular values below `threshold` times the largest.

    From the Gram matrix, which is small; in double precision that squares no accuracy away. Where noise alone reaches
    above the threshold, as in small noisy images, its largest singular value is the threshold: with the mean square
    s^2 of a noise patch's entries, told by the smallest quarter, s (sqrt(patches) + sqrt(size)), and a tenth more.
    Reference: Marchenko and Pastur, Math. USSR Sb. 1967, for the largest singular value of noise.
    """
    size, count = patches.shape[-2:]
    few = count < size
    values, vectors = torch.linalg.eigh(patches.mH @ patches if few else patches @ patches.mH)
    # Of fewer patches than that, the Gram matrix of the patches leaves out values that are zero.
    quarter = max(0, size // 4 - max(0, size - count))
    noise = values[:, :quarter].clamp_min(0).sum(1, keepdim=True) / (size // 4 * count)
    edge = 1.1 * noise.sqrt() * (math.sqrt(count) + math.sqrt(size))
    kept = values > torch.maximum(threshold**2 * values[:, -1:], edge**2)
    most = int(kept.sum(1).max())
    values, vectors, kept = values[:, -most:], vectors[..., -most:], kept[:, -most:]
    if few:
        vectors = patches @ (vectors / values.sqrt()[:, None])
    vectors = torch.where(kept[:, None], vectors, 0)
    return vectors @ vectors.mH


def _autocorrelation(projector: Tensor, coils: int, kernel: int) -> Tensor:
    """Sum the projector over equal displacements: (B, C k^2, C k^2) -> (B, C, C, 2 k - 1, 2 k - 1)."""
    blocks = projector.reshape(-1, coils, kernel, kernel, coils, kernel, kernel).permute(0, 1, 4, 2, 3, 5, 6)
    size = 2 * kernel - 1
    total = projector.new_zeros(len(projector), coils, coils, size, size)
    for row in range(kernel):
        for col in range(kernel):
            top, left = kernel - 1 - row, kernel - 1 - col
            total[..., top : top + kernel, left : left + kernel] += blocks[..., row, col]
    return total


def _waves(size: int, kernel: int, like: Tensor) -> Tensor:
    """exp(2 pi i l r / size) for centred pixels r and displacements l: (size, 2 kernel - 1)."""
    pixels = torch.arange(size, device=like.device, dtype=torch.float64) - size // 2
    shifts = torch.arange(1 - kernel, kernel, device=like.device, dtype=torch.float64)
    angle = 2 * math.pi / size * pixels[:, None] * shifts
    return torch.polar(torch.ones_like(angle), angle)


def _virtual_coil(calibration: Tensor) -> Tensor:
    """(B, C): the unit combination of the coils with the most energy, its largest part real and positive."""
    samples = calibration.flatten(2).to(torch.complex128)
    top = torch.linalg.eigh(samples @ samples.mH).eigenvectors[..., -1]
    largest = top.gather(1, top.abs().argmax(1, keepdim=True))
    return top * torch.sgn(largest).conj()
