"""Posteriors of projection: the prior's own score, and an iterate that is pulled to the samples after every step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import per_item
from mri_score.numerics.fourier import fft, ifft
from mri_score.numerics.noise import Random, noise_like
from mri_score.operators.base import LinearOperator
from mri_score.operators.sense import Sense
from mri_score.posteriors.base import Posterior


class Projected(Posterior):
    """The prior's score, and after every step one SENSE step towards the samples:

        x <- x + l A^H (y + e - A x),    l from `first` at sigma_max to `last` at sigma_min, linear in log sigma.

    by default those of the default walk. e is none as published; with noisy=True it brings the samples to the noise of
    the iterate, e^2 = sigma^2 - noise_std^2. The scan's noise has no say, so that its draws are no posterior's: what
    the samples see well is fitted to them with their noise, what they see weakly is left to the prior.
    Reference: the hybrid of Chung and Ye, Score-based diffusion models for accelerated MRI, MedIA 2022, here for the
    combined complex image and at every level.
    """

    def __init__(
        self,
        prior: ScoreModel,
        operator: LinearOperator,
        kspace: Tensor,
        noise_std: Tensor | float,
        first: float = 1.0,
        last: float = 0.2,
        sigma_min: float = 0.01,
        sigma_max: float = 5.0,
        noisy: bool = False,
    ) -> None:
        super().__init__(prior, operator, kspace, noise_std)
        self.first, self.last, self.noisy = first, last, noisy
        self.lowest, self.highest = sigma_min, sigma_max

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return self.prior.denoise(x, sigma)

    def project(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        samples = at_level(self.kspace, self.noise_std, sigma, random) if self.noisy else self.kspace
        return x + self.strength(float(sigma)) * self.operator.adjoint(samples - self.operator(x))

    def strength(self, sigma: float) -> float:
        """l at sigma: `last` below the argument sigma_min, `first` above sigma_max."""
        span = math.log(self.highest / self.lowest)
        share = math.log(max(sigma, self.lowest) / self.lowest) / span
        return self.last + (self.first - self.last) * min(share, 1.0)


class CoilProjected(Posterior):
    """The iterate is the coil images; after every step their sampled k-space is replaced by the samples.

        x_c <- F^H ((1 - mask) F x_c + mask (y_c + e)),    e as in `Projected`

    The prior sees coil by coil, folded into its batch: C network calls for one. It sees them times sqrt(C), which gives
    them the energy of a combined image. parts=True hands it real and imaginary parts one after the other, for priors
    of real images: 2 C calls. `combine` is sum_c conj(S_c) x_c, a complex image; the release takes the root sum of
    squares of the coils, which has no phase and a floor of noise.
    Shapes: x (B, C, H, W); `expand` and `combine` go between it and images (B, H, W).
    Errors: InputError for an operator without coil maps and a Cartesian mask.
    Reference: Chung and Ye, Score-based diffusion models for accelerated MRI, MedIA 2022 (SSOS).
    """

    def __init__(
        self,
        prior: ScoreModel,
        operator: LinearOperator,
        kspace: Tensor,
        noise_std: Tensor | float,
        noisy: bool = False,
        parts: bool = False,
    ) -> None:
        if not isinstance(operator, Sense):
            raise InputError(
                f"coil-wise projection replaces Cartesian samples; {type(operator).__name__} is no Sense operator:"
                " use the posterior 'projected'"
            )
        super().__init__(prior, operator, kspace, noise_std)
        self.maps, self.mask = operator.maps, operator.mask
        self.noisy, self.parts = noisy, parts
        self.gain = kspace.shape[1] ** 0.5

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


def at_level(kspace: Tensor, noise_std: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
    """The samples with as much more noise as brings theirs to sigma, none where they have more; an item a generator."""
    kspace = kspace.expand(len(random), *kspace.shape[1:])
    missing = per_item(sigma, kspace) ** 2 - per_item(noise_std, kspace) ** 2
    return kspace + missing.clamp_min(0).sqrt() * noise_like(kspace, random)
