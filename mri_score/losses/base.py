"""The base class of losses."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor

from mri_score.data.training_item import TrainingItem
from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import real_size, squared_norm
from mri_score.ranges import Ranged


class Loss(Ranged):
    """One number (B,) for each item of a batch, to be minimised.

    model: the prior in training. batch: images or scans, as the source makes them. random: one generator per item.
    step: number of the training step.
    """

    ranges = "loss"

    def __call__(self, model: ScoreModel, batch: TrainingItem, random: Sequence[Generator], step: int) -> Tensor:
        raise NotImplementedError


def mean_square(x: Tensor) -> Tensor:
    """The mean square of the real components of each item: (B, *shape) -> (B,)."""
    return squared_norm(x) / real_size(x)
