"""Log-likelihoods under a score model, by the probability flow and Hutchinson's estimate of its divergence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor

from mri_score.data.pixel_values import PixelValues
from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.noise.schedules import Karras
from mri_score.numerics.channels import inner, per_item, real_size, squared_norm
from mri_score.numerics.jacobian import linearise
from mri_score.numerics.noise import signs_like
from mri_score.numerics.runge_kutta import State, adaptive, heun


@dataclass(frozen=True)
class FlowOptions:
    """Settings of the integration. Errors: InputError for fewer than 1 probe or step."""

    probes: int = 1
    """Number of random vectors for the divergence; each step needs as many products with the Jacobian."""
    steps: int | None = None
    """Steps of Heun's method on Karras levels, two evaluations each; None: adaptive Dormand-Prince steps."""
    rtol: float = 1e-4
    """Relative tolerance of adaptive steps, of x and of the integral per component, for each item."""
    atol: float = 1e-4
    """Absolute tolerance of adaptive steps."""

    def __post_init__(self) -> None:
        if self.probes < 1 or (self.steps is not None and self.steps < 1):
            raise InputError(f"a likelihood needs 1 or more probes and steps; got {self.probes} and {self.steps}")


DEFAULTS = FlowOptions()
AS_THEY_ARE = PixelValues()


@torch.no_grad()
def log_likelihood(
    model: ScoreModel,
    x: Tensor,
    sigma_min: float,
    sigma_max: float,
    random: Sequence[Generator],
    options: FlowOptions = DEFAULTS,
    *,
    mean: Tensor | None = None,
    **changes: Any,
) -> Tensor:
    """log p(x) of each item, p the density of x0 + sigma_min n over real components: (B,) nats, float64.

        log p(x) = log N(x(sigma_max); mean, sigma_max^2 + spread^2) + integral div f dsigma,   f = (x - D(x)) / sigma,

    from sigma_min to sigma_max along the flow dx / dsigma = f through x. div f = (n - tr dD/dx) / sigma, where the
    trace is estimated without bias by b . J^T b with `probes` vectors b of random signs, the same at every sigma.
    The density at sigma_max is taken as a Gaussian with equal variance in all directions and the energy of the prior,
    spread^2 = sd^2 - mean(mean^2). The error of this is O(sigma_max^-2) for an item, and O(sigma_max^-4) on average
    over the prior.
    model: a prior, with gradients. x: (B, *shape), in the prior's scale. sigma_min, sigma_max: the ends of the flow.
    random: one generator per item. mean: of the data, (*shape); zero by default. options, changes: `FlowOptions`, and
    fields of it to replace.
    Errors: InputError for fewer than 1 probe or step, and for a model without gradients.
    Reference: Song et al., Score-based generative modeling through stochastic differential equations, ICLR 2021,
    appendix D.2; Grathwohl et al., FFJORD, ICLR 2019.
    """
    o = replace(options, **changes)
    levels = Karras(sigma_min, sigma_max)
    size, signs = real_size(x), [signs_like(x, random) for _ in range(o.probes)]

    def slope(sigma: Tensor, state: State) -> State:
        z = state[0]
        denoised, transposed = linearise(lambda image: model.denoise(image, sigma), z)
        trace = torch.stack([inner(b, transposed(b)).double() for b in signs]).mean(0)
        return (z - denoised) / per_item(sigma, z), ((1 - trace / size) / sigma)[:, None]

    start = (x, torch.zeros(len(x), 1, dtype=torch.float64, device=x.device))
    if o.steps is None:
        end, integral = adaptive(slope, start, sigma_min, sigma_max, o.rtol, o.atol)
    else:
        end, integral = heun(slope, start, levels.levels(o.steps + 1).flip(0).to(x.device))
    return _log_normal(end, mean, model.sd, sigma_max) + size * integral[:, 0]


def bits_per_dimension(log_likelihood: Tensor, x: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """The average of -log2 p over the real components of the images x * scale: (B,).

        -log p(x) / (n log 2) + log2(scale),    n counts the real and the imaginary parts of a complex image.

    log_likelihood: (B,), as `log_likelihood` returns it for x (B, *shape), in the prior's scale. scale: () or (B,), the
    value of one unit of x in the unit of the result, on which a density depends: 256 for images in [0, 1] and grey
    values of 8 bits, an acquisition's `scale` for the scanner's own units.
    MR images are not quantised, so that the bits may be negative, and can be compared only for the same unit, size and
    sigma_min. For quantised images, add uniform noise of one step before: the result is then an upper bound of the
    discrete code length.
    """
    return -log_likelihood / (real_size(x) * math.log(2)) + torch.as_tensor(scale, dtype=torch.float64).log2()


def pixel_bits(
    model: ScoreModel,
    pixels: Tensor,
    random: Sequence[Generator],
    values: PixelValues = AS_THEY_ARE,
    levels: int | None = 256,
    options: FlowOptions = DEFAULTS,
    *,
    mean: Tensor | None = None,
) -> Tensor:
    """Bits per dimension of real images with pixels in [0, 1], under a prior over all its noise levels: (B,).

    model: the prior. pixels: (B, H, W) or (B, 3, H, W). random: one generator an item. options: of the flow's solver.
    values: the map to what the prior takes, whose slope turns its density into one
    of pixels. levels: of quantised images, pixels k / (levels - 1). Each gets uniform noise of one level, and the
    result, in the unit of one level, is an upper bound of the code length of the whole numbers k, up to the smoothing
    by the prior's sigma_min. None: no noise, and the unit is white. mean: of the data as the prior takes them. Others
    as in `log_likelihood`.
    Errors: InputError as `log_likelihood`.
    Reference: Theis et al., A note on the evaluation of generative models, ICLR 2016; Song et al., ICLR 2021.
    """
    x = pixels
    if levels is not None:
        noise = torch.stack([torch.rand(one.shape, generator=own) for one, own in zip(pixels, random, strict=True)])
        x = ((levels - 1) * pixels + noise.to(pixels)) / levels
    low, high = max(model.sigma_min, 1e-4 * model.sd), min(model.sigma_max, 1e4 * model.sd)
    found = log_likelihood(model, values.forward(x), low, high, random, options, mean=mean)
    return bits_per_dimension(found + values.log_slope(x).to(found.device), x, 1.0 if levels is None else float(levels))


def _log_normal(x: Tensor, mean: Tensor | None, sd: float, sigma: float) -> Tensor:
    """log N(x; mean, sigma^2 + sd^2 - mean(mean^2)) over real components; sd is measured from zero."""
    centre = torch.zeros_like(x[:1]) if mean is None else mean.to(x)[None]
    spread = max(sd**2 - float(squared_norm(centre)) / real_size(x), 0.0)
    variance = sigma**2 + spread
    return -squared_norm(x - centre).double() / (2 * variance) - real_size(x) / 2 * math.log(2 * math.pi * variance)
