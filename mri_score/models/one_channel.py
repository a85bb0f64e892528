"""Priors of one real channel for complex images: on real and imaginary parts, or on the magnitude."""

from __future__ import annotations

from copy import copy
from typing import TypeVar

import torch
from torch import Tensor

from mri_score.errors import InputError, unknown_name
from mri_score.models.base import ScoreModel
from mri_score.models.network import NetworkPrior, network_channels
from mri_score.numerics.channels import per_item
from mri_score.numerics.fourier import fft, ifft
from mri_score.operators.base import LinearOperator

PHASE_WIDTH = 0.05
"""Standard deviation of the window over k-space from which a scan's phase is taken, as a part of each side."""
IMAGINARY_SD = 0.05
"""Standard deviation of what the estimated phase leaves in the imaginary part, 5 % of a bright pixel."""


Wrapper = TypeVar("Wrapper", bound="_OneChannel")


class _OneChannel(ScoreModel):
    """What both classes below share.

    prior: a prior of real images (B, H, W); it is not changed.
    """

    def __init__(self, prior: ScoreModel) -> None:
        super().__init__()
        self.prior, self.sd, self.about = prior, prior.sd / 2**0.5, {}
        self.sigma_min, self.sigma_max = prior.sigma_min, prior.sigma_max

    def in_precision(self: Wrapper, precision: torch.dtype) -> Wrapper:
        other = copy(self)
        other._modules = {**self._modules, "prior": self.prior.in_precision(precision)}
        return other


class PartsPrior(_OneChannel):
    """D(x) = D_1(Re x) + i D_1(Im x): the real and the imaginary part are two images of the prior.

    A prior of magnitudes has seen no negative values, and no relation between the parts; published methods use it so
    nevertheless. Each denoised image is two evaluations of the network, in one batch.
    Shapes: x (B, H, W) complex.
    Reference: Chung and Ye, Score-based diffusion models for accelerated MRI, MedIA 2022.
    """

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        levels = torch.as_tensor(sigma, dtype=x.real.dtype, device=x.device).expand(len(x))
        parts = self.prior.denoise(torch.cat([x.real, x.imag]), levels.repeat(2))
        return torch.complex(*parts.chunk(2))


class MagnitudePrior(_OneChannel):
    """x0 = exp(i phase) (m + i q): m is an image of the prior, q is Gaussian and small, and the phase is known.

        D(x) = exp(i phase) (D_1(Re z) + i s^2 / (s^2 + sigma^2) Im z),    z = exp(-i phase) x,    s = imaginary_sd.

    The prior's images are magnitudes with this phase. `for_scan` takes the phase of a scan from the centre of its
    k-space; where the true phase is not smooth, the error must fit into q.
    Shapes: x (B, H, W) complex; phase (B or 1, H, W), zero by default.
    Reference: Bydder and Robson, Partial Fourier partially parallel imaging, MRM 2005, for the constraint of the phase.
    """

    turn: Tensor

    def __init__(
        self, prior: ScoreModel, phase: Tensor | None = None, imaginary_sd: float = IMAGINARY_SD
    ) -> None:
        super().__init__(prior)
        if not imaginary_sd >= 0:
            raise InputError(f"imaginary_sd is {imaginary_sd}; it is 0 or more, e.g. {IMAGINARY_SD}")
        phase = torch.zeros(1, 1, 1) if phase is None else phase
        self.imaginary_sd = imaginary_sd
        self.register_buffer("turn", torch.polar(torch.ones_like(phase), phase))

    def for_scan(self, operator: LinearOperator, kspace: Tensor) -> ScoreModel:
        other = copy(self)
        other._buffers = {"turn": smooth_phase_of(operator.cg_sense(kspace))}
        return other

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        turn = self.turn.to(x.dtype)
        z = x * turn.conj()
        variance = per_item(sigma, z.real) ** 2
        share = self.imaginary_sd**2 / (self.imaginary_sd**2 + variance)
        return turn * torch.complex(self.prior.denoise(z.real, sigma), share * z.imag)


def smooth_phase_of(image: Tensor, width: float = PHASE_WIDTH) -> Tensor:
    """exp(i phase) of an image (B, H, W) after a Gaussian window over its k-space; 1 where that is zero."""
    rows, cols = (torch.arange(side, device=image.device) / side - side // 2 / side for side in image.shape[-2:])
    window = torch.exp(-(rows[:, None] ** 2 + cols**2) / (2 * width**2))
    low = ifft(window.to(image.real.dtype) * fft(image))
    return torch.where(low.abs() > 0, torch.sgn(low), torch.ones_like(low))


ONE_CHANNEL = {"parts": PartsPrior, "magnitude": MagnitudePrior}
"""What a prior of one channel may be for complex images, by name."""


def digest_of_use(digest: str, use: str | None = None) -> str:
    """What identifies a prior in its use for complex images. digest: SHA-256 of its file. use: as `for_complex_images`.

    The digest alone stands for the default use, so that results of before keep theirs.
    """
    return f"{digest}-{use}" if use == "magnitude" else digest


def for_complex_images(prior: NetworkPrior, use: str | None = None) -> ScoreModel:
    """A prior for complex images: itself if it has two channels; else one of `ONE_CHANNEL`, by default `parts`.

    Errors: InputError for an unknown use, one with a prior of complex images, and a prior of colour images.
    """
    channels = network_channels(prior.network)
    if use is not None and use not in ONE_CHANNEL:
        raise unknown_name("the use of a prior of one channel", use, ONE_CHANNEL)
    if channels == 1:
        return ONE_CHANNEL[use or "parts"](prior)
    if use is not None:
        raise InputError(f"a prior of {channels} channels is no prior of real images: leave out --one-channel {use}")
    if channels == 3:
        raise InputError("a prior of colour images cannot reconstruct scans; take one of 2 channels (complex) or of 1")
    return prior
