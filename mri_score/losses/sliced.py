"""Sliced score matching: the score of noisy images from its derivatives along random directions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from mri_score.errors import InputError, unknown_name
from mri_score.losses.denoising import AtLevels
from mri_score.models.base import ScoreModel
from mri_score.noise.schedules import Schedule
from mri_score.numerics.channels import inner, per_item, real_size, squared_norm
from mri_score.numerics.noise import noise_like, signs_like

PROBES = {"gaussian": noise_like, "rademacher": signs_like}


class Sliced(AtLevels):
    """weight(sigma) / n * E_v [ |s|^2 / 2 + v . ds/dx v ] at x = x0 + sigma n, over the n real components.

    In expectation it equals denoising score matching with the same weighting, minus a constant for each level. It takes
    a derivative through the network, so that a step costs about three steps of denoising score matching.
    schedule, anneal_power, weighting: as in `AtLevels`; the default weighting `noise` is the sigma^2 of NCSN.
    projections: number of random vectors v per item, of unit variance in each real component. probes: a name of PROBES,
    the distribution of v. variance_reduced: False replaces |s|^2 by (v . s)^2.
    For networks without kinks: SiLU, ELU and mean pooling (U-Net, NCSN, NCSN++). With ReLU or maximum pooling (NCSNv2)
    the value of the loss is right, but its gradient lacks the part that comes from moving the kinks.
    Errors: InputError for unknown probes, and for less than one projection.
    Reference: Song et al., Sliced score matching, UAI 2019; annealed in Song and Ermon, NeurIPS 2019.
    """

    def __init__(
        self,
        schedule: Schedule,
        anneal_power: float | None = None,
        weighting: str = "noise",
        projections: int = 1,
        probes: str = "rademacher",
        variance_reduced: bool = True,
    ) -> None:
        super().__init__(schedule, anneal_power, weighting)
        if probes not in PROBES:
            raise unknown_name("loss.probes", probes, PROBES)
        if projections < 1:
            raise InputError(f"loss.projections is {projections}; sliced score matching needs at least 1")
        self.projections, self.probes, self.variance_reduced = projections, probes, variance_reduced

    def at(self, model: ScoreModel, image: Tensor, sigma: Tensor, random: Sequence[Generator]) -> Tensor:
        learning = torch.is_grad_enabled()
        noisy = (image + per_item(sigma, image) * noise_like(image, random)).detach()
        with torch.enable_grad():
            noisy.requires_grad_()
            score = model.score(noisy, sigma)
            slices = [self._slice(score, noisy, random, learning) for _ in range(self.projections)]
        total = torch.stack(slices).mean(0) / real_size(image)
        of_score = 2 * sigma**4 * self.weight(sigma, model.sd)  # `weight` is for the error of the denoised image
        return of_score * (total if learning else total.detach())

    def _slice(self, score: Tensor, noisy: Tensor, random: Sequence[Generator], learning: bool) -> Tensor:
        v = PROBES[self.probes](noisy, random)
        along = inner(v, score)
        (slope,) = torch.autograd.grad(along.sum(), noisy, create_graph=learning, retain_graph=True)
        energy = squared_norm(score) if self.variance_reduced else along**2
        return energy / 2 + inner(v, slope)
