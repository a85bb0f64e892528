"""The inverse problem of one slice, in the form that all classical methods use."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.operators.sense import Sense

Array = Tensor | np.ndarray


def pose(kspace: Array, maps: Array, mask: Array) -> tuple[Sense, Tensor]:
    """The operator A and the samples y (1, C, H, W) of one slice, in complex64 on the CPU.

    Shapes: kspace and maps (C, H, W) complex, mask (bool or real) broadcastable to kspace.
    Errors: InputError for other shapes.
    """
    y, maps, weights = as_complex(kspace), as_complex(maps), _weights(mask)
    if y.ndim != 3 or maps.shape != y.shape:
        raise InputError(
            f"kspace has shape {tuple(y.shape)} and maps {tuple(maps.shape)};"
            " pass one slice: (coils, rows, cols) for both"
        )
    pairs = zip(reversed(weights.shape), reversed(y.shape), strict=False)
    if weights.ndim > 3 or any(m not in (1, n) for m, n in pairs):
        raise InputError(
            f"a mask of shape {tuple(weights.shape)} does not fit kspace of shape {tuple(y.shape)};"
            " for a slice of a batch pass mask[0]"
        )
    return Sense(maps[None], weights), y[None]


def largest_eigenvalue(operator: Sense) -> float:
    """An upper bound of the eigenvalues of A^H A: 1 for maps of unit norm and a mask of zeros and ones."""
    largest = operator.maps.abs().square().sum(1).max() * operator.mask.to(torch.float32).abs().max() ** 2
    return max(float(largest), float(np.finfo(np.float32).tiny))


def as_complex(value: Array) -> Tensor:
    """A complex64 tensor on the CPU, from a tensor or an array."""
    return torch.as_tensor(value).detach().cpu().to(torch.complex64).resolve_conj().contiguous()


def _weights(mask: Array) -> Tensor:
    mask = torch.as_tensor(mask).detach().cpu()
    return mask if mask.dtype == torch.bool else mask.to(torch.float32)
