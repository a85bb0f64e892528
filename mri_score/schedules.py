"""Noise levels: ladders for walks, and draws for training. sigma is the only noise coordinate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from mri_score.errors import InputError
from mri_score.numerics.noise import uniform


class Schedule:
    """A range of noise levels. A subclass says how a fraction u in [0, 1], from noisy to clean, maps to sigma."""

    def __init__(self, sigma_min: float, sigma_max: float) -> None:
        if not 0 < sigma_min < sigma_max:
            raise InputError(f"noise levels need 0 < sigma_min < sigma_max; got {sigma_min} and {sigma_max}")
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def sigma(self, u: Tensor) -> Tensor:
        raise NotImplementedError

    def levels(self, n: int) -> Tensor:
        """n decreasing levels, sigma_max and sigma_min included: (n,), float64."""
        if n < 2:
            raise InputError(f"a walk needs at least 2 noise levels; got {n}")
        levels = self.sigma(torch.linspace(0, 1, n, dtype=torch.float64))
        levels[0], levels[-1] = self.sigma_max, self.sigma_min  # powers miss them by a rounding
        return levels

    def draw(self, random: Sequence[Generator]) -> Tensor:
        """One training level for each generator: (B,), float64."""
        return self.sigma(uniform(random))


class Geometric(Schedule):
    """Levels in a constant ratio; `count` of them draws from that ladder, without it sigma is continuous (VE-SDE).

    Reference: Song and Ermon, NeurIPS 2019; Song et al., ICLR 2021.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0, count: int | None = None) -> None:
        super().__init__(sigma_min, sigma_max)
        if count is not None and count < 2:
            raise InputError(f"a ladder of noise levels needs a count of at least 2; got {count}")
        self.count = count

    def sigma(self, u: Tensor) -> Tensor:
        return self.sigma_max * (self.sigma_min / self.sigma_max) ** u

    def draw(self, random: Sequence[Generator]) -> Tensor:
        u = uniform(random)
        if self.count is not None:
            u = (u * self.count).floor() / (self.count - 1)
        return self.sigma(u)


class Karras(Schedule):
    """Levels evenly spaced in sigma^(1/rho). Reference: Karras et al., NeurIPS 2022, eq. 5."""

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        super().__init__(sigma_min, sigma_max)
        self.rho = rho

    def sigma(self, u: Tensor) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (high + u * (low - high)) ** self.rho


class LogNormal(Schedule):
    """Training levels whose logarithm is normal about `centre`, cut to the range; a share is log-uniform over it all.

    The normal part spends the budget where images form, the uniform part keeps the whole range learned.
    Reference: Karras et al., NeurIPS 2022, table 1 (there centre exp(-1.2), spread 1.2, no uniform share).
    """

    def __init__(
        self, sigma_min: float, sigma_max: float, centre: float = 0.3, spread: float = 1.2, share: float = 0.1
    ) -> None:
        super().__init__(sigma_min, sigma_max)
        self.centre, self.spread, self.share = centre, spread, share

    def sigma(self, u: Tensor) -> Tensor:
        """The quantiles of the normal part between the two ends, from noisy to clean."""
        low, high = (self._cdf(torch.tensor(end, dtype=torch.float64)) for end in (self.sigma_min, self.sigma_max))
        z = math.sqrt(2) * torch.erfinv(2 * (high + u * (low - high)) - 1)
        sigma = self.centre * torch.exp(self.spread * z)
        return sigma.clamp(self.sigma_min, self.sigma_max)

    def draw(self, random: Sequence[Generator]) -> Tensor:
        choice, u = uniform(random), uniform(random)
        wide = self.sigma_max * (self.sigma_min / self.sigma_max) ** u
        return torch.where(choice < self.share, wide, self.sigma(u))

    def _cdf(self, sigma: Tensor) -> Tensor:
        return 0.5 * (1 + torch.erf(torch.log(sigma / self.centre) / (self.spread * math.sqrt(2))))
