"""Learning from noisy images: Stein's unbiased risk estimate, and score matching on the denoised images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Generator, Tensor

from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.losses.base import Loss, mean_square
from mri_score.losses.denoising import Denoising
from mri_score.models.base import ScoreModel
from mri_score.noise.schedules import Schedule
from mri_score.numerics.channels import real_size
from mri_score.numerics.divergence import value_and_divergence

STEP = 0.1
"""Step of finite differences, in units of the noise. With 0.01, gradients of NCSNv2, which has kinks, are three times
noisier.
"""


class SureRisk:
    """SURE(y) = mean |D(y) - y|^2 + 2 s^2 div D(y) / n - s^2, the mean square error of D(y, s) in expectation.

    The error is relative to the clean image, which is not needed. y has noise of s = noise_std in each of its n real
    components; noise_std may differ between items. Computed in float32, because bfloat16 is too coarse for differences.
    step: of finite differences, in units of noise_std; None: exact products with the Jacobian, for networks without
    kinks (the U-Net, not NCSNv2). probes: number of random directions for the divergence.
    Errors: InputError for a step that is not positive, and for less than one probe.
    Reference: Stein, Ann. Stat. 1981; Ramani, Blu and Unser, IEEE Trans. Image Process. 2008.
    """

    def __init__(self, step: float | None = STEP, probes: int = 1) -> None:
        if step is not None and step <= 0:
            raise InputError(f"loss.step is {step}; give a positive number of noise_std, e.g. 0.1, or null: exact")
        if probes < 1:
            raise InputError(f"loss.probes is {probes}; a divergence needs at least 1")
        self.step, self.probes = step, probes

    def __call__(
        self, model: ScoreModel, noisy: Tensor, noise_std: Tensor, random: Sequence[Generator]
    ) -> tuple[Tensor, Tensor]:
        """The estimated mean square error of each item (B,), and the denoised images."""
        denoised, spread = self.parts(lambda x: model.denoise(x, noise_std), noisy, noise_std, random)
        return mean_square(denoised - noisy) + noise_std**2 * (2 * spread / real_size(noisy) - 1), denoised

    def parts(
        self, f: Callable[[Tensor], Tensor], noisy: Tensor, noise_std: Tensor, random: Sequence[Generator]
    ) -> tuple[Tensor, Tensor]:
        """f(noisy) and the divergence of f there (B,)."""
        with full_precision(noisy.device.type):
            step = None if self.step is None else self.step * noise_std
            return value_and_divergence(f, noisy, step, random, self.probes)


class Sure(Loss):
    """SURE of the denoiser at each item's own noise_std, plus denoising score matching on its detached result.

    `SureRisk` is divided by noise_std^2, so that the size of the loss does not depend on the noise level.
    schedule: of the noise levels. anneal_power: as in `Denoising`. score_weight: of the score matching, whose gradient
    does not flow into the denoised image. step, probes: as in `SureRisk`.
    """

    def __init__(
        self,
        schedule: Schedule,
        anneal_power: float | None = None,
        score_weight: float = 1.0,
        step: float | None = STEP,
        probes: int = 1,
    ) -> None:
        self.denoising = Denoising(schedule, anneal_power)
        self.score_weight = score_weight
        self.risk = SureRisk(step, probes)

    def __call__(self, model: ScoreModel, batch: TrainingItem, random: Sequence[Generator], step: int) -> Tensor:
        noisy, noise_std = noisy_images(batch, "SURE")
        risk, denoised = self.risk(model, noisy, noise_std, random)
        clean = TrainingItem(name=batch.name, image=denoised.detach())
        return risk / noise_std**2 + self.score_weight * self.denoising(model, clean, random, step)


def noisy_images(batch: TrainingItem, loss: str) -> tuple[Tensor, Tensor]:
    """The images of a batch, and their noise_std as (B,). loss: its name, for messages."""
    if batch.image is None or batch.noise_std is None:
        raise InputError(f"{batch.name}: {loss} needs noisy images and their noise_std; set data.noise to true")
    return batch.image, batch.noise_std.expand(len(batch.image))


@contextmanager
def full_precision(device: str) -> Iterator[None]:
    """A context without autocast and TensorFloat-32, whose rounding errors are as large as a finite difference."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
