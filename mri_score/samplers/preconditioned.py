"""Preconditioned, unadjusted Langevin dynamics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

from torch import Tensor

from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.numerics.noise import Random
from mri_score.samplers.base import Sampler, has_parts


class Curved(Protocol):
    """A posterior with steps that are preconditioned by its own curvature, such as `unannealed`."""

    prior: ScoreModel

    def begin(self, guess: Tensor, sigma: float, random: Sequence[Random]) -> Tensor:
        """A draw of the model whose prior is white noise of level sigma about a guess."""

    def langevin(self, x: Tensor, sigma: float, step_size: float, random: Sequence[Random]) -> Tensor:
        """One Langevin step, preconditioned by the curvature at sigma."""


class Preconditioned(Sampler):
    """`repeats` times at each level, a Langevin step of size g that the model preconditions by its curvature M:

        M x' = M x + g score(x) + sqrt(2 g) M^(1/2) n.

    Steps and first iterate need the forward operator, so that the model computes both.
    step_size: g. denoise: end with the prior's D(x, sigma), which removes the noise of the last level, and with it some
    of the spread of the draws. The published code writes both images.
    Errors: InputError for a model without such steps.
    Reference: Blumenthal et al., preconditioned unadjusted Langevin, 2025, arXiv 2512.05791 (`sample` of BART).
    """

    def __init__(self, sigmas: Tensor, repeats: int = 1, step_size: float = 0.5, denoise: bool = False) -> None:
        super().__init__(sigmas)
        self.repeats, self.step_size, self.denoise = repeats, step_size, denoise

    def begin(self, model: ScoreModel, guess: Tensor, sigma: float, random: Sequence[Random]) -> Tensor:
        return _curved(model).begin(guess, sigma, random)

    def step(
        self, model: ScoreModel, x: Tensor, sigma: float, sigma_next: float, random: Sequence[Random]
    ) -> Tensor:
        for _ in range(self.repeats):
            x = _curved(model).langevin(x, sigma, self.step_size, random)
        return _curved(model).prior.denoise(x, sigma) if self.denoise and not sigma_next else x


def _curved(model: ScoreModel) -> Curved:
    if not has_parts(model, "prior", "begin", "langevin"):
        raise InputError(
            f"{type(model).__name__} has no preconditioned step; walk the posterior 'unannealed',"
            " or this model with the sampler 'langevin'"
        )
    return cast(Curved, model)
