"""A Cartesian scan as classical methods and losses take it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Cartesian(NamedTuple):
    """The parts of a scan from which SENSE reconstructs it."""

    kspace: Tensor
    """(B, C, H, W) complex, unsampled points zero."""
    maps: Tensor
    """(B, C, H, W) complex, with a unit sum of squares over the coils."""
    mask: Tensor
    """Bool, broadcastable to kspace."""
    noise_std: Tensor
    """() or (B,): standard deviation of the real and of the imaginary part of one sample."""
