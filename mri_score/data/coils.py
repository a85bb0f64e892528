"""Coil maps of a scan: choice of the calibration region, ESPIRiT, combined images, coil compression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mri_score.data.espirit import espirit, kernel_side, whole_patches
from mri_score.errors import InputError
from mri_score.numerics.channels import squared_norm
from mri_score.numerics.fourier import ifft, resize_kspace
from mri_score.numerics.noise import generators
from mri_score.operators.sense import Sense

MOST_LINES = 32
"""Calibration lines that maps come from, at most."""
SIZES = (24, 20, 16, 12, 8)
"""Side lengths of the calibration squares that are tried for two-dimensional masks."""
HELD_OUT = 0.05
"""Share of the samples outside the largest square that is held out to choose among the squares."""


@dataclass(frozen=True)
class CalibrationRegion:
    """Origin of the maps of a batch: for each slice the size (rows, columns) of its region, and its misfit if known."""

    source: str
    shapes: tuple[tuple[int, int], ...]
    misfit: tuple[float, ...] | None = None
    """||held-out k-space - prediction||^2 / ||held-out k-space||^2, for each slice."""

    def __str__(self) -> str:
        regions = ", ".join(f"{rows} x {cols}" for rows, cols in dict.fromkeys(self.shapes))
        return f"ESPIRiT maps from {self.source} ({regions})"


Calibration = CalibrationRegion  # the former name



def coil_maps(
    kspace: Tensor,
    mask: Tensor | None = None,
    *,
    calibration_lines: int = MOST_LINES,
    rows: int = 64,
    kernel: int | None = None,
    threshold: float = 0.02,
) -> tuple[Tensor, Tensor, CalibrationRegion]:
    """ESPIRiT maps, eigenvalue and calibration region of each slice, from the centre of the sampled k-space.

    Without a mask, or with one that samples whole lines, the region is the contiguous lines at the centre, at most
    `calibration_lines`, and at most `rows` samples along them. With a two-dimensional mask it is a central square of 8
    to 24, possibly with unsampled points: the square whose maps predict held-out samples best after ten CG-SENSE
    iterations.

    kernel, threshold: as in `espirit`. Shapes: kspace complex (B, C, H, W), any unit; mask bool, broadcastable to
    (B, 1, H, W). Returns maps (B, C, H, W), eigenvalue (B, H, W) and a `CalibrationRegion`.
    Errors: InputError for no or too small a calibration region, NaN, or a coil without signal.
    """
    if mask is not None and mask.ndim == 4 and mask.shape[0] > 1:
        options: dict[str, Any] = {"calibration_lines": calibration_lines, "rows": rows}
        options |= {"kernel": kernel, "threshold": threshold}
        return _join([coil_maps(kspace[i : i + 1], mask[i : i + 1], **options) for i in range(len(kspace))])
    shape = kspace.shape[-2:]
    flat = torch.ones(1, 1) if mask is None else mask.reshape(mask.shape[-2:])
    sampled = flat.to(kspace.device).bool().expand(shape)
    region = calibration_region(sampled, calibration_lines, rows)
    if region is None:
        return _best_square(kspace, sampled, kernel, threshold)
    maps, eigenvalue = espirit(kspace[..., region[0], region[1]], shape, kernel, threshold)
    source = "full k-space" if bool(sampled.all()) else "the calibration lines"
    extent = (region[0].stop - region[0].start, region[1].stop - region[1].start)
    return maps, eigenvalue, CalibrationRegion(source, (extent,) * len(kspace))


def maps_from_calibration(
    kspace: Tensor, measured: Tensor, shape: tuple[int, int], *, lines: int = MOST_LINES, rows: int = 64
) -> tuple[Tensor, Tensor, CalibrationRegion]:
    """ESPIRiT maps and eigenvalue of image size from separate calibration lines, and where they come from.

    The calibration may have another contrast than the image. Of long readouts and many lines the central `rows` and
    `lines` are used.
    Shapes: kspace (B, C, h, w), a part of k-space, sampled where measured (h, w) is True; shape: (H, W) of the image.
    Returns maps (B, C, H, W) and eigenvalue (B, H, W). Errors: InputError for too small a part.
    """
    cut = [slice(max(0, (n - most) // 2), max(0, (n - most) // 2) + most) for n, most in
           zip(measured.shape, (rows, lines), strict=True)]  # fmt: skip
    kspace, measured = kspace[..., cut[0], cut[1]], measured[cut[0], cut[1]]
    maps, eigenvalue = espirit(kspace, shape, sampled=None if bool(measured.all()) else measured)
    extent = (kspace.shape[-2], kspace.shape[-1])
    return maps, eigenvalue, CalibrationRegion("separate calibration lines", (extent,) * len(kspace))


def calibration_region(sampled: Tensor, lines: int = MOST_LINES, rows: int = 64) -> tuple[slice, slice] | None:
    """Slices of the rows and columns of the calibration region; None for a mask that is not of whole lines.

    sampled: bool (H, W). The region has the contiguous sampled columns around W // 2, at most `lines` of them, and the
    central `rows` rows; for masks of rows, rows and columns change places. A line may end before the edge of k-space
    (asymmetric echo, elliptic k-space), but has no gaps: the region has the rows that all of its columns have.
    Errors: InputError if the centre line is not sampled.
    """
    if _whole(sampled):
        columns = _centre(sampled.any(0), lines)
        return _centre(sampled[:, columns].all(1), rows), columns
    if _whole(sampled.T):
        chosen = _centre(sampled.any(1), lines)
        return chosen, _centre(sampled[chosen].all(0), rows)
    return None


def _whole(sampled: Tensor) -> bool:
    """Whether the sampled points of each column follow each other without a gap."""
    changes = (sampled[1:] != sampled[:-1]).sum(0) + sampled[0].int() + sampled[-1].int()
    return bool((changes <= 2).all())


def _centre(line: Tensor, at_most: int) -> slice:
    """The contiguous sampled points around the middle of a line (n,), at most `at_most` of them."""
    size, flags = len(line), line.tolist()
    if not flags[size // 2]:
        raise InputError(
            f"the mask does not sample line {size // 2}, the centre of k-space, so there are no calibration lines;"
            " choose a mask with centre lines, or give coil maps"
        )
    start, stop = size // 2, size // 2 + 1
    while start > max(0, size // 2 - at_most // 2) and flags[start - 1]:
        start -= 1
    while stop < min(size, start + at_most) and flags[stop]:
        stop += 1
    return slice(start, stop)


def _best_square(
    kspace: Tensor, sampled: Tensor, kernel: int | None, threshold: float
) -> tuple[Tensor, Tensor, CalibrationRegion]:
    """For each slice, the maps from the central square that predicts the held-out samples best."""
    held_out = _held_out(sampled)
    best: tuple[Tensor, ...] | None = None
    for size in SIZES:
        square = tuple(min(size, side) for side in sampled.shape)
        holes = resize_kspace(sampled, square)
        if not bool(whole_patches(holes, kernel or kernel_side(min(square))).any()):
            continue
        maps, eigenvalue = espirit(resize_kspace(kspace, square), sampled.shape, kernel, threshold, holes)
        misfit = _misfit(kspace, maps, sampled, held_out)
        sizes = torch.full_like(misfit, size, dtype=torch.long)
        now = (misfit, sizes, maps, eigenvalue)
        best = now if best is None else tuple(_choose(misfit < best[0], a, b) for a, b in zip(now, best, strict=True))
    if best is None:
        side = kernel or kernel_side(SIZES[-1])
        raise InputError(
            f"the mask samples no complete {side} x {side} patch within the central {SIZES[0]} x {SIZES[0]} of k-space,"
            " so coil maps cannot be estimated; give coil maps"
        )
    misfit, sizes, maps, eigenvalue = best
    shapes = tuple((size, size) for size in sizes.tolist())
    return maps, eigenvalue, CalibrationRegion("the centre square", shapes, tuple(misfit.tolist()))


def _held_out(sampled: Tensor) -> Tensor:
    """Bool (H, W): random samples outside the largest square, the same in every slice and run."""
    (random,) = generators(0, "held-out samples")
    chosen = torch.rand(sampled.shape, generator=random).to(sampled.device) < HELD_OUT
    square = torch.ones([min(SIZES[0], side) for side in sampled.shape], dtype=torch.bool, device=sampled.device)
    return sampled & chosen & ~resize_kspace(square, sampled.shape)


def _misfit(kspace: Tensor, maps: Tensor, sampled: Tensor, held_out: Tensor) -> Tensor:
    """Relative squared error (B,) of the held-out samples, predicted by ten CG-SENSE iterations from the others."""
    kept = Sense(maps, sampled & ~held_out)
    image = kept.solve(kept.adjoint(kspace), weight=1e-3, tolerance=1e-4, max_iterations=10)
    expected = kspace * held_out
    error = squared_norm(Sense(maps, held_out)(image) - expected)
    return (error / squared_norm(expected).clamp_min(torch.finfo(error.dtype).tiny)).nan_to_num(torch.inf)


def _choose(better: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _join(each: Sequence[tuple[Tensor, Tensor, CalibrationRegion]]) -> tuple[Tensor, Tensor, CalibrationRegion]:
    """Join the results of single slices, each with its own mask, into one batch."""
    maps, eigenvalue, reports = zip(*each, strict=True)
    shapes = tuple(shape for report in reports for shape in report.shapes)
    misfit = tuple(value for report in reports for value in report.misfit or ())
    return torch.cat(maps), torch.cat(eigenvalue), CalibrationRegion(reports[0].source, shapes, misfit or None)


def truth_image(kspace: Tensor, maps: Tensor | None = None) -> Tensor:
    """Ground truth of a fully sampled scan: sum_c conj(S_c) x_c, by default with maps from its full k-space.

    Shapes: kspace and maps (B, C, H, W); result (B, H, W) complex, in the units of kspace.
    Errors: as in `coil_maps`.
    """
    if maps is None:
        maps, _, _ = coil_maps(kspace)
    return (maps.conj() * ifft(kspace)).sum(1)


def compress_coils(kspace: Tensor, count: int, matrix: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Compress C coils to `count` virtual coils that keep most of the energy; return them and the matrix.

    The rows of the matrix (count, C) are the leading singular vectors of the coils. They are orthonormal, so white
    noise stays white with the same level. matrix: use this one, made from another batch of the volume.

    Shapes: kspace (B, C, H, W) -> (B, count, H, W).
    Errors: InputError for a count that is not within 1 to C.
    Reference: Buehrer et al., Array compression for MRI with large coil arrays, MRM 2007.
    """
    coils = kspace.shape[1]
    if not 1 <= count <= coils:
        raise InputError(f"cannot compress {coils} coils to {count}; choose a number from 1 to {coils}")
    if matrix is None:
        samples = kspace.movedim(1, 0).flatten(1).to(torch.complex128)
        vectors = torch.linalg.eigh(samples @ samples.mH).eigenvectors
        matrix = vectors.flip(1)[:, :count].mH.to(kspace.dtype)
    return torch.einsum("dc,bchw->bdhw", matrix.to(kspace), kspace), matrix
