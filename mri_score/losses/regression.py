"""Supervised learning: the true image from the CG-SENSE image of the samples."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor

from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.losses.base import Loss, mean_square
from mri_score.models.base import ScoreModel

TYPICAL_ERROR = 0.01
"""Error of a good image per unit of acceleration, in scaled units; it makes the losses about 1."""


class Regression(Loss):
    """mean |f(estimate, noise_std) - image|^2 / (0.01 R)^2, R the item's acceleration.

    The minimum is the posterior mean E[image | estimate, noise_std]. The weight depends on the mask only, so that it
    does not change the minimum; without it, items of high acceleration would dominate the loss.
    """

    def __call__(self, model: ScoreModel, batch: TrainingItem, random: Sequence[Generator], step: int) -> Tensor:
        if batch.image is None or batch.estimate is None or batch.acceleration is None or batch.noise_std is None:
            raise InputError(
                f"{batch.name}: regression needs images with simulated scans of them; set data.name to simulated_scans"
            )
        error = mean_square(model.denoise(batch.estimate, batch.noise_std) - batch.image)
        return error / (TYPICAL_ERROR * batch.acceleration) ** 2
