"""Laws of linear operators: linear, adjoint, gradient is adjoint, equal to SigPy."""

from __future__ import annotations

import numpy as np
import pytest
import sigpy
import sigpy.mri.linop
import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.base import LinearOperator
from mri_score.operators.sense import Sense
from mri_score.operators.sigpy import SigpyOperator, norm

SIZES = [(8, 12), (7, 9), (6, 11), (13, 4)]
MASKS = ["columns", "rows", "points", "items", "coils", "weights", "full"]
TOLERANCE = {torch.complex64: 1e-5, torch.complex128: 1e-10}


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> Tensor:
    return noise_like(torch.zeros(shape, dtype=dtype), generators(seed, draws=shape[0]))


def make_maps(batch: int, coils: int, size: tuple[int, int], dtype: torch.dtype = torch.complex128) -> Tensor:
    maps = gaussian(batch, coils, *size, seed=3, dtype=dtype)
    return maps / maps.abs().square().sum(1, keepdim=True).sqrt()


def make_mask(kind: str, batch: int, coils: int, size: tuple[int, int]) -> Tensor:
    shape = {
        "columns": (1, 1, 1, size[1]),
        "rows": (1, 1, size[0], 1),
        "items": (batch, 1, 1, size[1]),
        "coils": (1, coils, *size),
    }.get(kind, (1, 1, *size))
    values = torch.rand(shape, generator=torch.Generator().manual_seed(5))
    return {"weights": values, "full": torch.ones(shape)}.get(kind, values > 0.5)


def inner(a: Tensor, b: Tensor) -> Tensor:
    return torch.vdot(a.flatten(), b.flatten())


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> None:
    assert a.shape == b.shape and a.dtype == b.dtype
    assert torch.linalg.vector_norm(a - b) <= tolerance * torch.linalg.vector_norm(b)


def check_linear(operator: LinearOperator, x: Tensor) -> None:
    other, factor = gaussian(*x.shape, seed=11), 0.3 - 1.7j
    close(operator(x + factor * other), operator(x) + factor * operator(other))


def check_adjoint(operator: LinearOperator, x: Tensor) -> None:
    y = gaussian(*operator(x).shape, seed=12)
    left, right = inner(operator(x), y), inner(x, operator.adjoint(y))
    assert abs(left - right) <= 1e-10 * torch.linalg.vector_norm(operator(x)) * torch.linalg.vector_norm(y)


def check_normal(operator: LinearOperator, x: Tensor) -> None:
    close(operator.normal(x), operator.adjoint(operator(x)))


def check_gradients(operator: LinearOperator, x: Tensor) -> None:
    """Of forward, adjoint and normal, and of the gradient itself, which is linear in what comes from above."""
    samples = operator(x)
    normal = operator.normal
    cases = [(operator, operator.adjoint, x), (operator.adjoint, operator, samples), (normal, normal, x)]
    for function, adjoint, start in cases:
        start = start.detach().clone().requires_grad_()
        above = gaussian(*function(start).shape, seed=13).requires_grad_()
        (gradient,) = torch.autograd.grad(function(start), start, above, create_graph=True)
        close(gradient.detach(), adjoint(above.detach()))
        direction = gaussian(*start.shape, seed=14)
        (second,) = torch.autograd.grad(gradient, above, direction)
        close(second, function(direction))


def check_items(operator: LinearOperator, x: Tensor, singles: list[LinearOperator]) -> None:
    """What an item gets does not depend on its batch mates."""
    for name in ("forward", "normal"):
        alone = [getattr(one, name)(item[None]) for one, item in zip(singles, x, strict=True)]
        close(getattr(operator, name)(x), torch.cat(alone), 1e-12)


def check_all(operator: LinearOperator, x: Tensor) -> None:
    for law in (check_linear, check_adjoint, check_normal, check_gradients):
        law(operator, x)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("batch_of_maps", [1, 3])
def test_sense_laws(size, kind, batch_of_maps):
    maps, mask = make_maps(batch_of_maps, 4, size), make_mask(kind, 3, 4, size)
    x = gaussian(3, *size)
    check_all(Sense(maps, mask), x)
    singles = [Sense(maps[i % batch_of_maps, None], mask[i % len(mask), None]) for i in range(3)]
    check_items(Sense(maps, mask), x, singles)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("coils", [1, 5])
@pytest.mark.parametrize("kind", ["columns", "rows", "points", "weights"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_sense_equals_sigpy(size, coils, kind, dtype):
    maps, mask = make_maps(1, coils, size, dtype), make_mask(kind, 1, coils, size)
    weights = (mask[0].to(maps.real.dtype).square()).expand(coils, *size).numpy()  # SigPy takes the square root
    witness = sigpy.mri.linop.Sense(maps[0].numpy(), weights=weights)
    operator, x = Sense(maps, mask), gaussian(2, *size, dtype=dtype)
    y = operator(x)
    cases = [(operator, witness, x), (operator.adjoint, witness.H, y), (operator.normal, witness.N, x)]
    for ours, linop, values in cases:
        theirs = np.stack([linop(item.numpy()) for item in values])
        close(ours(values), torch.from_numpy(theirs).to(dtype), TOLERANCE[dtype])


def test_sense_takes_few_or_many_coils_at_a_time(monkeypatch):
    operator, x = Sense(make_maps(1, 5, (6, 7)), make_mask("points", 1, 5, (6, 7))), gaussian(2, 6, 7)
    expected = operator.adjoint(operator(x))
    for pixels in (1, 200, 10**6):
        monkeypatch.setattr("mri_score.operators.sense.CACHED_PIXELS", pixels)
        close(operator.normal(x), expected)


def test_sense_norm_is_at_most_one():
    operator, x = Sense(make_maps(1, 3, (9, 8)), make_mask("columns", 1, 3, (9, 8))), gaussian(1, 9, 8)
    for _ in range(200):
        x = operator.normal(x / torch.linalg.vector_norm(x))
    assert 0.5 < torch.linalg.vector_norm(x) <= 1 + 1e-9


def test_sense_keeps_dc_at_the_centre():
    for size in SIZES:
        operator = Sense(torch.ones(1, 1, *size) + 0j, torch.ones(1, 1, 1, size[1]))
        y = operator(torch.ones(1, *size) + 0j)
        assert y.abs().flatten().argmax() == (size[0] // 2) * size[1] + size[1] // 2


def test_sense_solves_the_regularised_normal_equations():
    operator, b = Sense(make_maps(1, 4, (7, 10)), make_mask("columns", 1, 4, (7, 10))), gaussian(3, 7, 10)
    weight = torch.tensor([0.01, 0.1, 10.0])
    x = operator.solve(b, weight, tolerance=1e-8)
    close(operator.normal(x) + weight[:, None, None] * x, b, 1e-7)


def test_sense_moves_as_a_whole():
    """All that forward, adjoint and normal use is a buffer: `.to` reaches it, and nothing enters a checkpoint."""
    operator = Sense(make_maps(1, 2, (5, 6)), make_mask("rows", 1, 2, (5, 6))).to("meta")
    x = torch.zeros(1, 5, 6, dtype=torch.complex128, device="meta")
    assert operator.adjoint(operator(x)).device.type == operator.normal(x).device.type == "meta"
    assert not operator.state_dict()


@pytest.mark.parametrize(
    ("maps", "mask", "words"),
    [
        (torch.ones(2, 4, 4) + 0j, torch.ones(4), "batch axis"),
        (torch.ones(1, 2, 4, 4), torch.ones(4), "complex"),
        (torch.ones(1, 2, 4, 4) + 0j, torch.ones(5), "does not fit"),
        (torch.ones(1, 2, 4, 4) + 0j, torch.ones(4) + 0j, "mask is complex"),
    ],
)
def test_sense_refuses(maps, mask, words):
    with pytest.raises(InputError, match=words):
        Sense(maps, mask)


def radial(size: tuple[int, int], spokes: int = 5) -> np.ndarray:
    angle = np.pi * np.arange(spokes)[:, None] / spokes
    radius = np.linspace(-0.5, 0.5, max(size), endpoint=False)
    return np.stack([radius * np.cos(angle) * size[0], radius * np.sin(angle) * size[1]], axis=-1)


def sigpy_linops(name: str, size: tuple[int, int], count: int) -> list[sigpy.linop.Linop]:
    maps = make_maps(count, 3, size).numpy()
    mask = make_mask("columns", 1, 3, size)[0].to(torch.float64).numpy()
    make = {
        "sense": lambda i: sigpy.mri.linop.Sense(maps[i], weights=mask),
        "nufft": lambda i: sigpy.linop.NUFFT(size, radial(size), oversamp=1.25 + 0.25 * i),
        "wavelet": lambda i: sigpy.linop.Wavelet(size, wave_name="db4"),
    }
    return [make[name](i) for i in range(count)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["sense", "nufft", "wavelet"])
def test_sigpy_laws(size, name):
    first, second = sigpy_linops(name, size, 2)
    x = gaussian(2, *size)
    check_all(SigpyOperator(first), x)
    check_all(SigpyOperator([first, second]), x)
    check_items(SigpyOperator([first, second]), x, [SigpyOperator(first), SigpyOperator(second)])


@pytest.mark.parametrize("name", ["sense", "nufft", "wavelet"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_sigpy_values_and_dtype(name, dtype):
    """The values are SigPy's own, for strided and conjugated tensors too, and the precision is that of the input."""
    (linop,) = sigpy_linops(name, (7, 10), 1)
    x = gaussian(2, 10, 7, dtype=dtype).mT.conj()
    theirs = np.stack([linop(np.ascontiguousarray(item.resolve_conj().numpy())) for item in x])
    close(SigpyOperator(linop)(x), torch.from_numpy(theirs).to(dtype), 1e-12)
    assert SigpyOperator(linop).normal(x).dtype == dtype


def test_norm_scales_a_nufft_to_one():
    (linop,) = sigpy_linops("nufft", (9, 12), 1)
    dense = np.stack([linop(item.reshape(9, 12)).ravel() for item in np.eye(108, dtype=complex)])
    exact = np.linalg.norm(dense, 2)
    assert exact > 1 and abs(norm(linop) / exact - 1) < 0.02
    close(SigpyOperator(linop * (1 / exact))(gaussian(1, 9, 12)), SigpyOperator(linop)(gaussian(1, 9, 12)) / exact)


def test_sigpy_refuses():
    linop = sigpy.linop.FFT((4, 5))
    with pytest.raises(InputError, match="takes complex"):
        SigpyOperator(linop)(torch.zeros(1, 5, 4) + 0j)
    with pytest.raises(InputError, match="takes complex"):
        SigpyOperator(linop)(torch.zeros(1, 4, 5))
    with pytest.raises(InputError, match="2 linops for a batch of 3"):
        SigpyOperator([linop, linop])(torch.zeros(3, 4, 5) + 0j)
    with pytest.raises(InputError, match="different shapes"):
        SigpyOperator([linop, sigpy.linop.FFT((5, 4))])
