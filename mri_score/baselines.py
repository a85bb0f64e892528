"""Classical reconstructions by SigPy: zero-filled, CG-SENSE, L1-wavelet, total variation.

One slice in, one image out: kspace (C, H, W) complex with unsampled points zero, maps (C, H, W) complex, mask (bool or
real) broadcastable to kspace, arrays or tensors; the image is a complex64 tensor (H, W). Units are the scaled ones, in
which the 99th percentile of the image's magnitude is about 1. All is deterministic and computed in complex64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import sigpy
import sigpy.mri.linop
import torch
from numpy.typing import ArrayLike, NDArray
from sigpy.linop import Linop
from torch import Tensor

from mri_score.errors import InputError

Regularised = Callable[..., Tensor]
"""l1_wavelet or total_variation."""

TYPICAL_EDGE = 0.05
"""A jump between two pixels of an image in scaled units; only the speed of total variation depends on it."""

HOLD_OUT = 4
"""The rule hides every fourth column (or point) beyond the calibration lines, twice."""


def zero_filled(kspace: ArrayLike, maps: ArrayLike, mask: ArrayLike) -> Tensor:
    """A^H y: the adjoint of the samples."""
    y, A = _problem(kspace, maps, mask)
    return torch.from_numpy(A.H(y))


def cg_sense(kspace: ArrayLike, maps: ArrayLike, mask: ArrayLike, iterations: int = 15) -> Tensor:
    """argmin_x |A x - y|^2 by conjugate gradient from zero; stopping early is its only regularisation.

    Reference: Pruessmann et al., Advances in sensitivity encoding with arbitrary k-space trajectories, MRM 2001.
    """
    y, A = _problem(kspace, maps, mask)
    return torch.from_numpy(_conjugate_gradient(y, A, iterations))
