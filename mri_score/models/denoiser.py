"""Any denoiser as a score model: a function, a module, or a network with its preconditioning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.models.network import NetworkPrior, unwrapped
from mri_score.models.preconditioning import Precondition

Denoiser = Callable[[Tensor, Tensor], Any]
"""D(x, sigma) with x (B, *shape) and sigma (B,), which gives E[x0 | x] (B, *shape)."""


class DenoiserPrior(ScoreModel):
    """A denoiser D(x, sigma) without preconditioning, see `as_prior`."""

    def __init__(self, denoiser: Denoiser, sd: float, sigma_min: float, sigma_max: float) -> None:
        super().__init__()
        self.denoiser, self.sd, self.sigma_min, self.sigma_max = denoiser, sd, sigma_min, sigma_max

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        levels = torch.as_tensor(sigma, dtype=x.real.dtype, device=x.device).expand(len(x))
        denoised = unwrapped(self.denoiser(x, levels), x, _name(self.denoiser))
        if denoised.is_complex() != x.is_complex():
            raise InputError(
                f"{_name(self.denoiser)} was given {x.dtype} images and gave {denoised.dtype}; for a network of real"
                ' channels pass precondition="denoiser" to as_prior'
            )
        return denoised


def as_prior(
    denoiser: Denoiser | nn.Module,
    *,
    sd: float,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    precondition: str | Precondition | None = None,
) -> ScoreModel:
    """A denoiser of your own as a prior: for `reconstruct(prior=...)`, `sample_prior`, and any posterior.

    denoiser: a function or module D(x, sigma) that gives E[x0 | x], x = x0 + sigma n. Shapes: x (B, *shape), complex
    for MR images, in units in which the 99th percentile of their magnitude is 1; sigma (B,), the standard deviation of
    the noise in the real and in the imaginary part; the result is like x. With a `precondition` it is a network of real
    channels instead, called as denoiser(channels (B, channels, H, W), label (B,)), two channels for complex images.
    sd: standard deviation of each real component of the images: sqrt(mean |x0|^2 / 2) for complex ones, often about
    0.3 in these units.
    sigma_min, sigma_max: the noise levels at which the denoiser is valid; walks ask for no others. None: the range of
    the precondition if it has one, else 0 and infinity, or 0.004 and 250 with a precondition.
    precondition: how a network becomes a denoiser: "denoiser" for one that is a denoiser of real channels, another name
    of `PRECONDITIONINGS`, `EpsilonPrecondition(alphas_cumprod)` for one that predicts the noise (DDPM, diffusers), or a
    function of (sigma, sd) that gives (c_skip, c_out, c_in, c_noise).
    Returns: a score model. A module is used as it is and is not changed: for one that should not train, call its
    `eval()` and `requires_grad_(False)` before.
    Errors: InputError for what cannot be called, for an unknown precondition, and for an sd or a range that is not
    positive; when it is asked, for a result of another shape.
    Reference: Robbins, An empirical Bayes approach to statistics, 1956; Efron, Tweedie's formula and selection bias,
    JASA 2011: score = (D(x, sigma) - x) / sigma^2.
    """
    if isinstance(denoiser, ScoreModel):
        raise InputError(f"{_name(denoiser)} is a score model already: pass it as the prior itself")
    if not callable(denoiser):
        raise InputError(
            f"a denoiser is {type(denoiser).__name__}; it needs a function or a module, called as D(x, sigma)"
        )
    if precondition is not None:
        if not isinstance(denoiser, nn.Module):
            raise InputError(f"a precondition belongs to a network, a torch.nn.Module; got {_name(denoiser)}")
        return NetworkPrior(denoiser, precondition, sd, sigma_min, sigma_max)
    low, high = sigma_min or 0.0, float("inf") if sigma_max is None else sigma_max
    if not (sd > 0 and 0 <= low < high):
        raise InputError(f"a prior needs sd > 0 and 0 <= sigma_min < sigma_max; got sd {sd}, range {low} to {high}")
    return DenoiserPrior(denoiser, sd, low, high)


def _name(denoiser: object) -> str:
    return getattr(denoiser, "__name__", type(denoiser).__name__)
