"""The loop that all walks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.models.base import LevelError, ScoreModel, Work
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import Random, noise_like
from mri_score.ranges import Ranged

Watch = Callable[[int, Any, Tensor], None]
"""Called after each level with its number, its sigma (a float, or (B,) if items have their own) and the iterate."""


class Diverged(InputError):
    """An iterate that is not finite: item of the batch, and level of the walk."""

    def __init__(self, item: int, level: int, sigma: float) -> None:
        self.item, self.where = item, f"level {level} (sigma {sigma:.4g})"
        super().__init__(
            f"{self.where}: item {item} of the batch is not finite any more;"
            " take smaller steps (more levels), or look for NaN in the scan with: mri-score info"
        )


@dataclass(frozen=True)
class WalkResult:
    """The results of one walk."""

    x: Tensor
    """(B, *shape): the last iterate, a draw or an estimate of x0."""
    mean: Tensor | None = None
    """(B, *image): the walk's own estimate of the posterior mean, from posteriors that compute one."""
    errors: Sequence[LevelError] = ()
    """Misfit of the denoised image to the samples at each level, from posteriors that measure it."""
    work: Work | None = None
    """Network calls and products of the walk; None unless the prior is a `CountedPrior`."""


class Sampler(Ranged):
    """A walk down the noise levels `sigmas`. It holds settings only, no model. A subclass writes one step.

    sigmas: (L,), strictly decreasing; samplers with `own_levels` also accept (L, B), one column per item, so that items
    with different levels share a batch.
    Shapes: `like` (B, *shape) only gives shape, type and device; there is one generator per item; the result is
    (B, *shape).
    A warm start begins near a quick image `start` (B, *shape). Leave out the levels above the error of that image with
    `below`, because the image determines what they would.
    Errors: InputError for sigmas that do not decrease, or are not positive.
    Reference: Chung et al., Come-closer-diffuse-faster, CVPR 2022, for the warm start.
    """

    ranges = "sampler"

    own_levels: bool = False
    """Whether `step` also accepts sigma and sigma_next as (B,)."""

    def __init__(self, sigmas: Tensor) -> None:
        if sigmas.ndim != 1 or not len(sigmas) or not bool((sigmas[:-1] > sigmas[1:]).all() & (sigmas[-1] > 0)):
            raise InputError(
                f"a walk needs one or more positive, strictly decreasing noise levels, not {sigmas.tolist()};"
                " make them with a schedule, e.g. Karras().levels(30)"
            )
        self.sigmas = sigmas

    def below(self, sigma: float) -> Sampler:
        """The same walk from its first level at or below sigma: for a warm start.

        Errors: InputError if there is no such level.
        """
        if not bool((self.sigmas <= sigma).any()):
            raise InputError(f"no level is at or below {sigma:.4g}: the walk ends at {float(self.sigmas[-1]):.4g}")
        walk = copy(self)
        walk.sigmas = self.sigmas[self.sigmas <= sigma]
        return walk

    def with_levels(self, sigmas: Tensor) -> Sampler:
        """The same walk with different levels for each item, `sigmas` (L, B).

        Errors: InputError for a sampler without `own_levels`.
        """
        if not self.own_levels:
            raise InputError(f"{type(self).__name__} walks all items of a batch down the same levels")
        walk = copy(self)
        walk.sigmas = sigmas
        return walk

    def __call__(
        self,
        model: ScoreModel,
        like: Tensor,
        random: Sequence[Random],
        watch: Watch | None = None,
        start: Tensor | None = None,
    ) -> Tensor:
        """The last iterate of `walk`: (B, *shape)."""
        return self.walk(model, like, random, watch, start).x

    @torch.no_grad()
    def walk(
        self,
        model: ScoreModel,
        like: Tensor,
        random: Sequence[Random],
        watch: Watch | None = None,
        start: Tensor | None = None,
    ) -> WalkResult:
        """Walk a score model from noise, or from `start`, down all levels to an image.

        model: a prior, or a posterior of the same items. like: (B, *shape), gives shape, type and device only.
        random: one CPU generator per item. watch: called after each level. start: a quick image (B, *shape) to begin
        near. Returns: the last iterate, and what the model gathered during the walk.
        Errors: `Diverged`, an InputError, for an iterate that is not finite.
        """
        levels: list[Any] = [sigma if sigma.ndim else float(sigma) for sigma in self.sigmas] + [0.0]
        model.begin_walk()
        x = self.begin(model, torch.zeros_like(like) if start is None else start.expand_as(like), levels[0], random)
        for level, (sigma, sigma_next) in enumerate(zip(levels, levels[1:], strict=False)):
            x = self.step(model, x, sigma, sigma_next, random)
            x = model.project(x, sigma_next, random)
            finite = torch.isfinite(x.abs()).flatten(1).all(1)
            if not bool(finite.all()):
                item = int((~finite).nonzero()[0])
                raise Diverged(item, level, float(torch.as_tensor(sigma).expand(len(x))[item]))
            if watch is not None:
                watch(level, sigma, x)
        found = model.end_walk()
        return WalkResult(x, found.mean, found.errors, found.work)

    def begin(self, model: ScoreModel, guess: Tensor, sigma: float, random: Sequence[Random]) -> Tensor:
        """The iterate (B, *shape) at the first level sigma, about a guess of the image: zero without a warm start.

        model: the score model of the walk. random: one generator per item.
        """
        return guess + per_item(sigma, guess) * noise_like(guess, random)

    def step(
        self, model: ScoreModel, x: Tensor, sigma: float, sigma_next: float, random: Sequence[Random]
    ) -> Tensor:
        """From x (B, *shape) at sigma to the iterate at sigma_next, which is 0 at the end of the walk.

        model: the score model of the walk. random: one generator per item. With `own_levels`, sigma and sigma_next may
        be (B,).
        """
        raise NotImplementedError


def has_parts(model: ScoreModel, *names: str) -> bool:
    """Whether a model has these attributes and methods, as samplers of some posteriors need them.

    In place of runtime protocols, which since Python 3.12 do not see the submodules of torch modules, such as `prior`.
    """
    return all(hasattr(model, name) for name in names)
