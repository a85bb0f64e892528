"""Posteriors by projection: the score is the prior's; after every step the iterate is moved towards the samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import InitVar, dataclass

import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.numerics.channels import per_item
from mri_score.numerics.fourier import fft, ifft
from mri_score.numerics.noise import Random, noise_like
from mri_score.operators.sense import Sense
from mri_score.posteriors.base import Posterior


@dataclass(eq=False, repr=False)
class Projected(Posterior):
    """The prior's score, and after every step one SENSE step towards the samples:

        x <- x + l A^H (y + e - A x),    l from `first` at sigma_max to `last` at sigma_min, linear in log sigma.

    first, last: l at both ends. sigma_min, sigma_max: the ends; the defaults are those of the default walk.
    noisy: False as published, with e = 0; True adds noise e of variance sigma^2 - noise_std^2, which gives the samples
    the noise of the iterate.
    Bias: not a posterior, because l does not depend on noise_std. What the samples measure well is fitted including its
    noise; what they measure weakly is left to the prior.
    Reference: the hybrid of Chung and Ye, Score-based diffusion models for accelerated MRI, MedIA 2022, here for the
    combined complex image and at every level.
    """

    first: float = 1.0
    last: float = 0.2
    sigma_min: InitVar[float] = 0.01  # not fields: every score model has attributes of these names, its own range
    sigma_max: InitVar[float] = 5.0
    noisy: bool = False

    def __post_init__(self, lowest: float, highest: float) -> None:
        super().__post_init__()
        self.lowest, self.highest = lowest, highest

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return self.prior.denoise(x, sigma)

    def project(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        samples = at_level(self.kspace, self.noise_std, sigma, random) if self.noisy else self.kspace
        return x + self.strength(float(sigma)) * self.operator.adjoint(samples - self.operator(x))

    def strength(self, sigma: float) -> float:
        """l at sigma: `last` below the option sigma_min, `first` above the option sigma_max."""
        span = math.log(self.highest / self.lowest)
        share = math.log(max(sigma, self.lowest) / self.lowest) / span
        return self.last + (self.first - self.last) * min(share, 1.0)


@dataclass(eq=False, repr=False)
class CoilProjected(Posterior):
    """The iterate is the coil images; after every step the samples replace their sampled k-space.

        x_c <- F^H ((1 - mask) F x_c + mask (y_c + e)),    e as in `Projected`

    The coils are folded into the batch of the prior: C network calls for one. They are multiplied by sqrt(C), so that
    each has the energy of a combined image. `combine` is sum_c conj(S_c) x_c, a complex image; the published code
    takes the root sum of squares of the coils, which loses the phase and has a noise floor.
    Shapes: x (B, C, H, W); `expand` and `combine` convert from and to images (B, H, W).
    noisy: as in `Projected`. parts: True gives real and imaginary parts to the prior one after the other, for priors
    of real images: 2 C calls.
    Errors: InputError for an operator without coil maps and a Cartesian mask.
    Reference: Chung and Ye, Score-based diffusion models for accelerated MRI, MedIA 2022 (SSOS).
    """

    noisy: bool = False
    parts: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.operator, Sense):
            raise InputError(
                f"coil-wise projection replaces Cartesian samples; {type(self.operator).__name__} is no Sense operator:"
                " use the posterior 'projected'"
            )
        super().__post_init__()
        self.maps, self.mask = self.operator.maps, self.operator.mask
        self.gain = self.kspace.shape[1] ** 0.5

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        x = torch.view_as_real(x).movedim(-1, 2) if self.parts else x
        folded = x.flatten(0, 2 if self.parts else 1)
        sigma = torch.as_tensor(sigma, dtype=folded.real.dtype, device=x.device).expand(len(x))
        denoised = self.prior.denoise(folded, sigma.repeat_interleave(len(folded) // len(x))).reshape(x.shape)
        return torch.view_as_complex(denoised.movedim(2, -1).contiguous()) if self.parts else denoised

    def project(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        samples = self.gain * self.kspace
        if self.noisy:
            samples = at_level(samples, self.gain * self.noise_std, sigma, random)
        k = fft(x)
        return ifft(k + self.mask * (samples - k))

    def expand(self, image: Tensor) -> Tensor:
        return self.gain * self.maps * image.unsqueeze(1)

    def combine(self, x: Tensor) -> Tensor:
        return (self.maps.conj() * x).sum(1) / self.gain


def at_level(kspace: Tensor, noise_std: Tensor | float, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
    """The samples (B, *samples) with added noise, so that their noise is sigma; unchanged where it is larger already.

    kspace: (B, *samples) or of one item. noise_std, sigma: () or (B,). random: one generator per item.
    """
    kspace = kspace.expand(len(random), *kspace.shape[1:])
    missing = per_item(sigma, kspace) ** 2 - per_item(noise_std, kspace) ** 2
    return kspace + missing.clamp_min(0).sqrt() * noise_like(kspace, random)
