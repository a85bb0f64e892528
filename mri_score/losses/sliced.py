"""Sliced score matching: the score of noisy images without their clean ones, by its slope along random directions."""

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

    In expectation denoising score matching with the same weighting, less a constant of each level. v has unit
    variance in each real component, `projections` of them an item; without `variance_reduced` (v . s)^2 stands for
    |s|^2. The default weighting `noise` is NCSN's sigma^2; it takes a derivative through the network, so that a step
    costs about three of denoising score matching.
    For networks whose slope does not jump: SiLU, ELU and mean pooling (U-Net, NCSN, NCSN++). With ReLU or maximum
    pooling (NCSNv2) the value is right still, but its gradient misses what a parameter does by moving the jumps.
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
        of_score = 2 * sigma**4 * self.weight(sigma, model.sd)  # the weight is that of the denoised image's error
        return of_score * (total if learning else total.detach())

    def _slice(self, score: Tensor, noisy: Tensor, random: Sequence[Generator], learning: bool) -> Tensor:
        v = PROBES[self.probes](noisy, random)
        along = inner(v, score)
        (slope,) = torch.autograd.grad(along.sum(), noisy, create_graph=learning, retain_graph=True)
        energy = squared_norm(score) if self.variance_reduced else along**2
        return energy / 2 + inner(v, slope)
