"""Learning from undersampled scans, noisy or not, by splitting their samples: some go in, all are asked for."""

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
"""The least level in units of noise_std: there the noise of the target on the points that go in is twice the data's."""


class Splitting(Loss):
    """weight(sigma) * mean |D(u, sigma, K) - x0|^2 in expectation, from samples y = M (F S x0 + s n) alone.

    Lines (or points) of M are kept in K with probability q = `keep`, the central `centre` ones always. The network
    sees u = (K F S)^H (y + sqrt(sigma^2 - s^2) n') and K; its samples F S D are compared

        on K with the target of `noisy_score`, whose noise is independent of that in u;
        on M outside K with y, times the inverse of the probability (1 - q) p / (1 - p q) to be there,

    and the noise of both is taken away: as F S keeps lengths, this is the error of the image. p is the density of
    `law`; without a law the points outside K count 1. That probability is exact for laws whose lines are drawn
    independently (fastmri-random) and near for others; where E[x0 | u, K] has its minimum does not depend on it.
    Points that no mask has are never learned; `centre` must not exceed what every mask has. Levels below LEAST s are
    raised to it. With `score_weight`, score matching on D(., M) at the least level, detached, trains D for full masks
    too: an image that has lost what the samples do not tell.
    Reference: Yaman et al., MRM 2020 (SSDU); Millard and Chiew, IEEE Trans. Comput. Imaging 2023, and Clean
    self-supervised MRI reconstruction from noisy, sub-sampled training data with Robust SSDU, 2024.
    """

    def __init__(
        self,
        schedule: Schedule,
        anneal_power: float | None = None,
        keep: float = 0.5,
        centre: int = 8,
        law: str | None = None,               # the masks of the data, by a name of data/masks.py; None: not weighted
        acceleration: float = 4.0,            # these three as the law takes them
        calibration_lines: int | None = None,
        axis: int = -1,
        score_weight: float = 0.0,
    ) -> None:  # fmt: skip
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
    if not 0 < keep < 1:
        raise InputError(f"loss.keep is {keep}; it is the share of lines that a further mask keeps, between 0 and 1")
    if centre < 0:
        raise InputError(f"loss.centre is {centre}; give the number of central lines that are always kept, e.g. 8")
