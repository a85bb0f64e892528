"""A network as a score model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from mri_score.errors import InputError, unknown_name
from mri_score.models.base import ScoreModel
from mri_score.models.preconditioning import PRECONDITIONINGS, Coefficients, Precondition
from mri_score.numerics.channels import from_channels, per_item, to_channels


class NetworkPrior(ScoreModel):
    """D(x, sigma) = c_skip x + c_out F(c_in x, c_noise): a network F and the four coefficients of its preconditioning.

    network: called as network(channels, c_noise) with real channels (B, channels, H, W), two for complex images, and
    c_noise (B,); it gives the same shape, as a tensor or as the `sample` of an output (diffusers). `channels` or
    `config.in_channels` of the network, if it has one, is checked against the images.
    precondition: a name of `PRECONDITIONINGS`, or a function of (sigma (B,), sd) that gives (c_skip, c_out, c_in,
    c_noise), each (B,), such as `EpsilonPrecondition`.
    sd: standard deviation of each real component of the training images.
    sigma_min and sigma_max: the range that the network was trained on; by default that of the precondition if it has
    one, else 0.004 and 250.
    precision: of the network; all other computations have the precision of x. bfloat16 halves the time on hardware that
    supports it, and changes the denoised image by about 1 % of the removed noise.
    Errors: InputError for an unknown precondition, and for a range or an sd that is not positive.
    """

    precision: torch.dtype = torch.float32

    def __init__(
        self,
        network: nn.Module,
        precondition: str | Precondition = "edm",
        sd: float = 0.3,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.precondition = precondition
        self._coefficients = _find(precondition)
        self.sd = sd
        self.sigma_min = getattr(precondition, "sigma_min", 0.004) if sigma_min is None else sigma_min
        self.sigma_max = getattr(precondition, "sigma_max", 250.0) if sigma_max is None else sigma_max
        if not (sd > 0 and 0 <= self.sigma_min <= self.sigma_max > 0):
            raise InputError(
                f"a prior needs sd > 0 and 0 <= sigma_min <= sigma_max; got sd {sd}, sigma_min {self.sigma_min},"
                f" sigma_max {self.sigma_max}"
            )

    def learned(self, sigmas: Sequence[float]) -> tuple[float, ...]:
        """Those of `sigmas` within the range that it was trained on; the middle of the range if there are none."""
        known = tuple(sigma for sigma in sigmas if self.sigma_min <= sigma <= self.sigma_max)
        return known or (float(f"{math.sqrt(self.sigma_min * self.sigma_max):.3g}"),)

    def in_precision(self, precision: torch.dtype) -> NetworkPrior:
        other = copy(self)  # with the same weights
        other.precision = precision
        return other

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """c_skip, c_out, c_in and c_noise at the noise levels sigma (B,): each (B,)."""
        return self._coefficients(sigma, self.sd)

    def denoise(self, x: Tensor, sigma: Tensor | float, extra: Tensor | None = None) -> Tensor:
        """E[x0 | x]; extra: (B, channels, H, W), a further input of the network, such as a sampling mask."""
        c_skip, output = self._parts(x, sigma, extra)
        return c_skip * x + output

    def score(self, x: Tensor, sigma: Tensor | float, extra: Tensor | None = None) -> Tensor:
        """(denoised - x) / sigma^2, without the loss of precision from adding x at small sigma; extra as in `denoise`.
        """
        c_skip, output = self._parts(x, sigma, extra)
        return ((c_skip - 1) * x + output) / per_item(sigma, x) ** 2

    def _parts(self, x: Tensor, sigma: Tensor | float, extra: Tensor | None) -> tuple[Tensor, Tensor]:
        """c_skip and c_out F(c_in x, c_noise)."""
        sigma = torch.as_tensor(sigma, dtype=x.real.dtype, device=x.device).expand(len(x))
        c_skip, c_out, c_in, c_noise = self.coefficients(sigma)
        channels = to_channels(per_item(c_in, x) * x)
        wanted = network_channels(self.network)
        if wanted is not None and channels.shape[1] != wanted:
            raise InputError(
                f"the prior's network takes {wanted} channels, the images have {channels.shape[1]}: complex images need"
                " a prior of 2, e.g. brain, grey images one of 1, RGB one of 3 (network.channels)"
            )
        reduced = self.precision != torch.float32
        with torch.autocast(x.device.type, self.precision) if reduced else nullcontext():
            output = self.network(channels, c_noise) if extra is None else self.network(channels, c_noise, extra)
        output = unwrapped(output, channels, type(self.network).__name__)
        return per_item(c_skip, x), per_item(c_out, x) * from_channels(output.to(x.real.dtype), x)


def unwrapped(output: Any, like: Tensor, name: str) -> Tensor:
    """The tensor of a network's output, which may be the `sample` of an output class.

    Errors: InputError, with the network's name, if it is not a tensor of the shape of `like`.
    """
    found = output if isinstance(output, Tensor) else getattr(output, "sample", None)
    if not isinstance(found, Tensor) or found.shape != like.shape:
        came = tuple(found.shape) if isinstance(found, Tensor) else type(output).__name__
        raise InputError(f"{name} was given {tuple(like.shape)} and gave {came}; it must give a tensor of that shape")
    return found


def network_channels(network: nn.Module) -> int | None:
    """The number of channels that a network declares, or None."""
    stated = getattr(network, "channels", None)
    return getattr(getattr(network, "config", None), "in_channels", None) if stated is None else stated


def _find(precondition: str | Precondition) -> Precondition:
    if isinstance(precondition, str):
        if precondition not in PRECONDITIONINGS:
            raise unknown_name("prior.precondition", precondition, PRECONDITIONINGS)
        return PRECONDITIONINGS[precondition]
    if not callable(precondition):
        raise InputError(
            f"prior.precondition is {precondition!r}; it is one of {', '.join(PRECONDITIONINGS)}, or a function of"
            " (sigma, sd) that gives (c_skip, c_out, c_in, c_noise)"
        )
    return precondition
