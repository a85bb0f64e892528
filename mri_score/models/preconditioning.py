"""Preconditioning: the scaling of a network's input and output, and its label, at each noise level."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.noise.schedules import LinearBetas

Coefficients = tuple[Tensor, Tensor, Tensor, Tensor]
"""c_skip, c_out, c_in and c_noise, each (B,): D(x, sigma) = c_skip x + c_out F(c_in x, c_noise)."""
Precondition = Callable[[Tensor, float], Coefficients]
"""The coefficients at the noise levels sigma (B,), for images whose real components have the standard deviation sd."""


def ncsn(sigma: Tensor, sd: float) -> Coefficients:
    """NCSN and NCSNv2: the network, divided by sigma, is the score. Song and Ermon, NeurIPS 2019 and 2020."""
    return torch.ones_like(sigma), sigma, torch.ones_like(sigma), torch.log(sigma)


def score(sigma: Tensor, sd: float) -> Coefficients:
    """The network is the score itself, as in the first NCSN. Song and Ermon, NeurIPS 2019."""
    return torch.ones_like(sigma), sigma**2, torch.ones_like(sigma), torch.log(sigma)


def edm(sigma: Tensor, sd: float) -> Coefficients:
    """Unit variance of the network's input and target at every sigma. Karras et al., NeurIPS 2022, table 1."""
    total = torch.sqrt(sigma**2 + sd**2)
    return sd**2 / total**2, sigma * sd / total, 1 / total, torch.log(sigma) / 4


def vp(sigma: Tensor, sd: float) -> Coefficients:
    """VP of Score SDE: the network gets x_t = x / sqrt(1 + sigma^2) and 999 t, and predicts the noise.

    t is that of the published beta, 0.1 to 20, for networks with a positional embedding.
    Reference: Karras et al., NeurIPS 2022, table 1.
    """
    return torch.ones_like(sigma), -sigma, 1 / torch.sqrt(1 + sigma**2), _label(torch.log1p(sigma**2))


def ve(sigma: Tensor, sd: float) -> Coefficients:
    """VE of Score SDE as EDM's code writes it: as `ncsn`, with the label log(sigma / 2).

    Reference: Karras et al., NeurIPS 2022, table 1.
    """
    return torch.ones_like(sigma), sigma, torch.ones_like(sigma), torch.log(sigma / 2)


def sub_vp(sigma: Tensor, sd: float) -> Coefficients:
    """Score SDE's sub-VP: as VP, with sigma = (1 - a^2) / a for the signal's share a. Song et al., ICLR 2021."""
    share = 2 / (sigma + torch.sqrt(4 + sigma**2))
    return torch.ones_like(sigma), -sigma, share, _label(2 * torch.asinh(sigma / 2))


def _label(integral: Tensor) -> Tensor:
    """999 t from -2 log a = 0.1 t + 19.9 t^2 / 2."""
    return 999 * 2 * integral / (0.1 + torch.sqrt(0.01 + 2 * 19.9 * integral))


def regression(noise_std: Tensor, sd: float) -> Coefficients:
    """For a supervised network or a generator, not a score model: its output is added to a reconstruction of k-space
    with this noise_std.

    An output of 1 corresponds to an error of sd / 5, as for a denoiser at that level.
    """
    one = torch.ones_like(noise_std)
    return one, sd / 5 * one, one / sd, torch.log(noise_std) / 4


def denoiser(sigma: Tensor, sd: float) -> Coefficients:
    """The network is the denoiser itself: it takes the noisy image in its real channels, and sigma."""
    return torch.zeros_like(sigma), torch.ones_like(sigma), torch.ones_like(sigma), sigma


class EpsilonPrecondition:
    """For networks like DDPM that predict the noise; the label is the training step that corresponds to sigma.

    With abar_t = `alphas_cumprod`, the product of 1 - beta up to step t, the network gets
    x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) noise, which is x / sqrt(1 + sigma^2) for sigma^2 = (1 - abar_t) / abar_t.
    Between two steps t is interpolated in log sigma; networks with a positional embedding accept any t.
    Shapes: alphas_cumprod (T,), decreasing, each within (0, 1); the label c_noise is t, from 0 to T - 1.
    Errors: InputError for other numbers.
    Reference: Ho et al., Denoising diffusion probabilistic models, NeurIPS 2020; Karras et al., NeurIPS 2022, table 1.
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        shares = torch.as_tensor(alphas_cumprod).detach().double().cpu()
        falls = shares.ndim == 1 and len(shares) > 1 and bool((shares.diff() < 0).all())
        if not (falls and float(shares[-1]) > 0 and float(shares[0]) < 1):
            raise InputError(
                f"alphas_cumprod has shape {tuple(shares.shape)}; it needs 2 or more falling numbers between 0 and 1,"
                " the products of 1 - beta: torch.cumprod(1 - betas, 0)"
            )
        sigmas = ((1 - shares) / shares).sqrt()
        self._logs = sigmas.log()
        self.sigma_min, self.sigma_max = float(sigmas[0]), float(sigmas[-1])
        """The noise levels of the first and the last step."""

    def __call__(self, sigma: Tensor, sd: float) -> Coefficients:
        logs = self._logs.to(sigma.device)
        log = sigma.double().log()
        below = (torch.searchsorted(logs, log, right=True) - 1).clamp(0, len(logs) - 2)
        step = below + (log - logs[below]) / (logs[below + 1] - logs[below])
        label = step.clamp(0, len(logs) - 1).to(sigma.dtype)
        return torch.ones_like(sigma), -sigma, 1 / torch.sqrt(1 + sigma**2), label


PRECONDITIONINGS: dict[str, Precondition] = {
    "ddpm": EpsilonPrecondition(LinearBetas().alphas_cumprod),
    "denoiser": denoiser,
    "edm": edm,
    "generator": regression,
    "ncsn": ncsn,
    "regression": regression,
    "score": score,
    "sub-vp": sub_vp,
    "ve": ve,
    "vp": vp,
}
"""By name; `ddpm` is that of the published 1,000 steps, whose labels are 0 to 999."""
