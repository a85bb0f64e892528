"""Priors in closed form, the witnesses of the tests: a Gaussian and a mixture of Gaussians."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import Random, noise_like, uniform


class GaussianPrior(ScoreModel):
    """x0 normal with a mean and a covariance: every question has a closed answer, so it is the tests' witness.

    Shapes: mean (*shape), covariance (n, n) Hermitian over the flattened shape. As everywhere the covariance counts
    each real component: E (x - m)(x - m)^H / 2 for complex x.
    """

    mean: Tensor
    variances: Tensor
    axes: Tensor

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        super().__init__()
        variances, axes = torch.linalg.eigh(covariance)
        self.register_buffer("mean", mean)
        self.register_buffer("variances", variances.clamp_min(0))
        self.register_buffer("axes", axes)
        components = 2 if mean.is_complex() else 1
        energy = mean.abs().square().mean() / components + self.variances.mean()
        self.sd = float(energy.sqrt())

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        gain = self.variances / (self.variances + _column(sigma, x) ** 2)
        return self._along_axes(x - self.mean, gain) + self.mean

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        sigma = _column(sigma, x)
        spread = torch.sqrt(self.variances * sigma**2 / (self.variances + sigma**2))
        return self.denoise(x, sigma.reshape(-1)) + self._along_axes(noise_like(x, random), spread)

    def sample(self, random: Sequence[Random]) -> Tensor:
        """One x0 for each generator."""
        noise = noise_like(self.mean.expand(len(random), *self.mean.shape), random)
        return self._along_axes(noise, self.variances.sqrt()[None]) + self.mean

    def _along_axes(self, x: Tensor, gain: Tensor) -> Tensor:
        coefficients = gain * (x.flatten(1) @ self.axes.conj())
        return (coefficients @ self.axes.T).reshape(x.shape)


class MixturePrior(ScoreModel):
    """x0 from a mixture of round Gaussians: the witness for several modes.

    Shapes: means (K, *shape), stds (K,) of each real component, weights (K,).
    """

    means: Tensor
    stds: Tensor
    weights: Tensor

    def __init__(self, means: Tensor, stds: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("means", means)
        self.register_buffer("stds", stds)
        self.register_buffer("weights", weights / weights.sum())
        self.components = 2 if means.is_complex() else 1
        energy = means.flatten(1).abs().square().mean(1) / self.components + stds**2
        self.sd = float((self.weights * energy).sum().sqrt())

    def responsibilities(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """p(component | x): (B, K)."""
        variance = self.stds**2 + _column(sigma, x) ** 2
        distance = (x.flatten(1)[:, None] - self.means.flatten(1)).abs().square().sum(-1)
        size = self.components * self.means[0].numel()
        return torch.softmax(self.weights.log() - distance / (2 * variance) - size / 2 * variance.log(), dim=1)

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        shares = self.responsibilities(x, sigma).to(x.dtype)
        return torch.einsum("bk,bkn->bn", shares, self._component_means(x, sigma)).reshape(x.shape)

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        u = uniform(random).to(x.real.dtype)[:, None]
        chosen = (self.responsibilities(x, sigma).cumsum(1) < u).sum(1).clamp_max(len(self.stds) - 1)
        mean = self._component_means(x, sigma)[torch.arange(len(x)), chosen].reshape(x.shape)
        variance, noise = self.stds[chosen] ** 2, _column(sigma, x)[:, 0] ** 2
        return mean + per_item(torch.sqrt(variance * noise / (variance + noise)), x) * noise_like(x, random)

    def _component_means(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        gain = self.stds**2 / (self.stds**2 + _column(sigma, x) ** 2)
        means = self.means.flatten(1)
        return means + gain[:, :, None] * (x.flatten(1)[:, None] - means)


def _column(sigma: Tensor | float, x: Tensor) -> Tensor:
    """sigma as (B, 1), against flattened items."""
    return torch.as_tensor(sigma, dtype=x.real.dtype, device=x.device).expand(len(x))[:, None]
