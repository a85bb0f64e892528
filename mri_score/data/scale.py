"""The scale of an image: the percentile of the magnitude that networks expect to be 1."""

from __future__ import annotations

import math

from torch import Tensor

PERCENTILE = 0.99
"""Quantile of the magnitude that is scaled to 1, in training and reconstruction."""


def percentile(image: Tensor) -> Tensor:
    """The 99th percentile of the magnitude of each image: (*batch, H, W) -> (*batch)."""
    magnitude = image.abs().flatten(-2)
    place = math.ceil(PERCENTILE * magnitude.shape[-1])
    return magnitude.kthvalue(place, dim=-1).values
