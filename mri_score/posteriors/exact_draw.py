"""One denoising and one exact Gaussian draw a level: nothing to tune, no derivative of the network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import Random, noise_like
from mri_score.posteriors.base import Posterior

AVERAGED_BELOW = 0.03
"""The noise level below which a walk's conditional means are averaged: above it they are still blurred."""
LAST = 1.5
"""Or this many times the smallest level of a prior that knows none below, as one from noisy scans: walks end there."""


class Proximal(Posterior):
    """The mean of what `ExactDraw` draws from: a point estimate, no posterior.

    With v = D(x, sigma) and r^2 = sigma^2 sd^2 / (sigma^2 + sd^2), the variance that Tweedie's formula leaves to an
    image of standard deviation sd:

        (A^H A + w) z = A^H y + w v,    w = noise_std^2 / r^2.

    Walked by `Renoise` it re-noises its own mean: smoother than a draw, and it knows no uncertainty.
    Reference: Zhu et al., Denoising diffusion models for plug-and-play image restoration, CVPRW 2023 (DiffPIR, with
    the data step solved exactly and the variance derived).
    """

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        v, _, weight = self._split(x, sigma)
        return self.operator.solve(self.backprojection + weight * v, weight.reshape(-1), start=v)

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        return self.denoise(x, sigma)

    def variance(self, v: Tensor, sigma: Tensor | float) -> Tensor:
        """r^2, broadcastable to v."""
        noise = per_item(sigma, v) ** 2
        return noise * self.sd**2 / (noise + self.sd**2)

    def _split(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """v, r and w."""
        v = self.prior.denoise(x, sigma)
        r2 = self.variance(v, sigma)
        return v, r2.sqrt(), per_item(self.noise_std, x) ** 2 / r2


class ExactDraw(Proximal):
    """One exact draw z ~ exp(-|y - A z|^2 / 2 noise_std^2 - |z - v|^2 / 2 r^2) by perturb and solve: its mean m plus p,

        (A^H A + w) m = A^H y + w v,    (A^H A + w) p = noise_std A^H n1 + w r n2,    n1 on the sampled points only.

    The next iterate is z + sigma_next n (`Renoise`). Exact where the prior is a white Gaussian; the prior's own
    covariance enters through v alone, so that where data leave several explanations it keeps the prior's odds.
    `mean` is the average of m over the levels below AVERAGED_BELOW, or the last ones (LAST), that one walk has passed:
    it has the expectation of the draws (Rao and Blackwell) and less of their noise, so that few walks come nearer to
    the posterior mean.
    Reference: the decoupled annealing of Zhang et al., DAPS, CVPR 2025, with one denoising in place of the inner
    ODE and an exact draw in place of the inner Langevin chain; Papandreou and Yuille, NIPS 2010, for the draw.
    """

    _levels: Tensor | int = 0

    def begin_walk(self) -> None:
        super().begin_walk()
        self._levels = 0

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        v, r, weight = self._split(x, sigma)
        noise = self.noise(x, random)
        spread = r * noise_like(x, random)
        # Started from their part of v + r n, what no sample sees is exact at once, however little its weight counts.
        below = max(AVERAGED_BELOW, LAST * self.prior.sigma_min)
        low = torch.as_tensor(sigma, device=x.device).expand(len(x)) < below
        low = low.reshape(-1, *[1] * (x.ndim - 1))
        b = torch.where(low, self.backprojection + weight * v, self.backprojection + noise + weight * (v + spread))
        z = self.operator.solve(b, weight.reshape(-1), start=torch.where(low, v, v + spread))
        if not bool(low.any()):
            return z
        self._gather(z, low)
        p = torch.where(low, noise + weight * spread, 0)  # an item of zeros is solved at once
        return z + self.operator.solve(p, weight.reshape(-1), start=torch.where(low, spread, 0))

    def _gather(self, mean: Tensor, low: Tensor) -> None:
        """Take the conditional means of the items that are `low` into their average."""
        before = torch.zeros_like(mean) if self.mean is None else self.mean
        self._levels = self._levels + low.to(mean.real.dtype)
        self.mean = before + torch.where(low, (mean - before) / self._levels.clamp_min(1), 0)
