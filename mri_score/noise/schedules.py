"""Noise levels for walks and for training. sigma is the only noise coordinate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from mri_score.errors import InputError
from mri_score.noise.ncsnv2_levels import level_count, level_ratio, ratio_to_noise, step_size
from mri_score.numerics.noise import uniform
from mri_score.ranges import Ranged


class Schedule(Ranged):
    """A range of noise levels. A subclass maps a fraction u in [0, 1], from noisy to clean, to sigma."""

    ranges = "schedule"

    def __init__(self, sigma_min: float, sigma_max: float) -> None:
        if not 0 < sigma_min < sigma_max:
            raise InputError(f"noise levels need 0 < sigma_min < sigma_max; got {sigma_min} and {sigma_max}")
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def sigma(self, u: Tensor) -> Tensor:
        raise NotImplementedError

    def growth(self, sigma: Tensor) -> Tensor:
        """d sigma^2 / dt at each sigma, where t is uniform in training: the g(t)^2 of dx = g(t) dw."""
        raise NotImplementedError

    def levels(self, n: int) -> Tensor:
        """n decreasing levels, sigma_max and sigma_min included: (n,), float64."""
        if n < 2:
            raise InputError(f"a walk needs at least 2 noise levels; got {n}")
        levels = self.sigma(torch.linspace(0, 1, n, dtype=torch.float64))
        levels[0], levels[-1] = self.sigma_max, self.sigma_min  # powers are not exact at both ends
        return levels

    def draw(self, random: Sequence[Generator]) -> Tensor:
        """One training level for each generator: (B,), float64."""
        return self.sigma(uniform(random))


class Ladder(Schedule):
    """A schedule of which training draws `count` levels with equal probability, or without a count any level of the
    range.
    """

    def __init__(self, sigma_min: float, sigma_max: float, count: int | None = None) -> None:
        super().__init__(sigma_min, sigma_max)
        if count is not None and count < 2:
            raise InputError(f"a ladder of noise levels needs a count of at least 2; got {count}")
        self.count = count

    def draw(self, random: Sequence[Generator]) -> Tensor:
        u = uniform(random)
        if self.count is not None:
            u = (u * self.count).floor() / (self.count - 1)
        return self.sigma(u)


class Geometric(Ladder):
    """Levels with a constant ratio. Training draws one of `count` levels; without a count sigma is continuous (VE-SDE).

    Reference: Song and Ermon, NeurIPS 2019; Song et al., ICLR 2021.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0, count: int | None = None) -> None:
        super().__init__(sigma_min, sigma_max, count)

    def sigma(self, u: Tensor) -> Tensor:
        return self.sigma_max * (self.sigma_min / self.sigma_max) ** u

    def growth(self, sigma: Tensor) -> Tensor:
        return 2 * sigma**2 * math.log(self.sigma_max / self.sigma_min)


class Fixed(Schedule):
    """One noise level for all of training, and for a Langevin walk that is not annealed.

    Errors: InputError unless sigma > 0.
    Reference: the baseline of Song and Ermon, NeurIPS 2019, with sigma 0.01.
    """

    def __init__(self, sigma: float = 0.01) -> None:
        if not sigma > 0:
            raise InputError(f"the fixed noise level is {sigma}; it must be above 0")
        self.sigma_min = self.sigma_max = sigma

    def sigma(self, u: Tensor) -> Tensor:
        return torch.full_like(u, self.sigma_max)

    def growth(self, sigma: Tensor) -> Tensor:
        raise InputError("a fixed noise level has no process, whose growth loss.weighting likelihood needs; use noise")

    def levels(self, n: int) -> Tensor:
        """Its one level, whatever n is: (1,), float64."""
        return torch.tensor([self.sigma_max], dtype=torch.float64)


class Automatic(Geometric):
    """The levels of a dataset by techniques 1, 2 and 4 of NCSNv2.

    sigma_max: the largest distance between two images (technique 1). dimension: number of real components of an image.
    overlap: of neighbouring levels (technique 2); 0.5 in the paper, `PUBLISHED_OVERLAP` in its published
    configurations.
    Reference: Song and Ermon, Improved techniques for training score-based generative models, NeurIPS 2020.
    """

    def __init__(self, sigma_min: float, sigma_max: float, dimension: int, overlap: float = 0.5) -> None:
        count = level_count(sigma_max, sigma_min, level_ratio(dimension, overlap))
        super().__init__(sigma_min, sigma_max, count)
        self.ratio = (sigma_max / sigma_min) ** (1 / (count - 1))

    def step_size(self, repeats: int = 3) -> float:
        """Technique 4: the step at sigma_min for `repeats` Langevin steps per level."""
        return step_size(self.ratio, self.sigma_min, repeats)


class Uniform(Ladder):
    """Levels evenly spaced in sigma, the `uniform` of NCSNv2's code."""

    def sigma(self, u: Tensor) -> Tensor:
        return self.sigma_max + u * (self.sigma_min - self.sigma_max)

    def growth(self, sigma: Tensor) -> Tensor:
        return 2 * sigma * (self.sigma_max - self.sigma_min)


class AboveNoise(Ladder):
    """The `count` levels of `ncsnv2_levels.levels_above_noise`, for training images with noise of noise_std.

    sigma_max: the largest level, including the noise of the images.
    """

    def __init__(self, noise_std: float, sigma_max: float, count: int) -> None:
        self.noise_std, self.total = noise_std, sigma_max
        self.ratio = ratio_to_noise(sigma_max, noise_std, count)
        super().__init__(noise_std / self.ratio - noise_std, sigma_max - noise_std, count)
        self.last = count - 1

    def sigma(self, u: Tensor) -> Tensor:
        return self.total * self.ratio ** (u * self.last) - self.noise_std

    def growth(self, sigma: Tensor) -> Tensor:
        return -2 * sigma * (sigma + self.noise_std) * self.last * math.log(self.ratio)


class Karras(Schedule):
    """Levels evenly spaced in sigma^(1/rho), from sigma_max to sigma_min, both standard deviations of each component.

    Errors: InputError unless 0 < sigma_min < sigma_max.
    Reference: Karras et al., NeurIPS 2022, eq. 5.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        super().__init__(sigma_min, sigma_max)
        self.rho = rho

    def sigma(self, u: Tensor) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (high + u * (low - high)) ** self.rho

    def growth(self, sigma: Tensor) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return 2 * self.rho * (high - low) * sigma ** (2 - 1 / self.rho)


class TwoParts(Schedule):
    """A share of the levels above `border`, evenly spaced in log sigma; the others below it, spaced as in `Karras`.

    K-space determines the coarse content of an image, so that high levels change little: in reconstructions at R = 4,
    walks that are deterministic above sigma 0.1 give equal results.
    """

    def __init__(self, sigma_min: float, sigma_max: float, border: float = 0.3, share: float = 0.17) -> None:
        super().__init__(sigma_min, sigma_max)
        self.border, self.share = border, share

    def sigma(self, u: Tensor) -> Tensor:
        border = min(max(self.border, self.sigma_min), self.sigma_max)
        share = self.share if self.sigma_min < border < self.sigma_max else float(border == self.sigma_min)
        above = self.sigma_max * (border / self.sigma_max) ** (u / share if share else 0 * u)
        if share == 1:
            return above
        below = Karras(min(self.sigma_min, 0.999 * border), border).sigma(((u - share) / (1 - share)).clamp_min(0))
        return torch.where(u < share, above, below)


class LogNormal(Schedule):
    """Training levels whose logarithm is normal about log(centre), within the range; a share is log-uniform over the
    range.

    Most training steps are then at levels where the content of images is decided; the log-uniform share covers the
    whole range.
    Reference: Karras et al., NeurIPS 2022, table 1 (with centre exp(-1.2), spread 1.2, share 0 and an unlimited range).
    """

    def __init__(
        self, sigma_min: float, sigma_max: float, centre: float = 0.3, spread: float = 1.2, share: float = 0.1
    ) -> None:
        super().__init__(sigma_min, sigma_max)
        self.centre, self.spread, self.share = centre, spread, share

    def sigma(self, u: Tensor) -> Tensor:
        """The quantiles of the normal part between the two ends, from noisy to clean."""
        low, high = self._ends()
        z = math.sqrt(2) * torch.erfinv(2 * (high + u * (low - high)) - 1)
        sigma = self.centre * torch.exp(self.spread * z)
        return sigma.clamp(self.sigma_min, self.sigma_max)

    def draw(self, random: Sequence[Generator]) -> Tensor:
        choice, u = uniform(random), uniform(random)
        wide = self.sigma_max * (self.sigma_min / self.sigma_max) ** u
        return torch.where(choice < self.share, wide, self.sigma(u))

    def growth(self, sigma: Tensor) -> Tensor:
        low, high = self._ends()
        z = torch.log(sigma / self.centre) / self.spread
        normal = torch.exp(-(z**2) / 2) / (math.sqrt(2 * math.pi) * self.spread * (high - low))
        wide = 1 / math.log(self.sigma_max / self.sigma_min)
        return 2 * sigma**2 / (self.share * wide + (1 - self.share) * normal)  # by the density of log sigma

    def _ends(self) -> tuple[float, float]:
        low, high = (self._cdf(torch.tensor(end, dtype=torch.float64)) for end in (self.sigma_min, self.sigma_max))
        return float(low), float(high)

    def _cdf(self, sigma: Tensor) -> Tensor:
        return 0.5 * (1 + torch.erf(torch.log(sigma / self.centre) / (self.spread * math.sqrt(2))))


class VP(Schedule):
    """The variance-preserving process x_t = a x0 + s n, a^2 + s^2 = 1, as x_t / a = x0 + sigma n with sigma = s / a.

    t is uniform in [t_min, t_max], and -2 log a = B = beta_min t + (beta_max - beta_min) t^2 / 2; sigma^2 = e^B - 1.
    The range of sigma is then 0.001 to 152 with the published numbers.
    Reference: Song et al., Score-based generative modeling through stochastic differential equations, ICLR 2021.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-5, t_max: float = 1.0) -> None:
        if not (0 < beta_min < beta_max and 0 < t_min < t_max):
            raise InputError(
                f"{type(self).__name__} needs 0 < beta_min < beta_max and 0 < t_min < t_max;"
                f" got {beta_min}, {beta_max}, {t_min} and {t_max}"
            )
        self.beta_min, self.beta_max, self.t_min, self.t_max = beta_min, beta_max, t_min, t_max
        high, low = self.sigma(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        super().__init__(low, high)

    @classmethod
    def between(cls, sigma_min: float, sigma_max: float) -> VP:
        """The part of the published process, or of its continuation, between these levels."""
        whole = cls()
        ends = torch.tensor([sigma_min, sigma_max], dtype=torch.float64)
        slope = whole.beta_max - whole.beta_min
        t = (torch.sqrt(whole.beta_min**2 + 2 * slope * whole._integral(ends)) - whole.beta_min) / slope
        return cls(t_min=float(t[0]), t_max=float(t[1]))

    def sigma(self, u: Tensor) -> Tensor:
        t = self.t_max + u * (self.t_min - self.t_max)
        return self._level(self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2)

    def growth(self, sigma: Tensor) -> Tensor:
        integral = self._integral(sigma)
        beta = torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral)
        return beta * self._slope(sigma)

    def _level(self, integral: Tensor) -> Tensor:
        """sigma from B."""
        return torch.sqrt(torch.expm1(integral))

    def _integral(self, sigma: Tensor) -> Tensor:
        """B from sigma."""
        return torch.log1p(sigma**2)

    def _slope(self, sigma: Tensor) -> Tensor:
        """d sigma^2 / dB."""
        return 1 + sigma**2


class SubVP(VP):
    """The sub-VP process: a as in VP, but s = 1 - a^2, so that sigma = 2 sinh(B / 2); 1e-6 to 152 as published."""

    def _level(self, integral: Tensor) -> Tensor:
        return 2 * torch.sinh(integral / 2)

    def _integral(self, sigma: Tensor) -> Tensor:
        return 2 * torch.asinh(sigma / 2)

    def _slope(self, sigma: Tensor) -> Tensor:
        return sigma * torch.sqrt(4 + sigma**2)


class LinearBetas(Schedule):
    """The steps of DDPM: beta rises linearly from beta_first to beta_last, abar_t is the product of 1 - beta up to step
    t, and sigma_t^2 = (1 - abar_t) / abar_t. Training draws each of the `count` steps with equal probability.

    Divided by sqrt(abar_t), x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) n is x0 + sigma_t n. The published numbers give
    sigma from 0.01 to 157; they are also those of VP with beta_min / 1000 and beta_max / 1000.
    Errors: InputError unless 0 < beta_first < beta_last < 1 and count >= 2.
    Reference: Ho et al., Denoising diffusion probabilistic models, NeurIPS 2020.
    """

    def __init__(self, count: int = 1000, beta_first: float = 1e-4, beta_last: float = 0.02) -> None:
        if count < 2 or not 0 < beta_first < beta_last < 1:
            raise InputError(
                "the steps of DDPM need a count of at least 2 and 0 < beta_first < beta_last < 1;"
                f" got {count}, {beta_first} and {beta_last}"
            )
        betas = torch.linspace(beta_first, beta_last, count, dtype=torch.float64)
        self.alphas_cumprod = torch.cumprod(1 - betas, 0)
        """abar of each step, decreasing: (count,), float64."""
        self.sigmas = ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt()
        """Noise levels of the steps, increasing: (count,), float64."""
        super().__init__(float(self.sigmas[0]), float(self.sigmas[-1]))

    @classmethod
    def between(cls, sigma_min: float, sigma_max: float) -> LinearBetas:
        """The published steps between these levels, and the two ends."""
        steps = cls()
        steps.sigmas = steps.sigmas.clamp(sigma_min, sigma_max).unique()
        steps.sigma_min, steps.sigma_max = sigma_min, sigma_max
        return steps

    def sigma(self, u: Tensor) -> Tensor:
        """The level of the step at the fraction u of the way from the last to the first."""
        last = len(self.sigmas) - 1
        return self.sigmas.to(u.device)[((1 - u) * last).round().long().clamp(0, last)].to(u.dtype)

    def levels(self, n: int) -> Tensor:
        """n of its levels, evenly spaced by their numbers, or all of them if there are fewer: (n,), float64."""
        return super().levels(min(n, len(self.sigmas)))

    def draw(self, random: Sequence[Generator]) -> Tensor:
        return self.sigmas[(uniform(random) * len(self.sigmas)).long()]

    def growth(self, sigma: Tensor) -> Tensor:
        raise InputError("the steps of DDPM have no continuous growth for loss.weighting likelihood; use noise")


WALK_SCHEDULES: dict[str, Callable[[float, float], Schedule]] = {
    "ddpm": LinearBetas.between,
    "geometric": Geometric,
    "karras": Karras,
    "single": lambda sigma_min, sigma_max: Fixed(sigma_min),
    "two-parts": TwoParts,
    "vp": VP.between,
}
"""Schedules of walks by name; each is constructed from the smallest and the largest sigma."""
