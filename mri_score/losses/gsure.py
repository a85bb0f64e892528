"""Generalised SURE: the error in the samples, estimated from noisy undersampled scans."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from mri_score.data.training_item import TrainingItem
from mri_score.losses.base import Loss
from mri_score.losses.denoising import Denoising
from mri_score.losses.sure import STEP, SureRisk
from mri_score.losses.undersampled import MaskLaw, Scans, denoise_scan, scans
from mri_score.models.base import ScoreModel
from mri_score.noise.schedules import Schedule
from mri_score.numerics.channels import per_item, real_size
from mri_score.numerics.noise import noise_like


class Gsure(Loss):
    """weight(sigma) * an estimate of the error of D(A^H y, sigma, M) in the samples, A = M F S, y = A x0 + s n:

        mean_w |A D - y|^2 + 2 sigma^2 div_y(w A D) / n - sigma^2 w-mean  ->  |A (D - x0)|^2_w / n.

    The error is projected onto the samples in k-space, where the projection is the mask. The image-space form of the
    reference needs the inverse of A^H A, which is too ill-conditioned with many coils. The weights w are 1 / p with p
    the density of the mask law, so that on average over masks all of k-space has equal weight; without a law they are
    1. For full scans the loss is SURE. Points that a scan does not sample are learned only from the masks of other
    scans. The level is each scan's noise_std (at least sigma_min). The other levels are trained by score matching on
    the denoised, detached image with full masks, weighted by `score_weight`. every_level=True uses levels of the
    schedule
    from noise_std on instead, with noise added to the samples: Kawar et al.; the noise of the estimate increases with
    the level.
    schedule: of the noise levels. anneal_power: as in `Denoising`. law, acceleration, calibration_lines, axis: of the
    masks of the data, as in `make_mask`. step, probes: as in `SureRisk`.
    Reference: Eldar, Generalized SURE for exponential families, IEEE Trans. Signal Process. 2009; Kawar et al.,
    GSURE-based diffusion model training with corrupted data, TMLR 2024; Aali et al., Robust multi-coil MRI
    reconstruction via self-supervised denoising, MRM 2025; weights: Aggarwal et al., ENSURE, IEEE TMI 2023.
    """

    def __init__(
        self,
        schedule: Schedule,
        anneal_power: float | None = None,
        score_weight: float = 1.0,
        every_level: bool = False,
        law: str | None = None,
        acceleration: float = 4.0,
        calibration_lines: int | None = None,
        axis: int = -1,
        step: float | None = STEP,
        probes: int = 1,
    ) -> None:
        self.denoising = Denoising(schedule, anneal_power)
        self.score_weight, self.every_level = score_weight, every_level
        self.law = MaskLaw(law, acceleration, calibration_lines, axis)
        self.estimate = SureRisk(step, probes)

    def __call__(self, model: ScoreModel, batch: TrainingItem, random: Sequence[Generator], step: int) -> Tensor:
        data = scans(batch, "gsure")
        sigma = data.noise_std.clamp_min(self.denoising.schedule.sigma_min)
        if self.every_level:
            sigma = torch.maximum(self.denoising.schedule.draw(random).to(sigma), sigma)
        risk, noisier = self.risk(model, data, sigma, random)
        loss = self.denoising.weight(sigma, model.sd) * risk
        if self.every_level or not self.score_weight:
            return loss
        with torch.no_grad():
            image = denoise_scan(model, data.operator().adjoint(noisier), sigma, data.mask)
        return loss + self.score_weight * self.denoising(model, TrainingItem(batch.name, image=image), random, step)

    def risk(self, model: ScoreModel, data: Scans, sigma: Tensor, random: Sequence[Generator]) -> tuple[Tensor, Tensor]:
        """The estimated mean square error in the samples (B,), and the samples with noise of sigma."""
        operator, weight = data.operator(), 1 / self.law.density(data)
        added = torch.sqrt((sigma**2 - data.noise_std**2).clamp_min(0))
        noisier = data.kspace + per_item(added, data.kspace) * (data.mask * noise_like(data.kspace, random))

        def weighted(y: Tensor) -> Tensor:
            return weight * operator(denoise_scan(model, operator.adjoint(y), sigma, data.mask))

        samples, spread = self.estimate.parts(weighted, noisier, sigma, random)
        misfit = (samples / weight - noisier).abs().square() - per_item(2 * sigma**2, noisier)
        error = (weight * data.mask * misfit).flatten(1).sum(1) + 2 * sigma**2 * spread
        return error / real_size(noisier[:, 0]), noisier
