"""The network evaluations of a walk, known before it starts: those of the same walk over an image of a few pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mri_score.data.acquisition import Acquisition
from mri_score.generation import GenerationOptions, inpaint, sample_prior
from mri_score.models.base import ScoreModel, Work
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import Random, generators, noise_like
from mri_score.reconstruction import SIGMA_END, WalkOptions, sample_posterior

SIDE = 8
"""Rows and columns of the small image."""


def draw_work(options: WalkOptions, prior: ScoreModel, coils: int = 4) -> Work:
    """Network calls and products with its Jacobian for one draw.

    options: method, levels, warm start and further options of the walk. prior: gives the range of noise levels. coils:
    of the scan, for methods that walk coil images.
    The number of levels below a fixed one can depend on the noise of a scan; noise of SIGMA_END, in scaled units, is
    assumed. Solvers that may stop early are assumed not to.
    Errors: InputError for options that the walk refuses.
    """
    y = noise_like(torch.zeros(1, coils, SIDE, SIDE, dtype=torch.complex64), generators(0, "work"))
    mask = (torch.arange(SIDE) % 3 > 0)[None, None, None]
    maps = torch.full_like(y, coils**-0.5)
    scan = Acquisition("work", y * mask, maps, mask, noise_std=torch.tensor([SIGMA_END]))
    once = replace(options, samples=1, device="cpu")
    return sample_posterior(scan, _Filter(prior), once, slices=[0]).work


def sample_work(settings: GenerationOptions, prior: ScoreModel, inpainting: bool = False) -> int:
    """Network evaluations, as `Work.evaluations` counts them, for one sample of a prior, or for one completed image.

    settings: method, levels and further options of the walk. prior: gives the range of noise levels. inpainting: which
    of the two. Not for methods whose tolerance decides the number of evaluations.
    Errors: InputError for options that the walk refuses.
    """
    told: list[int] = []
    once, stand_in = replace(settings, device="cpu", mean=0.0), _Filter(prior)
    if inpainting:
        known = torch.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 3 > 0
        image = torch.ones(SIDE, SIDE, dtype=torch.complex64)
        inpaint(stand_in, image, known, 1, once, progress=told.append)
    else:
        sample_prior(stand_in, 1, (SIDE, SIDE), once, progress=told.append)
    return sum(told)


class _Filter(ScoreModel):
    """The exact denoiser of independent pixels of unequal variance: solvers over it take all of their iterations."""

    def __init__(self, prior: ScoreModel) -> None:
        super().__init__()
        self.sd, self.sigma_min, self.sigma_max = prior.sd, prior.sigma_min, prior.sigma_max
        self.generates = prior.generates

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        variance = self.sd**2 * torch.logspace(-3, 1, x[0].numel(), dtype=x.real.dtype).reshape(x.shape[1:])
        return x * (variance / (variance + per_item(sigma, x) ** 2))

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        return self.denoise(x, sigma)
