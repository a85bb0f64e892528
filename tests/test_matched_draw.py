"""matched-draw: antithetic draws, its levels, the odds of modes, and the mean that is walked beside the draws."""

from __future__ import annotations

import math

import pytest
import torch
from gaussian import gaussian_problem
from mixture import mixture_problem, mode_distance
from torch import Tensor

from mri_score.evaluation.uncertainty import calibration, mean_share, pair_share, spread_skill
from mri_score.methods import METHODS
from mri_score.noise.schedules import Karras, TwoParts
from mri_score.numerics.noise import antithetic_generators, generators, noise_like, uniform
from mri_score.operators.sense import Sense
from mri_score.posteriors import AdaptiveDraw, MatchedDraw, MMPSDraw, Proximal
from mri_score.samplers import Renoise


def antithetic(draws, size: int = 4, seed: int = 0):
    return antithetic_generators(seed, "scan", 3, list(draws), size)


@pytest.mark.parametrize("size", [2, 4])
def test_noises_of_a_group_add_up_to_zero_and_each_is_standard_normal(size):
    n = 100_000
    noise = noise_like(torch.zeros(size, n, dtype=torch.complex128), antithetic(range(size), size))
    assert float(noise.sum(0).abs().max()) < 1e-12
    for part in torch.view_as_real(noise).unbind(-1):
        assert torch.allclose(part.var(1), torch.ones(size, dtype=torch.float64), atol=5 * math.sqrt(2 / n))
    correlation = float((noise[0].conj() * noise[1]).real.mean() / 2)
    assert correlation == pytest.approx(-1 / (size - 1), abs=5 / math.sqrt(n))


def test_an_antithetic_draw_does_not_depend_on_its_batch_mates_or_their_order():
    x = torch.zeros(6, 3, 5, dtype=torch.complex64)

    def several(draws) -> list[Tensor]:
        random = antithetic(draws)
        first = noise_like(x[: len(draws)], random)
        numbers = uniform(random)[:, None, None]
        return [first, numbers.to(x.dtype), noise_like(x[: len(draws)], random)]

    together = several(range(6))
    for order in ([5, 2, 0], [1], [4, 3]):
        for found, expected in zip(several(order), together, strict=True):
            torch.testing.assert_close(found, expected[order])
    mixed = noise_like(x[:2], [antithetic([2])[0], generators(5)[0]])
    torch.testing.assert_close(mixed[0], together[0][2])
    assert torch.equal(mixed[1:], noise_like(x[:1], generators(5)))


def test_uniform_numbers_of_a_group_are_those_of_its_own_generators():
    assert torch.equal(uniform(antithetic(range(4))), uniform(generators(0, "scan", 3, range(4))))


def linear_ensemble(count: int, seed: int, group: int = 4, n: int = 40_000) -> tuple[Tensor, Tensor]:
    """Draws of N(1 + 2i, I), of antithetic noise, and one independent draw as the truth."""
    x = torch.zeros(count, n, dtype=torch.complex128)
    random = antithetic(range(count), group, seed) if group > 1 else generators(seed, draws=count)
    return 1 + 2j + noise_like(x, random), 1 + 2j + noise_like(x[:1], generators(seed, "truth"))[0]


@pytest.mark.parametrize("count", [2, 3, 4, 6, 8, 11])
def test_spread_and_coverage_of_antithetic_draws_are_calibrated(count):
    samples, truth = linear_ensemble(count, count)
    mean_variance = float((samples.mean(0) - (1 + 2j)).abs().square().mean() / 2)
    assert mean_share(count, 4) == pytest.approx(mean_variance, abs=0.01)
    assert float(samples.real.var(0).mean()) == pytest.approx(pair_share(count, 4), rel=0.02)
    found = calibration(samples, truth, group=4)
    assert found.spread_skill == pytest.approx(1, abs=0.02)
    if count % 4 in (0, 1) or count < 4:  # whole groups: Student's law is exact; others nearly so
        assert found.coverage[0.8] == pytest.approx(0.8, abs=0.012)
    assert spread_skill(*linear_ensemble(4, 7, group=1)) == pytest.approx(1, abs=0.02)
    assert mean_share(5) == 0.2 and pair_share(5) == 1


def test_levels_above_the_border_are_even_in_log_sigma_and_those_below_are_karras():
    levels = TwoParts(0.005, 5.0, share=0.2).levels(31)
    assert len(levels) == 31 and levels[0] == 5.0 and levels[-1] == 0.005
    ratios = levels[1:7] / levels[:6]
    torch.testing.assert_close(ratios, ratios[:1].expand(6))
    assert float(levels[6]) == pytest.approx(0.3)
    torch.testing.assert_close(levels[6:], Karras(0.005, 0.3).levels(25))
    assert bool((levels[1:] < levels[:-1]).all())


@pytest.mark.parametrize("ends", [(0.005, 0.2), (0.4, 5.0), (0.01, 0.3)])
def test_levels_keep_to_a_range_that_does_not_hold_the_border(ends):
    levels = TwoParts(*ends).levels(12)
    assert float(levels[0]) == ends[1] and float(levels[-1]) == ends[0] and bool((levels[1:] < levels[:-1]).all())


def matched(problem, count: int, **options) -> MatchedDraw:
    kspace = problem.kspace.expand(count, *problem.kspace.shape[1:])
    return MatchedDraw(problem.prior, problem.operator, kspace, problem.noise_std, **options)


def walk(problem, count: int, levels: int = 30) -> Renoise:
    return Renoise(TwoParts(min(0.01, problem.noise_std / 2), 5.0).levels(levels))


def test_it_draws_as_its_parents_each_in_its_range_of_levels():
    problem = gaussian_problem(32)
    x = problem.prior.sample(generators(1, draws=3))
    posterior = matched(problem, 3, spread=1.0, solution_error=0.0)
    arguments = (problem.prior, problem.operator, problem.kspace.expand(3, -1, -1, -1), problem.noise_std)
    parents = (
        (2.0, MMPSDraw(*arguments, iterations=1, lanczos=2)),
        (0.5, MMPSDraw(*arguments, iterations=4, lanczos=2)),
        (0.2, AdaptiveDraw(*arguments)),
    )
    for sigma, parent in parents:
        posterior.begin_walk()
        parent.begin_walk()
        found = posterior.draw(x, sigma, generators(2, draws=3))
        torch.testing.assert_close(found, parent.draw(x, sigma, generators(2, draws=3)), rtol=1e-5, atol=1e-6)


def test_spread_multiplies_the_variance_of_the_draws_up_to_the_bound():
    problem = gaussian_problem(32)
    v = problem.prior.denoise(problem.prior.sample(generators(1, draws=3)), 0.2)
    one, more = (matched(problem, 3, spread=spread).variance(v, 0.2) for spread in (1.0, 1.5))
    bound = Proximal.variance(matched(problem, 3), v, 0.2)
    torch.testing.assert_close(more, torch.minimum(1.5 * one, bound))


def test_the_mean_beside_is_a_conditional_mean_of_its_own_iterate():
    """One level below `mean_below`, against dense linear algebra, and what it has no part in: the draw."""
    problem, sigma, n = gaussian_problem(32), 0.05, 32
    x = problem.prior.sample(generators(1, draws=1))
    posterior = matched(problem, 1, solution_error=0.0)
    posterior.begin_walk()
    posterior.draw(x, sigma, generators(2))
    matrix = problem.operator(torch.eye(n, dtype=torch.complex128)[:, None]).flatten(1).T
    v = problem.prior.denoise(x, sigma).flatten()
    r2 = sigma**2 * problem.prior.sd**2 / (sigma**2 + problem.prior.sd**2)
    precision = matrix.mH @ matrix / problem.noise_std**2 + torch.eye(n) / r2
    expected = torch.linalg.solve(precision, matrix.mH @ problem.kspace.flatten() / problem.noise_std**2 + v / r2)
    assert posterior.mean is not None
    torch.testing.assert_close(posterior.mean.flatten(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.3, 0.02])
def test_solutions_err_by_less_than_what_the_noise_of_the_draw_hides(sigma):
    """In the norm of A^H A + w, in which the draw is noise_std n about its mean; and iterations are saved."""
    problem, n = gaussian_problem(64), 64
    v = problem.prior.denoise(problem.prior.sample(generators(1, draws=3)), sigma)
    found, iterations = {}, {}
    for error in (0.0, 0.03, 0.3):
        operator = Sense(problem.operator.maps, problem.operator.mask, solver="cg")
        kspace = problem.kspace.expand(3, -1, -1, -1)
        posterior = MatchedDraw(problem.prior, operator, kspace, problem.noise_std, solution_error=error)
        found[error] = posterior.draw_about(v, sigma, generators(2, draws=3))
        iterations[error] = operator.iterations
    weight = (problem.noise_std**2 / posterior.variance(v, sigma)).flatten()
    for error in (0.03, 0.3):
        e = found[error] - found[0.0]
        size = (e.conj() * operator.normal(e)).real.sum((1, 2)) + weight * e.abs().square().sum((1, 2))
        assert bool((size.sqrt() <= error * problem.noise_std * math.sqrt(2 * n)).all())
        assert float(size.max()) > 0
    assert iterations[0.3] < iterations[0.03] < iterations[0.0]


def test_items_with_levels_of_their_own_are_walked_as_if_alone():
    """One item is below `mean_below` before the other: neither sees the random numbers of the other."""
    problem, levels = gaussian_problem(32), [TwoParts(end, 5.0).levels(12) for end in (0.004, 0.02)]
    like = torch.zeros(1, 1, 32, dtype=torch.complex128)

    def walked(sigmas: Tensor, numbers: list[int]) -> tuple[Tensor, Tensor]:
        posterior = matched(problem, len(numbers))
        random = [antithetic_generators(0, "scan", number, [0], 4)[0] for number in numbers]
        found = Renoise(levels[0]).with_levels(sigmas).walk(posterior, like.expand(len(numbers), -1, -1), random)
        assert found.mean is not None
        return found.x, found.mean

    x, mean = walked(torch.stack(levels, 1), [0, 1])
    for item in range(2):
        alone = walked(levels[item][:, None], [item])
        torch.testing.assert_close(x[item : item + 1], alone[0], rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(mean[item : item + 1], alone[1], rtol=1e-6, atol=1e-8)


def test_momentum_brings_the_average_of_antithetic_means_nearer_to_the_posterior_mean():
    """Of a Gaussian prior, where the noise of four such means cancels and what is left is lack of convergence."""
    problem = gaussian_problem(32)
    like = torch.zeros(4, 1, 32, dtype=torch.complex128)
    error = {}
    for momentum in (0.0, 0.5):
        found = walk(problem, 4).walk(matched(problem, 4, momentum=momentum), like, antithetic(range(4)))
        assert found.mean is not None
        error[momentum] = float((found.mean.mean(0) - problem.mean).norm() / problem.mean.norm())
    assert error[0.5] < 0.7 * error[0.0] < 0.02


@pytest.mark.parametrize("group", [1, 4])
def test_four_means_of_antithetic_walks_are_nearer_to_the_posterior_mean(group):
    """A Gaussian prior, where all is linear: what few draws leave of noise is gone."""
    problem = gaussian_problem(32)
    random = antithetic(range(4)) if group == 4 else generators(0, draws=4)
    posterior = matched(problem, 4)
    found = walk(problem, 4).walk(posterior, torch.zeros(4, 1, 32, dtype=torch.complex128), random)
    assert found.mean is not None
    scatter = float((found.mean.mean(0) - problem.mean).norm() / problem.mean.norm())
    trace = float(torch.diagonal(problem.covariance).real.sum())
    alone = math.sqrt(2 * trace / 4) / float(problem.mean.norm())  # of four independent exact draws
    assert scatter < 0.75 * alone if group == 4 else scatter < 1.2 * alone


@pytest.mark.parametrize(("hidden", "most"), [(0.5, 0.05), (0.75, 0.1), (0.93, 0.2)])
def test_modes_come_at_the_odds_that_the_data_leave_them(hidden, most):
    """Total variation, 400 draws, independent so that their odds are those of single draws.

    Over the problems of seeds 0 to 3 it is .05, .11 and .21 on average, and at most .12, .23 and .39.
    """
    problem = mixture_problem(hidden)
    posterior = matched(problem, 400)
    found = walk(problem, 400).walk(posterior, problem.like.expand(400, -1, -1), generators(0, "odds", draws=400))
    assert mode_distance(found.x, problem) <= most


def test_the_method_by_name_is_what_the_tests_walk():
    method = METHODS["matched-draw"]
    assert (method.posterior, method.schedule, method.steps, method.group) == ("matched-draw", "two-parts", 30, 4)
