"""The values of pixels as a prior of real images takes them, from values in [0, 1], and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mri_score.data.scale import percentile
from mri_score.errors import InputError

LOGIT_MARGIN = 1e-6
"""Distance that `logit` keeps from 0 and 1, as in NCSN's code."""


@dataclass(frozen=True)
class PixelValues:
    """v = x, or with `centred` v = 2 x - 1, or with `logit` v = log(z / (1 - z)) of z = L + (1 - 2 L) x, L = 1e-6.

    x is a pixel in [0, 1], v what the prior takes.
    Errors: InputError for both.
    """

    centred: bool = False
    logit: bool = False

    def __post_init__(self) -> None:
        if self.centred and self.logit:
            raise InputError("data.centred and data.logit are both true; an image is mapped by one of them, or by none")

    def forward(self, x: Tensor) -> Tensor:
        """v of x, of any shape."""
        if self.logit:
            return torch.logit(LOGIT_MARGIN + (1 - 2 * LOGIT_MARGIN) * x)
        return 2 * x - 1 if self.centred else x

    def inverse(self, v: Tensor) -> Tensor:
        """x of v, not clipped to [0, 1]."""
        if self.logit:
            return (torch.sigmoid(v) - LOGIT_MARGIN) / (1 - 2 * LOGIT_MARGIN)
        return (v + 1) / 2 if self.centred else v

    def log_slope(self, x: Tensor) -> Tensor:
        """log |dv/dx| of each item, summed over its pixels: (B, *shape) -> (B,), float64.

        It turns a density of v into one of x: log p(x) = log p(v) + log_slope(x).
        """
        x = x.double().flatten(1)
        if self.logit:
            z = LOGIT_MARGIN + (1 - 2 * LOGIT_MARGIN) * x
            return (math.log(1 - 2 * LOGIT_MARGIN) - torch.log(z) - torch.log1p(-z)).sum(1)
        return torch.full((len(x),), x.shape[1] * math.log(2.0 if self.centred else 1.0), dtype=torch.float64)


def pixel_values(about: Mapping[str, Any]) -> PixelValues | None:
    """The map of a prior by what its record says about its images; None for priors of complex images."""
    kept = about.get("pixels")
    return PixelValues(bool(kept.get("centred")), bool(kept.get("logit"))) if isinstance(kept, Mapping) else None


def pixel_record(values: PixelValues) -> dict[str, Any]:
    """What a prior's record keeps of the map."""
    return asdict(values)


def white_of(about: Mapping[str, Any], image: np.ndarray, known: np.ndarray | None = None) -> float:
    """The value of an image that is 1 for a prior, by what the prior's record says about its images.

    image: (H, W) or (H, W, 3), in the file's data type. known: bool (H, W), pixels that may be looked at; None: all.
    255 for 8 bits and 65535 for 16 where the prior saw such images; else the 99th percentile of the known pixels, their
    maximum, or the prior's own number.
    """
    rule = (about.get("pixels") or {}).get("scale", "percentile")
    if isinstance(rule, (int, float)):
        return float(rule)
    if rule == "bits" and image.dtype.kind == "u":
        return float(np.iinfo(image.dtype).max)
    values = np.abs(image.astype(np.float64) if image.dtype.kind != "c" else image)
    values = values.max(-1) if image.ndim == 3 else values
    seen = torch.from_numpy(values if known is None else values[known])
    largest = float(seen.max())
    return largest if rule == "maximum" else float(percentile(seen.reshape(1, -1))) or largest
