"""The rules behind schedules: processes in time, growth of the noise, techniques 2 and 4, levels above a noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from mri_score.errors import InputError
from mri_score.models.preconditioning import PRECONDITIONINGS
from mri_score.noise.ncsnv2_levels import (
    PUBLISHED_OVERLAP,
    excess_variance,
    level_overlap,
    level_ratio,
    levels_above_noise,
    ratio_to_noise,
)
from mri_score.noise.schedules import (
    VP,
    AboveNoise,
    Automatic,
    Geometric,
    Karras,
    LinearBetas,
    LogNormal,
    Schedule,
    SubVP,
    Uniform,
)
from mri_score.numerics.noise import generators

SCHEDULES = [
    Geometric(0.01, 50.0),
    Uniform(0.01, 50.0),
    Karras(0.01, 80.0),
    LogNormal(0.02, 30.0, share=0.0),
    AboveNoise(0.05, 232.0, 30),
    VP(),
    SubVP(t_min=1e-3),
    VP.between(0.004, 30.0),
]


def drawn(schedule: Schedule, count: int = 3000) -> np.ndarray:
    return schedule.draw(generators(0, "levels", draws=count)).numpy()


# ---- Every schedule.


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_growth_is_the_slope_of_the_variance_in_time(schedule):
    """Against a central difference of sigma(u): the time of a VP process ends at t_min, that of others at 0."""
    u, h = torch.linspace(0.01, 0.99, 25).double(), 1e-5
    length = getattr(schedule, "t_max", 1.0) - getattr(schedule, "t_min", 0.0)
    slope = (schedule.sigma(u - h) ** 2 - schedule.sigma(u + h) ** 2) / (2 * h * length)
    assert torch.allclose(schedule.growth(schedule.sigma(u)), slope, rtol=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.7])
def test_growth_counts_the_even_share_of_a_log_normal(share):
    """1 / growth is half the density of draws over sigma: it sums to 1."""
    schedule = LogNormal(0.02, 30.0, share=share)
    log_sigma = torch.linspace(math.log(0.02), math.log(30.0), 20001).double()
    sigma = log_sigma.exp()
    density = 2 * sigma**2 / schedule.growth(sigma)  # of log sigma
    assert float(torch.trapezoid(density, log_sigma)) == pytest.approx(1, rel=1e-6)
    below = float(torch.trapezoid(density[sigma < 0.1], log_sigma[sigma < 0.1]))
    count = int((drawn(schedule) < 0.1).sum())
    assert stats.binomtest(count, 3000, below).pvalue > 0.01


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("n", [2, 30])
def test_levels_fall_from_one_exact_end_to_the_other(schedule, n):
    levels = schedule.levels(n)
    assert levels[0] == schedule.sigma_max and levels[-1] == schedule.sigma_min
    assert bool((levels[:-1] > levels[1:]).all())


def test_uniform_draws_are_even_in_sigma():
    assert stats.kstest(drawn(Uniform(0.01, 5.0)), stats.uniform(0.01, 4.99).cdf).pvalue > 0.01
    assert np.allclose(Uniform(0.01, 5.0).levels(9).diff(), -4.99 / 8)


def test_the_normal_of_edm():
    """log sigma ~ N(-1.2, 1.2^2) with share 0, but for 2 in 100000 draws beyond a range of 0.002 to 80."""
    schedule = LogNormal(0.002, 80.0, centre=math.exp(-1.2), spread=1.2, share=0.0)
    u = torch.linspace(0.01, 0.99, 99).double()
    expected = np.exp(stats.norm(-1.2, 1.2).ppf(1 - u.numpy()))
    assert np.allclose(schedule.sigma(u), expected, rtol=1e-3)
    assert stats.kstest(np.log(drawn(schedule)), stats.norm(-1.2, 1.2).cdf).pvalue > 0.01


# ---- VP and sub-VP.


@pytest.mark.parametrize(("schedule", "row"), [(VP(), "vp"), (SubVP(), "sub-vp"), (VP(t_min=1e-3), "vp")])
def test_a_row_sees_the_published_time_and_x_t(schedule, row):
    """c_in is the signal's share a and c_noise = 999 t, t even in [t_min, 1], also in single precision."""
    u = torch.linspace(0, 1, 101).double()
    t = 1 - u * (1 - schedule.t_min)
    mean = torch.exp(-0.25 * t**2 * 19.9 - 0.5 * t * 0.1)
    std = torch.sqrt(1 - mean**2) if row == "vp" else 1 - mean**2
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-5)):
        c_skip, c_out, c_in, c_noise = PRECONDITIONINGS[row](schedule.sigma(u).to(dtype), 0.5)
        assert torch.allclose(c_noise.double(), 999 * t, rtol=tolerance)
        assert torch.allclose(c_in.double(), mean, rtol=tolerance)
        assert torch.allclose(-c_out.double() * mean, std, rtol=max(tolerance, 1e-5))
        assert bool((c_skip == 1).all())


def test_the_steps_of_ddpm_are_its_products_of_betas():
    """Levels and labels of all 1,000 steps; the walk takes every step, or evenly spaced ones."""
    betas = np.linspace(1e-4, 0.02, 1000)
    sigmas = np.sqrt(1 / np.cumprod(1 - betas) - 1)
    steps = LinearBetas()
    assert np.allclose(steps.levels(1000), sigmas[::-1], rtol=1e-12)
    assert np.allclose(steps.levels(5000), sigmas[::-1], rtol=1e-12)  # there are no more
    assert np.allclose(steps.levels(4), sigmas[[999, 666, 333, 0]], rtol=1e-12)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-3)):
        label = PRECONDITIONINGS["ddpm"](steps.sigmas.to(dtype), 0.5)[3]
        assert np.allclose(label, np.arange(1000), atol=tolerance)
    at = np.searchsorted(sigmas, np.asarray(drawn(steps)) * (1 - 1e-12))
    assert set(at) <= set(range(1000)) and stats.chisquare(np.bincount(at // 100, minlength=10)).pvalue > 0.01
    inside = LinearBetas.between(0.05, 1.0)
    assert (inside.levels(1000)[0], inside.levels(1000)[-1]) == (1.0, 0.05)
    assert len(inside.levels(1000)) == 2 + ((sigmas > 0.05) & (sigmas < 1)).sum()


def test_the_ends_of_the_published_processes():
    assert VP().sigma_max == pytest.approx(math.sqrt(math.exp(10.05) - 1), rel=1e-9)
    assert SubVP().sigma_max == pytest.approx(2 * math.sinh(10.05 / 2), rel=1e-9)
    assert VP(t_min=1e-3).sigma_min == pytest.approx(math.sqrt(1e-4 + 9.95e-6), rel=1e-3)


@pytest.mark.parametrize(("process", "bounds"), [(VP, (0.004, 30.0)), (VP, (0.01, 400.0)), (SubVP, (0.02, 50.0))])
def test_a_part_of_a_process_has_the_ends_that_were_asked_for_and_the_times_of_the_whole(process, bounds):
    levels = process.between(*bounds).levels(9).double()
    assert levels[[-1, 0]].tolist() == pytest.approx(bounds, rel=1e-4)
    whole = process()
    integral = whole._integral(levels)
    t = (torch.sqrt(whole.beta_min**2 + 2 * (whole.beta_max - whole.beta_min) * integral) - whole.beta_min) / 19.9
    assert torch.allclose(t.diff(), t.diff().mean(), rtol=1e-3)


@pytest.mark.parametrize("options", [{"beta_min": 0.0}, {"beta_max": 0.05}, {"t_min": 0.0}, {"t_min": 1.0}])
@pytest.mark.parametrize("process", [VP, SubVP])
def test_impossible_processes_are_refused(process, options):
    with pytest.raises(InputError, match=f"{process.__name__} needs 0 < beta_min < beta_max and 0 < t_min < t_max"):
        process(**options)


# ---- Automatic ladders.

PUBLISHED = [(32, 50, 232), (64, 90, 500), (96, 140, 788), (128, 190, 1086), (256, 348, 2311)]
"""Side of an RGB image, sigma_max and levels of NCSNv2's configurations; sigma_min is 0.01."""


@pytest.mark.parametrize(("side", "sigma_max", "levels"), PUBLISHED)
def test_automatic_gives_the_published_ladders(side, sigma_max, levels):
    assert Automatic(0.01, sigma_max, 3 * side**2, PUBLISHED_OVERLAP).count == levels


@pytest.mark.parametrize(("side", "sigma_max", "levels"), PUBLISHED)
def test_whole_steps_of_overlap_567_are_the_published_counts(side, sigma_max, levels):
    """Rounded down; to the nearest, as we count, two of the five have one more."""
    assert 1 + math.floor(math.log(sigma_max / 0.01) / math.log(level_ratio(3 * side**2, 0.567))) == levels


@pytest.mark.parametrize(("side", "sigma_max", "levels"), [(32, 50, 219), (64, 90, 472), (256, 348, 2182)])
def test_automatic_counts_for_half_an_overlap_by_default(side, sigma_max, levels):
    schedule = Automatic(0.01, sigma_max, 3 * side**2)
    assert schedule.count == levels
    assert level_overlap(3 * side**2, schedule.ratio) == pytest.approx(0.5, abs=0.003)
    ladder = schedule.levels(levels).numpy()
    assert np.allclose(ladder[:-1] / ladder[1:], schedule.ratio)


@pytest.mark.parametrize(("side", "repeats", "e"), [(32, 5, 0.065), (256, 3, 0.0095)])
def test_automatic_steps_keep_the_noise_at_its_level(side, repeats, e):
    """Technique 4 for images such as CIFAR-10 and FFHQ, e = step / sigma_min^2."""
    schedule = Automatic(0.01, 50.0, 3 * side**2)
    found = schedule.step_size(repeats) / 0.01**2
    assert found == pytest.approx(e, rel=0.02)
    for other in (0.8 * found, 1.2 * found):
        assert excess_variance(found, schedule.ratio, repeats) < excess_variance(other, schedule.ratio, repeats)


# ---- Levels above the noise that images hold.


def test_levels_above_noise_are_the_seeds_with_the_missing_first():
    sigma_max, noise_std, count = 232.0, 0.05, 2311
    rate = (noise_std / sigma_max) ** (1 / count)
    seed = [sigma_max * rate**k - noise_std for k in range(1, count)]  # one level fewer than it was asked for
    levels = levels_above_noise(sigma_max, noise_std, count)
    assert ratio_to_noise(sigma_max, noise_std, count) == pytest.approx(rate, rel=1e-12)
    assert len(levels) == count and np.allclose(levels[1:], seed, rtol=1e-9)
    assert float(levels[0]) == pytest.approx(sigma_max - noise_std)
    assert float(levels[-1]) == pytest.approx(1.8e-4, rel=0.02)
    assert float(levels[-2] / levels[-1]) == pytest.approx(2, rel=0.01)


def test_the_schedule_above_noise_draws_these_levels_and_no_others():
    schedule, levels = AboveNoise(0.05, 10.0, 8), levels_above_noise(10.0, 0.05, 8).numpy()
    assert np.allclose(schedule.levels(8), levels, rtol=1e-9)
    draws = drawn(schedule)
    nearest = np.abs(np.log(draws[:, None] / levels)).argmin(1)
    assert np.allclose(draws, levels[nearest], rtol=1e-9)
    assert stats.chisquare(np.bincount(nearest, minlength=8)).pvalue > 0.01


@pytest.mark.parametrize(("noise_std", "sigma_max", "count"), [(0.0, 1.0, 5), (2.0, 1.0, 5), (0.1, 1.0, 1)])
def test_impossible_levels_above_noise_are_refused(noise_std, sigma_max, count):
    with pytest.raises(InputError, match="levels above the noise need 0 < noise_std < sigma_max and a count"):
        AboveNoise(noise_std, sigma_max, count)
