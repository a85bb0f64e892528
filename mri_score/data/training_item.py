"""The input of a loss: training images or undersampled scans, one or a batch of them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from mri_score.data.cartesian import Cartesian
from mri_score.errors import InputError


@dataclass(frozen=True)
class TrainingItem:
    """One training item of a source, or a batch of items. Each loss names the parts that it needs.

    All parts have the scale of the prior, in which the 99th percentile of an image's magnitude is about 1.
    """

    name: str
    """For messages."""
    image: Tensor | None = None
    """(B, H, W) complex or real: the image; with noise of noise_std for losses of noisy images."""
    kspace: Tensor | None = None
    """(B, C, H, W) complex, unsampled points zero."""
    maps: Tensor | None = None
    """(B, C, H, W) complex, with a unit sum of squares over the coils."""
    mask: Tensor | None = None
    """Bool, broadcastable to kspace."""
    noise_std: Tensor | None = None
    """() or (B,): noise of each real component, of image or kspace."""
    acceleration: Tensor | None = None
    """(B,): number of points divided by number of sampled points."""
    estimate: Tensor | None = None
    """(B, H, W) complex: CG-SENSE image, the input of a supervised network."""
    scale: Tensor | None = None
    """() or (B,): the value in the file's units that is 1 here."""

    @property
    def cartesian(self) -> Cartesian:
        """kspace, maps, mask and noise_std. Errors: InputError if one of them is missing."""
        kspace, maps, mask, noise_std = self.parts("kspace", "maps", "mask", "noise_std")
        return Cartesian(kspace, maps, mask, noise_std)

    def parts(self, *names: str) -> list[Tensor]:
        """The parts of these names, in this order. Errors: InputError if one of them is missing."""
        found = {name: getattr(self, name) for name in names}
        if missing := [name for name, part in found.items() if part is None]:
            raise InputError(f"{self.name}: the training item has no {', '.join(missing)}; another source has them")
        return list(found.values())

    def to(self, device: torch.device) -> TrainingItem:
        """The same with all parts on this device."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        moved: dict[str, Any] = {name: part.to(device) for name, part in parts.items() if isinstance(part, Tensor)}
        return replace(self, **moved)
