"""A network as a score model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from mri_score.errors import InputError, unknown_name
from mri_score.models.base import ScoreModel
from mri_score.models.preconditioning import PRECONDITIONINGS
from mri_score.numerics.channels import from_channels, per_item, to_channels

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""What a network computes in."""


def find_precision(name: str, place: str = "the precision") -> torch.dtype:
    """Errors: InputError for an unknown name."""
    if name not in PRECISIONS:
        raise unknown_name(place, name, PRECISIONS)
    return PRECISIONS[name]


class NetworkPrior(ScoreModel):
    """D(x, sigma) = c_skip x + c_out F(c_in x, c_noise): a network F with one row of the preconditioning table.

    sigma_min and sigma_max: the range that the network was trained on.
    precision: what the network computes in; everything around it keeps the precision of x. bfloat16 halves the time
    on hardware that has it and moves the denoised image by about 1 % of what the network takes away.
    """

    precision: torch.dtype = torch.float32

    def __init__(
        self,
        network: nn.Module,
        precondition: str = "edm",
        sd: float = 0.3,
        sigma_min: float = 0.004,
        sigma_max: float = 250.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.precondition = precondition
        self.sd, self.sigma_min, self.sigma_max = sd, sigma_min, sigma_max

    def learned(self, sigmas: Sequence[float]) -> tuple[float, ...]:
        """Those of some noise levels that it was trained on; the middle of its range where none is."""
        known = tuple(sigma for sigma in sigmas if self.sigma_min <= sigma <= self.sigma_max)
        return known or (float(f"{math.sqrt(self.sigma_min * self.sigma_max):.3g}"),)

    def denoise(self, x: Tensor, sigma: Tensor | float, extra: Tensor | None = None) -> Tensor:
        """E[x0 | x]; `extra` (B, channels, H, W) is what the network sees beside x, such as a sampling mask."""
        c_skip, output = self._parts(x, sigma, extra)
        return c_skip * x + output

    def score(self, x: Tensor, sigma: Tensor | float, extra: Tensor | None = None) -> Tensor:
        """(denoised - x) / sigma^2 with the digits that the sum with x would cost where sigma is small."""
        c_skip, output = self._parts(x, sigma, extra)
        return ((c_skip - 1) * x + output) / per_item(sigma, x) ** 2

    def _parts(self, x: Tensor, sigma: Tensor | float, extra: Tensor | None) -> tuple[Tensor, Tensor]:
        """c_skip and c_out F(c_in x, c_noise)."""
        sigma = torch.as_tensor(sigma, dtype=x.real.dtype, device=x.device).expand(len(x))
        c_skip, c_out, c_in, c_noise = PRECONDITIONINGS[self.precondition](sigma, self.sd)
        channels = to_channels(per_item(c_in, x) * x)
        wanted = getattr(self.network, "channels", channels.shape[1])
        if channels.shape[1] != wanted:
            raise InputError(
                f"the prior's network takes {wanted} channels, the images have {channels.shape[1]}: complex images need"
                " a prior of 2, e.g. brain"
            )
        reduced = self.precision != torch.float32
        with torch.autocast(x.device.type, self.precision) if reduced else nullcontext():
            output = self.network(channels, c_noise) if extra is None else self.network(channels, c_noise, extra)
        return per_item(c_skip, x), per_item(c_out, x) * from_channels(output.to(x.real.dtype), x)
