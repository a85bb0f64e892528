"""ESPIRiT: coil maps as eigenvectors of matrices that the calibration data give for every pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mri_score.errors import InputError

BLOCK = 2**18
"""Number of entries of the pixels' (C, C) matrices in memory at once: 4 MiB in double precision."""

POWERS = 4
"""Power iterations to estimate the top eigenvalue."""
DEGREE = 16
"""Degree of the Chebyshev polynomial that then isolates its eigenvector."""
DAMPED = 0.85
"""The polynomial damps eigenvalues up to this fraction of the estimated top eigenvalue."""
SECOND = 0.85
"""If the second eigenvalue is above this fraction of the top one, the pixel goes to the eigensolver."""
ACCURACY = 5e-6
"""Largest sine of the angle between a map from the polynomial and the exact eigenvector."""


def kernel_side(lines: int) -> int:
    """Side of the patches for a region of so many lines: 3 up to 8 lines, 4 up to 14, 5 up to 17, 6 from 18 on.

    A region of n lines has n - kernel + 1 patches across them. With too few of these, their span holds little more than
    the region itself, and the maps are wrong; with many, a larger kernel follows the coils better. Chosen on three
    scans of heads and two of phantoms: `scripts/kernel_study.py`.
    """
    return min(6, max(4 if lines > 8 else 3, lines // 3))


def espirit(
    calibration: Tensor,
    shape: Sequence[int],
    kernel: int | None = None,
    threshold: float = 0.02,
    sampled: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Coil maps S with sum_c |S_c|^2 = 1 at every pixel, and the eigenvalue (about 1 where the object is).

    P is the projector onto the span of the patches of the calibration region, without singular values below `threshold`
    times the largest. At pixel r, S is the top eigenvector of the (C, C) matrix
    G_cd(r) = 1/kernel^2 sum_l R_cd(l) exp(2 pi i l.r / N),  R_cd(l) = sum of P[(c, i), (d, j)] over i - j = l.
    The phase is chosen so that the dominant virtual coil (first singular vector of the coils) has phase zero, which
    keeps the maps smooth where a single coil is dark. The matrices are in double precision. So are the eigenvectors
    where two eigenvalues are nearly equal, as in air, because rounding errors would make the maps there depend on batch
    size and device. Elsewhere, for single precision, maps come from a polynomial with certified `ACCURACY`
    (see `_filtered`).

    calibration: complex (B, C, h, w), centred k-space, any unit. shape: (H, W) of the maps. kernel: side of the
    patches, by default `kernel_side` of the smaller side of the region. threshold: see above. sampled: bool (h, w);
    patches with unsampled points are left out. Returns maps (B, C, H, W) complex and eigenvalue (B, H, W) real.
    Errors: InputError for a region smaller than the kernel, without a whole patch, not finite, or with a zero coil.
    Reference: Uecker et al., ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI, MRM 2014.
    """
    kernel = kernel or kernel_side(min(calibration.shape[-2:]))
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

    For single precision they come from the polynomial filter applied to `start` (B, C), and from the eigensolver for
    pixels where the filter is not certain.
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
    """Top eigenvalue (n,) and unit eigenvector (n, C) of matrices (n, C, C), from start v, and bool (n,): certified.

    The Chebyshev polynomial T of 2 G / (DAMPED * scale) - 1 stays within 1 for eigenvalues from 0 to DAMPED * scale and
    grows fast beyond. By Weyl's inequality the second eigenvalue is below c = SECOND * top if c - (G - top v v^H) is
    positive definite, which a Cholesky factorisation tests; by Davis and Kahan's theorem the sine between v and the
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
    """Norm of vectors (n, C, 1), over real components, which is faster."""
    return torch.linalg.vector_norm(torch.view_as_real(v), dim=(1, 3)).unsqueeze(1)


def _check(calibration: Tensor, kernel: int) -> None:
    lines = min(calibration.shape[-2:])
    if lines < kernel:
        raise InputError(
            f"coil maps: the calibration region is {calibration.shape[-2]} x {calibration.shape[-1]}, which is"
            f" {lines} lines; a kernel of {kernel} needs at least {kernel}: sample more centre lines, or give maps"
        )
    if not torch.isfinite(torch.view_as_real(calibration)).all():
        raise InputError("coil maps: the calibration region contains NaN or infinity; check the k-space of the file")
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
    """Bool (h - kernel + 1, w - kernel + 1): completely sampled kernel x kernel patches of a region (h, w)."""
    if min(sampled.shape) < kernel:
        return sampled.new_zeros(0, 0)
    return sampled.unfold(-2, kernel, 1).unfold(-2, kernel, 1).flatten(2).all(2)


def _projector(patches: Tensor, threshold: float) -> Tensor:
    """Projector onto the span of the patches, without singular values below `threshold` times the largest.

    It is computed from the Gram matrix, which is small; double precision makes up for the squared condition number. In
    small noisy images noise alone can exceed the threshold. The threshold is therefore at least 1.1 times the expected
    largest singular value of noise, s (sqrt(patches) + sqrt(size)), where s^2, the mean square of a noise entry, comes
    from the smallest quarter of the eigenvalues.
    Reference: Marchenko and Pastur, Math. USSR Sb. 1967, for the largest singular value of noise.
    """
    size, count = patches.shape[-2:]
    few = count < size
    values, vectors = torch.linalg.eigh(patches.mH @ patches if few else patches @ patches.mH)
    # With fewer patches than entries, the Gram matrix of the patches lacks the zero eigenvalues.
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
    """(B, C): unit combination of the coils with the most energy; its largest entry is real and positive."""
    samples = calibration.flatten(2).to(torch.complex128)
    top = torch.linalg.eigh(samples @ samples.mH).eigenvectors[..., -1]
    largest = top.gather(1, top.abs().argmax(1, keepdim=True))
    return top * torch.sgn(largest).conj()
