"""The score model: the distribution of images at every noise level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from mri_score.errors import InputError
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import Random
from mri_score.operators.base import LinearOperator

Module = TypeVar("Module", bound=nn.Module)
Model = TypeVar("Model", bound="ScoreModel")


@dataclass(frozen=True)
class Work:
    """The work of walks, summed over them."""

    calls: int = 0
    """Network evaluations."""
    products: int = 0
    """Vector-Jacobian products of the network; each takes about the time of one evaluation."""
    iterations: int = 0
    """Iterations of conjugate gradient, with one application of A^H A each."""

    @property
    def evaluations(self) -> int:
        """Calls and products, which take equal time (0.9 to 1 of a call, measured for the bundled U-Nets on a CPU)."""
        return self.calls + self.products

    def __add__(self, other: Work) -> Work:
        return Work(self.calls + other.calls, self.products + other.products, self.iterations + other.iterations)


class LevelError(NamedTuple):
    """Misfit of the denoised image to the samples at a level, as a mean square error of its real components."""

    sigma: Tensor | float
    """() or (B,)."""
    error: Tensor
    """(B,): beyond the noise, so that it may fall below zero."""
    noise: Tensor
    """(B,): what was taken off for the noise."""


@dataclass(frozen=True)
class Gathered:
    """Results that a model has gathered during one walk."""

    mean: Tensor | None = None
    """(B, *image): the walk's estimate of the posterior mean, from posteriors that make one."""
    errors: Sequence[LevelError] = ()
    """One for each level, from posteriors that measure them."""
    work: Work | None = None
    """Work of the walk; None unless the prior is a `CountedPrior`."""


class ScoreModel(nn.Module):
    """The distribution of x = x0 + sigma n at every sigma, n of unit variance in each real component.

    Tweedie's formula gives each from the other, score = (denoised - x) / sigma^2: a subclass writes `denoise` or
    `score`, and sets `sd`.
    Shapes: x (B, *shape), real or complex; sigma () or (B,). Images are in the prior's scale: the 99th percentile of
    their magnitude is about 1.
    """

    sd: float
    """Standard deviation of each real component of x0, about zero: sqrt(mean |x0|^2 / 2) for complex images."""
    sigma_min: float = 0.0
    """The smallest noise level at which the model is valid; no walk asks for a smaller one."""
    sigma_max: float = float("inf")
    """The largest noise level at which the model is valid; no walk asks for a larger one."""
    any_orientation: bool = False
    """True: an image (rows, cols) is as probable flipped, turned by 90 degrees, or multiplied by a global phase. A
    network that was trained on such images follows this nearly, and walks may ask it in random orientations."""
    generates: bool = False
    """True: no score model but a `Generator`, whose `draw` makes images from the estimate of a scan."""
    about: Mapping[str, Any] = MappingProxyType({})
    """Information from the file of a prior: its data, training and validation errors."""

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """The gradient of log p_sigma at x, by real components: (B, *shape)."""
        return (self.denoise(x, sigma) - x) / per_item(sigma, x) ** 2

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """E[x0 | x], the denoised image: (B, *shape)."""
        return x + per_item(sigma, x) ** 2 * self.score(x, sigma)

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        """One draw of x0 given x (B, *shape), or the method's approximation of it.

        random: one generator an item.
        Errors: InputError for a model without a draw.
        """
        raise InputError(f"{type(self).__name__} has no draw of its own: walk it with a sampler that uses its score")

    def begin_walk(self) -> None:
        """Called as a walk begins: a model that gathers something along a walk starts anew."""

    def end_walk(self) -> Gathered:
        """Called as a walk ends: what the model has gathered since `begin_walk`. It keeps none of it."""
        return Gathered()

    def project(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        """The iterate x (B, *shape) made to satisfy the model's constraints at sigma; x itself for most models.

        random: one generator an item.
        """
        return x

    def for_scan(self, operator: LinearOperator, kspace: Tensor) -> ScoreModel:
        """The model for walks with the data of a scan; itself, unless it takes something from them, such as a phase.

        operator: the forward operator of the items. kspace: (B, *samples), their measured k-space.
        """
        return self

    def in_precision(self: Model, precision: torch.dtype) -> Model:
        """The same model, its network computing in `precision`; itself where there is no network. It is not changed."""
        return self


def on_device(module: Module, device: torch.device) -> Module:
    """The module where its numbers are on that device already, or else a copy that is there: it is never changed."""
    place = torch.empty(0, device=device).device  # cuda is cuda:0, or whichever is current
    if all(tensor.device == place for tensor in chain(module.parameters(), module.buffers())):
        return module
    return deepcopy(module).to(place)


def clamped(model: ScoreModel, sigma: float) -> float:
    """sigma, or the end of the model's range of noise levels that is nearest to it."""
    return min(max(sigma, model.sigma_min), model.sigma_max)
