"""A reconstruction problem with several modes and closed odds: a mixture prior, two coils, a quarter of the lines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mri_score.models.analytic import MixturePrior
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense

WEIGHTS = (0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True)
class MixtureProblem:
    prior: MixturePrior
    operator: Sense
    kspace: Tensor
    noise_std: float
    like: Tensor
    """(1, 1, n)."""
    weights: Tensor
    """Of the modes given k-space, exact: (4,)."""


def mixture_problem(
    hidden: float = 0.8, n: int = 16, std: float = 0.1, noise_std: float = 0.1, mode: int = 1, seed: int = 0
) -> MixtureProblem:
    """Complex images (1, n) of four modes far apart, of which samples see little: `hidden` of what they would is gone.

    The truth is of mode `mode`. The closer `hidden` is to 1, the more alike the modes look in k-space.
    """
    place = torch.linspace(0, 1, n, dtype=torch.float64)
    maps = torch.stack([torch.polar(1.2 - place, 2 * place), torch.polar(0.2 + place, -place)])
    maps = (maps / maps.abs().square().sum(0).sqrt())[None, :, None, :]
    mask = torch.zeros(n, dtype=torch.bool)
    mask[::4] = True
    operator = Sense(maps, mask)
    matrix = operator(torch.eye(n, dtype=torch.complex128)[:, None])[..., mask].flatten(1).T  # (2 n / 4, n)

    means = noise_like(torch.zeros(4, 1, n, dtype=torch.complex128), generators(seed, "means", draws=4))
    seen = torch.linalg.pinv(matrix) @ matrix
    means = means - hidden * (means.flatten(1) @ seen.T).reshape(means.shape)
    prior = MixturePrior(means, torch.full((4,), std).double(), torch.tensor(WEIGHTS).double())

    random = generators(seed, "truth")
    x = means[mode : mode + 1] + std * noise_like(means[:1], random)
    y = operator(x)
    y = y + noise_std * mask * noise_like(y, random)

    spread = noise_std**2 * torch.eye(len(matrix)) + std**2 * matrix @ matrix.mH  # the same for all modes
    miss = y[..., mask].flatten() - means.flatten(1) @ matrix.T
    distance = (miss.conj() * torch.linalg.solve(spread, miss.T).T).sum(1).real
    weights = torch.softmax(prior.weights.log() - distance / 2, 0)
    return MixtureProblem(prior, operator, y, noise_std, torch.zeros_like(x), weights)


def mode_distance(samples: Tensor, problem: MixtureProblem) -> float:
    """Total variation between the modes of the samples and the exact ones; P samples alone give about 1 / sqrt(P)."""
    modes = problem.prior.responsibilities(samples, 0.0).argmax(1)
    found = torch.bincount(modes, minlength=len(problem.weights)) / len(samples)
    return float((found - problem.weights).abs().sum() / 2)
