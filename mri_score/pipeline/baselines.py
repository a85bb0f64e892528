"""The classical methods by name, as a volume is compared with them: under masks and along trajectories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from mri_score import baselines
from mri_score.data.acquisition import Acquisition
from mri_score.data.noncartesian import gridding
from mri_score.data.trajectories import Trajectory
from mri_score.errors import InputError

Baseline = Callable[[Tensor, Tensor, Tensor, float], Tensor]
BASELINES: dict[str, tuple[str, Baseline]] = {
    "zero-filled": ("zero-filled", lambda y, maps, mask, noise_std: baselines.zero_filled(y, maps, mask)),
    "cg-sense": ("CG-SENSE", lambda y, maps, mask, noise_std: baselines.cg_sense(y, maps, mask)),
    "l1-wavelet": ("L1-wavelet", baselines.l1_wavelet),
    "tv": ("total variation", baselines.total_variation),
}
TrajectoryBaseline = Callable[[Acquisition, Trajectory], Tensor]
TRAJECTORY_BASELINES: dict[str, tuple[str, TrajectoryBaseline]] = {
    "zero-filled": ("gridding", gridding),
    "cg-sense": ("CG-SENSE", lambda scan, trajectory: scan.operator().cg_sense(scan.kspace)),  # type: ignore[arg-type]
}
"""Those of `BASELINES` that are offered for non-Cartesian scans, and what they are there."""
Classical = Callable[[Acquisition], Tensor]
"""From one slice to its image (H, W), in its scale."""
DEFAULT_BASELINES = ("zero-filled", "cg-sense", "l1-wavelet")


def classical_methods(names: Sequence[str], trajectory: Trajectory | None) -> dict[str, Classical]:
    """The classical methods of these names, by title."""
    if trajectory is None:
        return {BASELINES[name][0]: partial(_on_grid, BASELINES[name][1]) for name in names}
    for name in names:
        if name not in TRAJECTORY_BASELINES:
            raise InputError(
                f"the baseline {name} is not offered along a trajectory; known there:"
                f" {', '.join(TRAJECTORY_BASELINES)} (gridding takes the place of zero-filled)"
            )
    chosen = [TRAJECTORY_BASELINES[name] for name in names]
    return {title: partial(_along, method, trajectory) for title, method in chosen}


def _on_grid(method: Baseline, acquisition: Acquisition) -> Tensor:
    assert acquisition.kspace is not None and acquisition.maps is not None
    assert acquisition.mask is not None and acquisition.noise_std is not None
    kspace, maps, mask = acquisition.kspace, acquisition.maps, acquisition.mask
    return method(kspace[0], maps[0], mask[0], float(acquisition.noise_std))


def _along(method: TrajectoryBaseline, trajectory: Trajectory, acquisition: Acquisition) -> Tensor:
    return method(acquisition, trajectory)[0]
