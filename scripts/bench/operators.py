"""The normal operator A^H A of parallel imaging, against SigPy's."""

from __future__ import annotations

import numpy as np
import sigpy.mri.linop
import torch
from harness import Row, compare
from torch import Tensor

from mri_score.data.masks import make_mask
from mri_score.operators.sense import CACHED_PIXELS, Sense
from mri_score.simulation.phantom import phantom

NAME = "operators"
SIZES = {"quick": (15, 320), "full": (15, 320)}
"""Coils, and rows and columns of the image."""
BATCH = 4
CASES = [
    ("variable-density", -1, 1, 4.0),
    ("variable-density", -2, 1, 4.0),
    ("poisson-disc", -1, 1, 2.5),
    ("variable-density", -1, BATCH, 4.0),
]
"""Mask law, axis of the lines, images per call, and the wanted ratio to SigPy."""


def run(sizes: str, threads: int) -> list[Row]:
    coils, size = SIZES[sizes]
    head = phantom(size, coils, slices=1)
    return [case(head.maps, head.image, *one, sizes=sizes) for one in CASES]


def case(maps: Tensor, image: Tensor, law: str, axis: int, batch: int, wanted: float, sizes: str) -> Row:
    mask = make_mask(law, tuple(image.shape[-2:]), axis=axis)
    operator, theirs = Sense(maps, mask), sigpy_normal(maps[0], mask)
    x = image * torch.linspace(0.5, 1, batch)[:, None, None]
    items = list(x.numpy())
    kind = "points" if law == "poisson-disc" else "columns" if axis == -1 else "rows"
    with torch.no_grad():
        return compare(
            f"A^H A, {' x '.join(map(str, maps.shape[1:]))}, mask of {kind}" + (f", {batch} images" * (batch > 1)),
            "SigPy Sense(...).N",
            lambda: operator.normal(x),
            lambda: np.stack([theirs(item) for item in items]),
            sizes=sizes,
            floor=lambda: transforms(maps, mask, batch),
            floor_of="FFTs in cache",
            wanted=wanted,
            bound=1e-5,
        )


def sigpy_normal(maps: Tensor, mask: Tensor) -> sigpy.linop.Linop:
    """A^H A for maps (C, H, W) and a two-dimensional mask, as a user of SigPy constructs it."""
    return sigpy.mri.linop.Sense(maps.numpy(), weights=mask.float().numpy()).N


def transforms(maps: Tensor, mask: Tensor, batch: int) -> None:
    """Only the Fourier transforms of A^H A, forward and inverse, a few coils at a time and along the mask's axes."""
    axes = tuple(axis for axis in (-2, -1) if mask.shape[axis] > 1)
    maps = maps.mT.contiguous().mT if axes == (-2,) else maps
    for block in maps[0].split(max(1, CACHED_PIXELS // maps[0, 0].numel())):
        for _ in range(batch):
            torch.fft.ifftn(torch.fft.fftn(block, dim=axes), dim=axes)
