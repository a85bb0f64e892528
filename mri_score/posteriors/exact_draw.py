"""One denoising and one exact Gaussian draw per level: no tuned weights, no derivative of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import Random, noise_like
from mri_score.posteriors.base import Posterior

AVERAGED_BELOW = 0.03
"""Noise level below which the conditional means of a walk are averaged; above it they are still blurred."""
LAST = 1.5
"""A prior trained on noisy scans has a higher sigma_min, where walks end: averaging begins below LAST times that."""


@dataclass(eq=False, repr=False)
class Proximal(Posterior):
    """The mean of the distribution that `ExactDraw` draws from: a point estimate.

    With v = D(x, sigma) and r^2 = sigma^2 sd^2 / (sigma^2 + sd^2), the variance of a white Gaussian image of standard
    deviation sd given x, the result z solves

        (A^H A + w) z = A^H y + w v,    w = noise_std^2 / r^2.

    The sampler `Renoise` adds the noise of the next level to z.
    Bias: results are smoother than draws of the posterior, and their spread does not measure uncertainty.
    Reference: Zhu et al., Denoising diffusion models for plug-and-play image restoration, CVPRW 2023 (DiffPIR), here
    with an exact solve of the data step and a variance that is derived rather than tuned.
    """

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        v = self.centre(x, sigma)
        return self.solve_near(self.backprojection, v, self.variance(v, sigma))

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        return self.denoise(x, sigma)

    def centre(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """v, the image that the prior expects given x: (B, *image)."""
        return self.prior.denoise(x, sigma)

    def variance(self, v: Tensor, sigma: Tensor | float) -> Tensor:
        """r^2, the variance of each real component about v: () or (B, 1, ...)."""
        noise = per_item(sigma, v) ** 2
        return noise * self.sd**2 / (noise + self.sd**2)


@dataclass(eq=False, repr=False)
class ExactDraw(Proximal):
    """One exact draw z ~ exp(-|y - A z|^2 / 2 noise_std^2 - |z - v|^2 / 2 r^2) by perturb and solve: z = m + p,

        (A^H A + w) m = A^H y + w v,    (A^H A + w) p = noise_std A^H n1 + w r n2,    n1 on the sampled points only,

    with v, r and w as in `Proximal`. The sampler `Renoise` adds the noise of the next level to z.
    `mean` is the average of m over the levels below AVERAGED_BELOW, or below LAST times the prior's sigma_min if that
    is higher. Its expectation is that of the draws (Rao-Blackwell), with less noise, so that few walks suffice for the
    posterior mean.
    Bias: exact for a white Gaussian prior. The covariance of other priors enters through v only; where the data allow
    several explanations, their odds are those of the prior.
    Reference: the decoupled annealing of Zhang et al., DAPS, CVPR 2025, with one denoising in place of the inner
    ODE and an exact draw in place of the inner Langevin chain; Papandreou and Yuille, NIPS 2010, for the draw.
    """

    _levels: Tensor | int = field(default=0, init=False)

    def begin_walk(self) -> None:
        super().begin_walk()
        self._levels = 0

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        v = self.centre(x, sigma)
        below = max(AVERAGED_BELOW, LAST * self.prior.sigma_min)
        low = torch.as_tensor(sigma, device=x.device).expand(len(x)) < below
        if not bool(low.any()):
            return self.draw_about(v, sigma, random)
        variance, noise, step = self._perturbation(v, sigma, random)
        low = low.reshape(-1, *[1] * (x.ndim - 1))
        # Items at low levels are solved for m and p separately, others for the sum. A zero item is solved at once.
        b, guess = self.backprojection + noise, v + step
        z = self.solve_near(torch.where(low, self.backprojection, b), torch.where(low, v, guess), variance)
        self._gather(z, low)
        return z + self.solve_near(torch.where(low, noise, 0), torch.where(low, step, 0), variance)

    def draw_about(self, v: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        """The draw z (B, *image) for a centre v (B, *image). random: one generator per item."""
        variance, noise, step = self._perturbation(v, sigma, random)
        return self.solve_near(self.backprojection + noise, v + step, variance)

    def _perturbation(
        self, v: Tensor, sigma: Tensor | float, random: Sequence[Random]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """r^2, noise_std A^H n1 and r n2."""
        variance = self.variance(v, sigma)
        noise = self.noise(v, random)
        return variance, noise, variance.sqrt() * noise_like(v, random)

    def _gather(self, mean: Tensor, low: Tensor) -> None:
        """Include the conditional means of the items where `low` is true in their averages."""
        before = torch.zeros_like(mean) if self.mean is None else self.mean
        self._levels = self._levels + low.to(mean.real.dtype)
        self.mean = before + torch.where(low, (mean - before) / self._levels.clamp_min(1), 0)
