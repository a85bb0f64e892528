"""Super-resolution and colourisation: laws of their operators, and draws against the exact Gaussian posterior."""

from __future__ import annotations

import pytest
import torch

from mri_score.errors import InputError
from mri_score.generation import colourise, inpaint, super_resolve
from mri_score.models.analytic import GaussianPrior
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.averages import LUMINANCE, BlockMeans, Grey
from mri_score.operators.base import LinearOperator

COLOUR = (3, 6, 4)


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return noise_like(torch.zeros(shape, dtype=dtype), generators(seed, draws=shape[0]))


CASES = {"blocks": (BlockMeans(2), (6, 4), torch.float64), "complex blocks": (BlockMeans(3), (6, 9), torch.complex128),
         "colour blocks": (BlockMeans(2), COLOUR, torch.float64), "grey": (Grey(), COLOUR, torch.float64)}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_laws_and_the_exact_solution(name):
    operator, shape, dtype = CASES[name]
    x = gaussian(3, *shape, dtype=dtype)
    y = noise_like(operator(x), generators(1, draws=3))
    assert torch.allclose((operator(x).conj() * y).sum(), (x.conj() * operator.adjoint(y)).sum())
    assert torch.allclose(operator(2 * x - 3 * x.flip(0)), 2 * operator(x) - 3 * operator(x).flip(0))
    assert torch.allclose(operator(operator.adjoint(y)), operator.gain * y)
    weight = torch.tensor([1e-3, 1.0, 30.0], dtype=torch.float64)
    found = operator.solve(x, weight)
    assert torch.allclose(operator.normal(found) + weight.reshape(-1, *[1] * len(shape)) * found, x, rtol=1e-11)
    assert torch.allclose(found, LinearOperator.solve(operator, x, weight, tolerance=1e-10), rtol=1e-6)


def test_values_are_means_and_luminance():
    x = torch.arange(24.0).reshape(1, 6, 4)
    assert BlockMeans(2)(x).tolist() == [[[2.5, 4.5], [10.5, 12.5], [18.5, 20.5]]]
    assert torch.allclose(Grey()(torch.ones(1, *COLOUR)), torch.ones(1, 6, 4)) and sum(LUMINANCE) == pytest.approx(1)
    with pytest.raises(InputError, match="do not divide 6 x 4"):
        BlockMeans(4)(x)


def exact(prior: GaussianPrior, operator: LinearOperator, y: torch.Tensor, noise_std: float):
    """Mean and covariance of the posterior, from the operator's matrix."""
    size = prior.mean.numel()
    rows = operator(torch.eye(size, dtype=torch.float64).reshape(size, *prior.mean.shape)).flatten(1).T
    covariance = prior.axes @ (prior.variances[:, None] * prior.axes.mH)
    precision = torch.linalg.inv(covariance) + rows.T @ rows / noise_std**2
    spread = torch.linalg.inv(precision)
    shift = rows.T @ (y.flatten() - rows @ prior.mean.flatten()) / noise_std**2
    return prior.mean.flatten() + spread @ shift, spread


@pytest.mark.parametrize("task", ["super-resolve", "colourise", "inpaint"])
def test_draws_of_colour_images_are_of_the_posterior(task):
    size = 3 * 6 * 4
    half = torch.randn(size, size, generator=torch.Generator().manual_seed(2), dtype=torch.float64) / size**0.5
    mean = torch.linspace(-1, 1, size, dtype=torch.float64).reshape(COLOUR)
    prior = GaussianPrior(mean, 0.05 * torch.eye(size, dtype=torch.float64) + 0.2 * half @ half.T)
    truth = prior.sample(generators(5))
    keep = torch.rand(6, 4, generator=torch.Generator().manual_seed(3)) > 0.5
    channels = {"mean": [-0.7, 0.0, 0.7], "batch_size": 200, "noise_std": 0.05}
    if task == "super-resolve":
        operator = BlockMeans(2)
        measured = operator(truth)
        draws = super_resolve(prior, measured[0], 2, 200, **channels)
    elif task == "colourise":
        operator = Grey()
        measured = operator(truth)
        draws = colourise(prior, measured[0], 200, **channels)
    else:
        from mri_score.operators.pixels import Pixels

        operator = Pixels(keep.expand(COLOUR)[None])
        measured = operator(truth)
        draws = inpaint(prior, truth[0], keep, 200, **channels)
    centre, covariance = exact(prior, operator, measured, 0.05)
    rows = draws.flatten(1)
    assert float((rows.mean(0) - centre).norm() / (centre - mean.flatten()).norm()) < 0.25
    assert float(rows.var(0).sum() / covariance.trace()) == pytest.approx(1, abs=0.1)
