"""The operator of known pixels: its laws, and its solution in closed form."""

from __future__ import annotations

import pytest
import torch

from mri_score.errors import InputError
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.base import LinearOperator
from mri_score.operators.pixels import Pixels

SIZES = [(8, 12), (7, 9)]


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> torch.Tensor:
    return noise_like(torch.zeros(shape, dtype=dtype), generators(seed, draws=shape[0]))


def mask(kind: str, size: tuple[int, int]) -> torch.Tensor:
    values = torch.rand(3 if kind == "items" else 1, *size, generator=torch.Generator().manual_seed(5))
    return values.double() if kind == "weights" else values > 0.5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["points", "items", "weights"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_laws(size, kind, dtype):
    operator, x, y = Pixels(mask(kind, size)), gaussian(3, *size, dtype=dtype), gaussian(3, *size, seed=1, dtype=dtype)
    assert torch.allclose((operator(x).conj() * y).sum(), (x.conj() * operator.adjoint(y)).sum())
    assert torch.allclose(operator(2 * x - y), 2 * operator(x) - operator(y))
    assert torch.equal(operator.normal(x), operator.adjoint(operator(x)))


@pytest.mark.parametrize("kind", ["points", "items", "weights"])
def test_solution_is_exact_and_that_of_conjugate_gradient(kind):
    operator, b = Pixels(mask(kind, (7, 9))), gaussian(3, 7, 9)
    weight = torch.tensor([1e-3, 1.0, 30.0], dtype=torch.float64)
    x = operator.solve(b, weight)
    assert torch.allclose(operator.normal(x) + weight[:, None, None] * x, b, rtol=1e-12)
    assert torch.allclose(x, LinearOperator.solve(operator, b, weight, tolerance=1e-10), rtol=1e-6)
    assert torch.allclose(operator.solve(b, 0.5), operator.solve(b, torch.full((3,), 0.5)))


def test_keeps_what_is_known_and_nothing_else():
    keep = torch.tensor([[[True, False, True]]])
    assert Pixels(keep)(torch.tensor([[[1 + 2j, 3j, 4.0]]])).tolist() == [[[1 + 2j, 0, 4]]]


@pytest.mark.parametrize("keep", [torch.tensor([[0.5j]]), torch.tensor([[1.5]]), torch.tensor([[-1.0]]),
                                  torch.tensor([[float("nan")]])])  # fmt: skip
def test_refuses_weights_that_are_none(keep):
    with pytest.raises(InputError, match="True and False, or real weights from 0"):
        Pixels(keep)
