"""The score model: the law of images at every noise level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Generator, Tensor, nn

from mri_score.errors import InputError
from mri_score.numerics.channels import per_item


class ScoreModel(nn.Module):
    """The law of x = x0 + sigma n at every sigma, n of unit variance in each real component.

    Tweedie's formula ties the two faces together, score = (denoised - x) / sigma^2: a subclass writes one of them.
    Shapes: x (B, *shape), real or complex; sigma () or (B,).
    """

    sd: float
    """Standard deviation of each real component of x0, about zero: sqrt(mean |x0|^2 / 2) for complex images."""
    sigma_min: float = 0.0
    """The smallest level that it knows."""
    about: Mapping[str, Any] = MappingProxyType({})
    """What the file of a prior says about it: its data, training, validation errors."""

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """The gradient of log p_sigma at x, by real components."""
        return (self.denoise(x, sigma) - x) / per_item(sigma, x) ** 2

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """E[x0 | x]."""
        return x + per_item(sigma, x) ** 2 * self.score(x, sigma)

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Generator]) -> Tensor:
        """One draw of x0 given x, or the method's approximation of it."""
        raise InputError(f"{type(self).__name__} has no draw of its own: walk it with a sampler that uses its score")

    def begin_walk(self) -> None:
        """Called as a walk begins: a model that gathers something along it starts anew."""

    def project(self, x: Tensor, sigma: Tensor | float, random: Sequence[Generator]) -> Tensor:
        """What the iterate must satisfy; nothing, for most models."""
        return x
