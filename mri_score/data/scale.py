"""The scale of an image: its percentile that is 1 for the networks."""

from __future__ import annotations

import math

from torch import Tensor

PERCENTILE = 0.99
"""The magnitude percentile that is 1 for the networks (convention of loading, writing and training)."""


def percentile(image: Tensor) -> Tensor:
    """The 99th percentile of the magnitude of each image: (*batch, H, W) -> (*batch)."""
    magnitude = image.abs().flatten(-2)
    place = math.ceil(PERCENTILE * magnitude.shape[-1])
    return magnitude.kthvalue(place, dim=-1).values
