"""Samples that are stored as they are in memory: read as bytes in the program itself, without a parser.

The reading process finds where they begin. Whatever a file contains, bytes from there become numbers and nothing else.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np

Identity = tuple[int, int, int, int]
"""Device, inode, size in bytes, and time of the last change in ns, of a file."""


def identity_of(status: os.stat_result) -> Identity:
    """Values by which a file differs from one that took its place, and from itself before it was changed."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def run_of(index: Sequence[int | tuple[int, int, int]], shape: Sequence[int]) -> tuple[int, int] | None:
    """First sample and number of samples of a part of an array in C order; None if they do not follow each other.

    index: for each of the first axes a number or (start, stop, step).
    """
    numbers = [range(*one) if isinstance(one, tuple) else range(one, one + 1) for one in index]
    numbers += [range(side) for side in shape[len(index) :]]
    count = math.prod(map(len, numbers))
    if not count:
        return 0, 0
    first = last = 0
    for axis, side in zip(numbers, shape, strict=True):
        first, last = first * side + axis[0], last * side + axis[-1]
    return (first, count) if last - first + 1 == count else None


def read_raw(path: Path, expected: Identity, start: int, count: int, dtype: np.dtype) -> np.ndarray | None:
    """`count` numbers of a file from byte `start` on; None if it is another file than `expected`, or too short."""
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    with os.fdopen(file, "rb", buffering=0) as raw:
        status, end = os.fstat(file), start + count * dtype.itemsize
        if not stat.S_ISREG(status.st_mode) or identity_of(status) != tuple(expected):
            return None
        if not 0 <= start <= end <= status.st_size:
            return None
        values = np.empty(count, dtype)
        left = values.view(np.uint8).data if count else memoryview(b"")
        raw.seek(start)
        while left:
            try:
                read = raw.readinto(left)
            except OSError:
                return None
            if not read:
                return None
            left = left[read:]
    return values
