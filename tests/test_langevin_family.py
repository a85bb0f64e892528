"""Preconditioned Langevin, predictor-corrector, projections, RED-diff, warm starts: against exact Gaussian answers."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from gaussian import GaussianProblem, gaussian_problem, mean_error, variance_ratio
from torch import Tensor

from mri_score.errors import InputError
from mri_score.models.analytic import GaussianPrior
from mri_score.models.base import ScoreModel
from mri_score.noise.schedules import Geometric, Karras
from mri_score.numerics.fourier import fft
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.base import LinearOperator
from mri_score.operators.sense import Sense
from mri_score.posteriors.annealed import AnnealedLikelihood
from mri_score.posteriors.exact_draw import ExactDraw
from mri_score.posteriors.projected import CoilProjected, Projected
from mri_score.posteriors.unannealed import Unannealed
from mri_score.samplers.langevin import Langevin
from mri_score.samplers.preconditioned import Preconditioned
from mri_score.samplers.predictor_corrector import PredictorCorrector
from mri_score.samplers.red_diff import RedDiff
from mri_score.samplers.renoise import Renoise

N = 64
problem = cache(gaussian_problem)


def posterior(kind: type, of: GaussianProblem, **options):
    return kind(of.prior, of.operator, of.kspace, of.noise_std, **options)


def walked(sampler, model, draws: int, start: Tensor | None = None) -> Tensor:
    like = problem().mean.expand(draws, 1, N)
    return model.combine(sampler(model, model.expand(like), generators(1, "walk", draws=draws), start=start))


def dense(operator: LinearOperator) -> Tensor:
    return operator(torch.eye(N, dtype=torch.complex128)[:, None, :]).flatten(1).T


# Preconditioned Langevin.


@cache
def preconditioned(levels: int) -> Tensor:
    return walked(Preconditioned(Geometric(0.005, 5.0).levels(levels)), posterior(Unannealed, problem()), 300)


def test_preconditioned_langevin_reaches_the_posterior_mean():
    assert mean_error(preconditioned(100), problem()) < 0.05  # 300 draws alone leave 0.02


@pytest.mark.slow
def test_preconditioned_langevin_spreads_too_far_at_few_levels():
    """34 % too much variance at 50 levels, 16 % at the published 100, 6 % at 300."""
    excess = [variance_ratio(preconditioned(levels), problem()) - 1 for levels in (50, 100, 300)]
    assert excess[0] > excess[1] > excess[2]
    assert excess == [pytest.approx(0.34, abs=0.08), pytest.approx(0.16, abs=0.06), pytest.approx(0.05, abs=0.04)]


def test_solving_further_than_published_changes_nothing():
    sampler = Preconditioned(Geometric(0.005, 5.0).levels(50))
    solved = walked(sampler, posterior(Unannealed, problem(), iterations=200), 300)
    assert variance_ratio(solved, problem()) == pytest.approx(variance_ratio(preconditioned(50), problem()), abs=0.02)
    assert mean_error(solved, problem()) == pytest.approx(mean_error(preconditioned(50), problem()), abs=0.01)


@pytest.mark.parametrize("sigma", [0.05, 0.5])
@pytest.mark.parametrize("g", [0.5, 1.3])
def test_a_preconditioned_step_has_the_mean_and_covariance_of_its_formula(sigma, g):
    """Mean x + g M^-1 score(x), covariance 2 g M^-1, each real component."""
    of, many = problem(), 3000
    model = posterior(Unannealed, of, iterations=300)
    x = of.prior.sample(generators(7))
    matrix = dense(of.operator)
    curvature = matrix.mH @ matrix / of.noise_std**2 + torch.eye(N) / sigma**2
    mean = x.flatten() + g * torch.linalg.solve(curvature, model.score(x, sigma).flatten())
    stepped = model.langevin(x.expand(many, 1, N), sigma, g, generators(8, draws=many)).flatten(1)
    white = (stepped - mean) @ torch.linalg.cholesky(curvature).conj() / (2 * g) ** 0.5
    assert float(white.mean(0).abs().mean()) < 2 / many**0.5
    covariance = white.T @ white.conj() / (2 * many)
    assert float((covariance - torch.eye(N)).abs().max()) < 6 / many**0.5


def test_the_first_iterate_is_a_draw_about_the_guess():
    of, many, sigma = problem(), 3000, 0.4
    guess = of.prior.sample(generators(9))
    matrix = dense(of.operator)
    precision = matrix.mH @ matrix / of.noise_std**2 + torch.eye(N) / sigma**2
    data = matrix.mH @ of.kspace.flatten() / of.noise_std**2
    mean = torch.linalg.solve(precision, data + guess.flatten() / sigma**2)
    model = posterior(Unannealed, of, iterations=300)
    white = model.begin(guess.expand(many, 1, N), sigma, generators(10, draws=many)).flatten(1) - mean
    white = white @ torch.linalg.cholesky(precision).conj()
    assert float(white.mean(0).abs().mean()) < 2 / many**0.5
    assert float((white.T @ white.conj() / (2 * many) - torch.eye(N)).abs().max()) < 6 / many**0.5


def test_unannealed_score_is_the_gradient_of_prior_and_likelihood():
    of = problem()
    x = of.prior.sample(generators(11)).requires_grad_()
    misfit = (of.operator(x) - of.kspace).abs().square().sum() / (2 * of.noise_std**2)
    (likelihood,) = torch.autograd.grad(-misfit, x)
    found = posterior(Unannealed, of).score(x, 0.3) - of.prior.score(x, 0.3)
    assert torch.allclose(found, likelihood, rtol=1e-9, atol=1e-9)


def test_preconditioned_langevin_may_end_with_the_priors_denoised_image():
    of, levels = problem(), Geometric(0.05, 5.0).levels(10)
    raw = walked(Preconditioned(levels), posterior(Unannealed, of), 2)
    clean = walked(Preconditioned(levels, denoise=True), posterior(Unannealed, of), 2)
    assert torch.allclose(clean, of.prior.denoise(raw, float(levels[-1])))


# Predictor-corrector.


def spectrum(of: GaussianProblem, levels: int, **options) -> Tensor:
    """The variance of bare samples along each axis of the prior, over the prior's."""
    size = of.mean.shape[-1]
    walk = PredictorCorrector(Geometric(0.01, 5.0).levels(levels), **options)
    samples = walk(of.prior, of.mean.expand(400, 1, size), generators(4, draws=400))
    return (samples.flatten(1) @ of.prior.axes.conj()).abs().square().mean(0) / 2 / of.prior.variances


def test_the_predictor_alone_samples_the_bare_prior_as_its_levels_grow():
    """Reverse diffusion is of first order: the excess of variance is 0.29 at 25 levels, 0.13 at 50, 0 at 200."""
    excess = [float(spectrum(problem(33), levels, repeats=0).mean()) - 1 for levels in (25, 50, 200)]
    assert excess[1] < 0.6 * excess[0]
    assert excess[0] == pytest.approx(0.29, abs=0.05)
    assert excess[2] == pytest.approx(0, abs=0.04)


def test_the_corrector_repairs_few_levels_and_leaves_its_own_bias_at_many():
    """Steps of a = 2 snr^2 / mean(1 / v) spread an axis of variance v by 1 / (1 - a / 2 v), however many levels."""
    of = problem(33)
    assert float(spectrum(of, 25).mean()) < float(spectrum(of, 25, repeats=0).mean()) - 0.05
    v = of.prior.variances
    stationary = 1 / (1 - 0.16**2 / (v * (1 / v).mean()))
    ratios = spectrum(of, 200)
    assert float(ratios.mean()) == pytest.approx(float(stationary.mean()), abs=0.07)
    assert float(ratios.mean()) > 1.02
    assert float((ratios - 1).abs().max()) < 0.35


def test_one_predictor_corrector_step_is_its_formula():
    """For white images the score is -x / (1 + sigma^2)."""
    prior = GaussianPrior(torch.zeros(3).double(), torch.eye(3).double())
    again = generators(0)
    x = 2.0 * noise_like(torch.zeros(1, 3).double(), again)
    n = noise_like(x, again)
    score = -x / 5
    a = 2 * 0.1**2 * n.norm() ** 2 / score.norm() ** 2
    x = x + a * score + (2 * a).sqrt() * n
    x = x - (4 - 1) * x / 5 + 3**0.5 * noise_like(x, again)
    found = []
    walk = PredictorCorrector(torch.tensor([2.0, 1.0]).double(), snr=0.1)
    walk(prior, torch.zeros(1, 3).double(), generators(0), lambda level, sigma, iterate: found.append(iterate))
    assert torch.allclose(found[0], x)


class Recorded(GaussianPrior):
    """White images that note at which sigma they are projected."""

    def project(self, x, sigma, random):
        self.seen.append(sigma)
        return x


def test_the_model_projects_after_each_correction_and_each_prediction():
    model = Recorded(torch.zeros(3).double(), torch.eye(3).double())
    model.seen = []
    PredictorCorrector(torch.tensor([2.0, 1.0]))(model, torch.zeros(1, 3).double(), generators(0))
    assert model.seen == [2.0, 1.0, 1.0, 0.0]


# Projections.


@pytest.mark.parametrize("noisy", [False, True])
def test_hybrid_projection_is_near_the_mean_and_no_posterior(noisy):
    """It never asks for the noise of the scan: mean off by 8 % of its length, a sixth of the variance missing."""
    sampler = PredictorCorrector(Geometric(0.01, 5.0).levels(100))
    samples = walked(sampler, posterior(Projected, problem(), noisy=noisy), 200)
    assert 0.06 < mean_error(samples, problem()) < 0.11
    assert variance_ratio(samples, problem()) == pytest.approx(0.83, abs=0.08)


def test_hybrid_strength_falls_with_the_logarithm_of_sigma():
    strength = posterior(Projected, problem(), sigma_min=0.01, sigma_max=1.0).strength
    found = [strength(sigma) for sigma in (7.0, 1.0, 0.1, 0.01, 0.0)]
    assert found == pytest.approx([1.0, 1.0, 0.6, 0.2, 0.2])


def test_hybrid_projection_is_a_sense_step():
    of = problem()
    x = of.prior.sample(generators(12))
    step = posterior(Projected, of).project(x, 0.0, generators(0))
    matrix = dense(of.operator)
    expected = x.flatten() + 0.2 * (matrix.mH @ (of.kspace.flatten() - matrix @ x.flatten()))
    assert torch.allclose(step.flatten(), expected)


def test_coils_combine_to_the_image_that_they_were_expanded_from():
    model, image = posterior(CoilProjected, problem()), problem().prior.sample(generators(13, draws=3))
    coils = model.expand(image)
    assert coils.shape == (3, 2, 1, N)
    assert torch.allclose(coils.abs().square().mean(), image.abs().square().mean())  # the energy that the prior knows
    assert torch.allclose(model.combine(coils), image)


def test_coil_projection_replaces_samples_and_nothing_else():
    of = problem()
    model = posterior(CoilProjected, of)
    x = model.expand(of.prior.sample(generators(14)))
    k = fft(model.project(x, 0.3, generators(0)))
    sampled = of.operator.mask.expand_as(k)
    assert torch.allclose(k[sampled], 2**0.5 * of.kspace[sampled])
    assert torch.allclose(k[~sampled], fft(x)[~sampled])


@pytest.mark.parametrize("kind", [Projected, CoilProjected])
def test_noisy_samples_have_the_noise_of_the_iterate(kind):
    """noise_std of the scan, and what is missing to sigma; sigma = 0.2 against 0.05."""
    of, many, sigma = problem(), 2000, 0.2
    model = posterior(kind, of, noisy=True)
    scale, strength = (2**0.5, 1.0) if kind is CoilProjected else (1.0, model.strength(sigma))
    still = posterior(kind, of)
    x = model.expand(of.mean.expand(many, 1, N))
    moved = model.project(x, sigma, generators(15, draws=many)) - still.project(x, sigma, generators(15, draws=many))
    expected = (sigma**2 - (scale * of.noise_std) ** 2) ** 0.5
    if kind is CoilProjected:
        sampled = of.operator.mask.expand(many, 2, 1, N)
        spread = fft(moved)[sampled].abs().square().mean() / 2
        assert float(spread.sqrt()) == pytest.approx(expected, rel=0.01)
    else:
        matrix = dense(of.operator)
        spread = moved.flatten(1).abs().square().sum(1).mean() / 2
        trace = matrix.abs().square().sum()
        assert float((spread / trace).sqrt()) == pytest.approx(strength * expected, rel=0.01)


def test_coil_projection_draws_coils_that_agree_with_the_samples_and_know_nothing_of_each_other():
    """A fifth of the mean is missed and a third of the variance: no coil helps another to unfold."""
    sampler = PredictorCorrector(Geometric(0.01, 5.0).levels(60))
    samples = walked(sampler, posterior(CoilProjected, problem()), 100)
    assert 0.12 < mean_error(samples, problem()) < 0.28
    assert variance_ratio(samples, problem()) == pytest.approx(0.64, abs=0.12)


class RealParts(ScoreModel):
    """White real images of variance 0.09; complex ones it refuses."""

    sd = 0.3

    def denoise(self, x, sigma):
        assert not x.is_complex()
        return x * 0.09 / (0.09 + sigma.reshape(-1, *[1] * (x.ndim - 1)) ** 2)


def test_real_priors_see_real_and_imaginary_parts():
    """White images part by part are white complex images; each item has its own sigma."""
    of = problem()
    x = noise_like(torch.zeros(3, 2, 1, N, dtype=torch.complex128), generators(16, draws=3))
    model = CoilProjected(RealParts(), of.operator, of.kspace, of.noise_std, parts=True)
    sigma = torch.tensor([0.1, 0.3, 1.0]).double()
    assert torch.allclose(model.denoise(x, sigma), x * (0.09 / (0.09 + sigma**2)).reshape(3, 1, 1, 1))
    assert torch.allclose(model.denoise(x, 0.3), x / 2)


def test_coil_projection_needs_cartesian_coils():
    class Blur(LinearOperator):
        def adjoint(self, y):
            return y.sum(1)

    with pytest.raises(InputError, match="Blur is no Sense operator: use the posterior 'projected'"):
        CoilProjected(problem().prior, Blur(), problem().kspace, 0.05)


# RED-diff.


def test_red_diff_is_an_estimate_near_the_mean_without_spread():
    """Within half a posterior standard deviation, root mean square over its axes; 4 % of the variance."""
    of = problem()
    samples = walked(RedDiff(Karras(0.01, 5.0, rho=1.0).levels(200)), posterior(Unannealed, of), 30)
    off = torch.linalg.cholesky(torch.linalg.inv(of.covariance)).mH @ (samples.mean(0) - of.mean).flatten()
    assert float((off.abs().square().mean() / 2).sqrt()) < 0.55
    assert mean_error(samples, of) < 0.15
    assert variance_ratio(samples, of) < 0.08


def test_red_diff_fits_the_noise_if_it_lingers_at_low_sigma():
    """Its published weight fades with sigma and does not know noise_std: more steps there, a worse image."""
    of = problem()
    errors = [mean_error(walked(RedDiff(Karras(0.01, 5.0).levels(n)), posterior(Unannealed, of), 4), of)
              for n in (200, 1000)]  # fmt: skip
    assert errors[1] > 1.5 * errors[0]


def test_red_diff_finds_the_least_squares_image_without_a_prior():
    of = problem()
    everything = Sense(of.operator.maps, torch.ones(N, dtype=torch.bool))
    truth = of.prior.sample(generators(17))
    model = Unannealed(of.prior, everything, everything(truth), 0.05)
    found = RedDiff(Karras(0.01, 5.0).levels(400), weight=0.0)(model, truth, generators(0))
    assert float((found - truth).norm() / truth.norm()) < 0.01


def test_red_diff_forgets_one_walk_before_the_next():
    of, walk = problem(), RedDiff(Karras(0.01, 5.0).levels(5))
    before = dict(vars(walk))
    first = walked(walk, posterior(Unannealed, of), 2)
    assert vars(walk) == before
    assert torch.equal(walked(walk, posterior(Unannealed, of), 2), first)


# Warm starts.


def exact_samples(draws: int) -> Tensor:
    of = problem()
    noise = noise_like(of.mean.expand(draws, 1, N), generators(18, draws=draws))
    return of.mean + noise @ torch.linalg.cholesky(of.covariance).T


def test_a_warm_start_reaches_the_posterior_from_a_sigma_that_a_cold_one_does_not():
    """Images of the posterior stay images of the posterior; nothing walks as far from zero at sigma 0.05."""
    of = problem()
    walk = Renoise(Karras(0.01, 5.0).levels(50)).below(0.05)
    model = posterior(ExactDraw, of)
    warm, cold = walked(walk, model, 300, start=exact_samples(300)), walked(walk, model, 300)
    assert mean_error(warm, of) < 0.05
    assert variance_ratio(warm, of) == pytest.approx(1, abs=0.1)
    assert mean_error(cold, of) > 2 * mean_error(warm, of)


@pytest.mark.parametrize("sampler", [
    Renoise(Karras(0.01, 5.0).levels(30)), PredictorCorrector(Geometric(0.01, 5.0).levels(30)),
])  # fmt: skip
def test_a_warm_walk_begins_at_the_image_with_the_noise_of_its_first_level(sampler):
    of, seen = problem(), []
    sampler = sampler.below(1.0)
    start = of.prior.sample(generators(19, draws=2))
    first = float(sampler.sigmas[0])
    sampler.step = lambda model, x, *_: seen.append(x) or x
    sampler(of.prior, start, generators(20, draws=2), start=start)
    assert torch.allclose(seen[0], start + first * noise_like(start, generators(20, draws=2)))


@pytest.mark.parametrize("name", ["renoise", "preconditioned", "predictor-corrector", "red-diff"])
def test_every_walk_takes_a_warm_start(name):
    of = problem()
    sampler, model = walks(of)[name]
    start = of.mean.to(torch.complex64).expand(2, 1, N)
    warm, cold = (sampler.below(0.05)(model, start, generators(21, draws=2), start=image) for image in (start, None))
    assert float((warm - start).norm()) < 0.9 * float((cold - start).norm())


def test_below_keeps_the_lower_levels_and_the_walk_it_came_from():
    walk = Langevin(torch.tensor([3.0, 1.0, 0.3]), repeats=7)
    cut = walk.below(1.0)
    assert cut.sigmas.tolist() == pytest.approx([1.0, 0.3]) and cut.repeats == 7
    assert len(walk.sigmas) == 3
    with pytest.raises(InputError, match=r"no level is at or below 0.1: the walk ends at 0.3"):
        walk.below(0.1)


# One item, whatever its company; models that do not fit.


def walks(of: GaussianProblem) -> dict[str, tuple]:
    """In single precision, as scans are."""
    levels = Geometric(0.01, 5.0).levels(30)
    single = Sense(of.operator.maps.to(torch.complex64), of.operator.mask)
    covariance = of.prior.axes @ (of.prior.variances[:, None] * of.prior.axes.mH)
    prior = GaussianPrior(of.prior.mean.to(torch.complex64), covariance.to(torch.complex64))
    make = {kind: kind(prior, single, of.kspace.to(torch.complex64), of.noise_std)
            for kind in (ExactDraw, Unannealed, Projected, CoilProjected)}  # fmt: skip
    return {
        "renoise": (Renoise(levels), make[ExactDraw]),
        "preconditioned": (Preconditioned(levels), make[Unannealed]),
        "red-diff": (RedDiff(levels), make[Unannealed]),
        "predictor-corrector": (PredictorCorrector(levels), make[Projected]),
        "coils": (PredictorCorrector(levels), make[CoilProjected]),
    }


@pytest.mark.parametrize("name", ["preconditioned", "red-diff", "predictor-corrector", "coils"])
def test_any_split_of_a_batch_gives_the_same_images(name):
    sampler, model = walks(problem(33))[name]
    like = model.expand(torch.zeros(6, 1, 33, dtype=torch.complex64))
    whole = sampler(model, like, generators(1, "scan", draws=6))
    for split in ([1, 2, 3], [1] * 6):
        first, parts = 0, []
        for size in split:
            parts.append(sampler(model, like[:size], generators(1, "scan", draws=range(first, first + size))))
            first += size
        difference = (torch.cat(parts) - whole).flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1)
        assert float(difference.max()) < 1e-4


@pytest.mark.parametrize("kind", [Preconditioned, RedDiff])
def test_walks_that_need_more_than_a_score_say_so(kind):
    with pytest.raises(InputError, match="AnnealedLikelihood .* the posterior 'unannealed'"):
        walked(kind(Karras(0.01, 5.0).levels(5)), posterior(AnnealedLikelihood, problem()), 1)
