"""Steps to lower noise for any denoiser: one step, and sequences of steps to a clean image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import Random, noise_like
from mri_score.numerics.runge_kutta import State, heun_step

Denoiser = Callable[[Tensor, Tensor], Tensor]


def lower_noise(
    z: Tensor,
    x: Tensor,
    sigma: Tensor | float,
    sigma_next: Tensor | float,
    fresh: Tensor | float = 0.0,
    random: Sequence[Random] = (),
) -> Tensor:
    """The iterate at sigma_next from x at sigma and the clean estimate z, with a share `fresh` of new noise in its
    variance:

        x' = z + sigma_next (sqrt(1 - fresh) e + sqrt(fresh) n),    e = (x - z) / sigma.

    fresh: 0 is Euler's step of the probability flow, 1 - (sigma_next / sigma)^2 the reverse diffusion, 1 only new
    noise.
    Shapes: z and x (B, *shape); sigma, sigma_next and fresh () or (B,); one generator per item, or none for fresh = 0.
    Reference: Song et al., Denoising diffusion implicit models, ICLR 2021, eq. 12, divided by the signal's scale.
    """
    sigma, sigma_next, fresh = (per_item(value, x) for value in (sigma, sigma_next, fresh))
    kept = z + sigma_next / sigma * (1 - fresh).sqrt() * (x - z)
    return kept + sigma_next * fresh.sqrt() * noise_like(x, random) if random else kept


def levels_below(sigma: Tensor | float, steps: int, end: float = 0.01, least: float = 0.0) -> list[Tensor]:
    """Levels from sigma to 0 with `steps` steps, the last from `end` (or sigma / 2, if less), evenly spaced in
    sigma^(1/7).

    least: the smallest level at which the denoiser is valid; no level but the final 0 is below it.
    Errors: InputError for fewer than one step.
    Reference: Karras et al., NeurIPS 2022, eq. 5.
    """
    if steps < 1:
        raise InputError(f"a descent takes at least 1 inner step; got {steps}")
    high = torch.as_tensor(sigma, dtype=torch.float64)
    low = (high / 2).clamp_max(end).clamp_min(least)
    parts = [high ** (1 / 7) + u * (low ** (1 / 7) - high ** (1 / 7)) for u in torch.linspace(0, 1, steps).double()]
    return [*((part**7).clamp_min(least) for part in parts), torch.zeros_like(high)]


def probability_flow(denoise: Denoiser, x: Tensor, sigmas: Sequence[Tensor], heun: bool = False) -> Tensor:
    """Integrate dx / dsigma = (x - D(x, sigma)) / sigma along the levels with Euler's steps, or Heun's except to zero.

    Heun's steps take two calls of the denoiser.
    Reference: Song et al., ICLR 2021; Karras et al., NeurIPS 2022, algorithm 1.
    """

    def slope(sigma: Tensor, state: State) -> State:
        return ((state[0] - denoise(state[0], sigma)) / per_item(sigma, state[0]),)

    for sigma, sigma_next in zip(sigmas, sigmas[1:], strict=False):
        z = denoise(x, sigma)
        x_next = lower_noise(z, x, sigma, sigma_next)
        if heun and bool((sigma_next > 0).all()):
            k = ((x - z) / per_item(sigma, x),)
            (x_next,) = heun_step(slope, (x,), (sigma, sigma_next), k, (x_next,))
        x = x_next
    return x


def reverse_diffusion(denoise: Denoiser, x: Tensor, sigmas: Sequence[Tensor], random: Sequence[Random]) -> Tensor:
    """Draw x' ~ p(x' | x, x0 = D(x, sigma)) along the levels, the reverse of adding noise; the end is a draw of x0.

    Reference: Ho et al., Denoising diffusion probabilistic models, NeurIPS 2020, eq. 7.
    """
    for sigma, sigma_next in zip(sigmas, sigmas[1:], strict=False):
        x = lower_noise(denoise(x, sigma), x, sigma, sigma_next, 1 - (sigma_next / sigma) ** 2, random)
    return x
