"""Log-likelihoods under a score model, by the probability flow and Hutchinson's estimate of its divergence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.noise.schedules import Karras
from mri_score.numerics.channels import inner, per_item, real_size, squared_norm
from mri_score.numerics.jacobian import linearise
from mri_score.numerics.noise import signs_like
from mri_score.numerics.runge_kutta import State, adaptive, heun


@torch.no_grad()
def log_likelihood(
    model: ScoreModel,
    x: Tensor,
    sigma_min: float,
    sigma_max: float,
    random: Sequence[Generator],
    *,
    mean: Tensor | None = None,
    probes: int = 1,
    steps: int | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-4,
) -> Tensor:
    """log p(x) of each item, p the law of x0 + sigma_min n, as a density over real components: (B,) nats, float64.

        log p(x) = log N(x(sigma_max); mean, sigma_max^2 + spread^2) + integral div f dsigma,   f = (x - D(x)) / sigma,

    from sigma_min to sigma_max along the flow dx / dsigma = f through x. div f = (n - tr dD/dx) / sigma, its trace
    estimated without bias by b . J^T b with `probes` vectors b of random signs, the same all the way.
    The law at sigma_max is a round Gaussian of the prior's own energy, spread^2 = sd^2 - mean(mean^2); what is left of
    the data's shape there misleads an item by O(sigma_max^-2), and the average over the prior by O(sigma_max^-4).
    mean: of the data, (*shape), zero if not given. steps: Heun's, on Karras levels, two evaluations and 2 `probes`
    products each; without it adaptive Dormand-Prince steps within rtol and atol of x and of the integral per
    component, for each item by itself.
    Errors: InputError for fewer than 1 probe or step, and for a model that carries no gradient.
    Reference: Song et al., Score-based generative modeling through stochastic differential equations, ICLR 2021,
    appendix D.2; Grathwohl et al., FFJORD, ICLR 2019.
    """
    if probes < 1 or (steps is not None and steps < 1):
        raise InputError(f"a likelihood needs 1 or more probes and steps; got {probes} and {steps}")
    levels = Karras(sigma_min, sigma_max)
    size, signs = real_size(x), [signs_like(x, random) for _ in range(probes)]

    def slope(sigma: Tensor, state: State) -> State:
        z = state[0]
        denoised, transposed = linearise(lambda image: model.denoise(image, sigma), z)
        trace = torch.stack([inner(b, transposed(b)).double() for b in signs]).mean(0)
        return (z - denoised) / per_item(sigma, z), ((1 - trace / size) / sigma)[:, None]

    start = (x, torch.zeros(len(x), 1, dtype=torch.float64, device=x.device))
    if steps is None:
        end, integral = adaptive(slope, start, sigma_min, sigma_max, rtol, atol)
    else:
        end, integral = heun(slope, start, levels.levels(steps + 1).flip(0).to(x.device))
    return _log_normal(end, mean, model.sd, sigma_max) + size * integral[:, 0]


def bits_per_dimension(log_likelihood: Tensor, x: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """-log2 p of a real component, on average, of the images x * scale: (B,).

        -log p(x) / (n log 2) + log2(scale),    n counts the real and the imaginary parts of a complex image.

    A density depends on its unit. x is as the prior sees it; scale (), or (B,), is what one unit of x is in the unit to
    count in: 256 for images in [0, 1] and grey values of 8 bits, an acquisition's `scale` for a scanner's own units.
    MR images are not quantised, so that bits may be negative, and compare only at one unit, one size and one sigma_min.
    For quantised images add the uniform noise of one step before: then it is a bound on their discrete likelihood.
    """
    return -log_likelihood / (real_size(x) * math.log(2)) + torch.as_tensor(scale, dtype=torch.float64).log2()


def _log_normal(x: Tensor, mean: Tensor | None, sd: float, sigma: float) -> Tensor:
    """log N(x; mean, sigma^2 + sd^2 - mean(mean^2)) over real components; sd is about zero."""
    centre = torch.zeros_like(x[:1]) if mean is None else mean.to(x)[None]
    spread = max(sd**2 - float(squared_norm(centre)) / real_size(x), 0.0)
    variance = sigma**2 + spread
    return -squared_norm(x - centre).double() / (2 * variance) - real_size(x) / 2 * math.log(2 * math.pi * variance)
