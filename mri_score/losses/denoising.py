"""Denoising score matching: add noise of a random level, and compare the denoised with the clean image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Generator, Tensor

from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError, unknown_name
from mri_score.losses.base import Loss, mean_square
from mri_score.models.base import ScoreModel
from mri_score.noise.schedules import Schedule
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import noise_like


def edm(sigma: Tensor, sd: float, schedule: Schedule) -> Tensor:
    """The loss of each level is near 1 at the start of training. Reference: Karras et al., NeurIPS 2022."""
    return (sigma**2 + sd**2) / (sigma * sd) ** 2


def noise(sigma: Tensor, sd: float, schedule: Schedule) -> Tensor:
    """The error of the predicted noise: the loss of NCSN and of the VE, VP and sub-VP processes."""
    return 1 / (2 * sigma**2)


def likelihood(sigma: Tensor, sd: float, schedule: Schedule) -> Tensor:
    """g(t)^2 / 2 times the error of the score: a bound of -log p(x0) for every schedule.

    Reference: Song et al., Maximum likelihood training of score-based diffusion models, NeurIPS 2021.
    """
    return schedule.growth(sigma) / (2 * sigma**4)


WEIGHTINGS: dict[str, Callable[[Tensor, float, Schedule], Tensor]] = {
    "edm": edm,
    "likelihood": likelihood,
    "noise": noise,
}


class AtLevels(Loss):
    """A loss of images with noise of a level that the schedule draws. A subclass defines it in `at`.

    schedule: of the noise levels. weighting: a name of WEIGHTINGS, the weight of the square error of the denoised
    image.
    anneal_power: p in its place weights the error of the score by sigma^p, which is sigma^(p - 4) / 2 for the image;
    NCSN uses p = 2.
    Errors: InputError for an unknown weighting.
    """

    def __init__(self, schedule: Schedule, anneal_power: float | None = None, weighting: str = "edm") -> None:
        if weighting not in WEIGHTINGS:
            raise unknown_name("loss.weighting", weighting, WEIGHTINGS)
        self.schedule = schedule
        self.anneal_power = anneal_power
        self.weighting = weighting

    def __call__(self, model: ScoreModel, batch: TrainingItem, random: Sequence[Generator], step: int) -> Tensor:
        if batch.image is None:
            raise InputError(f"{batch.name} has no image to learn from")
        sigma = self.schedule.draw(random).to(batch.image.real.dtype).to(batch.image.device)
        return self.at(model, batch.image, sigma, random)

    def at(self, model: ScoreModel, image: Tensor, sigma: Tensor, random: Sequence[Generator]) -> Tensor:
        """The loss of each item at its own sigma (B,)."""
        raise NotImplementedError

    def weight(self, sigma: Tensor, sd: float) -> Tensor:
        if self.anneal_power is not None:
            return sigma ** (self.anneal_power - 4) / 2
        return WEIGHTINGS[self.weighting](sigma, sd, self.schedule)


class Denoising(AtLevels):
    """weight(sigma) * mean |D(x0 + sigma n, sigma) - x0|^2 over the real components.

    With LogNormal levels and the default weighting this is EDM's loss. With Geometric, VP or SubVP levels and the
    weighting `noise` or `likelihood` it is the loss of the VE, VP or sub-VP process, divided by the number of
    components.
    Reference: Vincent, A connection between score matching and denoising autoencoders, 2011.
    """

    def at(self, model: ScoreModel, image: Tensor, sigma: Tensor, random: Sequence[Generator]) -> Tensor:
        noisy = image + per_item(sigma, image) * noise_like(image, random)
        return self.weight(sigma, model.sd) * mean_square(model.denoise(noisy, sigma) - image)
