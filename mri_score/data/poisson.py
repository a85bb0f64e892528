"""Poisson-disc masks: random points with a minimum distance that grows away from the centre."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.random import RandomState

from mri_score.errors import InputError

Shape = tuple[int, int]


def poisson_disc(
    shape: Shape, acceleration: float, calibration: int, random: RandomState, acquired: Shape
) -> np.ndarray:
    """Variable-density Poisson-disc mask (H, W) on an ellipse, with a fully sampled square at the centre.

    The minimum distance is 1 + slope * |k|. The slope is found by bisection, at most 16 steps, until R is met within
    1 %; `true_acceleration` of the mask gives the exact value. calibration: side of the square. acquired: range
    (left, right) of the acquired columns.
    Errors: InputError if R is missed by more than 5 %, with the allowed range.
    Reference: Bridson, Fast Poisson disk sampling, SIGGRAPH sketches 2007; density as in SigPy's `mri.poisson`.
    """
    rows, cols = shape
    if not 1 <= calibration <= min(rows, acquired[1] - acquired[0]):
        raise InputError(f"a calibration square of {calibration} lines does not fit into k-space {shape}; take fewer")
    center = _square(shape, calibration)
    radius = _distance(shape, calibration)
    allowed = radius < 1
    allowed[:, : acquired[0]] = allowed[:, acquired[1] :] = False
    order = random.permutation(np.flatnonzero(allowed & ~center))
    aspect = np.array(shape) / max(shape)
    budget = rows * (acquired[1] - acquired[0])
    low, high, best, reached = 0.0, float(max(shape)), None, 0.0
    for _ in range(16):
        slope = (low + high) / 2
        mask = _darts(center, order, 1 + slope * radius, aspect)
        now = budget / int(mask.sum())
        if best is None or abs(now - acceleration) < abs(reached - acceleration):
            best, reached = mask, now
        if abs(now - acceleration) <= 0.01 * acceleration:
            break
        low, high = (slope, high) if now < acceleration else (low, slope)
    if best is None or abs(reached - acceleration) > 0.05 * acceleration:
        least, most = budget / int((allowed | center).sum()), budget / int(center.sum())
        raise InputError(
            f"mask poisson-disc: acceleration {acceleration:g} is out of range for k-space {shape} with a calibration"
            f" square of {calibration}; nearest: {reached:.3g}, allowed: {least:.3g} to below {most:.3g}"
        )
    return best


def _square(shape: Shape, calibration: int) -> np.ndarray:
    """Bool (H, W): the calibration square, placed as fastMRI places its lines."""
    top, left = ((n - calibration + 1) // 2 for n in shape)
    square = np.zeros(shape, dtype=bool)
    square[top : top + calibration, left : left + calibration] = True
    return square


def _distance(shape: Shape, calibration: int) -> np.ndarray:
    """Distance from the calibration square, 1 at the middle of each edge of k-space."""
    y, x = (np.maximum(np.abs(np.arange(n) - n // 2) - calibration / 2, 0) for n in shape)
    return np.hypot((y / max(y.max(), 1))[:, None], x / max(x.max(), 1))


def _darts(center: np.ndarray, order: np.ndarray, radius: np.ndarray, aspect: np.ndarray) -> np.ndarray:
    """Take the points in this order, except those within the radius of an earlier one."""
    cols = center.shape[1]
    taken = center.copy()
    margin = math.ceil(radius.max())
    blocked = np.pad(np.zeros_like(center), margin)
    steps = np.round(radius * 8).astype(int)
    for block in np.array_split(order, 32):
        ys, xs = np.divmod(block, cols)
        free = ~blocked[ys + margin, xs + margin]
        for y, x in zip(ys[free].tolist(), xs[free].tolist(), strict=True):
            if blocked[y + margin, x + margin]:
                continue
            taken[y, x] = True
            disc = _disc(steps[y, x], aspect[0], aspect[1])
            half_y, half_x = disc.shape[0] // 2, disc.shape[1] // 2
            top, side = y + margin - half_y, x + margin - half_x
            blocked[top : top + disc.shape[0], side : side + disc.shape[1]] |= disc
    return taken


@lru_cache(maxsize=8192)
def _disc(eighths: int, aspect_y: float, aspect_x: float) -> np.ndarray:
    """Bool (h, w): grid points within a radius, given in eighths, scaled by the aspect ratio, at least 1."""
    radii = [max(eighths / 8 * aspect, 1.0) for aspect in (aspect_y, aspect_x)]
    y, x = (np.arange(-math.ceil(r), math.ceil(r) + 1) / r for r in radii)
    return y[:, None] ** 2 + x**2 < 1
