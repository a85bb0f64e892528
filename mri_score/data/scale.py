"""Scales: the percentile of the magnitude that networks expect to be 1, and units for samples far from 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mri_score.errors import InputError

PERCENTILE = 0.99
"""Quantile of the magnitude that is scaled to 1, in training and reconstruction."""


SAFE = (1e-9, 1e12)
"""Range of the largest sample within which squares and sums of squares stay within single precision."""


def safe_unit(samples: Tensor) -> float:
    """A unit for k-space, in which the largest sample is about 1; 1 if that sample lies within SAFE.

    It is a power of two, so that a change of unit rounds nothing. samples: complex, any shape, not all zero.
    """
    largest = float(torch.view_as_real(samples.resolve_conj()).abs().max())
    if not 0 < largest < math.inf or SAFE[0] <= largest <= SAFE[1]:
        return 1.0
    return 2.0 ** round(math.log2(largest))


def percentile(image: Tensor) -> Tensor:
    """The 99th percentile of the magnitude of each image: (*batch, H, W) -> (*batch)."""
    magnitude = image.abs().flatten(-2)
    place = math.ceil(PERCENTILE * magnitude.shape[-1])
    return magnitude.kthvalue(place, dim=-1).values


def scale_of(images: Tensor, name: str) -> Tensor:
    """The scale (B,) of an acquisition: the 99th percentile of the magnitude of its images (B, H, W).

    images: a quick reconstruction from the undersampled data. name: for messages.
    Errors: InputError for a slice without signal.
    """
    scale = percentile(images)
    sound = (scale > 0) & scale.isfinite()
    if not bool(sound.all()):
        empty = int((~sound).nonzero()[0])
        raise InputError(f"{name}: slice {empty} of the batch has no signal; leave it out with --slices")
    return scale
