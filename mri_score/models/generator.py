"""A conditional generator: one network call from an estimate and white noise to a possible image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mri_score.errors import InputError
from mri_score.models.network import NetworkPrior
from mri_score.models.preconditioning import Precondition
from mri_score.numerics.noise import Random, noise_like

GENERATOR = "generator"
"""The preconditioning of generators, which are stored as priors are."""
TYPICAL_ERROR = 0.01
"""Error of a good image per unit of acceleration, in scaled units."""


def expected_error(noise_std: Tensor, acceleration: Tensor) -> Tensor:
    """The level (B,) that a generator gets: sqrt((0.01 R)^2 + R noise_std^2).

    The first term is the usual error of undersampling, the second the noise of an image from 1 / R of the samples.
    noise_std, acceleration R: (B,), noise in scaled units.
    """
    return ((TYPICAL_ERROR * acceleration) ** 2 + acceleration * noise_std**2).sqrt()


class Generator(NetworkPrior):
    """x = r + c_out F(c_in r, c_noise, z): images for an estimate r of a scan, one for each white noise z.

    r is the CG-SENSE image of the scan. It has no score, and no method but `one-step` accepts it. `denoise` is x for
    z = 0, for validation only.
    network: called as network(channels, c_noise, z); its `extra_channels`, at least 1, is the number of channels of z.
    precondition, sd, sigma_min, sigma_max: as in `NetworkPrior`; the levels are those of `expected_error`.
    Errors: InputError for a network without extra channels.
    Reference: Shen and Meinshausen, Engression, JRSS B 2024.
    """

    generates = True

    def __init__(
        self,
        network: nn.Module,
        precondition: str | Precondition = GENERATOR,
        sd: float = 0.3,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        super().__init__(network, precondition, sd, sigma_min, sigma_max)
        self.noise_channels = getattr(network, "extra_channels", 0)
        if self.noise_channels < 1:
            raise InputError("a generator needs channels for its noise; set network.extra_channels, e.g. 2")

    def denoise(self, x: Tensor, sigma: Tensor | float, extra: Tensor | None = None) -> Tensor:
        rows, cols = x.shape[-2:]
        zero = x.real.new_zeros(len(x), self.noise_channels, rows, cols)
        return super().denoise(x, self._within(x, sigma), zero if extra is None else extra)

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        """One image (B, H, W) for each estimate x (B, H, W) with the level sigma () or (B,); one generator per item."""
        z = noise_like(x.real.new_empty(len(x), self.noise_channels, *x.shape[-2:]), random)
        return self.denoise(x, sigma, z)

    def _within(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        level = torch.as_tensor(sigma, dtype=x.real.dtype, device=x.device)
        return level.clamp(self.sigma_min, self.sigma_max)
