"""Removal of readout oversampling, also from incomplete readouts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

WEIGHT = 1e-3
"""Tikhonov weight of the fit: in the rows that are kept errors stay below 1 %, and noise within 10 % of the others."""


@lru_cache(64)
def remove_oversampling(size: int, rows: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (rows, size) that takes a readout of which the samples first to last - 1 were measured to `rows` samples
    of a smaller field of view, and bool (rows,), which of them it determines.

    A crop in image space spreads what was not measured over all rows. Here the object is assumed to lie within the
    smaller field of view, as receive filters and oversampling are made for: then x, the image along the readout, is fit
    to the measured samples alone, min ||E x - y||^2 + WEIGHT ||x||^2, and transformed. For complete readouts this is
    the crop. DC is at N // 2 before and after, and transforms are orthonormal, so that white noise keeps its level.
    """
    measured = (np.arange(size) >= first) & (np.arange(size) < last)
    if size == rows:
        return np.diag(measured).astype(complex), measured
    start = (size - rows) // 2
    inner = _transform(rows)
    if (first, last) == (0, size):
        return inner @ _transform(size).conj().T[start : start + rows], np.ones(rows, bool)
    encode = _transform(size)[first:last, start : start + rows]
    fit = np.linalg.solve(encode.conj().T @ encode + WEIGHT * np.eye(rows), encode.conj().T)
    matrix = np.zeros((rows, size), complex)
    matrix[:, first:last] = inner @ fit
    place = size // 2 + (np.arange(rows) - rows // 2) * size / rows
    step = size / rows  # the row beside either end has 1.4 times the noise
    return matrix, (place >= first + step) & (place <= last - 1 - step)


def narrowed(y: np.ndarray, measured: np.ndarray, rows: int) -> np.ndarray:
    """K-space (C, rows, W) of a smaller field of view along the readout, from y (C, N, W), by `remove_oversampling`.

    y: samples. measured: bool (N, W), in every column without gaps. rows: of the result; those that the samples of a
    column do not determine are 0, see `determined`.
    """
    result = np.zeros((len(y), rows, y.shape[-1]), np.complex64)
    for first, last, columns in _ranges(measured):
        matrix, inside = remove_oversampling(y.shape[1], rows, first, last)
        result[:, :, columns] = (matrix * inside[:, None]).astype(np.complex64) @ y[:, :, columns]
    return result


def determined(measured: np.ndarray, rows: int) -> np.ndarray:
    """Bool (rows, W): what `narrowed` gives. measured: bool (N, W), in every column without gaps."""
    result = np.zeros((rows, measured.shape[1]), bool)
    for first, last, columns in _ranges(measured):
        result[:, columns] = remove_oversampling(len(measured), rows, first, last)[1][:, None]
    return result


def _ranges(measured: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """First row, row after the last, and columns that were measured in this range."""
    columns = np.flatnonzero(measured.any(0))
    ends = np.stack([measured.argmax(0), len(measured) - measured[::-1].argmax(0)], 1)[columns]
    for first, last in np.unique(ends, axis=0).tolist():
        yield first, last, columns[(ends == (first, last)).all(1)]


def _transform(size: int) -> np.ndarray:
    """The centred orthonormal Fourier transform, (size, size)."""
    place = np.arange(size) - size // 2
    return np.exp(-2j * np.pi * np.outer(place, place) / size) / np.sqrt(size)
