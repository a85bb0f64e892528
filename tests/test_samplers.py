"""Walks against the exact Gaussian posterior: mean and variance, convergence, independence of batch mates."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from gaussian import GaussianProblem, gaussian_problem, mean_error, variance_ratio
from torch import Tensor

from mri_score.errors import InputError
from mri_score.methods import METHODS
from mri_score.models.analytic import GaussianPrior, MixturePrior
from mri_score.models.base import ScoreModel
from mri_score.noise.schedules import Geometric, Karras
from mri_score.numerics.noise import generators
from mri_score.operators.sense import Sense
from mri_score.posteriors import POSTERIORS, AdaptiveDraw, AnnealedLikelihood, ExactDraw, NormMatched, Proximal
from mri_score.posteriors.base import Posterior
from mri_score.samplers import SAMPLERS, Langevin, Renoise
from mri_score.samplers.base import Sampler

N = 64
SCHEDULES = {"geometric": Geometric(0.01, 5.0), "karras": Karras(0.01, 5.0)}
problem = cache(gaussian_problem)


def posterior(kind: type, of: GaussianProblem):
    return kind(of.prior, of.operator, of.kspace, of.noise_std)


@cache
def exact_draws(schedule: str, levels: int, draws: int = 300) -> Tensor:
    walk = Renoise(SCHEDULES[schedule].levels(levels))
    like = problem().mean.expand(draws, 1, N)
    return walk(posterior(ExactDraw, problem()), like, generators(1, "walk", draws=draws))


# Against the exact posterior.


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_exact_draw_reaches_the_posterior_mean_and_variance(schedule):
    samples = exact_draws(schedule, 50)
    assert mean_error(samples, problem()) < 0.05
    assert variance_ratio(samples, problem()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_exact_draw_converges_with_its_levels(schedule):
    """The excess of variance is about 1 / levels."""
    excess = [variance_ratio(exact_draws(schedule, levels), problem()) - 1 for levels in (5, 10, 20, 50)]
    assert excess[0] > excess[1] > excess[2] > excess[3] > 0
    assert excess[2] < 0.45 * excess[0] / 2
    errors = [mean_error(exact_draws(schedule, levels), problem()) for levels in (5, 10, 20)]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("levels", [30, 50])
def test_adaptive_draw_reaches_the_posterior_mean_and_variance(levels):
    samples = Renoise(SCHEDULES["karras"].levels(levels))(
        posterior(AdaptiveDraw, problem()), problem().mean.expand(300, 1, N), generators(1, "walk", draws=300)
    )
    assert mean_error(samples, problem()) < 0.05
    assert variance_ratio(samples, problem()) == pytest.approx(1, abs=0.1)


def test_exact_draw_with_a_hundred_levels_has_mean_and_variance_to_five_percent():
    samples = exact_draws("karras", 100)
    assert mean_error(samples, problem()) < 0.05
    assert variance_ratio(samples, problem()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("levels", "ratio"), [(30, 0.95), (100, 0.92)])
def test_adaptive_draw_spreads_a_little_too_little(levels, ratio):
    """Its r^2 is read off the sampled lines, which v knows best: the more levels, the less their noise hides it."""
    walk = Renoise(SCHEDULES["karras"].levels(levels))
    samples = walk(posterior(AdaptiveDraw, problem()), problem().mean.expand(300, 1, N), generators(5, draws=300))
    assert mean_error(samples, problem()) < 0.05
    assert variance_ratio(samples, problem()) == pytest.approx(ratio, abs=0.04)


@pytest.mark.parametrize("kind", [ExactDraw, AdaptiveDraw])
def test_conditional_means_come_nearer_to_the_posterior_mean_than_draws(kind):
    """Without a bias of their own: forty walks' means are nearer than their draws, and not as if they had no noise."""
    model = posterior(kind, problem())
    walk = Renoise(SCHEDULES["karras"].levels(60))
    found = walk.walk(model, problem().mean.expand(40, 1, N), generators(3, draws=40))
    assert found.mean is not None
    assert mean_error(found.mean, problem()) < mean_error(found.x, problem()) < 0.2
    assert 0.3 < variance_ratio(found.mean, problem()) < variance_ratio(found.x, problem())


def test_one_draw_of_white_images_is_exact():
    """v and r are then the true conditional law, so that one level is enough."""
    of, white = problem(), GaussianPrior(torch.zeros(1, N).cdouble(), 0.09 * torch.eye(N).cdouble())
    model = ExactDraw(white, of.operator, of.kspace, of.noise_std)
    eye = torch.eye(N, dtype=torch.complex128)[:, None]
    matrix = of.operator(eye).flatten(1).T
    exact = torch.linalg.inv(matrix.mH @ matrix / of.noise_std**2 + torch.eye(N) / 0.09)
    mean = exact @ (matrix.mH @ of.kspace.flatten()) / of.noise_std**2
    walk = Renoise(torch.tensor([1e4]))  # its start says nothing
    samples = walk(model, of.mean.expand(2000, 1, N), generators(3, draws=2000))
    assert float((samples.mean(0) - mean).norm() / mean.norm()) < 0.03  # 2000 draws leave 0.021
    spread = (samples - samples.mean(0)).abs().square().sum() / (2 * 1999)
    assert float(spread / exact.diagonal().real.sum()) == pytest.approx(1, abs=0.02)


def test_proximal_finds_the_mean_and_underrates_the_variance():
    """It draws no noise of its own: 46 % of the posterior's variance at 50 levels."""
    samples = Renoise(SCHEDULES["karras"].levels(50))(
        posterior(Proximal, problem()), problem().mean.expand(300, 1, N), generators(1, "walk", draws=300)
    )
    assert mean_error(samples, problem()) < 0.05
    assert variance_ratio(samples, problem()) == pytest.approx(0.46, abs=0.05)


@pytest.mark.slow
def test_langevin_reaches_the_posterior_mean_and_variance():
    walk = Langevin(SCHEDULES["geometric"].levels(1000), repeats=3, step_size=0.3)
    samples = walk(posterior(AnnealedLikelihood, problem()), problem().mean.expand(200, 1, N), generators(1, draws=200))
    assert mean_error(samples, problem()) < 0.05
    assert variance_ratio(samples, problem()) == pytest.approx(1, abs=0.1)


# Without data.


def spectrum(samples: Tensor, prior: GaussianPrior) -> Tensor:
    """The samples' variance along each axis of the prior, over the prior's."""
    along = samples.flatten(1) @ prior.axes.conj()
    return along.abs().square().mean(0) / 2 / prior.variances


def test_langevin_samples_the_bare_prior():
    of = problem(33)
    walk = Langevin(Geometric(0.01, 5.0).levels(300), repeats=3, step_size=0.3)
    ratios = spectrum(walk(of.prior, of.mean.expand(400, 1, 33), generators(4, draws=400)), of.prior)
    assert float(ratios.mean()) == pytest.approx(1, abs=0.03)
    assert float((ratios - 1).abs().max()) < 0.25  # 400 complex draws: five standard errors


def test_renoise_samples_the_bare_prior_by_its_own_draws():
    of = problem(33)
    ratios = spectrum(Renoise(Karras(0.01, 80.0).levels(4))(of.prior, of.mean.expand(800, 1, 33),
                                                            generators(5, draws=800)), of.prior)  # fmt: skip
    assert float(ratios.mean()) == pytest.approx(1, abs=0.03)
    assert float((ratios - 1).abs().max()) < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("walk", [
    Renoise(Geometric(0.02, 20.0).levels(30)), Langevin(Geometric(0.02, 20.0).levels(300), 3, 0.3)
])  # fmt: skip
def test_walks_visit_the_modes_of_a_mixture_by_their_weights(walk):
    means = torch.tensor([[-2.0, 0.0], [2.0, 0.0]]).double()
    prior = MixturePrior(means, torch.tensor([0.2, 0.4]).double(), torch.tensor([3.0, 7.0]).double())
    samples = walk(prior, torch.zeros(1500, 2).double(), generators(6, draws=1500))
    right = samples[:, 0] > 0
    assert float(right.double().mean()) == pytest.approx(0.7, abs=0.05)
    assert float(samples[right].std(0).mean()) == pytest.approx(0.4, rel=0.06)
    assert float(samples[~right].std(0).mean()) == pytest.approx(0.2, rel=0.06)


# One item, whatever its company.


def walk_of(name: str, of: GaussianProblem) -> tuple[Sampler, Posterior]:
    """Each method with its posterior and its sampler, in single precision as scans are."""
    single = Sense(of.operator.maps.to(torch.complex64), of.operator.mask)
    method = METHODS[name]
    model = POSTERIORS[method.posterior](of.prior, single, of.kspace.to(torch.complex64), of.noise_std)
    return SAMPLERS[method.sampler](SCHEDULES["geometric"].levels(40)), model


@pytest.mark.parametrize("name", [name for name in METHODS if name != "one-step"])
def test_any_split_of_a_batch_gives_the_same_images(name):
    sampler, model = walk_of(name, problem(33))
    like = model.expand(torch.zeros(8, 1, 33, dtype=torch.complex64))
    whole = sampler(model, like, generators(1, "scan", draws=8))
    for split in ([1, 3, 4], [7, 1], [1] * 8):
        first, parts = 0, []
        for size in split:
            numbers = range(first, first + size)
            parts.append(sampler(model, like[:size], generators(1, "scan", draws=numbers)))
            first += size
        difference = (torch.cat(parts) - whole).flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1)
        assert float(difference.max()) < 1e-4


@pytest.mark.parametrize("name", [name for name in METHODS if name != "one-step"])
def test_seeds_decide_and_nothing_else(name):
    sampler, model = walk_of(name, problem(33))
    like = model.expand(torch.zeros(2, 1, 33, dtype=torch.complex64))
    one = sampler(model, like, generators(1, draws=2))
    assert torch.equal(one, sampler(model, like + 7, generators(1, draws=2)))  # `like` gives shape and type alone
    other = sampler(model, like, generators(2, draws=2))
    least = 0.05 if METHODS[name].draws else 0.02
    assert float((one - other).norm() / one.norm()) > least
    assert float((one[0] - one[1]).norm() / one.norm()) > least


# The loop.


class Breaks(ScoreModel):
    """White images; item 2 turns into `value` below sigma 0.5."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def denoise(self, x, sigma):
        z = x / (1 + sigma**2)
        if sigma < 0.5:
            z[2] = self.value
        return z


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_stops_where_numbers_stop_being_finite(value):
    seen: list[int] = []
    walk = Langevin(torch.tensor([2.0, 1.0, 0.4, 0.2]), 1, 0.1)
    with pytest.raises(InputError, match=r"level 2 \(sigma 0.4\): item 2 of the batch is not finite"):
        walk(Breaks(value), torch.zeros(4, 3), generators(0, draws=4), lambda level, *_: seen.append(level))
    assert seen == [0, 1]


@pytest.mark.parametrize("levels", [[], [1.0, 1.0], [1.0, 2.0], [1.0, 0.0], [1.0, -1.0], [2.0, float("nan")], [[2.0]]])
@pytest.mark.parametrize("sampler", [Renoise, Langevin])
def test_refuses_levels_that_do_not_fall_to_a_positive_end(sampler, levels):
    with pytest.raises(InputError, match="positive, strictly decreasing noise levels, not "):
        sampler(torch.tensor(levels))


@pytest.mark.parametrize("kind", [AnnealedLikelihood, NormMatched])
def test_renoise_refuses_a_model_without_a_draw(kind):
    with pytest.raises(InputError, match=f"{kind.__name__} has no draw of its own: walk it with"):
        Renoise(SCHEDULES["karras"].levels(5))(posterior(kind, problem(33)), problem(33).mean[None], generators(0))


class Projected(GaussianPrior):
    """White images whose first pixel is known."""

    def project(self, x, sigma, random):
        x = x.clone()
        x[:, 0] = 7.0
        return x


def test_the_loop_watches_each_level_and_projects_each_iterate():
    model = Projected(torch.zeros(3).double(), torch.eye(3).double())
    levels, seen = torch.tensor([3.0, 1.0, 0.1]).double(), []
    x = Renoise(levels)(model, torch.zeros(2, 3).double(), generators(0, draws=2), lambda *args: seen.append(args))
    assert [(number, sigma) for number, sigma, _ in seen] == [(0, 3.0), (1, 1.0), (2, pytest.approx(0.1))]
    assert all(bool((iterate[:, 0] == 7).all()) for _, _, iterate in seen)
    assert torch.equal(seen[-1][2], x)


def test_a_walk_builds_no_graph():
    model = torch.nn.Linear(1, 1)

    class Learned(ScoreModel):
        def denoise(self, x, sigma):
            return model(x)

    assert not Langevin(torch.tensor([1.0, 0.5]))(Learned(), torch.zeros(1, 1), generators(0)).requires_grad


def test_langevin_ends_with_one_denoising():
    levels = torch.tensor([1.0, 0.5, 0.3]).double()
    prior = GaussianPrior(torch.zeros(3).double(), torch.eye(3).double())
    like = torch.zeros(2, 3).double()
    raw = Langevin(levels, denoise=False)(prior, like, generators(0, draws=2))
    assert torch.allclose(Langevin(levels)(prior, like, generators(0, draws=2)), prior.denoise(raw, 0.3))


def test_one_langevin_step_is_its_formula():
    """x + a score + sqrt(2 a) n with a = step_size sigma^2."""
    prior = GaussianPrior(torch.zeros(3).double(), torch.eye(3).double())
    random, again = generators(0), generators(0)
    start = 2.0 * torch.randn(1, 3, generator=again[0], dtype=torch.float64)
    noise = torch.randn(1, 3, generator=again[0], dtype=torch.float64)
    a = 0.25 * 2.0**2
    x = Langevin(torch.tensor([2.0]).double(), 1, 0.25, denoise=False)(prior, torch.zeros(1, 3).double(), random)
    assert torch.allclose(x, start - a * start / 5 + (2 * a) ** 0.5 * noise)
