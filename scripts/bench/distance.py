"""The largest distance between N images, which gives sigma_max, against the N x N matrix of all products."""

from __future__ import annotations

import torch
from harness import Row, compare, relative_error
from torch import Tensor

from mri_score.memory.peak import PeakMemory
from mri_score.noise.ncsnv2_levels import largest_distance

NAME = "distance"
SIZES = {"quick": (1000, 128), "full": (2000, 320)}
"""Images, and their rows and columns; 10 000 of 320 would need 16 GB for the rival's vectors.

The time for reading images increases with N, that for products with N^2; with few images, reading would dominate.
"""
WANTED = 0.5
"""At most twice the time of the N x N product."""


def run(sizes: str, threads: int) -> list[Row]:
    count, size = SIZES[sizes]
    scans = images(count, size, spread=0.5)
    return [
        all_pairs(images(count, size, spread=0), "equal energies: no pair can be ruled out", sizes),
        all_pairs(scans, "energies that differ, as those of slices do", sizes),
        any_phase(scans, sizes),
    ]


def images(count: int, size: int, spread: float) -> Tensor:
    """Complex noise whose norms are log-normal: (count, size, size)."""
    random = torch.Generator().manual_seed(0)
    norms = torch.exp(spread * torch.randn(count, generator=random))
    return torch.randn(count, size, size, dtype=torch.complex64, generator=random) * norms[:, None, None]


def all_pairs(x: Tensor, note: str, sizes: str) -> Row:
    with PeakMemory(x.device) as peak:
        largest_distance(x, global_phase=False)
    if peak.mib is not None:
        note += f"; ours adds {peak.mib:.0f} MiB to the {x.numel() * x.itemsize >> 20} of the images"
    return compare(
        f"{_title(x)}, all pairs",
        "N x N matrix, float32",
        lambda: largest_distance(x, global_phase=False),
        lambda: by_matrix(x),
        sizes=sizes,
        floor=lambda: half_of_products(x),
        floor_of="half of the matrix, by its products alone",
        wanted=WANTED,
        bound=1e-4,
        note=note,
    )


def any_phase(x: Tensor, sizes: str) -> Row:
    """With a random global phase norms suffice; the rival's time is that of the products."""
    largest = float(torch.linalg.vector_norm(x.flatten(1), dim=1).topk(2).values.sum())
    return compare(
        f"{_title(x)}, any global phase",
        "N x N matrix, float32",
        lambda: largest_distance(x),
        lambda: products(x),
        sizes=sizes,
        floor=lambda: torch.view_as_real(x).sum(),
        floor_of="one reading of the images",
        wanted=WANTED,
        error=lambda ours, _: relative_error(ours, largest),
        bound=1e-4,
    )


def by_matrix(x: Tensor) -> float:
    """sqrt max_ij (|x_i|^2 + |x_j|^2 - 2 <x_i, x_j>), all N^2 at once."""
    inner = products(x)
    squares = inner.diagonal()
    return float((squares[:, None] + squares - 2 * inner).amax().sqrt())


def products(x: Tensor) -> Tensor:
    """<x_i, x_j> over the real components: (N, N)."""
    vectors = torch.view_as_real(x).flatten(1)
    return vectors @ vectors.T


def half_of_products(x: Tensor, block: int = 256) -> None:
    """Products of pairs of blocks, each pair once."""
    blocks = torch.view_as_real(x).flatten(1).split(block)
    for number, a in enumerate(blocks):
        for b in blocks[number:]:
            a @ b.T


def _title(x: Tensor) -> str:
    return f"largest distance, {len(x)} images of {x.shape[1]} x {x.shape[2]}"
