"""Limits of the machine: memory bandwidth, and rates of FFT and matrix product."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from harness import Row, compare

NAME = "floors"
COPY = {"quick": 2**28, "full": 2**30}
"""Number of bytes that are copied, far larger than any cache."""
MATRIX = {"quick": 1024, "full": 4096}
STACK = (15, 320, 320)


def run(sizes: str, threads: int) -> list[Row]:
    rows = [copy(sizes), transform(sizes, -1), transform(sizes, -2), transform(sizes, -2, -1)]
    return rows + [product(sizes, torch.float32), product(sizes, torch.float64)]


def copy(sizes: str) -> Row:
    """Bytes per second read and written by one large copy."""
    source = torch.ones(COPY[sizes] // 4)
    target = torch.empty_like(source)
    row = compare(f"copy of {COPY[sizes] >> 20} MiB", "", lambda: target.copy_(source), sizes=sizes)
    return _rate(row, 2 * COPY[sizes], "GB/s read and written")


def transform(sizes: str, *axes: int) -> Row:
    """Operations by the customary count of 5 N log2 N for a transform of N numbers."""
    x = torch.randn(STACK, dtype=torch.complex64)
    row = compare(f"FFT of {STACK} complex64 over {axes}", "", lambda: torch.fft.fftn(x, dim=axes), sizes=sizes)
    return _rate(row, 5 * x.numel() * math.log2(math.prod(STACK[axis] for axis in axes)), "Gflop/s")


def product(sizes: str, dtype: torch.dtype) -> Row:
    n = MATRIX[sizes]
    a, b = torch.randn(2, n, n, dtype=dtype)
    row = compare(f"product of {n} x {n} {str(dtype).split('.')[1]}", "", lambda: a @ b, sizes=sizes)
    return _rate(row, 2 * n**3, "Gflop/s")


def _rate(row: Row, amount: float, unit: str) -> Row:
    return replace(row, note=f"{amount / row.ours.median / 1e9:.1f} {unit}")
