"""Draw a clean image, add the noise of the next level, repeat."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import Random, noise_like
from mri_score.samplers.base import Sampler


class Renoise(Sampler):
    """x <- z + sigma_next n, z the model's draw of x0 given x; the last z is the result.

    Items of a batch may have different levels.
    Reference: Zhang et al., Improving diffusion inverse problem solving with decoupled noise annealing, CVPR 2025.
    """

    own_levels = True

    def step(
        self,
        model: ScoreModel,
        x: Tensor,
        sigma: Tensor | float,
        sigma_next: Tensor | float,
        random: Sequence[Random],
    ) -> Tensor:
        z = model.draw(x, sigma, random)
        last = isinstance(sigma_next, float) and sigma_next == 0
        return z if last else z + per_item(sigma_next, z) * noise_like(z, random)
