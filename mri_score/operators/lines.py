"""Parallel imaging under line masks, line by line: one small Hermitian system each, solved for every weight."""

from __future__ import annotations

import torch
from torch import Tensor, nn

AT_A_TIME = 32
"""Number of lines that are factored together, which limits the additional memory."""
MOST_BYTES = 1 << 30
"""Largest size of the eigenvectors of one image; above it `auto` iterates. 400 lines of 400 pixels fit."""

VECTORS = 2.0
"""An iteration of conjugate gradient costs coils + this, in units of one coil's share of A^H A x."""
FACTOR = 0.2
"""Factoring costs this times n^2 for lines of n pixels."""
SUBSTITUTE = 0.6
"""A direct solution costs this times n, a third of it if several items share their factors, ..."""
RESIDUALS = 3.0
"""... and this times coils for the residuals before and after it."""
ITERATIONS = 5.0
"""Conjugate gradient takes this over sqrt(weight) iterations."""
SHARED_BY = 30
"""Number of solutions that share the cost of the factors: half the levels of a walk, and two draws."""


class LineSystems(nn.Module):
    """A^H A of `Sense` for masks that vary along one image axis only: lines along the other axis are independent.

    The transform along the other axis cancels, and a line of n pixels has the n x n matrix

        G = T * sum_c conj(s_c) s_c^T = V diag(values) V^H,    T[p, q] = t[p - q mod n],    t = F^-1 mask^2,

    where s_c are the maps of coil c on this line, so that (G + w)^-1 = V diag(1 / (values + w)) V^H for every weight w.
    All in double precision: single leaves an error of about 1e-7 / weight in the solution, and weights reach 1e-7.
    Cholesky factors are some ten times cheaper but serve one weight; a walk has one for each item and level.
    Shapes: maps (M, C, H, W); mask_squared (M or 1, n) with DC first; axis -1 or -2, along which the mask varies.
    owners: for each item of a batch the number of its system, of those in `maps`; one number serves any batch.
    """

    values: Tensor
    vectors: Tensor

    def __init__(self, maps: Tensor, mask_squared: Tensor, axis: int, owners: list[int]) -> None:
        super().__init__()
        self.axis, self.owners = axis, owners
        maps = self._lines(maps).permute(0, 2, 1, 3)
        systems, lines, _, n = maps.shape
        values = torch.empty(systems, lines, n, dtype=torch.float64, device=maps.device)
        vectors = torch.empty(systems, lines, n, n, dtype=torch.complex128, device=maps.device)
        with torch.no_grad():
            for system, convolution in enumerate(_circulants(mask_squared.double()).expand(systems, -1, -1)):
                for rows in torch.arange(lines, device=maps.device).split(AT_A_TIME):
                    s = maps[system, rows].to(torch.complex128)
                    values[system, rows], vectors[system, rows] = torch.linalg.eigh(convolution * (s.mH @ s))
        # G has no negative eigenvalues; negative ones from rounding could cancel a small weight.
        self.register_buffer("values", values.clamp_min(0), persistent=False)
        self.register_buffer("vectors", vectors, persistent=False)

    def solve(self, b: Tensor, weight: Tensor) -> Tensor:
        """x with (A^H A + weight) x = b. Shapes: b and x (B, H, W) complex128, weight (B,)."""
        lines, weight = self._lines(b).transpose(0, 1), weight.double()
        owners = torch.tensor(self.owners, device=b.device).expand(len(b))
        x = torch.empty_like(lines)
        for system, (values, vectors) in enumerate(zip(self.values, self.vectors, strict=True)):
            items = (owners == system).nonzero().squeeze(1)
            # Conjugating the few lines rather than the vectors avoids a copy of the latter.
            along = (lines[:, items].conj() @ vectors).conj() / (values.unsqueeze(1) + weight[items, None])
            x[:, items] = along @ vectors.mT
        return self._lines(x.transpose(0, 1))

    def _lines(self, x: Tensor) -> Tensor:
        """Move the axis of the mask to the end, or back."""
        return x if self.axis == -1 else x.mT


def direct_below(coils: int, n: int, numbers: int, factored: bool = False) -> float:
    """The weight below which conjugate gradient costs more than a direct solution and, unless `factored`, its part of
    the factors:

        ITERATIONS / sqrt(weight) (coils + VECTORS) > SUBSTITUTE n + RESIDUALS coils + FACTOR n^2 / SHARED_BY;

    0, which is never, if the eigenvectors of an image, with this many `numbers`, take more than MOST_BYTES. The first
    levels of a walk have the smallest weights: the factors are computed there, and reused at later levels.
    The constants are thread times on one core (AMD EPYC, torch 2.13; images in complex64, 4 to 16 coils, 128 x 128 to
    320 x 320; the unit is 4 ns per pixel), accurate within a half; iterations to a residual of 1e-6 along walks on two
    brain scans at fourfold and eightfold undersampling, to within a half.
    """
    price = SUBSTITUTE * n + RESIDUALS * coils + (0.0 if factored else FACTOR * n**2 / SHARED_BY)
    return 0.0 if 16 * numbers > MOST_BYTES else (ITERATIONS * (coils + VECTORS) / price) ** 2


def _circulants(spectra: Tensor) -> Tensor:
    """The matrices of the convolutions F^-1 spectrum F: (M, n) -> (M, n, n)."""
    place = torch.arange(spectra.shape[-1], device=spectra.device)
    return torch.fft.ifft(spectra)[:, place[:, None] - place]


def find_owners(maps: Tensor, mask: Tensor) -> tuple[list[int], list[int]]:
    """The first items with each pair of maps and mask, and for each item the number of its system among these.

    Draws of one slice share a system, although a batch of several slices repeats the maps for each draw.
    Shapes: maps and mask (B or 1, ...).
    """
    batch = max(len(maps), len(mask))
    maps, mask = maps.expand(batch, *maps.shape[1:]), mask.expand(batch, *mask.shape[1:])
    first: list[int] = []
    owners: list[int] = []
    for item in range(batch):
        same = (k for k, one in enumerate(first) if _equal(maps, item, one) and _equal(mask, item, one))
        owners.append(next(same, len(first)))
        if owners[-1] == len(first):
            first.append(item)
    return first, owners


def _equal(x: Tensor, item: int, other: int) -> bool:
    return torch.equal(x[item], x[other])
