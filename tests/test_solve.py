"""Conjugate gradient: exact solutions, one item at a time, and no silence about numbers that are not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mri_score.numerics.noise import generators, noise_like
from mri_score.numerics.solve import conjugate_gradient

DTYPES = [torch.float64, torch.complex128]


def gaussian(*shape: int, dtype: torch.dtype = torch.complex128, seed: int = 0) -> Tensor:
    return noise_like(torch.zeros(shape, dtype=dtype), generators(seed, draws=shape[0]))


def positive_matrices(batch: int, size: int, dtype: torch.dtype, condition: float = 50.0) -> Tensor:
    """Hermitian matrices with eigenvalues spread evenly from 1 to `condition`."""
    basis, _ = torch.linalg.qr(gaussian(batch, size, size, dtype=dtype, seed=1))
    return basis @ torch.diag(torch.linspace(1, condition, size)).to(dtype) @ basis.mH


def times(matrices: Tensor):
    """The batch of matrices as a map on (B, size)."""
    return lambda x: (matrices @ x.unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 5, 12])
@pytest.mark.parametrize("with_start", [False, True])
def test_equals_the_direct_solution(dtype, size, with_start):
    matrices, b = positive_matrices(3, size, dtype), gaussian(3, size, dtype=dtype)
    start = gaussian(3, size, dtype=dtype, seed=2) if with_start else None
    x, iterations = conjugate_gradient(times(matrices), b, start, tolerance=1e-10)
    assert torch.allclose(x, torch.linalg.solve(matrices, b), rtol=0, atol=1e-8)
    assert iterations <= size + 3  # exact arithmetic needs at most `size`


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_distinct_eigenvalues_need_as_few_iterations(dtype):
    values = torch.tensor([1.0, 1.0, 4.0, 9.0, 9.0, 4.0, 1.0], dtype=torch.float64)
    _, iterations = conjugate_gradient(lambda x: values * x, gaussian(2, 7, dtype=dtype), tolerance=1e-12)
    assert iterations == 3


@pytest.mark.parametrize("tolerance", [1e-1, 1e-4, 1e-8])
def test_stops_at_the_tolerance_and_not_far_beyond(tolerance):
    matrices, b = positive_matrices(1, 40, torch.complex128, condition=1e4), gaussian(1, 40)
    x, iterations = conjugate_gradient(times(matrices), b, tolerance=tolerance)
    residual = torch.linalg.vector_norm(b - times(matrices)(x)) / torch.linalg.vector_norm(b)
    before, _ = conjugate_gradient(times(matrices), b, tolerance=0.0, max_iterations=iterations - 1)
    assert residual <= 1.01 * tolerance < torch.linalg.vector_norm(b - times(matrices)(before))


def test_each_iteration_lowers_the_error_in_the_norm_of_the_matrix():
    matrices, b = positive_matrices(1, 15, torch.complex128), gaussian(1, 15)
    exact = torch.linalg.solve(matrices, b)
    errors = []
    for n in range(8):
        error = conjugate_gradient(times(matrices), b, tolerance=0.0, max_iterations=n)[0] - exact
        errors.append(torch.vdot(error[0], times(matrices)(error)[0]).real)
    assert all(after < before for before, after in zip(errors, errors[1:], strict=False))


def test_items_do_not_see_their_batch_mates():
    """Easy, hard, zero and huge items: each ends where it ends alone, and the hardest sets the number of iterations."""
    easy, hard = torch.ones(20, dtype=torch.float64), torch.logspace(0, 3, 20, dtype=torch.float64)
    values = torch.stack([easy, hard, hard, hard])
    b = gaussian(4, 20) * torch.tensor([1.0, 1.0, 0.0, 1e12])[:, None]
    together, iterations = conjugate_gradient(lambda x: values * x, b, tolerance=1e-6)
    counts = []
    for i in range(4):
        alone, count = conjugate_gradient(lambda x, i=i: values[i] * x, b[i : i + 1], tolerance=1e-6)
        assert torch.equal(together[i], alone[0])
        counts.append(count)
    assert counts[0] == 1 and counts[2] == 0 and iterations == max(counts)


def test_a_frozen_item_no_longer_moves():
    values = torch.stack([torch.ones(9), torch.logspace(0, 2, 9)]).to(torch.float64)
    seen = []

    def watched(x: Tensor) -> Tensor:
        seen.append(x[0].clone())
        return values * x

    conjugate_gradient(watched, gaussian(2, 9), tolerance=1e-8)
    assert len(seen) > 4 and all(torch.equal(seen[1], later) for later in seen[1:])


def test_zero_right_hand_side():
    x, iterations = conjugate_gradient(lambda x: 2 * x, torch.zeros(2, 3, 5, dtype=torch.complex64))
    assert iterations == 0 and torch.equal(x, torch.zeros_like(x))
    x, _ = conjugate_gradient(lambda x: 2 * x, torch.zeros(1, 7), start=torch.randn(1, 7))
    assert torch.equal(x, torch.zeros_like(x))


def test_an_exact_start_stays_and_a_start_is_not_written_to():
    b = gaussian(2, 6)
    x, iterations = conjugate_gradient(lambda x: 4 * x, b, start=b / 4)
    assert iterations == 0 and torch.equal(x, b / 4)
    start = torch.zeros_like(b)
    conjugate_gradient(lambda x: 4 * x, b, start=start)
    assert torch.equal(start, torch.zeros_like(b))


def test_single_precision_reaches_its_tolerance():
    matrices = positive_matrices(2, 30, torch.complex128, condition=100.0).to(torch.complex64)
    b = gaussian(2, 30).to(torch.complex64)
    x, _ = conjugate_gradient(times(matrices), b, tolerance=1e-5)
    residual = torch.linalg.vector_norm(b - times(matrices)(x), dim=1) / torch.linalg.vector_norm(b, dim=1)
    assert (residual < 3e-5).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_numbers_stay_visible_and_stay_with_their_item(bad):
    b = gaussian(2, 6)
    b[0, 2] = bad
    for start in (None, torch.zeros_like(b)):
        x, _ = conjugate_gradient(lambda x: 2 * x, b, start)
        assert x[0].isnan().any() and torch.allclose(x[1], b[1] / 2)
