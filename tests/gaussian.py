"""A reconstruction problem with a closed answer: a Gaussian prior, two coils, a quarter of the lines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mri_score.models.analytic import GaussianPrior
from mri_score.numerics.fourier import fft, ifft
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense


@dataclass(frozen=True)
class GaussianProblem:
    prior: GaussianPrior
    operator: Sense
    kspace: Tensor
    noise_std: float
    mean: Tensor
    """Of the exact posterior: (1, n)."""
    covariance: Tensor
    """Of the exact posterior, each real component: (n, n)."""


def gaussian_problem(n: int = 64, noise_std: float = 0.05, seed: int = 0) -> GaussianProblem:
    """Complex images (1, n) with a power-law spectrum, n / 4 sampled lines, two smooth coils."""
    frequency = torch.arange(n, dtype=torch.float64) - n // 2
    power = 1 / (1 + frequency.abs()) ** 2
    power *= 0.3**2 / power.mean()
    unitary = ifft(torch.eye(n, dtype=torch.complex128), axes=(-1,)).T  # columns are the images of one frequency
    prior = GaussianPrior(torch.zeros(1, n, dtype=torch.complex128), unitary @ (power[:, None] * unitary.mH))

    place = torch.linspace(0, 1, n, dtype=torch.float64)
    maps = torch.stack([torch.polar(1.2 - place, 2 * place), torch.polar(0.2 + place, -place)])
    maps = (maps / maps.abs().square().sum(0).sqrt())[None, :, None, :]
    mask = torch.zeros(n, dtype=torch.bool)
    mask[::4] = True
    mask[n // 2 - 3 : n // 2 + 4] = True
    operator = Sense(maps, mask)

    random = generators(seed, "truth")
    x = prior.sample(random)
    y = operator(x)
    y = y + noise_std * mask * noise_like(y, random)

    matrix = (mask * fft(maps[0] * torch.eye(n, dtype=torch.complex128)[:, None, None, :])).flatten(1).T
    prior_covariance = prior.axes @ (prior.variances[:, None] * prior.axes.mH)
    precision = matrix.mH @ matrix / noise_std**2 + torch.linalg.inv(prior_covariance)
    covariance = torch.linalg.inv(precision)
    mean = (covariance @ (matrix.mH @ y.flatten())) / noise_std**2
    return GaussianProblem(prior, operator, y, noise_std, mean[None], covariance)


def mean_error(samples: Tensor, problem: GaussianProblem) -> float:
    """|sample mean - posterior mean| / |posterior mean|; P samples alone give about sqrt(2 trace / P) / |mean|."""
    return float((samples.mean(0) - problem.mean).norm() / problem.mean.norm())


def variance_ratio(samples: Tensor, problem: GaussianProblem) -> float:
    """Trace of the samples' covariance over the exact one's: 1 for a calibrated sampler."""
    found = (samples - samples.mean(0)).abs().square().sum() / (2 * (len(samples) - 1))
    return float(found / problem.covariance.diagonal().real.sum())
