"""What every loss is."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor

from mri_score.data.training_item import TrainingItem
from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import real_size, squared_norm


class Loss:
    """One number for each item of a batch; `random` holds one generator an item, `step` is the training step."""

    def __call__(self, model: ScoreModel, batch: TrainingItem, random: Sequence[Generator], step: int) -> Tensor:
        raise NotImplementedError


def mean_square(x: Tensor) -> Tensor:
    """The mean square of the real components of each item: (B, *shape) -> (B,)."""
    return squared_norm(x) / real_size(x)
