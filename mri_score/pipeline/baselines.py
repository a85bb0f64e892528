"""Classical methods by name, for scans with masks and along trajectories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from mri_score.baselines import BASELINES
from mri_score.data.acquisition import Acquisition
from mri_score.data.noncartesian import gridding
from mri_score.data.trajectories import Trajectory
from mri_score.errors import InputError

TrajectoryBaseline = Callable[[Acquisition, Trajectory], Tensor]
TRAJECTORY_BASELINES: dict[str, tuple[str, TrajectoryBaseline]] = {
    "zero-filled": ("gridding", gridding),
    "cg-sense": ("CG-SENSE", lambda scan, trajectory: scan.operator().cg_sense(scan.kspace)),  # type: ignore[arg-type]
}
"""Baselines for non-Cartesian scans: name -> (title, function)."""
Classical = Callable[[Acquisition, int], Tensor]
"""Function from the acquisition of one slice and its number to the image (H, W), in the scale of the acquisition."""


def classical_methods(
    names: Sequence[str], trajectory: Callable[[int], Trajectory] | None, seed: int = 0
) -> dict[str, Classical]:
    """Classical methods by title. Random numbers depend on seed, file name and slice only.

    names: keys of `BASELINES`. trajectory: of each slice, by its number; None for scans with masks.
    Errors: InputError for a baseline that does not exist for trajectories.
    """
    if trajectory is None:
        return {BASELINES[name].title: partial(_on_grid, name, seed) for name in names}
    for name in names:
        if name not in TRAJECTORY_BASELINES:
            raise InputError(
                f"the baseline {name} is not available for trajectories; available:"
                f" {', '.join(TRAJECTORY_BASELINES)} (zero-filled is gridding)"
            )
    chosen = [TRAJECTORY_BASELINES[name] for name in names]
    return {title: partial(_along, method, trajectory) for title, method in chosen}


def _on_grid(name: str, seed: int, acquisition: Acquisition, number: int) -> Tensor:
    kspace, maps, mask, noise_std = acquisition.cartesian
    key = (seed, acquisition.name, number)
    return BASELINES[name].solve(kspace[0], maps[0], mask[0], float(noise_std), key=key)


def _along(
    method: TrajectoryBaseline, trajectory: Callable[[int], Trajectory], acquisition: Acquisition, number: int
) -> Tensor:
    return method(acquisition, trajectory(number))[0]
