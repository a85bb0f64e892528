"""Draws matched to the denoiser's covariance at high noise and to the scan's misfit below; the mean walked beside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import Random, noise_like
from mri_score.operators.base import LinearOperator
from mri_score.posteriors.adaptive_draw import AdaptiveDraw
from mri_score.posteriors.exact_draw import ExactDraw
from mri_score.posteriors.mmps import MMPSDraw


class MatchedDraw(AdaptiveDraw):
    """Three parts, by noise level; `mean` is the image, draws give its uncertainty.

    Above `border` one draw of `MMPSDraw`: there a walk chooses between explanations of the data, and the denoiser's own
    covariance gives each the odds that the data leave it. A few products with the Jacobian are enough.
    At and below it one draw of `AdaptiveDraw`, with `spread` times its variance: the misfit of the samples is least
    where most of them lie, so that alone it is too small for what no sample sees.
    Below `mean_below`, down to `mean_end`, a second iterate is walked beside each draw, by conditional means with the
    variance of `Proximal` in place of draws. It starts from the draw and ends as `mean`, which scatters less than the
    draw and is closer to the posterior mean: an average of few draws would keep the noise that they have beyond it.
    Draws of antithetic noise (`antithetic_generators`) make the average of four such means better still.
    """

    def __init__(
        self,
        prior: ScoreModel,
        operator: LinearOperator,
        kspace: Tensor,
        noise_std: Tensor | float,
        border: float = 0.3,
        iterations: int = 1,
        lanczos: int = 2,
        spread: float = 1.5,
        mean_below: float = 0.1,
        mean_end: float = 0.0,
    ) -> None:
        super().__init__(prior, operator, kspace, noise_std)
        self.matched = MMPSDraw(prior, operator, kspace, noise_std, iterations, lanczos)
        self.border, self.spread = border, spread
        self.mean_below, self.mean_end = mean_below, mean_end

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        levels = torch.as_tensor(sigma, device=x.device).expand(len(x))
        if float(levels.max()) > 1.0001 * self.border:  # the levels above it are the same for all items of a walk
            self.mean = z = self.matched.draw(x, sigma, random)
            return z
        low = (levels < self.mean_below) & (levels >= self.mean_end)
        if not bool(low.any()):
            z = self._draw(x, self.prior.denoise(x, sigma), sigma, random)
            self.mean = self._kept(z, levels)
            return z
        beside = x[low] if self.mean is None else self._noisy_mean(levels, low, random)
        both = self.prior.denoise(torch.cat([x, beside]), torch.cat([levels, levels[low]]))
        z = self._draw(x, both[: len(x)], sigma, random)
        v = torch.zeros_like(x)
        v[low] = both[len(x) :]
        weight = per_item(self.noise_std, v) ** 2 / ExactDraw.variance(self, v, sigma)
        chosen = low.reshape(-1, *[1] * (x.ndim - 1))
        b = torch.where(chosen, self.backprojection + weight * v, 0)  # items of zeros are solved at once
        mean = self.operator.solve(b, weight.reshape(-1), start=v)
        self.mean = torch.where(chosen, mean, self._kept(z, levels))
        return z

    def _kept(self, z: Tensor, levels: Tensor) -> Tensor:
        """The means so far: the draw z for items whose walk of the mean has not begun."""
        if self.mean is None:
            return z
        return torch.where((levels >= self.mean_below).reshape(-1, *[1] * (z.ndim - 1)), z, self.mean)

    def _noisy_mean(self, levels: Tensor, low: Tensor, random: Sequence[Random]) -> Tensor:
        """The means of the items that are `low`, with noise of their level; other items use no random numbers."""
        assert self.mean is not None
        mean = self.mean[low]
        chosen = [one for one, is_low in zip(random, low.tolist(), strict=True) if is_low]
        return mean + per_item(levels[low], mean) * noise_like(mean, chosen)

    def _draw(self, x: Tensor, v: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        """One draw of `AdaptiveDraw` from a denoised image v."""
        r2 = self.variance(v, sigma)
        weight = per_item(self.noise_std, x) ** 2 / r2
        noise = self.noise(x, random)
        guess = v + r2.sqrt() * noise_like(x, random)
        return self.operator.solve(self.backprojection + noise + weight * guess, weight.reshape(-1), start=guess)
