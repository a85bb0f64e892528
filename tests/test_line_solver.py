"""The direct solver of line masks: equal to conjugate gradient and to dense algebra, item by item."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators import lines
from mri_score.operators.lines import direct_below, find_owners
from mri_score.operators.sense import Sense
from mri_score.posteriors.exact_draw import ExactDraw
from mri_score.priors.store import build_prior

SIZES = [(8, 12), (7, 9), (6, 11), (13, 4)]
WEIGHTS = torch.logspace(-6, 1, 8, dtype=torch.float64)
MANY = 4000


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> Tensor:
    return noise_like(torch.zeros(shape, dtype=dtype), generators(seed, draws=shape[0]))


def make_maps(batch: int, coils: int, size: tuple[int, int], dtype: torch.dtype = torch.complex128) -> Tensor:
    maps = gaussian(batch, coils, *size, seed=3, dtype=dtype)
    return maps / maps.abs().square().sum(1, keepdim=True).sqrt()


def make_mask(kind: str, axis: int, size: tuple[int, int], batch: int = 1) -> Tensor:
    """Lines along one axis: sampled or not, real weights, or all alike; different for each item of the batch."""
    values = torch.rand(batch, 1, 1, size[axis], generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    mask = {"lines": values > 0.5, "weights": values, "full": torch.full_like(values, 0.7)}[kind]
    return mask if axis == -1 else mask.mT


def dense_solution(operator: Sense, b: Tensor, weight: Tensor) -> Tensor:
    """Column by column, each item by its own matrix of A^H A: no FFT trick, no eigenvectors."""
    pixels = b[0].numel()
    basis = torch.eye(pixels, dtype=b.dtype).reshape(pixels, 1, *b.shape[1:])
    images = [operator.adjoint(operator(one.expand_as(b))).flatten(1) for one in basis]
    matrices = torch.stack(images, dim=-1) + weight.reshape(-1, 1, 1) * torch.eye(pixels)
    return torch.linalg.solve(matrices, b.flatten(1)).reshape(b.shape)


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    assert a.shape == b.shape and a.dtype == b.dtype
    assert torch.linalg.vector_norm(a - b) <= tolerance * torch.linalg.vector_norm(b)


def energy(operator: Sense, x: Tensor, weight: Tensor) -> Tensor:
    """sqrt <x, (A^H A + weight) x> of each item."""
    return (x.conj() * (operator.normal(x) + per_item(weight, x) * x)).real.flatten(1).sum(1).sqrt()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("kind", ["lines", "weights", "full"])
@pytest.mark.parametrize(("maps", "masks"), [(1, 1), (3, 1), (1, 3), (3, 3)])
def test_equals_the_dense_solution(size, axis, kind, maps, masks):
    operator = Sense(make_maps(maps, 2, size), make_mask(kind, axis, size, masks), solver="direct")
    b, weight = gaussian(3, *size), torch.tensor([1e-3, 0.1, 3.0], dtype=torch.float64)
    expected = dense_solution(operator, b, weight)
    close(operator.solve(b, weight), expected, 1e-10)
    close(operator.solve(b, weight, start=gaussian(3, *size, seed=4)), expected, 1e-10)
    assert operator.iterations == 0


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("size", [(16, 24), (15, 21)])
def test_equals_conjugate_gradient_in_the_energy_norm_for_every_weight(axis, size):
    """One factorisation serves all weights from 1e-6 to 10, and every item its own."""
    maps, mask = make_maps(8, 4, size), make_mask("lines", axis, size)
    iterated, direct = Sense(maps, mask, solver="cg"), Sense(maps, mask, solver="direct")
    b = gaussian(8, *size)
    expected = iterated.solve(b, WEIGHTS, tolerance=1e-12)
    difference = direct.solve(b, WEIGHTS) - expected
    assert (energy(direct, difference, WEIGHTS) <= 1e-5 * energy(direct, expected, WEIGHTS)).all()
    assert iterated.iterations > 0 and direct.iterations == 0


@pytest.mark.parametrize("weight", [1e-7, 1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("with_start", [False, True])
def test_single_precision_is_as_good_as_its_numbers(weight, with_start):
    """Where conjugate gradient is off by parts in a thousand and more; and whatever the batch."""
    size, mask = (32, 48), make_mask("lines", -1, (32, 48))
    maps, image, noise, other = (gaussian(1, 4, *size, seed=seed, dtype=torch.complex64) for seed in range(4))
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    single = Sense(maps, mask, solver="direct")
    double = Sense(maps.to(torch.complex128), mask, solver="direct")
    b = single.normal(image[0]) + weight * noise[0]
    start = other[0] if with_start else None
    x = single.solve(b, weight, start)
    exact = double.solve(b.to(torch.complex128), weight)
    close(x, exact.to(torch.complex64), 1e-6)
    alone = single.solve(b[:1], weight, None if start is None else start[:1])
    close(alone, x[:1], 1e-6)
    assert single.iterations == 0


def test_what_rounding_leaves_is_iterated_away():
    """Factors spoiled by a part in a thousand still end at the tolerance, and the iterations are counted."""
    operator = Sense(make_maps(1, 4, (7, 11)), make_mask("lines", -1, (7, 11)), solver="direct")
    b = gaussian(3, 7, 11)
    exact = operator.solve(b, 0.1)
    assert operator.iterations == 0
    operator._systems.values *= 1.001
    close(operator.solve(b, 0.1, tolerance=1e-9), exact, 1e-7)
    assert 0 < operator.iterations <= 3 * 30


def test_auto_takes_each_item_by_its_weight(monkeypatch):
    """Heavy items are iterated, light ones solved directly; alone or together makes no difference to an item."""
    monkeypatch.setattr("mri_score.operators.sense.direct_below", lambda coils, n, numbers, factored: 0.1)
    size, weight = (9, 13), torch.tensor([1e-4, 1.0, 1e-2, 0.1], dtype=torch.float64)
    maps, mask, b = make_maps(4, 3, size), make_mask("lines", -1, size), gaussian(4, *size)
    together = Sense(maps, mask)
    x = together.solve(b, weight)
    iterated = Sense(maps, mask, solver="cg")
    for i in range(4):
        alone = Sense(maps[i : i + 1], mask)
        close(alone.solve(b[i : i + 1], weight[i]), x[i : i + 1], 1e-12)
        assert (alone.iterations > 0) == (weight[i] >= 0.1)
    expected = iterated.solve(b, weight, tolerance=1e-12)
    assert (energy(together, x - expected, weight) <= 1e-4 * energy(together, expected, weight)).all()


def test_an_item_that_has_its_factors_keeps_to_them_while_they_are_cheap(monkeypatch):
    """And its batch mates' factors are none of its own: alone or together, it goes the same way."""
    limits = {False: 1e-2, True: 0.1}
    monkeypatch.setattr("mri_score.operators.sense.direct_below", lambda coils, n, numbers, factored: limits[factored])
    maps, mask, b = make_maps(2, 3, (9, 13)), make_mask("lines", -1, (9, 13)), gaussian(2, 9, 13)
    together, alone = Sense(maps, mask), [Sense(maps[i : i + 1], mask) for i in range(2)]
    for weight, iterates in (((1e-3, 5e-2), (False, True)), ((5e-2, 5e-2), (False, True)), ((0.2, 1.0), (True, True))):
        weights = torch.tensor(weight, dtype=torch.float64)
        x = together.solve(b, weights)
        for i in range(2):
            before = alone[i].iterations
            close(alone[i].solve(b[i : i + 1], weights[i]), x[i : i + 1], 1e-12)
            assert (alone[i].iterations > before) == iterates[i]
    for forget in (alone[0].begin_walk, lambda: alone[0].solve(b, 1.0)):  # another walk; another batch
        alone[0].solve(b[:1], 1e-3)
        forget()
        before = alone[0].iterations
        alone[0].solve(b[:1], 5e-2)
        assert alone[0].iterations > before


def test_a_walk_starts_without_the_factors_of_the_one_before():
    """Successive batches of a slice share the operator; what one walk's items had paid for is not the next one's."""
    operator = Sense(make_maps(1, 3, (9, 13)), make_mask("lines", -1, (9, 13)))
    posterior = ExactDraw(build_prior({"name": "unet", "widths": [6]}), operator, gaussian(1, 3, 9, 13), 0.1)
    operator.solve(gaussian(1, 9, 13), 1e-6)
    assert operator._factored.any()
    posterior.begin_walk()
    assert not operator._factored.any()


def test_auto_does_not_factor_for_heavy_weights_points_or_images_that_are_too_large(monkeypatch):
    size, b = (10, 12), gaussian(1, 10, 12)
    maps, columns = make_maps(1, 3, size), make_mask("lines", -1, size)
    heavy = Sense(maps, columns)
    heavy.solve(b, 100.0)
    points = Sense(maps, torch.rand(size, generator=torch.Generator().manual_seed(1)) > 0.5)
    points.solve(b, 1e-3)
    light = Sense(maps, columns)
    light.solve(b, 1e-3)
    monkeypatch.setattr(lines, "MOST_BYTES", 10 * 12 * 12 * 16 - 1)
    large = Sense(maps, columns)
    large.solve(b, 1e-3)
    assert all(one.iterations > 0 for one in (heavy, points, large)) and light.iterations == 0


def test_the_model_prefers_factors_for_light_weights_many_coils_and_short_lines():
    """At the limit both cost the same, in the units of the model."""
    limit = direct_below(4, 256, 1)
    iterated = lines.ITERATIONS / math.sqrt(limit) * (4 + lines.VECTORS)
    solved = lines.SUBSTITUTE * 256 + lines.RESIDUALS * 4
    assert iterated == pytest.approx(solved + lines.FACTOR * 256**2 / lines.SHARED_BY)
    kept = direct_below(4, 256, 1, factored=True)
    assert lines.ITERATIONS / math.sqrt(kept) * (4 + lines.VECTORS) == pytest.approx(solved)
    assert direct_below(4, 320, 1) < limit < direct_below(16, 256, 1)
    assert direct_below(4, 256, lines.MOST_BYTES // 16 + 1) == 0 < direct_below(4, 256, lines.MOST_BYTES // 16)


def test_a_number_of_iterations_is_kept_whatever_the_solver():
    maps, mask, b = make_maps(1, 3, (8, 9)), make_mask("lines", -1, (8, 9)), gaussian(2, 8, 9)
    cut = [Sense(maps, mask, solver=solver).solve(b, 1e-3, max_iterations=3) for solver in ("cg", "auto", "direct")]
    assert torch.equal(cut[0], cut[1]) and torch.equal(cut[0], cut[2])


def test_draws_of_a_slice_share_their_system():
    """Two slices, three draws each, the maps repeated for each draw: two systems, and the right one for each draw."""
    maps, mask = make_maps(2, 3, (6, 9)), make_mask("lines", -1, (6, 9))
    repeated = maps[[0, 1, 0, 0, 1, 1]]
    assert find_owners(repeated, mask) == ([0, 1], [0, 1, 0, 0, 1, 1])
    masks = torch.stack([mask[0], ~mask[0], mask[0], ~mask[0], mask[0], mask[0]])
    assert find_owners(maps[:1], masks) == ([0, 1], [0, 1, 0, 1, 0, 0])
    operator = Sense(repeated, mask, solver="direct")
    b, weight = gaussian(6, 6, 9), torch.logspace(-3, 1, 6, dtype=torch.float64)
    close(operator.solve(b, weight), dense_solution(operator, b, weight), 1e-10)
    assert len(operator._systems.vectors) == 2


def test_exact_draws_through_the_factors_have_the_closed_covariance():
    """Perturb and solve: (A^H A + w)^-1 noise_std^2, the directions that no sample sees included."""
    size, noise_std, weight = (3, 7), 0.1, 0.02
    operator = Sense(make_maps(1, 2, size), make_mask("lines", -1, size), solver="direct")
    basis = torch.eye(21, dtype=torch.complex128).reshape(21, *size)
    gram = operator.normal(basis).flatten(1).T
    covariance = noise_std**2 * torch.linalg.inv(gram + weight * torch.eye(21))
    like = torch.zeros(MANY, *size, dtype=torch.complex128)
    r = noise_std / math.sqrt(weight)
    noise = operator.adjoint(noise_std * noise_like(operator(like), generators(1, draws=MANY)))
    guess = r * noise_like(like, generators(2, draws=MANY))
    draws = operator.solve(noise + weight * guess, weight, start=guess).flatten(1)
    variances, axes = torch.linalg.eigh(covariance)
    along = draws @ axes.conj() / variances.sqrt()
    correlation = along.T @ along.conj() / (2 * MANY)
    assert variances.max() / variances.min() > 10
    assert (correlation - torch.eye(21)).abs().max() < 6 / math.sqrt(MANY)


def test_gradients_reach_b_through_the_factors():
    """The solution is linear and self-adjoint in b, so that its gradient is the solution for what comes from above."""
    operator = Sense(make_maps(2, 3, (5, 8)), make_mask("lines", -2, (5, 8)), solver="direct")
    b, above = gaussian(2, 5, 8).requires_grad_(), gaussian(2, 5, 8, seed=2)
    (gradient,) = torch.autograd.grad(operator.solve(b, 0.01), b, above)
    close(gradient, operator.solve(above, 0.01), 1e-10)


def test_factors_move_with_the_operator():
    operator = Sense(make_maps(1, 2, (5, 6)), make_mask("lines", -1, (5, 6)), solver="direct")
    operator.solve(gaussian(1, 5, 6), 0.1)
    assert not operator.state_dict()
    assert operator.to("meta")._systems.vectors.device.type == "meta"


def test_a_mask_repeated_for_each_coil_is_a_line_mask():
    """As `kspace.abs() > 0` gives it."""
    maps, mask = make_maps(1, 3, (6, 7)), make_mask("lines", -1, (6, 7))
    b = gaussian(1, 6, 7)
    full = Sense(maps, mask.expand(1, 3, 6, 7), solver="direct")
    close(full.solve(b, 0.1), Sense(maps, mask, solver="direct").solve(b, 0.1), 1e-12)


def test_refuses():
    maps, points = make_maps(1, 2, (6, 6)), torch.eye(6, dtype=torch.bool)
    with pytest.raises(InputError, match="whole lines"):
        Sense(maps, points, solver="direct")
    with pytest.raises(InputError, match="whole lines"):
        Sense(maps, torch.eye(6, dtype=torch.bool)[:2][None, :, None, :], solver="direct")
    with pytest.raises(InputError, match="'lu'; known names: auto, cg, direct"):
        Sense(maps, points, solver="lu")
