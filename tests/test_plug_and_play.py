"""DAPS, split Gibbs, DiffPIR and DDS: their parts against closed forms, their walks' known biases, item by item."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from gaussian import GaussianProblem, gaussian_problem, mean_error, variance_ratio
from scipy.sparse.linalg import LinearOperator as ScipyOperator
from scipy.sparse.linalg import cg
from torch import Tensor

from mri_score.errors import InputError
from mri_score.methods import METHODS
from mri_score.models.analytic import GaussianPrior
from mri_score.noise.schedules import Geometric, Karras
from mri_score.numerics.channels import per_item
from mri_score.numerics.descent import levels_below, lower_noise, probability_flow, reverse_diffusion
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense
from mri_score.posteriors.daps import DAPS
from mri_score.posteriors.dds import DDS
from mri_score.posteriors.diffpir import DiffPIR
from mri_score.posteriors.exact_draw import Proximal
from mri_score.posteriors.split_gibbs import SplitGibbs
from mri_score.samplers.base import Sampler
from mri_score.samplers.ddim import DDIM
from mri_score.samplers.renoise import Renoise

N = 33
MANY = 4000
problem = cache(gaussian_problem)


def white(variance: float, n: int = N) -> GaussianPrior:
    return GaussianPrior(torch.zeros(1, n).cdouble(), variance * torch.eye(n).cdouble())


def noisy(count: int, sigma: float) -> Tensor:
    """Images of the prior with noise."""
    clean = problem(N).prior.sample(generators(3, draws=count))
    return clean + sigma * noise_like(clean, generators(4, draws=count))


def dense(operator: Sense, n: int = N) -> Tensor:
    """The operator's matrix: (samples, n)."""
    return operator(torch.eye(n, dtype=torch.complex128)[:, None, :]).flatten(1).T


def model_of(kind: type, of: GaussianProblem, **options: object):
    return kind(of.prior, of.operator, of.kspace, of.noise_std, **options)


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    assert (found - expected).norm() <= tolerance * expected.norm()


def assert_law(draws: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """The draws (P, n) have this mean and covariance, along every axis of it."""
    count = len(draws)
    variances, axes = torch.linalg.eigh(covariance)
    along = (draws - mean) @ axes.conj() / variances.sqrt()  # white, if the law is right
    assert along.mean(0).abs().mean() < 2 / math.sqrt(count)
    second = along.T @ along.conj() / (2 * count)
    assert (second - torch.eye(len(variances))).abs().max() < 6 / math.sqrt(count)


# The way down.


@pytest.mark.parametrize("fresh", [0.0, 0.3, 1.0])
def test_a_step_down_leaves_noise_of_the_next_level(fresh):
    z = torch.full((500, N), 2.0, dtype=torch.complex128)
    x = z + 0.8 * noise_like(z, generators(1, draws=500))
    lower = lower_noise(z, x, 0.8, 0.3, fresh, generators(2, draws=500)) - z
    assert float(lower.abs().square().mean() / 2) == pytest.approx(0.09, rel=0.03)
    kept = (lower * (x - z).conj()).real.mean() / (x - z).abs().square().mean()
    assert float(kept) == pytest.approx(0.3 / 0.8 * math.sqrt(1 - fresh), abs=0.015)


def test_the_step_of_reverse_diffusion_is_its_conditional_law():
    """x' | x, x0 = z has mean z + (s' / s)^2 (x - z) and variance s'^2 (1 - (s' / s)^2)."""
    z, x = torch.zeros(MANY, 1).double(), torch.full((MANY, 1), 3.0).double()
    sigma, sigma_next = 1.5, 0.9
    steps = lower_noise(z, x, sigma, sigma_next, 1 - (sigma_next / sigma) ** 2, generators(3, draws=MANY))
    assert float(steps.mean()) == pytest.approx(0.36 * 3, abs=0.05)
    assert float(steps.var()) == pytest.approx(0.81 * (1 - 0.36), rel=0.1)


def test_levels_below_are_karras_levels_and_zero_for_each_item():
    sigmas = torch.tensor([5.0, 0.3, 0.012])
    ladders = torch.stack(levels_below(sigmas, 5), dim=1)
    assert ladders.shape == (3, 6) and bool((ladders[:, -1] == 0).all())
    for sigma, ladder in zip(sigmas.tolist(), ladders, strict=True):
        assert torch.allclose(ladder[:-1], Karras(min(0.01, sigma / 2), sigma).levels(5), rtol=1e-6)


@pytest.mark.parametrize(("heun", "order"), [(False, 1), (True, 2)])
def test_the_flow_of_a_gaussian_is_a_scaling_and_euler_and_heun_find_it_by_their_orders(heun, order):
    """Along an axis of variance l, x shrinks by sqrt((l + s'^2) / (l + s^2))."""
    prior, x = problem(N).prior, noisy(2, 1.0)
    scale = torch.sqrt((prior.variances + 0.04) / (prior.variances + 1))
    expected = ((x.flatten(1) @ prior.axes.conj()) * scale @ prior.axes.T).reshape(x.shape)
    errors = []
    for count in (40, 80):
        sigmas = list(Karras(0.2, 1.0).levels(count + 1))
        errors.append(float((probability_flow(prior.denoise, x, sigmas, heun) - expected).norm() / expected.norm()))
    assert errors[1] < 0.02
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def test_reverse_diffusion_draws_what_the_prior_leaves_open_and_falls_short_with_few_steps():
    prior, sigma = white(0.09), 0.4
    x = torch.full((600, 1, N), 0.5 + 0.2j, dtype=torch.complex128)
    mean, variance = prior.denoise(x, sigma), 0.09 * sigma**2 / (0.09 + sigma**2)
    shares = []
    for steps in (10, 40, 160):
        draws = reverse_diffusion(prior.denoise, x, levels_below(sigma, steps), generators(5, draws=600))
        assert float((draws - mean).mean().abs()) < 5 * math.sqrt(2 * variance / (600 * N))
        shares.append(float((draws - mean).abs().square().mean() / 2 / variance))
    assert shares[0] < 0.9 and shares[0] < shares[1] < shares[2]
    assert shares[2] == pytest.approx(1, abs=0.04)


# Each posterior at one level.


@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0])
def test_daps_draws_about_the_end_of_the_flow_with_a_spread_of_sigma(sigma):
    of, x = problem(N), noisy(1, sigma)
    gain = torch.ones_like(of.prior.variances)
    ladder = [*Karras(0.01, sigma).levels(5).tolist(), 0.0]
    for s, s_next in zip(ladder, ladder[1:], strict=False):  # Euler's steps, axis by axis
        gain = gain * (1 + (s_next - s) * s / (of.prior.variances + s**2))
    v = (x.flatten() @ of.prior.axes.conj()) * gain @ of.prior.axes.T
    matrix = dense(of.operator)
    covariance = torch.linalg.inv(matrix.mH @ matrix / of.noise_std**2 + torch.eye(N) / sigma**2)
    mean = covariance @ (matrix.mH @ of.kspace.flatten() / of.noise_std**2 + v / sigma**2)
    model = model_of(DAPS, of)
    assert_close(model.denoise(x, sigma).flatten(), mean, 2e-3)
    draws = model.draw(x.expand(MANY, 1, N), sigma, generators(5, draws=MANY)).flatten(1)
    assert_law(draws, mean, covariance)


@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0])
def test_split_gibbs_couples_the_renoised_image_to_the_data(sigma):
    of, clean = problem(N), problem(N).prior.sample(generators(6))
    matrix = dense(of.operator)
    covariance = torch.linalg.inv(matrix.mH @ matrix / of.noise_std**2 + torch.eye(N) / sigma**2)
    mean = covariance @ (matrix.mH @ of.kspace.flatten() / of.noise_std**2 + clean.flatten() / sigma**2)
    random = generators(7, draws=MANY)
    x = clean.expand(MANY, 1, N)
    coupled = model_of(SplitGibbs, of).project(x + sigma * noise_like(x, random), sigma, random)
    assert_law(coupled.flatten(1), mean, covariance)


def test_split_gibbs_leaves_a_clean_image_alone_and_denoises_as_its_prior():
    of, x = problem(N), noisy(2, 0.3)
    model = model_of(SplitGibbs, of)
    assert torch.equal(model.project(x, 0.0, generators(0, draws=2)), x)
    assert torch.equal(model.denoise(x, 0.3), of.prior.denoise(x, 0.3))


@pytest.mark.parametrize("weight", [1.0, 7.0])
def test_diffpir_finds_the_proximal_point(weight):
    of, x, sigma = problem(N), noisy(1, 0.3), 0.3
    matrix, w = dense(of.operator), weight * of.noise_std**2 / sigma**2
    v = of.prior.denoise(x, sigma).flatten()
    expected = torch.linalg.solve(matrix.mH @ matrix + w * torch.eye(N), matrix.mH @ of.kspace.flatten() + w * v)
    found = model_of(DiffPIR, of, weight=weight).denoise(x, sigma).flatten()
    assert_close(found, expected, 5e-4)  # the solver stops at a residual of 1e-5


@pytest.mark.parametrize("iterations", [1, 5])
def test_dds_takes_so_many_iterations_of_conjugate_gradient(iterations):
    """SciPy's are the witness; neither converges in five."""
    of, x, gamma = problem(N), noisy(1, 0.3), 50.0
    matrix, v = dense(of.operator).numpy(), of.prior.denoise(x, 0.3).flatten().numpy()
    system = ScipyOperator((N, N), lambda z: z + gamma * matrix.conj().T @ (matrix @ z), dtype=complex)
    b = v + gamma * matrix.conj().T @ of.kspace.flatten().numpy()
    expected, _ = cg(system, b, x0=v, rtol=0.0, maxiter=iterations)
    found = model_of(DDS, of, gamma=gamma, iterations=iterations).denoise(x, 0.3).flatten()
    assert_close(found, torch.from_numpy(expected), 1e-9)
    assert np.linalg.norm(system.matvec(found.numpy()) - b) > 1e-4 * np.linalg.norm(b)


@pytest.mark.parametrize(("kind", "options", "message"), [
    (DDS, {"gamma": 0.0}, "DDS needs a positive gamma and at least 1 iteration; got 0.0 and 5"),
    (DDS, {"iterations": 0}, "DDS needs a positive gamma and at least 1 iteration; got 5.0 and 0"),
    (DiffPIR, {"weight": -1.0}, "the weight of DiffPIR is -1.0; it must be positive"),
    (DAPS, {"inner_steps": 0}, "at least 1 inner step; got 0"),
    (SplitGibbs, {"inner_steps": 0}, "at least 1 inner step; got 0"),
])  # fmt: skip
def test_refuses_weights_and_counts_that_mean_nothing(kind, options, message):
    with pytest.raises(InputError, match=message):
        model_of(kind, problem(N), **options).draw(noisy(1, 0.3), 0.3, generators(0))


# The walk of DDIM.


def test_ddim_without_new_noise_is_the_flow_and_with_nothing_else_it_is_renoise():
    of, levels = problem(N), Karras(0.01, 5.0).levels(8)
    like, random = of.mean.expand(2, 1, N), generators(8, draws=2)
    start = 5.0 * noise_like(like, generators(8, draws=2))
    flow = probability_flow(of.prior.denoise, start, [*levels, torch.tensor(0.0)])
    assert_close(DDIM(levels, 0.0)(of.prior, like, random), flow, 1e-12)
    model = model_of(Proximal, of)
    renoised = Renoise(levels)(model, like, generators(9, draws=2))
    assert_close(DDIM(levels, 1.0)(model, like, generators(9, draws=2)), renoised, 1e-12)


@pytest.mark.parametrize("zeta", [-0.1, 1.5, math.nan])
def test_ddim_refuses_what_is_no_share(zeta):
    with pytest.raises(InputError, match=f"zeta is {zeta}; it is a share of new noise"):
        DDIM(torch.tensor([1.0, 0.5]), zeta)


# Whole walks. The biases are part of the methods, and their docstrings state them.

KARRAS, GEOMETRIC = Karras(0.01, 5.0), Geometric(0.01, 5.0)
WALKS: dict[str, tuple[type, dict[str, object], Sampler]] = {
    "daps": (DAPS, {}, Renoise(KARRAS.levels(200))),
    "daps, 20 levels": (DAPS, {}, Renoise(KARRAS.levels(20))),
    "split-gibbs": (SplitGibbs, {}, Renoise(GEOMETRIC.levels(100))),
    "diffpir": (DiffPIR, {}, DDIM(KARRAS.levels(100), 0.3)),
    "diffpir, weight 1": (DiffPIR, {"weight": 1.0}, DDIM(KARRAS.levels(100), 0.3)),
    "dds": (DDS, {}, DDIM(KARRAS.levels(50), 0.85**2)),
    "dds, gamma 1": (DDS, {"gamma": 1.0}, DDIM(KARRAS.levels(50), 0.85**2)),
}


@cache
def walked(name: str, draws: int = 100) -> Tensor:
    kind, options, sampler = WALKS[name]
    of = problem(64)
    return sampler(model_of(kind, of, **options), of.mean.expand(draws, 1, 64), generators(1, "walk", draws=draws))


def measured_ratio(samples: Tensor) -> float:
    """The variance ratio on the directions that samples see well: eigenvalues of A^H A above half the largest."""
    of = problem(64)
    values, axes = torch.linalg.eigh(dense(of.operator, 64).mH @ dense(of.operator, 64))
    axes = axes[:, values > 0.5 * values.max()]
    along = (samples - samples.mean(0)).flatten(1) @ axes.conj()
    exact = (axes.mH @ of.covariance @ axes).diagonal().real.sum()
    return float(along.abs().square().sum() / (2 * (len(samples) - 1)) / exact)


@pytest.mark.parametrize(("name", "ratio", "measured", "error"), [
    ("daps", 1.48, 1.06, 0.1),
    ("daps, 20 levels", 2.0, 1.06, 0.15),
    ("split-gibbs", 0.85, 0.89, 0.05),
    ("diffpir", 1.35, 3.9, 0.2),
    ("diffpir, weight 1", 0.85, 0.83, 0.1),
    ("dds", 0.50, 0.002, 0.2),
    ("dds, gamma 1", 0.585, 0.04, 0.15),
])  # fmt: skip
def test_each_walk_has_the_bias_that_is_known_of_it(name, ratio, measured, error):
    samples = walked(name)
    assert variance_ratio(samples, problem(64)) == pytest.approx(ratio, rel=0.1)
    assert measured_ratio(samples) == pytest.approx(measured, rel=0.1, abs=0.005)
    assert mean_error(samples, problem(64)) < error


def test_split_gibbs_is_calibrated_where_the_prior_draws_exactly():
    class Exact(SplitGibbs):
        def draw(self, x, sigma, random):
            return self.prior.draw(x, sigma, random)

    of = problem(64)
    like = of.mean.expand(150, 1, 64)
    samples = Renoise(GEOMETRIC.levels(100))(model_of(Exact, of), like, generators(2, draws=150))
    assert mean_error(samples, of) < 0.05
    assert variance_ratio(samples, of) == pytest.approx(1, abs=0.08)


# One item, whatever its company.

POSTERIORS = {"daps": DAPS, "split-gibbs": SplitGibbs, "diffpir": DiffPIR, "dds": DDS}


@pytest.mark.parametrize("name", POSTERIORS)
def test_any_split_of_a_batch_gives_the_same_images(name):
    of, single = problem(N), torch.complex64
    covariance = of.prior.axes @ (of.prior.variances[:, None] * of.prior.axes.mH)
    prior = GaussianPrior(of.prior.mean.to(single), covariance.to(single))
    operator = Sense(of.operator.maps.to(single), of.operator.mask)
    model = POSTERIORS[name](prior, operator, of.kspace.to(single), of.noise_std)
    levels = GEOMETRIC.levels(12)
    sampler = Renoise(levels) if isinstance(model, (DAPS, SplitGibbs)) else DDIM(levels)
    like = torch.zeros(4, 1, N, dtype=single)
    whole = sampler(model, like, generators(1, "scan", draws=4))
    for split in ([1, 3], [1] * 4):
        numbers = torch.arange(4).split(split)
        parts = [sampler(model, like[: len(part)], generators(1, "scan", draws=part.tolist())) for part in numbers]
        difference = (torch.cat(parts) - whole).flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1)
        assert float(difference.max()) < 1e-4


def faces(model, x: Tensor, sigma: Tensor | float, draws: list[int]) -> dict[str, Tensor]:
    random = generators(7, draws=draws)
    found = {"denoise": model.denoise(x, sigma), "project": model.project(x, sigma, random)}
    if not isinstance(model, DDS):
        found["draw"] = model.draw(x, sigma, random)
    return found


@pytest.mark.parametrize("name", POSTERIORS)
def test_items_have_their_own_scan_noise_and_level(name):
    of, x = problem(N), noisy(3, 0.3)
    kspace = per_item(torch.tensor([1.0, 0.1, 3.0]).double(), of.kspace.expand(3, -1, -1, -1)) * of.kspace
    stds, sigmas = torch.tensor([0.02, 0.1, 0.5]).double(), torch.tensor([0.3, 0.05, 1.0]).double()
    together = faces(POSTERIORS[name](of.prior, of.operator, kspace, stds), x, sigmas, [0, 1, 2])
    for i in range(3):
        model = POSTERIORS[name](of.prior, of.operator, kspace[i : i + 1], float(stds[i]))
        for face, value in faces(model, x[i : i + 1], float(sigmas[i]), [i]).items():
            assert_close(value, together[face][i : i + 1], 1e-6)


def test_dds_renews_the_published_share_of_the_noise():
    """eta = 0.85 of Chung et al., ICLR 2024, is a share of the standard deviation; `zeta` is one of the variance."""
    assert METHODS["dds"].options["zeta"] ** 0.5 == pytest.approx(0.85)
