"""Preconditioning: the scaling of a network's input and output, and its label, at each noise level."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Coefficients = tuple[Tensor, Tensor, Tensor, Tensor]


def ncsn(sigma: Tensor, sd: float) -> Coefficients:
    """NCSN and NCSNv2: the network, divided by sigma, is the score. Song and Ermon, NeurIPS 2019 and 2020."""
    return torch.ones_like(sigma), sigma, torch.ones_like(sigma), torch.log(sigma)


def score(sigma: Tensor, sd: float) -> Coefficients:
    """The network is the score itself, as in the first NCSN. Song and Ermon, NeurIPS 2019."""
    return torch.ones_like(sigma), sigma**2, torch.ones_like(sigma), torch.log(sigma)


def edm(sigma: Tensor, sd: float) -> Coefficients:
    """Unit variance at the network's input and target for every sigma. Karras et al., NeurIPS 2022, table 1."""
    total = torch.sqrt(sigma**2 + sd**2)
    return sd**2 / total**2, sigma * sd / total, 1 / total, torch.log(sigma) / 4


def vp(sigma: Tensor, sd: float) -> Coefficients:
    """Score SDE's VP: the network sees x_t = x / sqrt(1 + sigma^2) and 999 t, and tells the noise.

    t belongs to the published beta, 0.1 to 20: made for networks with a positional embedding.
    Reference: Karras et al., NeurIPS 2022, table 1.
    """
    return torch.ones_like(sigma), -sigma, 1 / torch.sqrt(1 + sigma**2), _label(torch.log1p(sigma**2))


def sub_vp(sigma: Tensor, sd: float) -> Coefficients:
    """Score SDE's sub-VP: as VP, with sigma = (1 - a^2) / a for the signal's share a. Song et al., ICLR 2021."""
    share = 2 / (sigma + torch.sqrt(4 + sigma**2))
    return torch.ones_like(sigma), -sigma, share, _label(2 * torch.asinh(sigma / 2))


def _label(integral: Tensor) -> Tensor:
    """999 t from -2 log a = 0.1 t + 19.9 t^2 / 2."""
    return 999 * 2 * integral / (0.1 + torch.sqrt(0.01 + 2 * 19.9 * integral))


def regression(noise_std: Tensor, sd: float) -> Coefficients:
    """No score model but a supervised network: what it adds to a reconstruction of k-space with this noise_std.

    An error of sd / 5 is what the network's output of 1 stands for, as for a denoiser at that level.
    """
    one = torch.ones_like(noise_std)
    return one, sd / 5 * one, one / sd, torch.log(noise_std) / 4


PRECONDITIONINGS: dict[str, Callable[[Tensor, float], Coefficients]] = {
    "edm": edm,
    "ncsn": ncsn,
    "regression": regression,
    "score": score,
    "sub-vp": sub_vp,
    "vp": vp,
}
