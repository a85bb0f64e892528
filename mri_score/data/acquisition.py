"""Measured k-space with all that its forward operator needs: the input of a posterior."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mri_score.data.cartesian import Cartesian
from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.operators.base import LinearOperator
from mri_score.operators.sense import Sense


@dataclass(frozen=True)
class Acquisition:
    """One or several slices of one scan.

    kspace, noise_std and image have the same unit: the file's values divided by `scale`.
    The forward operator is given by maps and mask, by maps and trajectory, or ready as `forward`.
    Errors: InputError for shapes that do not fit.
    """

    name: str
    """Of the scan; it seeds masks and draws, and appears in messages."""
    kspace: Tensor
    """(B, C, H, W) complex, DC at N // 2, unsampled points zero; (B, C, M) along a trajectory; (B, *samples)."""
    maps: Tensor | None = None
    """(B, C, H, W) complex, sum over coils of |maps|^2 = 1 at every pixel; None with `forward`."""
    mask: Tensor | None = None
    """Bool, broadcastable to kspace: (1, 1, 1, W), (1, 1, H, 1) or (B, 1, H, W); None with the two others."""
    noise_std: Tensor = field(default_factory=lambda: torch.zeros(()))
    """() or (B,): standard deviation of the real and of the imaginary part of one k-space sample; 0 if unknown."""
    image: Tensor | None = None
    """(B, H, W) complex: the ground truth, for scores only."""
    scale: Tensor = field(default_factory=lambda: torch.ones(()))
    """() or (B,): the value in the file's units that is 1 here."""
    whitening: Tensor | None = None
    """(D, C): the matrix that was applied to the file's C coils: whitening, compression, or both."""
    trajectory: Tensor | None = None
    """(M, 2): sample positions in cycles per field of view, in place of a mask; see `NonCartesian`."""
    forward: LinearOperator | None = None
    """The operator of all slices, in place of maps and mask; kspace is then (B, *samples), image (B, *image)."""

    if not TYPE_CHECKING:

        def __new__(cls, *args: Any, **parts: Any) -> Any:
            """Without k-space, as training items were made before they had a class: a `TrainingItem`."""
            if parts and len(args) < 2 and "kspace" not in parts:
                return TrainingItem(*args, **parts)
            return super().__new__(cls)

    def __post_init__(self) -> None:
        if self.forward is not None:
            return
        if self.trajectory is not None:
            self._check_trajectory(self.trajectory)
            return
        if self.kspace.ndim != 4:
            raise InputError(f"{self.name}: kspace has {self.kspace.ndim} axes; it needs (slices, coils, rows, cols)")
        if self.maps is not None and self.maps.shape[-3:] != self.kspace.shape[-3:]:
            raise InputError(
                f"{self.name}: maps have shape {tuple(self.maps.shape)} but kspace has {tuple(self.kspace.shape)};"
                " make maps for this file with: mri-score maps"
            )

    @property
    def coil_maps(self) -> Tensor:
        """`maps`. Errors: InputError for a scan without coil maps."""
        if self.maps is None:
            raise InputError(f"{self.name} has no coil maps; make them with: mri-score maps")
        return self.maps

    @property
    def cartesian(self) -> Cartesian:
        """kspace, maps, mask and noise_std of a Cartesian scan. Errors: InputError for other scans."""
        if self.mask is None:
            raise InputError(f"{self.name} has no sampling mask; undersample it first, or give a mask of ones")
        return Cartesian(self.kspace, self.coil_maps, self.mask, self.noise_std)

    def operator(self) -> LinearOperator:
        """The forward operator: the given one, SENSE with these maps and this mask, or along the trajectory.

        Errors: InputError without maps, or with neither mask nor trajectory.
        """
        if self.forward is not None:
            return self.forward
        if self.trajectory is not None:
            from mri_score.operators.noncartesian import NonCartesian  # SigPy takes seconds to import

            return NonCartesian(self.coil_maps, self.trajectory)
        return Sense(self.coil_maps, self.cartesian.mask)

    def _check_trajectory(self, trajectory: Tensor) -> None:
        if self.kspace.ndim != 3 or self.kspace.shape[-1] != len(trajectory):
            raise InputError(
                f"{self.name}: kspace has shape {tuple(self.kspace.shape)}; along a trajectory of {len(trajectory)}"
                f" samples it needs (slices, coils, {len(trajectory)})"
            )
        if self.maps is not None and self.maps.shape[1] != self.kspace.shape[1]:
            raise InputError(f"{self.name}: {self.maps.shape[1]} coil maps, but kspace of {self.kspace.shape[1]} coils")
