"""The measured k-space with everything that its forward operator needs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mri_score.errors import InputError
from mri_score.operators.base import LinearOperator
from mri_score.operators.sense import Sense


@dataclass(frozen=True)
class Acquisition:
    """One or several slices of one scan, or a batch of slices; everything but the name is optional.

    kspace, noise_std and image have the same unit: the file's values divided by `scale`.
    """

    name: str
    kspace: Tensor | None = None
    """(B, C, H, W) complex, DC at N // 2, unsampled points zero; (B, C, M) along a trajectory."""
    maps: Tensor | None = None
    """(B, C, H, W) complex, sum over coils of |maps|^2 = 1 at every pixel."""
    mask: Tensor | None = None
    """Bool, broadcastable to kspace: (1, 1, 1, W), (1, 1, H, 1) or (B, 1, H, W)."""
    noise_std: Tensor | None = None
    """() or (B,): standard deviation of the real and of the imaginary part of one k-space sample."""
    image: Tensor | None = None
    """(B, H, W) complex: the ground truth, or a training image."""
    scale: Tensor | None = None
    """() or (B,): the value in the file's units that is 1 here."""
    whitening: Tensor | None = None
    """(D, C): the matrix that was applied to the file's C coils: whitening, compression, or both."""
    trajectory: Tensor | None = None
    """(M, 2): sample positions in cycles per field of view, in place of a mask; see `NonCartesian`."""
    acceleration: Tensor | None = None
    """(B,): number of points divided by number of sampled points, for training items."""
    forward: LinearOperator | None = None
    """In place of maps and mask: the operator of all slices; kspace is then (B, *samples), image (B, *image)."""
    estimate: Tensor | None = None
    """(B, H, W) complex: CG-SENSE image, the input of a supervised network."""

    def __post_init__(self) -> None:
        if self.forward is not None:
            return
        if self.trajectory is not None:
            self._check_trajectory(self.trajectory)
            return
        if self.kspace is not None and self.kspace.ndim != 4:
            raise InputError(f"{self.name}: kspace has {self.kspace.ndim} axes; it needs (slices, coils, rows, cols)")
        if self.kspace is not None and self.maps is not None and self.maps.shape[-3:] != self.kspace.shape[-3:]:
            raise InputError(
                f"{self.name}: maps have shape {tuple(self.maps.shape)} but kspace has {tuple(self.kspace.shape)};"
                " make maps for this file with: mri-score maps"
            )

    def operator(self) -> LinearOperator:
        """The forward operator: the given one, SENSE with these maps and this mask, or along the trajectory.

        Errors: InputError without maps, or with neither mask nor trajectory.
        """
        if self.forward is not None:
            return self.forward
        if self.maps is None:
            raise InputError(f"{self.name} has no coil maps; make them with: mri-score maps")
        if self.trajectory is not None:
            from mri_score.operators.noncartesian import NonCartesian  # SigPy takes seconds to import

            return NonCartesian(self.maps, self.trajectory)
        if self.mask is None:
            raise InputError(f"{self.name} has no sampling mask; undersample it first, or give a mask of ones")
        return Sense(self.maps, self.mask)

    def _check_trajectory(self, trajectory: Tensor) -> None:
        if self.kspace is not None and (self.kspace.ndim != 3 or self.kspace.shape[-1] != len(trajectory)):
            raise InputError(
                f"{self.name}: kspace has shape {tuple(self.kspace.shape)}; along a trajectory of {len(trajectory)}"
                f" samples it needs (slices, coils, {len(trajectory)})"
            )
        if self.kspace is not None and self.maps is not None and self.maps.shape[1] != self.kspace.shape[1]:
            raise InputError(f"{self.name}: {self.maps.shape[1]} coil maps, but kspace of {self.kspace.shape[1]} coils")
