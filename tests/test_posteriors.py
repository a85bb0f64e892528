"""Posteriors against dense linear algebra: scores, means and draws for a fixed iterate, item by item."""

from __future__ import annotations

import math

import pytest
import torch
from gaussian import gaussian_problem
from torch import Tensor

from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense
from mri_score.posteriors import DPS, POSTERIORS, AdaptiveDraw, AnnealedLikelihood, ExactDraw, NormMatched, Proximal

N = 32
MANY = 4000
SIGMAS = [0.02, 0.4, 3.0]


def iterates(count: int, sigma: float = 0.5, n: int = N) -> Tensor:
    """Images of the prior with noise."""
    clean = gaussian_problem(n).prior.sample(generators(3, draws=count))
    return clean + sigma * noise_like(clean, generators(4, draws=count))


def dense(operator: Sense, n: int = N) -> Tensor:
    """The operator's matrix: (samples, n)."""
    return operator(torch.eye(n, dtype=torch.complex128)[:, None, :]).flatten(1).T


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    assert (found - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("sigma", SIGMAS)
def test_annealed_score_is_the_gradient_of_prior_and_softened_likelihood(sigma):
    problem = gaussian_problem(N)
    x = iterates(3).requires_grad_()
    data = problem.kspace.expand(3, -1, -1, -1)
    misfit = (problem.operator(x) - data).abs().square().sum() / (2 * (problem.noise_std**2 + sigma**2))
    (likelihood,) = torch.autograd.grad(-misfit, x)
    posterior = AnnealedLikelihood(problem.prior, problem.operator, problem.kspace, problem.noise_std)
    assert_close(posterior.score(x, sigma), problem.prior.score(x, sigma) + likelihood, 1e-10)


def closed_form(problem, x: Tensor, sigma: float, noise_std: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance of exp(-|y - A z|^2 / 2 noise_std^2 - |z - D(x)|^2 / 2 r^2), each real component."""
    matrix, v = dense(problem.operator), problem.prior.denoise(x, sigma).flatten()
    r2 = sigma**2 * problem.prior.sd**2 / (sigma**2 + problem.prior.sd**2)
    covariance = torch.linalg.inv(matrix.mH @ matrix / noise_std**2 + torch.eye(N) / r2)
    return covariance @ (matrix.mH @ problem.kspace.flatten() / noise_std**2 + v / r2), covariance


@pytest.mark.parametrize("least", [0.0, 0.2])
def test_a_walk_that_ends_at_a_high_level_has_the_mean_there(least):
    """Of a prior that knows no level below 0.2; one that does has no mean before it comes to the low ones."""
    problem, x = gaussian_problem(N), iterates(1)
    problem.prior.sigma_min = least
    parts = (problem.prior, problem.operator, problem.kspace, problem.noise_std)
    posterior = ExactDraw(*parts)
    posterior.begin_walk()
    for sigma in (0.5, 0.2):
        posterior.draw(x, sigma, generators(1))
    if least:
        assert_close(posterior.mean, Proximal(*parts).denoise(x, 0.2), 1e-6)
    else:
        assert posterior.mean is None


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("posterior", [Proximal, ExactDraw])
def test_proximal_and_exact_draw_denoise_to_the_closed_mean(posterior, sigma):
    problem, x = gaussian_problem(N), iterates(1)
    mean, _ = closed_form(problem, x, sigma, problem.noise_std)
    model = posterior(problem.prior, problem.operator, problem.kspace, problem.noise_std)
    assert_close(model.denoise(x, sigma).flatten(), mean, 5e-4)  # the solver stops at a residual of 1e-5


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("noise_std", [0.2, 0.05, 0.01, 0.001])
def test_exact_draw_has_the_closed_mean_and_covariance(sigma, noise_std):
    """Down to the least noise that scans are given: directions that no sample sees keep their spread r."""
    problem, x = gaussian_problem(N, noise_std), iterates(1)
    mean, covariance = closed_form(problem, x, sigma, noise_std)
    model = ExactDraw(problem.prior, problem.operator, problem.kspace, noise_std)
    draws = model.draw(x.expand(MANY, 1, N), sigma, generators(5, draws=MANY)).flatten(1)

    variances, axes = torch.linalg.eigh(covariance)
    along = (draws - mean) @ axes.conj() / variances.sqrt()  # white, if the law is right
    limit = 1.0 if noise_std == 0.001 else 0.0  # there the solver's tolerance tells, where samples see a little
    assert along.mean(0).abs().mean() < 2 / math.sqrt(MANY) + 0.2 * limit
    spread = (along - along.mean(0)).abs().square().mean(0) / 2
    unseen = variances > 0.9 * variances.max()
    assert (spread[unseen] - 1).abs().max() < 5 / math.sqrt(MANY)
    assert (spread - 1).abs().max() < 5 / math.sqrt(MANY) + limit
    assert float((spread * variances).sum() / variances.sum()) == pytest.approx(1, abs=0.02 + 0.04 * limit)
    if not limit:
        correlation = along.T @ along.conj() / (2 * MANY)
        assert (correlation - correlation.diagonal().diag()).abs().max() < 6 / math.sqrt(MANY)


def test_the_spread_of_a_draw_is_what_tweedie_leaves_to_a_white_image():
    """Without data, r^2 = sigma^2 sd^2 / (sigma^2 + sd^2)."""
    problem, x = gaussian_problem(N), iterates(1).expand(MANY, 1, N)
    nothing = Sense(problem.operator.maps, torch.zeros(N, dtype=torch.bool))
    for sigma in SIGMAS:
        draws = ExactDraw(problem.prior, nothing, 0 * problem.kspace, 0.05).draw(x, sigma, generators(6, draws=MANY))
        spread = (draws - problem.prior.denoise(x, sigma)).abs().square().mean() / 2
        assert float(spread) == pytest.approx(sigma**2 * 0.09 / (sigma**2 + 0.09), rel=0.02)


def test_proximal_draws_its_mean():
    problem, x = gaussian_problem(N), iterates(2)
    model = Proximal(problem.prior, problem.operator, problem.kspace, problem.noise_std)
    assert torch.equal(model.draw(x, 0.3, generators(0, draws=2)), model.denoise(x, 0.3))


def misses(error: float, items: int, n: int = 256):
    """A scan of each of some images, and a denoised image that misses each by white noise of variance `error`."""
    problem = gaussian_problem(n)
    x = problem.prior.sample(generators(8, draws=items))
    y = problem.operator(x)
    y = y + problem.noise_std * problem.operator.mask * noise_like(y, generators(9, draws=items))
    v = x + error**0.5 * noise_like(x, generators(10, draws=items))
    return AdaptiveDraw(problem.prior, problem.operator, y, problem.noise_std), v


def test_the_trace_of_unit_maps_is_the_number_of_lines():
    """tr A^H A = sum over samples and pixels |S_c|^2 mask / n, twice for real components; one probe estimates it."""
    model, _ = misses(0.01, 2)
    lines = 2 * int(model.operator.mask.sum())
    assert torch.allclose(model.trace, torch.tensor(lines).double(), rtol=5 / math.sqrt(lines))
    assert model.count.tolist() == [2 * lines] * 2  # of two coils


@pytest.mark.parametrize("error", [0.005, 0.02, 0.05])
def test_adaptive_variance_is_the_error_of_the_denoised_image(error):
    model, v = misses(error, 400)
    exact = 2 * int(model.operator.mask.sum()) / model.trace[0]
    found = model.variance(v, 3.0).flatten() / error
    assert float(found.mean() / exact) == pytest.approx(1, abs=5 * float(found.std()) / math.sqrt(400))
    assert float(found.std()) < 0.35


def test_adaptive_variance_of_an_item_is_its_own():
    """Images missed by 0.001 and by 0.01 in one batch."""
    small, v = misses(0.001, 2)
    _, worse = misses(0.01, 2)
    mixed = small.variance(torch.stack([v[0], worse[1]]), 3.0).flatten()
    assert float(mixed[0]) == pytest.approx(float(small.variance(v, 3.0)[0]), rel=1e-9)
    assert float(mixed[1]) == pytest.approx(float(small.variance(worse, 3.0)[1]), rel=1e-9)
    assert mixed[1] > 4 * mixed[0]


def test_adaptive_variance_is_between_a_fiftieth_and_all_of_the_exact_draws():
    model, v = misses(0.0, 3)
    for sigma in (0.05, 0.5, 3.0):
        bound = ExactDraw.variance(model, v, sigma)
        assert float(bound) == pytest.approx(sigma**2 * model.sd**2 / (sigma**2 + model.sd**2))
        assert torch.allclose(model.variance(v + 9, sigma), bound.expand(3, 1, 1))
        quiet = AdaptiveDraw(model.prior, model.operator, model.kspace, 2 * model.noise_std)
        assert torch.allclose(quiet.variance(v, sigma), 0.02 * bound.expand(3, 1, 1))


@pytest.mark.parametrize("weight", [1.0, 5.0])
def test_norm_matched_adds_a_data_gradient_as_long_as_the_score(weight):
    problem, x, sigma = gaussian_problem(N), iterates(3), 0.2
    model = NormMatched(problem.prior, problem.operator, problem.kspace, 0.05, weight)
    prior_score = problem.prior.score(x, sigma)
    added = (model.score(x, sigma) - prior_score).flatten(1)
    uphill = problem.operator.adjoint(problem.operator(x) - problem.kspace).flatten(1)
    assert torch.allclose(added.norm(dim=1), weight * prior_score.flatten(1).norm(dim=1))
    cosine = (uphill.conj() * added).sum(1).real / (uphill.norm(dim=1) * added.norm(dim=1))
    assert torch.allclose(cosine, -torch.ones(3).double())


def test_norm_matched_ignores_the_noise_of_the_scan():
    problem, x = gaussian_problem(N), iterates(2)
    quiet, loud = (NormMatched(problem.prior, problem.operator, problem.kspace, s).score(x, 0.2) for s in (0.01, 1.0))
    assert torch.equal(quiet, loud)


def faces(model, x: Tensor, sigma: float, draws: list[int]) -> dict[str, Tensor]:
    x = model.expand(x)
    if isinstance(model, DPS):  # a rule for its own walk
        return {"guide": torch.stack(model.guide(x, sigma), 1)}
    found = {"score": model.score(x, sigma), "denoise": model.denoise(x, sigma)}
    if isinstance(model, Proximal):
        found["draw"] = model.draw(x, sigma, generators(7, draws=draws))
    return found


@pytest.mark.parametrize("name", [name for name in POSTERIORS if name != "one-step"])
def test_items_do_not_see_their_batch_mates(name):
    """Different scans, noise levels and scales in one batch: the same as one by one."""
    problem, x = gaussian_problem(N), iterates(4)
    scales = torch.tensor([1.0, 0.1, 3.0, 30.0]).double()
    kspace = per_item(scales, problem.kspace.expand(4, -1, -1, -1)) * problem.kspace
    levels = torch.tensor([0.02, 0.05, 0.1, 0.5]).double()
    together = faces(POSTERIORS[name](problem.prior, problem.operator, kspace, levels), x, 0.3, [0, 1, 2, 3])
    for i in range(4):
        model = POSTERIORS[name](problem.prior, problem.operator, kspace[i : i + 1], float(levels[i]))
        for face, value in faces(model, x[i : i + 1], 0.3, [i]).items():
            assert_close(value, together[face][i : i + 1], 1e-6)


@pytest.mark.parametrize("name", [name for name in POSTERIORS if name != "one-step"])
def test_one_scan_serves_many_draws(name):
    """kspace of batch 1 under iterates of batch 3 is that kspace repeated."""
    problem, x = gaussian_problem(N), iterates(3)
    once = POSTERIORS[name](problem.prior, problem.operator, problem.kspace, 0.05)
    thrice = POSTERIORS[name](problem.prior, problem.operator, problem.kspace.expand(3, -1, -1, -1), 0.05)
    expected = faces(thrice, x, 0.3, [0, 1, 2])
    for face, value in faces(once, x, 0.3, [0, 1, 2]).items():
        assert_close(value, expected[face], 1e-12)


@pytest.mark.parametrize("name", [name for name in POSTERIORS if name != "one-step"])
def test_a_posterior_has_the_sd_of_its_prior(name):
    problem = gaussian_problem(N)
    assert POSTERIORS[name](problem.prior, problem.operator, problem.kspace, 0.05).sd == pytest.approx(0.3)
