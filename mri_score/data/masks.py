"""Sampling masks: our exact laws for lines, fastMRI's laws bit for bit, and masks from files."""

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
from mri_score.readers.hdf5 import open_hdf5, plain_dataset, reading

if TYPE_CHECKING:
    from mri_score.data.acquisition import Acquisition

Shape = tuple[int, int]
Lines = Callable[[int, float, int, RandomState, Shape], np.ndarray]
MASK_FILES = (".npy", ".h5")
"""Endings of files that hold a mask."""
DENSITY_EXPONENT = 1.0
"""Of `variable_density`; between 0.75 and 1.5 CG-SENSE of a head varies least over seeds, and gaps grow with it."""


def make_mask(
    law: str,
    shape: Shape,
    acceleration: float = 4.0,
    calibration_lines: int | None = None,
    seed: int | tuple[int, ...] = 0,
    axis: int = -1,
    padding: Shape | None = None,
) -> Tensor:
    """The mask of k-space (rows, cols) by a law of `MASK_LAWS`, or from a .npy or .h5 file.

    Shapes: bool (1, W) for lines along the last axis, (H, 1) for axis -2, (H, W) for points and for rows with padding.
    The calibration lines are part of the budget; poisson-disc takes a square of them. Columns outside
    padding = (left, right) are never sampled. The same seed gives the same mask on every machine.
    Errors: InputError for an unknown law and for an acceleration that the shape cannot give.
    """
    rows, cols = shape
    left, right = padding or (0, cols)
    if Path(law).suffix in MASK_FILES:
        return _inside(read_mask(law, shape), left, right, cols)
    if law not in MASK_LAWS:
        raise unknown_name("the mask law", law, MASK_LAWS)
    if axis not in (-1, -2):
        raise InputError(f"the mask axis is {axis}; known axes: -1 (columns), -2 (rows)")
    if not 1 <= acceleration < math.inf:
        raise InputError(f"mask {law}: acceleration is {acceleration}; it must be a number of at least 1")
    size = shape[axis]
    if calibration_lines is None:
        calibration_lines = default_calibration_lines(size, acceleration, least=0 if law in FASTMRI_LAWS else 10)
    random = RandomState(seed)
    if law in POINT_LAWS:
        points = POINT_LAWS[law](shape, acceleration, calibration_lines, random, (left, right))
        return torch.from_numpy(points)
    acquired = (left, right) if axis == -1 else (0, rows)
    _check_budget(law, size, acceleration, calibration_lines, acquired)
    lines = torch.from_numpy(LINE_LAWS[law](size, acceleration, calibration_lines, random, acquired))
    return _inside(lines[None] if axis == -1 else lines[:, None], left, right, cols)


def default_calibration_lines(size: int, acceleration: float, least: int = 10) -> int:
    """8 % of the lines up to an acceleration of 6, 4 % above, and at least `least`."""
    return max(least, round((0.08 if acceleration <= 6 else 0.04) * size))


def mask_seed(name: str, seed: int | None = None) -> tuple[int, ...]:
    """The seed of a volume's mask: fastMRI's rule, the characters of the file name; a number is appended to them.

    `name` is the file's, with or without its .h5.
    """
    letters = tuple(map(ord, name if name.endswith(".h5") else f"{name}.h5"))
    if seed is None:
        return letters
    if not 0 <= seed < 2**32:
        raise InputError(f"the mask seed is {seed}; it must lie between 0 and {2**32 - 1}")
    return (*letters, seed)


def true_acceleration(mask: Tensor, padding: Shape | None = None) -> float:
    """Acquired points / sampled points: columns outside padding = (left, right) count as neither.

    Shapes: mask (..., H or 1, W or 1).
    """
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
    """The acquisition as if the scanner had sampled only this mask: the same for all slices that bear its name.

    Points that an earlier mask left out stay out.
    """
    if acquisition.kspace is None:
        raise InputError(f"{acquisition.name} has no k-space to undersample; give a file with kspace")
    shape = (acquisition.kspace.shape[-2], acquisition.kspace.shape[-1])
    seeds = mask_seed(acquisition.name, seed)
    mask = make_mask(law, shape, acceleration, calibration_lines, seeds, axis, padding)[None, None]
    mask = mask.to(acquisition.kspace.device)
    if acquisition.mask is not None:
        mask = mask & acquisition.mask
    return replace(acquisition, kspace=acquisition.kspace * mask, mask=mask)


def read_mask(path: str | Path, shape: Shape) -> Tensor:
    """A mask of zeros and ones from a .npy file or the dataset `mask` of an HDF5 file, for k-space (rows, cols).

    Shapes: (W,), (1, W), (H, 1) or (H, W) in the file; the last three come out.
    """
    path = Path(path)
    rows, cols = shape
    values = _mask_values(path)
    values = values[None] if values.ndim == 1 else values
    if values.shape not in {(1, cols), (rows, 1), (rows, cols)}:
        raise InputError(
            f"{path}: the mask has shape {values.shape} but k-space has (rows, cols) = {(rows, cols)};"
            f" give ({cols},), (1, {cols}), ({rows}, 1) or ({rows}, {cols})"
        )
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all() or not values.any():
        raise InputError(f"{path}: the mask must hold zeros and ones, and at least one 1; write it again as bool")
    return torch.from_numpy(values.astype(bool))


def _mask_values(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path} is not a readable .npy file ({error}); write it with numpy.save") from error
    with reading(path), open_hdf5(path) as file:
        dataset = plain_dataset(file, path, "mask")
        if dataset is None:
            raise InputError(f"{path} has no dataset mask; it holds: {', '.join(file)}")
        return dataset[()]


def _inside(mask: Tensor, left: int, right: int, cols: int) -> Tensor:
    if (left, right) == (0, cols):
        return mask
    columns = torch.arange(cols)
    return mask & ((columns >= left) & (columns < right))


def _check_budget(law: str, size: int, acceleration: float, calibration: int, acquired: Shape) -> None:
    """One message for every acceleration that `size` lines cannot give, with the range that they can."""
    count = acquired[1] - acquired[0]
    most = count / max(calibration, 1)
    if not 0 <= calibration <= count:
        raise InputError(f"{calibration} calibration lines do not fit into {count} acquired lines; take fewer")
    if not 1 <= acceleration <= most:
        raise InputError(
            f"mask {law}: acceleration {acceleration:g} is out of range for {count} lines with {calibration}"
            f" calibration lines; known: 1 to {most:.4g}, or other calibration lines"
        )
    if law in ("equispaced", "magic") and acceleration != int(acceleration):
        raise InputError(f"mask {law}: acceleration {acceleration:g} is no whole number; use {law}_fraction")
    if law.endswith("_fraction") and (round(size / acceleration) <= calibration or calibration * acceleration >= size):
        raise InputError(
            f"mask {law}: {calibration} calibration lines use up the {size / acceleration:.4g} lines of acceleration"
            f" {acceleration:g}; known: accelerations below {size / (calibration + 1):.4g}, or fewer calibration lines"
        )


def _calibration(size: int, count: int) -> np.ndarray:
    """The central block, where fastMRI puts it."""
    start = (size - count + 1) // 2
    lines = np.zeros(size, dtype=bool)
    lines[start : start + count] = True
    return lines


# ---- Our laws for lines: the exact number of them.


def random_lines(size: int, acceleration: float, calibration: int, random: RandomState, acquired: Shape) -> np.ndarray:
    """Calibration lines, and the rest of round(acquired / R) lines uniformly among the others."""
    lines, others, count = _budget(size, acceleration, calibration, acquired)
    lines[random.choice(others, count, replace=False)] = True
    return lines


def variable_density(
    size: int, acceleration: float, calibration: int, random: RandomState, acquired: Shape
) -> np.ndarray:
    """Exactly round(acquired / R) lines, denser toward the centre, with bounded gaps.

    The density |k|^-p, at most 1, is cut into strata of equal mass; each holds exactly one line, drawn uniformly:
    a gap is shorter than two neighbouring strata.
    """
    lines, others, count = _budget(size, acceleration, calibration, acquired)
    if count == 0:
        return lines
    mass = np.cumsum(_capped(np.maximum(np.abs(others - size // 2), 1.0) ** -DENSITY_EXPONENT, count))
    edges = np.searchsorted(mass, np.arange(1, count) - 1e-9) + 1  # no line has a mass above 1: no stratum is empty
    for stratum in np.split(others, edges):
        lines[stratum[random.randint(len(stratum))]] = True
    return lines


def _budget(size: int, acceleration: float, calibration: int, acquired: Shape) -> tuple[np.ndarray, np.ndarray, int]:
    """The calibration lines, the other acquired lines, and how many of these are to be drawn."""
    lines = _calibration(size, calibration)
    lines[: acquired[0]] = lines[acquired[1] :] = False
    others = np.setdiff1d(np.arange(*acquired), np.flatnonzero(lines))
    count = round((acquired[1] - acquired[0]) / acceleration) - int(lines.sum())
    return lines, others, max(count, 0)


def _capped(weights: np.ndarray, total: int) -> np.ndarray:
    """min(1, a * weights) with a such that the sum is `total`."""
    full = np.zeros(len(weights), dtype=bool)
    while True:
        share = np.where(full, 1.0, weights * (total - full.sum()) / max(weights[~full].sum(), 1e-300))
        if (share <= 1).all():
            return share
        full |= share >= 1


# ---- fastMRI's laws: the same numbers from the same seed (fastmri/data/subsample.py, one center_fraction).


def fastmri_random(
    size: int, acceleration: float, calibration: int, random: RandomState, acquired: Shape
) -> np.ndarray:
    """Each line with probability (N / R - low) / (N - low), and the calibration lines: R holds on average only."""
    probability = (size / acceleration - calibration) / max(size - calibration, 1)
    return (random.uniform(size=size) < probability) | _calibration(size, calibration)


def equispaced(size: int, acceleration: float, calibration: int, random: RandomState, acquired: Shape) -> np.ndarray:
    """Every R-th line from a random offset, and the calibration lines: the true R is below the nominal one."""
    lines = _calibration(size, calibration)
    lines[random.randint(0, round(acceleration)) :: int(acceleration)] = True
    return lines


def equispaced_fraction(
    size: int, acceleration: float, calibration: int, random: RandomState, acquired: Shape
) -> np.ndarray:
    """Lines R (N - low) / (N - R low) apart, rounded, so that R holds with the calibration lines counted."""
    lines = _calibration(size, calibration)
    spacing = (acceleration * (calibration - size)) / (calibration * acceleration - size)
    offset = random.randint(0, round(spacing))
    lines[np.around(np.arange(offset, size - 1, spacing)).astype(int)] = True
    return lines


def magic(size: int, acceleration: float, calibration: int, random: RandomState, acquired: Shape) -> np.ndarray:
    """Every R-th line, offset differently on the two sides so that conjugate symmetry adds to them.

    Reference: Defazio, Offset sampling, arXiv 1912.01101, 2019.
    """
    return _offset_lines(size, int(acceleration), random) | _calibration(size, calibration)


def magic_fraction(
    size: int, acceleration: float, calibration: int, random: RandomState, acquired: Shape
) -> np.ndarray:
    """`magic` with the spacing of the lines that the calibration leaves of round(N / R)."""
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
