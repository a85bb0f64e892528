"""Learning from undersampled scans by splitting their samples: some are the input, all are the target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.losses.base import Loss
from mri_score.losses.denoising import Denoising
from mri_score.losses.noisy_score import recorrupt, target_variance
from mri_score.losses.undersampled import MaskLaw, Scans, denoise_scan, further_mask, kept_share, scans
from mri_score.models.base import ScoreModel
from mri_score.noise.schedules import Schedule
from mri_score.numerics.channels import per_item, real_size
from mri_score.numerics.noise import noise_like

LEAST = 2**0.5
"""Lowest level in units of noise_std: there the target on the input points has twice the noise of the data."""


class Splitting(Loss):
    """weight(sigma) * mean |D(u, sigma, K) - x0|^2 in expectation, from samples y = M (F S x0 + s n), noisy or not.

    Lines (or points) of M are kept in K with probability q = `keep`, the central `centre` ones always. The network gets
    u = (K F S)^H (y + sqrt(sigma^2 - s^2) n') and K. Its samples F S D are compared

        on K with the target of `noisy_score`, whose noise is independent of that in u;
        on M outside K with y, divided by the probability (1 - q) p / (1 - p q) of a point to be there,

    and the variance of the noise of both is subtracted. Because F S preserves norms, this is the error of the image. p
    is the density of the mask law; without a law, points outside K have weight 1. The probability is exact for laws
    with independent lines (fastmri-random), and approximate for others; the minimum E[x0 | u, K] does not depend on it.
    Points that no mask samples are never learned; `centre` must not exceed the common centre of all masks. Levels below
    LEAST s are raised to it. With `score_weight` > 0, score matching on the detached image D(., M) at the lowest level
    also trains D for full masks; that image lacks what the samples do not determine.
    schedule, anneal_power: as in `Denoising`. law, acceleration, calibration_lines, axis: of the masks of the data, as
    in `make_mask`; law None: unknown.
    Errors: InputError for a `keep` outside 0 to 1, and for a negative `centre`.
    Reference: Yaman et al., MRM 2020 (SSDU); Millard and Chiew, IEEE Trans. Comput. Imaging 2023, and Clean
    self-supervised MRI reconstruction from noisy, sub-sampled training data with Robust SSDU, 2024.
    """

    def __init__(
        self,
        schedule: Schedule,
        anneal_power: float | None = None,
        keep: float = 0.5,
        centre: int = 8,
        law: str | None = None,
        acceleration: float = 4.0,
        calibration_lines: int | None = None,
        axis: int = -1,
        score_weight: float = 0.0,
    ) -> None:
        check_kept(keep, centre)
        self.denoising = Denoising(schedule, anneal_power)
        self.keep, self.centre, self.score_weight = keep, centre, score_weight
        self.law = MaskLaw(law, acceleration, calibration_lines, axis)

    def __call__(self, model: ScoreModel, batch: TrainingItem, random: Sequence[Generator], step: int) -> Tensor:
        data = scans(batch, "splitting")
        least = (LEAST * data.noise_std).clamp_min(self.denoising.schedule.sigma_min)
        sigma = torch.maximum(self.denoising.schedule.draw(random).to(least), least)
        loss = self.denoising.weight(sigma, model.sd) * self.risk(model, data, sigma, random)
        if not self.score_weight:
            return loss
        with torch.no_grad():
            noisier, _ = recorrupt(data.kspace, data.noise_std, least, noise_like(data.kspace, random))
            image = denoise_scan(model, data.operator().adjoint(noisier), least, data.mask)
        return loss + self.score_weight * self.denoising(model, TrainingItem(batch.name, image=image), random, step)

    def risk(self, model: ScoreModel, data: Scans, sigma: Tensor, random: Sequence[Generator]) -> Tensor:
        """The estimated mean square error of D(u, sigma, K) for each item (B,)."""
        y, s = data.kspace, data.noise_std
        p = self.law.density(data)
        q = kept_share((p.shape[-2], p.shape[-1]), self.keep, self.centre).to(p)
        kept = further_mask(data.mask, q.cpu(), random)
        others = data.mask & ~kept

        noisier, target = recorrupt(y, s, sigma, noise_like(y, random))
        u = data.operator(kept).adjoint(noisier)
        image = denoise_scan(model, u, sigma, kept)
        samples = data.operator()(image)

        weight = torch.where(q < 1, (1 - p * q) / (p * (1 - q)), 1.0) if self.law.law else torch.ones_like(p)
        inside = (samples - target).abs().square() - per_item(2 * target_variance(s, sigma), y)
        outside = (samples - y).abs().square() - per_item(2 * s**2, y)
        error = kept * inside + others * weight * outside
        return error.flatten(1).sum(1) / real_size(image)


def check_kept(keep: float, centre: int) -> None:
    """Errors: InputError for a share `keep` outside 0 to 1, and for a negative number `centre` of lines."""
    if not 0 < keep < 1:
        raise InputError(f"loss.keep is {keep}; it is the share of lines that a further mask keeps, between 0 and 1")
    if centre < 0:
        raise InputError(f"loss.centre is {centre}; give the number of central lines that are always kept, e.g. 8")
