"""Functions that losses for undersampled scans share: scans of a batch, further masks, density of masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Generator, Tensor

from mri_score.data.masks import make_mask
from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.operators.sense import Sense

MASKS = 2000
"""Number of masks from which the density of a law is estimated."""


@dataclass(frozen=True)
class Scans:
    """A batch of Cartesian scans: kspace (B, C, H, W), zero where not sampled; maps; mask (B, 1, H or 1, W or 1).

    noise_std: (B,), 0 if unknown.
    """

    kspace: Tensor
    maps: Tensor
    mask: Tensor
    noise_std: Tensor

    def operator(self, mask: Tensor | None = None) -> Sense:
        return Sense(self.maps, self.mask if mask is None else mask)

    def acquired(self) -> tuple[int, int]:
        """Rows and columns of k-space."""
        return self.kspace.shape[-2], self.kspace.shape[-1]


def scans(batch: TrainingItem, loss: str) -> Scans:
    """The scans of a batch. loss: its name, for messages. Errors: InputError for items without k-space."""
    if batch.kspace is None or batch.maps is None or batch.mask is None:
        raise InputError(f"{batch.name}: {loss} learns from k-space with coil maps and a sampling mask; one is missing")
    items = len(batch.kspace)
    mask = batch.mask.reshape((1,) * (4 - batch.mask.ndim) + tuple(batch.mask.shape))
    if mask.shape[1] != 1:
        raise InputError(f"{batch.name}: the mask differs between coils; {loss} needs one (B, 1, H, W) for them all")
    noise_std = batch.kspace.real.new_zeros(()) if batch.noise_std is None else batch.noise_std
    return Scans(batch.kspace, batch.maps, mask.bool().expand(items, -1, -1, -1), noise_std.expand(items))


def denoise_scan(model: ScoreModel, x: Tensor, sigma: Tensor, mask: Tensor) -> Tensor:
    """D(x, sigma) of zero-filled images; the model also gets their mask (B, 1, H or 1, W or 1)."""
    extra = mask.expand(-1, -1, *x.shape[-2:]).to(x.real.dtype)
    return model.denoise(x, sigma, extra)  # type: ignore[call-arg]  # NetworkPrior takes it, closed forms need not


def kept_share(shape: tuple[int, int], keep: float, centre: int) -> Tensor:
    """The probability that a sampled line (or point) is kept by a further mask: `keep`, and 1 for the central ones.

    shape: (1, W) for columns, (H, 1) for rows, (H, W) for points, where the centre is a square.
    """
    middle = torch.ones(1, 1, dtype=torch.bool)
    for axis, size in enumerate(shape):
        if size > 1:
            first = (size - centre + 1) // 2  # where masks have their calibration lines
            place = torch.arange(size).reshape((-1, 1) if axis == 0 else (1, -1))
            middle = middle & (place >= first) & (place < first + centre)
    return torch.where(middle, 1.0, keep)


def further_mask(mask: Tensor, share: Tensor, random: Sequence[Generator]) -> Tensor:
    """Each mask (B, 1, h, w), with every line (or point) kept with its probability `share` (h, w)."""
    draws = torch.stack([torch.rand(share.shape, generator=one) for one in random])[:, None]
    return mask & (draws < share).to(mask.device)


@lru_cache(maxsize=32)
def density(law: str, shape: tuple[int, int], acceleration: float, calibration_lines: int | None, axis: int) -> Tensor:
    """Share of MASKS masks that sample each line or point: (1, W), (H, 1) or (H, W), and at least 1 / MASKS.

    law, shape, acceleration, calibration_lines, axis: as in `make_mask`.
    """
    masks = [make_mask(law, shape, acceleration, calibration_lines, seed, axis) for seed in range(MASKS)]
    return torch.stack(masks).double().mean(0).clamp_min(1 / MASKS)


@dataclass(frozen=True)
class MaskLaw:
    """The sampling law of the scans of a training set; law None if it is unknown."""

    law: str | None
    acceleration: float
    calibration_lines: int | None
    axis: int

    def density(self, scans: Scans) -> Tensor:
        """The probability of each line or point, (h, w) like the masks; 1 if the law is unknown."""
        if self.law is None:
            return torch.ones(scans.mask.shape[-2:]).to(scans.noise_std)
        found = density(self.law, scans.acquired(), self.acceleration, self.calibration_lines, self.axis)
        if found.shape != scans.mask.shape[-2:]:
            raise InputError(
                f"masks of {tuple(scans.mask.shape[-2:])} do not fit the law {self.law!r} along axis {self.axis},"
                f" whose masks are {tuple(found.shape)}; set loss.law and loss.axis to those of the data, or law: null"
            )
        return found.to(scans.noise_std)
