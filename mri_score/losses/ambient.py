"""Ambient diffusion: learning from undersampled scans, of which the network sees only a further undersampled part."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor

from mri_score.data.training_item import TrainingItem
from mri_score.losses.base import Loss
from mri_score.losses.denoising import Denoising
from mri_score.losses.splitting import check_kept
from mri_score.losses.undersampled import Scans, denoise_scan, further_mask, kept_share, scans
from mri_score.models.base import ScoreModel
from mri_score.noise.schedules import Schedule
from mri_score.numerics.channels import per_item, real_size, squared_norm
from mri_score.numerics.noise import noise_like


class Ambient(Loss):
    """weight(sigma) * mean |A (D(K^H K (x0 + sigma n), sigma, K) - x0)|^2 with A x0 = y, the scan without noise.

    K is A with fewer lines (or points): each is kept with probability `keep`, the central `centre` ones always. The
    network gets the image of K and its mask; its output is compared with all samples of A. If every point is sampled in
    some scans, the minimum is E[x0 | K (x0 + sigma n), K]. This is the loss of the paper; the published training code
    compares with the samples of K only, so that the network may leave out what it does not see. Noise of the scan is
    learned as if it were part of the image: use `Splitting` for noisy scans.
    schedule: of the noise levels. anneal_power: as in `Denoising`.
    Errors: InputError for a `keep` outside 0 to 1, and for a negative `centre`.
    Reference: Daras et al., Ambient diffusion, NeurIPS 2023; Aali et al., Ambient diffusion posterior sampling,
    ICLR 2025.
    """

    def __init__(
        self, schedule: Schedule, anneal_power: float | None = None, keep: float = 0.8, centre: int = 8
    ) -> None:
        check_kept(keep, centre)
        self.denoising = Denoising(schedule, anneal_power)
        self.keep, self.centre = keep, centre

    def __call__(self, model: ScoreModel, batch: TrainingItem, random: Sequence[Generator], step: int) -> Tensor:
        data = scans(batch, "ambient")
        sigma = self.denoising.schedule.draw(random).to(data.noise_std)
        return self.denoising.weight(sigma, model.sd) * self.error(model, data, sigma, random)

    def error(self, model: ScoreModel, data: Scans, sigma: Tensor, random: Sequence[Generator]) -> Tensor:
        """The mean square error of the samples A D for each item (B,)."""
        share = kept_share((data.mask.shape[-2], data.mask.shape[-1]), self.keep, self.centre)
        kept = further_mask(data.mask, share, random)
        further = data.operator(kept)
        seen = further.adjoint(data.kspace)
        seen = seen + per_item(sigma, seen) * further.normal(noise_like(seen, random))
        image = denoise_scan(model, seen, sigma, kept)
        return squared_norm(data.operator()(image) - data.kspace) / real_size(image)
