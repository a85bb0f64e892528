"""Linear methods, zero-filled and CG-SENSE, and a supervised network for CG-SENSE images."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from mri_score.baselines.problem import Array, pose
from mri_score.operators.base import CG_SENSE_ITERATIONS


@torch.no_grad()
def zero_filled(kspace: Array, maps: Array, mask: Array) -> Tensor:
    """A^H y, the adjoint of the samples: (H, W) complex64."""
    A, y = pose(kspace, maps, mask)
    return A.adjoint(y)[0]


@torch.no_grad()
def cg_sense(kspace: Array, maps: Array, mask: Array, iterations: int = CG_SENSE_ITERATIONS) -> Tensor:
    """argmin_x |A x - y|^2 by conjugate gradient from zero; early stopping is the only regularisation.

    Reference: Pruessmann et al., Advances in sensitivity encoding with arbitrary k-space trajectories, MRM 2001.
    """
    A, y = pose(kspace, maps, mask)
    return A.cg_sense(y, iterations)[0]


class Restorer(Protocol):
    """A network that restores CG-SENSE images, trained for noise levels from sigma_min to sigma_max."""

    sigma_min: float
    sigma_max: float

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor: ...


@torch.no_grad()
def supervised(kspace: Array, maps: Array, mask: Array, noise_std: float | Tensor, network: Restorer) -> Tensor:
    """f(CG-SENSE image, noise_std): the output of a network trained on pairs, an estimate of the posterior mean.

    network: from `priors.store.load_supervised`; a noise_std outside its range is replaced by the nearest one inside.
    Reference: Jin et al., Deep convolutional neural network for inverse problems in imaging, IEEE TIP 2017.
    """
    image = cg_sense(kspace, maps, mask)
    return network.denoise(image[None], min(max(float(noise_std), network.sigma_min), network.sigma_max))[0]
