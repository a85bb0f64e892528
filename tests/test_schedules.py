"""Noise levels: exact ends, the published formulas, and training draws that follow their law."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from mri_score.errors import InputError
from mri_score.noise.schedules import Geometric, Karras, LogNormal, Schedule
from mri_score.numerics.noise import generators

SCHEDULES = [
    Geometric(0.01, 50.0),
    Geometric(0.004, 237.3, count=7),
    Karras(0.01, 5.0),
    Karras(0.03, 80.0, rho=3.0),
    LogNormal(0.004, 250.0),
    LogNormal(0.02, 3.0, centre=1.0, spread=0.4),
]


def drawn(schedule: Schedule, count: int = 3000, seed: int = 0) -> np.ndarray:
    return schedule.draw(generators(seed, "levels", draws=count)).numpy()


def assert_law(draws: np.ndarray, cdf) -> None:
    """Kolmogorov and Smirnov see no difference; the seed is fixed, so that the verdict is too."""
    assert stats.kstest(draws, cdf).pvalue > 0.01


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("n", [2, 3, 30])
def test_levels_fall_from_one_exact_end_to_the_other(schedule, n):
    levels = schedule.levels(n)
    assert levels.dtype == torch.float64 and len(levels) == n
    assert levels[0] == schedule.sigma_max and levels[-1] == schedule.sigma_min
    assert bool((levels[:-1] > levels[1:]).all())


def test_geometric_levels_have_one_ratio():
    levels = Geometric(0.02, 40.0).levels(9)
    assert torch.allclose(levels[1:] / levels[:-1], torch.tensor((0.02 / 40.0) ** (1 / 8), dtype=torch.float64))


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_karras_levels_are_equation_5(rho):
    low, high, n = 0.01, 80.0, 11
    expected = [(high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(n)]
    assert np.allclose(Karras(low, high, rho).levels(n).numpy(), expected, rtol=1e-9)


def test_continuous_geometric_draws_are_log_uniform():
    assert_law(drawn(Geometric(0.01, 50.0)), stats.loguniform(0.01, 50.0).cdf)


def test_karras_draws_are_uniform_in_the_root():
    roots = drawn(Karras(0.01, 80.0)) ** (1 / 7)
    low, high = 0.01 ** (1 / 7), 80.0 ** (1 / 7)
    assert_law(roots, stats.uniform(low, high - low).cdf)


@pytest.mark.parametrize("count", [2, 7, 10])
def test_a_counted_ladder_draws_its_levels_equally_often(count):
    schedule = Geometric(0.01, 50.0, count=count)
    draws, ladder = drawn(schedule), schedule.levels(count).numpy()
    nearest = np.abs(np.log(draws[:, None] / ladder)).argmin(1)
    assert np.allclose(draws, ladder[nearest], rtol=1e-12)
    assert stats.chisquare(np.bincount(nearest, minlength=count)).pvalue > 0.01


def truncated(schedule: LogNormal):
    """The normal law of log sigma between the two ends, by SciPy."""
    place, scale = math.log(schedule.centre), schedule.spread
    ends = [(math.log(end) - place) / scale for end in (schedule.sigma_min, schedule.sigma_max)]
    return stats.truncnorm(*ends, loc=place, scale=scale)


@pytest.mark.parametrize("schedule", SCHEDULES[4:])
def test_log_normal_quantiles_are_those_of_the_truncated_normal(schedule):
    u = torch.linspace(0, 1, 21, dtype=torch.float64)
    expected = np.exp(truncated(schedule).ppf(1 - u.numpy()))  # u runs from noisy to clean
    assert np.allclose(schedule.sigma(u).numpy(), expected, rtol=1e-6)


def test_log_normal_draws_follow_the_truncated_normal():
    schedule = LogNormal(0.05, 2.0, share=0.0)
    assert_law(np.log(drawn(schedule)), truncated(schedule).cdf)


@pytest.mark.parametrize("share", [0.1, 0.4, 1.0])
def test_log_normal_keeps_a_share_of_draws_for_the_whole_range(share):
    schedule = LogNormal(0.01, 100.0, centre=1.0, spread=0.05, share=share)
    draws = drawn(schedule)
    outside = draws[(draws < 0.5) | (draws > 2.0)]  # ten spreads away: none of the normal part
    chance = share * (1 - math.log(4.0) / math.log(1e4))
    assert stats.binomtest(len(outside), len(draws), chance).pvalue > 0.01
    assert_law(np.log(outside[outside < 0.5]), stats.uniform(math.log(0.01), math.log(50)).cdf)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_items_level_does_not_depend_on_its_batch(schedule):
    together = schedule.draw(generators(3, draws=5))
    alone = torch.cat([schedule.draw(generators(3, draws=[number])) for number in range(5)])
    assert torch.equal(together, alone) and len(set(alone.tolist())) > 1


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, 1.0), (math.nan, 1.0)])
def test_refuses_an_empty_range(low, high):
    with pytest.raises(InputError, match="sigma_min < sigma_max"):
        Geometric(low, high)


def test_refuses_ladders_of_one_level():
    with pytest.raises(InputError, match="at least 2 noise levels; got 1"):
        Karras().levels(1)
    with pytest.raises(InputError, match="at least 2; got 1"):
        Geometric(count=1)
