"""Sampling masks: laws with an exact number of lines, fastMRI's laws bit for bit, and masks from files."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.random import RandomState
from torch import Tensor

from mri_score.data.poisson import poisson_disc
from mri_score.errors import InputError, unknown_name
from mri_score.readers.arrays import open_npy
from mri_score.readers.hdf5 import open_hdf5, plain_dataset, reading
from mri_score.readers.sampling import MASK_FILES, mask_candidates

if TYPE_CHECKING:
    from mri_score.data.acquisition import Acquisition

Shape = tuple[int, int]
Lines = Callable[[int, float, int, RandomState, Shape], np.ndarray]
DENSITY_EXPONENT = 1.0
"""Density exponent of `variable_density`. CG-SENSE errors vary least over seeds from 0.75 to 1.5; gaps grow with it."""


def make_mask(
    law: str,
    shape: Shape,
    acceleration: float = 4.0,
    calibration_lines: int | None = None,
    seed: int | tuple[int, ...] = 0,
    axis: int = -1,
    padding: Shape | None = None,
    *,
    rows: Shape | None = None,
) -> Tensor:
    """Make a sampling mask by a law of `MASK_LAWS`, or read it from a .npy or .h5 file.

    law: name of a law, or path of a file. shape: (H, W) of k-space. acceleration: number of lines or points divided by
    number of sampled ones, calibration included. calibration_lines: fully sampled lines at the centre (a square of that
    side for poisson-disc); default from `default_calibration_lines`. seed: of the random lines; the same seed gives the
    same mask on every machine. axis: the undersampled axis, -1 or -2. padding: range (left, right) of acquired columns;
    none outside is sampled. rows: range of acquired rows, for axis -2.
    Returns bool (1, W) for lines along the last axis, (H, 1) for axis -2, (H, W) for points and for rows with padding.
    Errors: InputError for an unknown law, and for an acceleration that is not possible for the shape.
    """
    height, cols = shape
    left, right = padding or (0, cols)
    if Path(law).suffix in MASK_FILES:
        return _inside(read_mask(law, shape), left, right, cols)
    if law not in MASK_LAWS:
        raise unknown_name("the mask law", law, MASK_LAWS)
    if axis not in (-1, -2):
        raise InputError(f"the mask axis is {axis}; allowed: -1 (columns), -2 (rows)")
    if not 1 <= acceleration < math.inf:
        raise InputError(f"mask {law}: acceleration is {acceleration}; it must be a number of at least 1")
    size = shape[axis]
    if calibration_lines is None:
        calibration_lines = default_calibration_lines(size, acceleration, least=0 if law in FASTMRI_LAWS else 10)
    random = RandomState(seed)
    if law in POINT_LAWS:
        points = POINT_LAWS[law](shape, acceleration, calibration_lines, random, (left, right))
        return torch.from_numpy(points)
    acquired = (left, right) if axis == -1 else rows or (0, height)
    _check_budget(law, size, acceleration, calibration_lines, acquired)
    lines = torch.from_numpy(LINE_LAWS[law](size, acceleration, calibration_lines, random, acquired))
    return _inside(lines[None] if axis == -1 else lines[:, None], left, right, cols)


def default_calibration_lines(size: int, acceleration: float, least: int = 10) -> int:
    """Number of calibration lines: 8 % of `size` up to an acceleration of 6, 4 % above, and at least `least`."""
    return max(least, round((0.08 if acceleration <= 6 else 0.04) * size))


def mask_seed(name: str, seed: int | None = None) -> tuple[int, ...]:
    """Seed of a volume's mask by fastMRI's rule: the characters of the file name, with `seed` appended if given.

    name: file name, with or without .h5. Errors: InputError for a seed outside 0 to 2^32 - 1.
    """
    letters = tuple(map(ord, name if name.endswith(".h5") else f"{name}.h5"))
    if seed is None:
        return letters
    if not 0 <= seed < 2**32:
        raise InputError(f"the mask seed is {seed}; it must lie between 0 and {2**32 - 1}")
    return (*letters, seed)


def true_acceleration(mask: Tensor, padding: Shape | None = None, acquired: Tensor | None = None) -> float:
    """Number of acquired points divided by number of sampled points, over all slices of the mask.

    The acquired points are all points, those in the columns of padding = (left, right), or those of `acquired`.
    Shapes: mask and acquired bool (..., H or 1, W or 1), broadcastable to each other.
    """
    if acquired is not None:
        mask, acquired = torch.broadcast_tensors(mask, acquired)
        return int(acquired.sum()) / int((mask & acquired).sum())
    if padding is not None and mask.shape[-1] > 1:
        mask = mask[..., padding[0] : padding[1]]
    return mask.numel() / int(mask.sum())


def undersample(
    acquisition: Acquisition,
    law: str = "variable-density",
    acceleration: float = 4.0,
    calibration_lines: int | None = None,
    seed: int | None = None,
    axis: int = -1,
    padding: Shape | None = None,
) -> Acquisition:
    """Undersample an acquisition by a mask; returns a new acquisition with masked k-space.

    law, acceleration, calibration_lines, axis, padding: as in `make_mask`. seed: appended to the mask's seed, which is
    the name of the acquisition: all slices of one name get the same mask. Points outside an existing mask stay
    unsampled. Errors: as in `make_mask`.
    """
    shape = (acquisition.kspace.shape[-2], acquisition.kspace.shape[-1])
    seeds = mask_seed(acquisition.name, seed)
    mask = make_mask(law, shape, acceleration, calibration_lines, seeds, axis, padding)[None, None]
    mask = mask.to(acquisition.kspace.device)
    if acquisition.mask is not None:
        mask = mask & acquisition.mask
    return replace(acquisition, kspace=acquisition.kspace * mask, mask=mask)


def read_mask(path: str | Path, shape: Shape, slices: int = 1) -> Tensor:
    """Read a mask of zeros and ones from a .npy file, or from the dataset `mask` of an HDF5 file.

    shape: (H, W) of k-space. slices: of the volume. The file has (W,), (1, W), (H, 1) or (H, W), or one of the last
    three for each slice; see `mask_candidates`. Returns bool, one of the last three, or with the slices before it.
    Errors: InputError for an unreadable file, another shape, or other values.
    """
    path = Path(path)
    rows, cols = shape
    values = _mask_values(path)
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all() or not values.any():
        raise InputError(f"{path}: the mask must hold zeros and ones, and at least one 1; write it again as bool")
    candidates = mask_candidates(values, slices, 1, shape)
    if not candidates:
        each = f", or one of these for each of {slices} slices" if slices > 1 else ""
        raise InputError(
            f"{path}: the mask has shape {values.shape} but k-space has (rows, cols) = {(rows, cols)};"
            f" give ({cols},), (1, {cols}), ({rows}, 1) or ({rows}, {cols}){each}"
        )
    mask = torch.from_numpy(np.ascontiguousarray(candidates[0]))
    return mask[0] if len(mask) == 1 else mask


def _mask_values(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.asarray(open_npy(path)[()])
    with reading(path), open_hdf5(path) as file:
        dataset = plain_dataset(file, path, "mask")
        if dataset is None:
            raise InputError(f"{path} has no dataset mask; it holds: {', '.join(file)}")
        return np.asarray(dataset[()])


def _inside(mask: Tensor, left: int, right: int, cols: int) -> Tensor:
    if (left, right) == (0, cols):
        return mask
    columns = torch.arange(cols)
    return mask & ((columns >= left) & (columns < right))


def _check_budget(law: str, size: int, acceleration: float, calibration: int, acquired: Shape) -> None:
    """Check that an acceleration is possible for `size` lines. Errors: InputError with the allowed range."""
    count = acquired[1] - acquired[0]
    most = count / max(calibration, 1)
    if not 0 <= calibration <= count:
        raise InputError(f"{calibration} calibration lines do not fit into {count} acquired lines; take fewer")
    if not 1 <= acceleration <= most:
        raise InputError(
            f"mask {law}: acceleration {acceleration:g} is out of range for {count} lines with {calibration}"
            f" calibration lines; allowed: 1 to {most:.4g}, or change the number of calibration lines"
        )
    if law in ("equispaced", "magic") and acceleration != int(acceleration):
        raise InputError(f"mask {law}: acceleration {acceleration:g} is not a whole number; use {law}_fraction")
    if law.endswith("_fraction") and (round(size / acceleration) <= calibration or calibration * acceleration >= size):
        raise InputError(
            f"mask {law}: {calibration} calibration lines use up the {size / acceleration:.4g} lines of acceleration"
            f" {acceleration:g}; allowed: accelerations below {size / (calibration + 1):.4g}, or fewer calibration"
            " lines"
        )


def _calibration(size: int, count: int) -> np.ndarray:
    """Bool (size,): the central block of lines, placed as in fastMRI."""
    start = (size - count + 1) // 2
    lines = np.zeros(size, dtype=bool)
    lines[start : start + count] = True
    return lines


# ---- Laws of this project: an exact number of lines.


def random_lines(size: int, acceleration: float, calibration: int, random: RandomState, acquired: Shape) -> np.ndarray:
    """Calibration lines and others drawn uniformly, together round(acquired / R) lines."""
    lines, others, count = _budget(size, acceleration, calibration, acquired)
    lines[random.choice(others, count, replace=False)] = True
    return lines


def variable_density(
    size: int, acceleration: float, calibration: int, random: RandomState, acquired: Shape
) -> np.ndarray:
    """Exactly round(acquired / R) lines, denser towards the centre, with bounded gaps.

    The density |k|^-p, at most 1, is divided into strata of equal mass, and one line is drawn uniformly from each:
    every gap is shorter than two neighbouring strata.
    """
    lines, others, count = _budget(size, acceleration, calibration, acquired)
    if count == 0:
        return lines
    mass = np.cumsum(_capped(np.maximum(np.abs(others - size // 2), 1.0) ** -DENSITY_EXPONENT, count))
    edges = np.searchsorted(mass, np.arange(1, count) - 1e-9) + 1  # mass of a line <= 1: no stratum is empty
    for stratum in np.split(others, edges):
        lines[stratum[random.randint(len(stratum))]] = True
    return lines


def _budget(size: int, acceleration: float, calibration: int, acquired: Shape) -> tuple[np.ndarray, np.ndarray, int]:
    """The calibration lines (mask), the other acquired lines (numbers), and how many of these to draw."""
    lines = _calibration(size, calibration)
    lines[: acquired[0]] = lines[acquired[1] :] = False
    others = np.setdiff1d(np.arange(*acquired), np.flatnonzero(lines))
    count = round((acquired[1] - acquired[0]) / acceleration) - int(lines.sum())
    return lines, others, max(count, 0)


def _capped(weights: np.ndarray, total: int) -> np.ndarray:
    """min(1, a * weights), with the factor a for which the sum is `total`."""
    full = np.zeros(len(weights), dtype=bool)
    while True:
        share = np.where(full, 1.0, weights * (total - full.sum()) / max(weights[~full].sum(), 1e-300))
        if (share <= 1).all():
            return share
        full |= share >= 1


# ---- fastMRI's laws: the same lines for the same seed as fastmri/data/subsample.py with one center_fraction.


def fastmri_random(
    size: int, acceleration: float, calibration: int, random: RandomState, acquired: Shape
) -> np.ndarray:
    """Calibration lines, and each other line with probability (N / R - low) / (N - low): R is met on average only."""
    probability = (size / acceleration - calibration) / max(size - calibration, 1)
    return (random.uniform(size=size) < probability) | _calibration(size, calibration)


def equispaced(size: int, acceleration: float, calibration: int, random: RandomState, acquired: Shape) -> np.ndarray:
    """Calibration lines, and every R-th line from a random offset: the true R is below the nominal one."""
    lines = _calibration(size, calibration)
    lines[random.randint(0, round(acceleration)) :: int(acceleration)] = True
    return lines


def equispaced_fraction(
    size: int, acceleration: float, calibration: int, random: RandomState, acquired: Shape
) -> np.ndarray:
    """Lines R (N - low) / (N - R low) apart, rounded, so that R includes the calibration lines."""
    lines = _calibration(size, calibration)
    spacing = (acceleration * (calibration - size)) / (calibration * acceleration - size)
    offset = random.randint(0, round(spacing))
    lines[np.around(np.arange(offset, size - 1, spacing)).astype(int)] = True
    return lines


def magic(size: int, acceleration: float, calibration: int, random: RandomState, acquired: Shape) -> np.ndarray:
    """Every R-th line, with different offsets on the two sides, so that conjugate symmetry fills lines in between.

    Reference: Defazio, Offset sampling, arXiv 1912.01101, 2019.
    """
    return _offset_lines(size, int(acceleration), random) | _calibration(size, calibration)


def magic_fraction(
    size: int, acceleration: float, calibration: int, random: RandomState, acquired: Shape
) -> np.ndarray:
    """`magic` with a spacing such that round(N / R) lines include the calibration lines."""
    spacing = round(size / (round(size / acceleration) - calibration))
    return _offset_lines(size, spacing, random) | _calibration(size, calibration)


def _offset_lines(size: int, spacing: int, random: RandomState) -> np.ndarray:
    offset = random.randint(0, spacing)
    starts = (offset + 1, offset + 2) if offset % 2 == 0 else (offset + 2, offset - 1)
    positive, negative = np.zeros((size + 1) // 2, dtype=bool), np.zeros(size // 2, dtype=bool)
    positive[starts[0] :: spacing] = True
    negative[starts[1] :: spacing] = True
    return np.fft.fftshift(np.concatenate([positive, negative[::-1]]))


LINE_LAWS: dict[str, Lines] = {
    "variable-density": variable_density,
    "random": random_lines,
    "fastmri-random": fastmri_random,
    "equispaced": equispaced,
    "equispaced_fraction": equispaced_fraction,
    "magic": magic,
    "magic_fraction": magic_fraction,
}
FASTMRI_LAWS = ("fastmri-random", "equispaced", "equispaced_fraction", "magic", "magic_fraction")
POINT_LAWS = {"poisson-disc": poisson_disc}
MASK_LAWS = {**LINE_LAWS, **POINT_LAWS}
