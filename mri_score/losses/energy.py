"""The energy score: a generator's draws against the true image, at several scales."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor
from torch.nn import functional

from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.losses.base import Loss, mean_square
from mri_score.models.base import ScoreModel
from mri_score.models.generator import TYPICAL_ERROR, expected_error
from mri_score.numerics.channels import from_channels, to_channels

LEAST = 1e-12
"""Added to squared distances, because a distance of zero has no derivative."""


class EnergyScore(Loss):
    """sum_d [ d(x, g)/2 + d(x, g')/2 - d(g, g')/2 ] / (0.01 R), with two draws g, g' of the generator, R the item's
    acceleration.

    The distances d are, for each block size b, the mean over the blocks of sqrt(b) |mean of the difference in a block
    of b x b pixels|, and the root mean square of the whole difference. Each is of negative type, so that the true
    posterior minimises the expected loss; the last one makes it the only minimum. The first ones calibrate the
    single pixels and blocks, whose distributions hardly change the distance of whole images. sqrt(b) is a choice that
    gives all sizes a share in the gradient.
    blocks: sides of the blocks, in pixels, at most the image's.
    Reference: Gneiting and Raftery, Strictly proper scoring rules, JASA 2007; Shen and Meinshausen, Engression, 2024.
    """

    def __init__(self, blocks: Sequence[int] = (1, 4, 8, 16)) -> None:
        self.blocks = tuple(blocks)

    def __call__(self, model: ScoreModel, batch: TrainingItem, random: Sequence[Generator], step: int) -> Tensor:
        if batch.image is None or batch.estimate is None or batch.acceleration is None or batch.noise_std is None:
            raise InputError(
                f"{batch.name}: the energy score needs images with simulated scans of them; set data.name to"
                " simulated_scans"
            )
        level = expected_error(batch.noise_std, batch.acceleration)
        one, other = (model.draw(batch.estimate, level, random) for _ in range(2))
        away = (self.distance(batch.image, one) + self.distance(batch.image, other)) / 2
        return (away - self.distance(one, other) / 2) / (TYPICAL_ERROR * batch.acceleration)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """The sum of the distances between images a and b (B, H, W): (B,)."""
        difference = a - b
        total = (mean_square(difference) + LEAST).sqrt()
        channels = to_channels(difference)
        for side in self.blocks:
            means = from_channels(functional.avg_pool2d(channels, side), difference)
            sizes = ((means * means.conj()).real + LEAST).sqrt()
            total = total + side**0.5 * sizes.flatten(1).mean(1)
        return total
