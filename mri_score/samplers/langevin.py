"""Annealed Langevin dynamics."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.numerics.noise import Random, noise_like
from mri_score.samplers.base import Sampler


class Langevin(Sampler):
    """`repeats` times at each level: x <- x + a score(x) + sqrt(2 a) n, a = step_size sigma^2; at the end D(x).

    step_size: the published epsilon / sigma_L^2, without unit, below 1. denoise: end with D(x); False returns x.
    start_std: standard deviation of the noise that the walk starts with; None: the first level, from which annealing
    starts. Walks at a single small level need more, such as 0.29, that of numbers uniform in [0, 1].
    Errors: InputError for a start_std that is not positive.
    Reference: Song and Ermon, Generative modeling by estimating gradients of the data distribution, NeurIPS 2019;
    the final denoising after Jolicoeur-Martineau et al., ICLR 2021.
    """

    def __init__(
        self,
        sigmas: Tensor,
        repeats: int = 3,
        step_size: float = 0.1,
        denoise: bool = True,
        start_std: float | None = None,
    ) -> None:
        super().__init__(sigmas)
        if start_std is not None and not start_std > 0:
            raise InputError(f"start_std of the Langevin walk is {start_std}; it is positive, e.g. 0.29")
        self.repeats, self.step_size, self.denoise, self.start_std = repeats, step_size, denoise, start_std

    def begin(self, model: ScoreModel, guess: Tensor, sigma: float, random: Sequence[Random]) -> Tensor:
        return super().begin(model, guess, sigma if self.start_std is None else self.start_std, random)

    def step(
        self, model: ScoreModel, x: Tensor, sigma: float, sigma_next: float, random: Sequence[Random]
    ) -> Tensor:
        a = self.step_size * sigma**2
        for _ in range(self.repeats):
            x = x + a * model.score(x, sigma) + (2 * a) ** 0.5 * noise_like(x, random)
        return model.denoise(x, sigma) if self.denoise and not sigma_next else x
