"""Supervised learning: the image itself from the image that CG-SENSE makes of the samples."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor

from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.losses.base import Loss, mean_square
from mri_score.models.base import ScoreModel

TYPICAL_ERROR = 0.01
"""Of a good image, for each fold of acceleration, in scaled units: brings the losses near 1."""


class Regression(Loss):
    """mean |f(estimate, noise_std) - image|^2 / (0.01 R)^2, R the item's acceleration.

    The minimum is the posterior mean E[image | estimate, noise_std]: a weight that follows from the mask alone leaves
    it where it is, and keeps high accelerations from outshouting low ones.
    """

    def __call__(self, model: ScoreModel, batch: TrainingItem, random: Sequence[Generator], step: int) -> Tensor:
        if batch.image is None or batch.estimate is None or batch.acceleration is None or batch.noise_std is None:
            raise InputError(
                f"{batch.name}: regression needs images with simulated scans of them; set data.name to undersampled"
            )
        error = mean_square(model.denoise(batch.estimate, batch.noise_std) - batch.image)
        return error / (TYPICAL_ERROR * batch.acceleration) ** 2
