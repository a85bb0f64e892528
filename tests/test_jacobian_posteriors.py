"""Posteriors through the denoiser's Jacobian, against dense algebra, the exact Gaussian posterior and exact mode odds.

Known biases stand here as bands: a change that moves a method out of its band is a change of the method.
"""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from gaussian import GaussianProblem, gaussian_problem, mean_error, variance_ratio
from mixture import MixtureProblem, mixture_problem, mode_distance
from torch import Tensor, nn

from mri_score.errors import InputError
from mri_score.models.analytic import GaussianPrior
from mri_score.models.base import ScoreModel
from mri_score.models.counted import CountedPrior
from mri_score.models.network import NetworkPrior
from mri_score.noise.schedules import Geometric, Karras, LinearBetas
from mri_score.numerics.channels import inner, per_item
from mri_score.numerics.jacobian import linearise, square_root
from mri_score.numerics.noise import generators, noise_like
from mri_score.posteriors.dps import DPS
from mri_score.posteriors.exact_draw import ExactDraw
from mri_score.posteriors.mmps import MMPS, MMPSDraw
from mri_score.posteriors.pigdm import PiGDM
from mri_score.samplers.ancestral import Ancestral, GuidedAncestral
from mri_score.samplers.base import Sampler
from mri_score.samplers.renoise import Renoise

N = 64
MANY = 2000
problem = cache(gaussian_problem)


def karras(levels: int) -> Tensor:
    return Karras(0.01, 5.0).levels(levels)


def posterior(kind: type, of: GaussianProblem | MixtureProblem, **options) -> ScoreModel:
    return kind(of.prior, of.operator, of.kspace, of.noise_std, **options)


def walked(walk: Sampler, model: ScoreModel, like: Tensor, draws: int) -> Tensor:
    return walk(model, like.expand(draws, 1, like.shape[-1]), generators(1, "walk", draws=draws))


def closed_form(of: GaussianProblem, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Mean (n,) and covariance of x0 given one iterate x and k-space."""
    n = x.shape[-1]
    matrix = of.operator(torch.eye(n, dtype=torch.complex128)[:, None]).flatten(1).T
    prior = of.prior.axes @ (of.prior.variances[:, None] * of.prior.axes.mH)
    precision = matrix.mH @ matrix / of.noise_std**2 + torch.linalg.inv(prior) + torch.eye(n) / sigma**2
    covariance = torch.linalg.inv(precision)
    return covariance @ (matrix.mH @ of.kspace.flatten() / of.noise_std**2 + x.flatten() / sigma**2), covariance


def iterates(of: GaussianProblem, sigma: float, count: int = 1) -> Tensor:
    clean = of.prior.sample(generators(3, draws=count))
    return clean + sigma * noise_like(clean, generators(4, draws=count))


# Products with the Jacobian.


@pytest.mark.parametrize("shape", [(5, 7), (33,)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_products_are_with_the_jacobian_over_real_components(shape, dtype):
    """x |x|^2 is no complex-linear map: its real Jacobian by central differences, J^T v = (d/dt) <v, f(x + t e)>."""
    x, v, e = (noise_like(torch.zeros(3, *shape, dtype=dtype), generators(k, draws=3)) for k in range(3))
    f = lambda x: x * x.abs().square() + x.roll(1, -1)  # noqa: E731
    value, product = linearise(f, x)
    along = (f(x + 1e-5 * e) - f(x - 1e-5 * e)) / 2e-5
    assert torch.equal(value, f(x))
    assert not value.requires_grad
    assert torch.allclose(inner(e, product(v)), inner(v, along), rtol=1e-7)
    assert torch.allclose(product(2 * v), 2 * product(v))  # as often as wanted


def test_a_prior_without_gradient_is_refused_with_a_way_out():
    with pytest.raises(InputError, match="no gradient, and this posterior needs its Jacobian.*exact-draw"):
        linearise(lambda x: x.detach(), torch.zeros(1, 3))


def symmetric(n: int, low: float) -> Tensor:
    """A symmetric matrix with eigenvalues from `low` to 1."""
    axes = torch.linalg.qr(torch.randn(n, n, generator=generators(5)[0], dtype=torch.float64)).Q
    return axes @ (torch.linspace(low, 1, n, dtype=torch.float64)[:, None] * axes.T)


def test_square_root_is_the_matrix_square_root_and_converges_with_its_steps():
    matrix = symmetric(31, 0.01)
    values, axes = torch.linalg.eigh(matrix)
    b = noise_like(torch.zeros(4, 31).double(), generators(6, draws=4))
    exact = b @ axes @ (values.sqrt()[:, None] * axes.T)
    errors = [
        float((square_root(lambda v: v @ matrix, b, steps) - exact).norm() / exact.norm()) for steps in (2, 6, 12, 40)
    ]
    assert errors[0] > 2 * errors[1] > 8 * errors[2]
    assert errors[3] < 1e-8  # more steps than dimensions


def test_square_root_takes_the_symmetric_part_of_what_is_not_symmetric():
    matrix = symmetric(31, 0.2)
    turn = torch.randn(31, 31, generator=generators(7)[0], dtype=torch.float64)
    skewed = matrix + 0.05 * (turn - turn.T)
    b = noise_like(torch.zeros(4, 31).double(), generators(6, draws=4))
    exact, found = (square_root(lambda v, m=m: v @ m, b, 31) for m in (matrix, skewed))
    assert float((found - exact).norm() / exact.norm()) < 1e-8


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_square_root_has_the_right_length_from_the_first_step(steps):
    matrix = symmetric(31, 0.0)
    b = noise_like(torch.zeros(4, 31).double(), generators(6, draws=4))
    root = square_root(lambda v: v @ matrix, b, steps)
    assert torch.allclose(inner(root, root), inner(b, b @ matrix))


# One level against dense algebra.


@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0])
@pytest.mark.parametrize("n", [32, 33])
def test_mmps_denoises_to_the_posterior_mean_given_the_iterate(n, sigma):
    of = problem(n)
    x = iterates(of, sigma)
    mean, _ = closed_form(of, x, sigma)
    errors = [
        float((posterior(MMPS, of, iterations=k).denoise(x, sigma).flatten() - mean).norm() / mean.norm())
        for k in (1, 3, 60)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 5e-4


@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0])
def test_mmps_draw_has_the_mean_and_covariance_of_x0_given_the_iterate(sigma):
    of = problem(33)
    x = iterates(of, sigma)
    mean, covariance = closed_form(of, x, sigma)
    model = posterior(MMPSDraw, of, iterations=60, lanczos=33)
    draws = model.draw(x.expand(MANY, 1, 33), sigma, generators(5, draws=MANY)).flatten(1)
    variances, axes = torch.linalg.eigh(covariance)
    along = (draws - mean) @ axes.conj() / variances.sqrt()  # white, if the law is right
    assert float(along.mean(0).abs().mean()) < 2 / math.sqrt(MANY)
    correlation = along.T @ along.conj() / (2 * MANY)
    assert float((correlation - torch.eye(33)).abs().max()) < 6 / math.sqrt(MANY)


@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0])
def test_pigdm_goes_its_weight_of_the_way_to_the_posterior_mean_of_white_images(sigma):
    """Their sigma^2 J is r^2 I; the adaptive weight leaves r^2 / sigma^2 of the step."""
    of = problem(33)
    white = GaussianPrior(torch.zeros(1, 33).cdouble(), 0.09 * torch.eye(33).cdouble())
    of = GaussianProblem(white, of.operator, of.kspace, of.noise_std, of.mean, of.covariance)
    x = iterates(of, sigma)
    clean, (mean, _) = white.denoise(x, sigma), closed_form(of, x, sigma)
    expected = clean + 0.09 / (0.09 + sigma**2) * (mean.reshape(x.shape) - clean)
    assert float((posterior(PiGDM, of).denoise(x, sigma) - expected).norm() / expected.norm()) < 1e-3


@pytest.mark.parametrize("zeta", [0.3, 1.0])
def test_dps_corrects_by_the_gradient_of_the_norm(zeta):
    of, sigma = problem(33), 0.4
    x = iterates(of, sigma, 3).requires_grad_()
    misses = (of.kspace - of.operator(of.prior.denoise(x, sigma))).abs().square().flatten(1).sum(1).sqrt()
    (gradient,) = torch.autograd.grad(misses.sum(), x)
    clean, correction = posterior(DPS, of, zeta=zeta).guide(x, sigma)
    assert torch.allclose(clean, of.prior.denoise(x, sigma))
    assert torch.allclose(correction, zeta * gradient)


# Walks against the exact Gaussian posterior.


@pytest.mark.parametrize("levels", [5, 10])
def test_mmps_draw_reaches_the_posterior_mean_and_variance_at_any_number_of_levels(levels):
    """With enough products it is exact for Gaussian priors."""
    samples = walked(Renoise(karras(levels)), posterior(MMPSDraw, problem(), iterations=30, lanczos=20),
                     problem().mean, 400)  # fmt: skip
    assert mean_error(samples, problem()) < 0.05
    assert variance_ratio(samples, problem()) == pytest.approx(1, abs=0.05)


def test_mmps_draw_reaches_them_with_its_default_products_at_20_levels():
    samples = walked(Renoise(karras(20)), posterior(MMPSDraw, problem()), problem().mean, 400)
    assert mean_error(samples, problem()) < 0.05
    assert variance_ratio(samples, problem()) == pytest.approx(1, abs=0.05)


def test_mmps_finds_the_mean_and_underrates_the_variance_by_its_steps():
    """It puts the mean of x0 where a draw belongs: 48, 69 and 87 % of the variance at 10, 20 and 50 levels."""
    ratios = []
    for levels in (10, 20, 50):
        samples = walked(Ancestral(karras(levels)), posterior(MMPS, problem(), iterations=30), problem().mean, 200)
        assert mean_error(samples, problem()) < 0.05
        ratios.append(variance_ratio(samples, problem()))
    assert ratios == [pytest.approx(expected, abs=0.05) for expected in (0.48, 0.69, 0.87)]


def test_pigdm_leaves_a_bias_of_the_mean_and_some_variance_missing():
    """Mean off by 7 %, 73 % of the variance at 20 levels and 95 % at 100."""
    for levels, expected in ((20, 0.73), (100, 0.95)):
        samples = walked(Ancestral(karras(levels)), posterior(PiGDM, problem()), problem().mean, 200)
        assert mean_error(samples, problem()) == pytest.approx(0.08, abs=0.035)
        assert variance_ratio(samples, problem()) == pytest.approx(expected, abs=0.07)


def test_dps_is_off_in_mean_and_variance_at_its_thousand_levels():
    """It trusts data by zeta and not by their noise: mean off by half, directions that samples fix far too loose."""
    samples = walked(GuidedAncestral(Geometric(0.01, 5.0).levels(1000)), posterior(DPS, problem()), problem().mean, 50)
    assert mean_error(samples, problem()) == pytest.approx(0.6, abs=0.15)
    variances, axes = torch.linalg.eigh(problem().covariance)
    spread = (samples - samples.mean(0)).flatten(1) @ axes.conj()
    fixed = variances < 0.05**2
    assert float((spread.abs().square().sum(0) / (2 * 49) / variances)[fixed].mean()) == pytest.approx(2.8, abs=0.8)


# Walks against exact mode odds.


@cache
def mode_error(kind: type, hidden: float, draws: int = 300) -> float:
    of = mixture_problem(hidden)
    walk = Ancestral(karras(50)) if kind in (MMPS, PiGDM) else Renoise(karras(50))
    return mode_distance(walked(walk, posterior(kind, of), of.like, draws), of)


def test_the_mixture_problem_knows_its_exact_odds():
    """By importance sampling: prior draws weighed by their likelihood."""
    of = mixture_problem(0.8, noise_std=0.4)
    chosen = torch.multinomial(of.prior.weights, 40000, replacement=True, generator=generators(8)[0])
    x = of.prior.means[chosen] + 0.1 * torch.view_as_complex(
        torch.randn(40000, 1, 16, 2, generator=generators(9)[0], dtype=torch.float64)
    )
    miss = (of.kspace - of.operator(x)).abs().square().flatten(1).sum(1)
    odds = torch.softmax(-miss / (2 * of.noise_std**2), 0)
    found = torch.zeros(4, dtype=torch.float64).index_add_(0, chosen, odds)
    assert float((of.weights - of.prior.weights).abs().sum() / 2) > 0.1
    assert torch.allclose(found, of.weights, atol=0.02)


@pytest.mark.parametrize("kind", [MMPS, MMPSDraw])
def test_the_jacobian_finds_the_odds_of_modes(kind):
    """Data decide through the Jacobian what they do not see: 50 levels, 3 products (and 3 for the draw) each."""
    assert mode_error(kind, 0.75) <= 0.1


def test_a_draw_without_the_jacobian_commits_to_the_priors_odds():
    """The risk of hallucination: what is not measured comes at the frequency that it has in training."""
    assert mode_error(ExactDraw, 0.75) > 0.3


def test_where_k_space_tells_modes_apart_only_faintly_the_jacobian_helps_and_is_not_exact():
    """Exact odds .04, .84, .04, .07: MMPS is off by .23, its draw by .18, exact draws by .55."""
    errors = [mode_error(kind, 0.93) for kind in (MMPSDraw, MMPS, ExactDraw)]
    assert errors == [pytest.approx(expected, abs=0.07) for expected in (0.18, 0.23, 0.55)]


# The ancestral walk.


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_one_ancestral_step_keeps_the_law_of_the_next_level(eta):
    """From x of level sigma with the true x0 in place of D: x' is x0 + sigma' n for every eta."""
    x0 = torch.full((MANY, 3), 2.0).double()

    class Known(ScoreModel):
        def denoise(self, x, sigma):
            return x0

    x = x0 + 1.5 * noise_like(x0, generators(1, draws=MANY))
    after = Ancestral(karras(2), eta).step(Known(), x, 1.5, 0.8, generators(2, draws=MANY))
    assert float((after - x0).std()) == pytest.approx(0.8, rel=0.02)
    shared = ((after - x0) * (x - x0)).mean() / 1.5**2
    tau = eta * 0.8 * math.sqrt(1 - 0.8**2 / 1.5**2)
    assert float(shared) == pytest.approx(math.sqrt(0.8**2 - tau**2) / 1.5, abs=0.02)
    assert torch.equal(Ancestral(karras(2), eta).step(Known(), x, 1.5, 0.0, []), x0)


def test_the_ancestral_walk_samples_the_bare_prior_but_for_its_steps():
    """With the mean in place of the draw, 150 levels over a factor of 2000 leave 5 % of the variance out."""
    of = problem(33)
    samples = walked(Ancestral(Geometric(0.01, 20.0).levels(150)), of.prior, of.mean, 400)
    ratios = (samples.flatten(1) @ of.prior.axes.conj()).abs().square().mean(0) / 2 / of.prior.variances
    assert float(ratios.mean()) == pytest.approx(0.945, abs=0.03)


@pytest.mark.parametrize("variance", ["beta", "posterior"])
def test_an_ancestral_step_is_algorithm_2_of_ddpm(variance):
    """In variance-preserving coordinates: (x - beta / sqrt(1 - abar) eps) / sqrt(1 - beta) + sqrt(variance) n."""
    betas = torch.linspace(1e-4, 0.02, 1000).double()
    abar = torch.cumprod(1 - betas, 0)
    x, x0, t = torch.randn(5, 7).double(), torch.randn(5, 7).double(), 600

    class Known(ScoreModel):
        def denoise(self, x, sigma):
            return x0

    sigma, after = (float((1 / abar[step] - 1).sqrt()) for step in (t, t - 1))
    found = Ancestral(karras(2), variance=variance).step(Known(), x, sigma, after, generators(2, draws=5))
    x_t = abar[t].sqrt() * x
    eps = (x_t - abar[t].sqrt() * x0) / (1 - abar[t]).sqrt()
    std = betas[t].sqrt() if variance == "beta" else (betas[t] * (1 - abar[t - 1]) / (1 - abar[t])).sqrt()
    n = noise_like(x, generators(2, draws=5))
    expected = (x_t - betas[t] / (1 - abar[t]).sqrt() * eps) / (1 - betas[t]).sqrt() + std * n
    torch.testing.assert_close(abar[t - 1].sqrt() * found, expected, rtol=1e-9, atol=1e-9)


def test_each_variance_of_ddpm_is_exact_for_its_own_data():
    """In six steps only: beta for unit variance; posterior for a single image."""
    random = generators(3, draws=4000)
    levels = LinearBetas().levels(6)
    for variance, sd in [("beta", 1.0), ("posterior", 1e-3)]:
        prior = GaussianPrior(torch.zeros(4).double(), sd**2 * torch.eye(4).double())
        x = torch.randn(4000, 4, generator=torch.Generator().manual_seed(1)).double()
        x = x * (sd**2 + float(levels[0]) ** 2) ** 0.5
        walk = Ancestral(levels, variance=variance)
        for sigma, after in zip(levels.tolist(), levels.tolist()[1:], strict=False):
            x = walk.step(prior, x, sigma, after, random)
            assert float(x.square().mean()) == pytest.approx(sd**2 + after**2, rel=0.05)  # 16,000 numbers: 0.011


def test_walks_and_models_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="use the sampler guided-ancestral"):
        walked(Ancestral(karras(5)), posterior(DPS, problem(33)), problem(33).mean, 1)
    with pytest.raises(InputError, match="GaussianPrior has no guide"):
        walked(GuidedAncestral(karras(5)), problem(33).prior, problem(33).mean, 1)
    with pytest.raises(InputError, match="eta of the ancestral walk is 1.5"):
        Ancestral(karras(5), eta=1.5)
    with pytest.raises(InputError, match="variance of the ancestral walk is 'larger'"):
        Ancestral(karras(5), variance="larger")
    with pytest.raises(InputError, match="with variance beta it is 1"):
        Ancestral(karras(5), eta=0.5, variance="beta")
    with pytest.raises(InputError, match="MMPS needs at least 1 iteration, not 0"):
        posterior(MMPS, problem(33), iterations=0)
    with pytest.raises(InputError, match="at least 1 Lanczos step, not 0"):
        posterior(MMPSDraw, problem(33), lanczos=0)


# Items, work and networks.

WALKS = {
    DPS: GuidedAncestral(Geometric(0.01, 5.0).levels(40)),
    MMPS: Ancestral(karras(8)),
    MMPSDraw: Renoise(karras(8)),
    PiGDM: Ancestral(karras(8)),
}


@pytest.mark.parametrize("kind", WALKS)
def test_any_split_of_a_batch_gives_the_same_images(kind):
    """Scans of different strength and noise together, and one by one."""
    of, scales = problem(33), torch.tensor([1.0, 0.1, 3.0]).double()
    kspace, noise_std = per_item(scales, of.kspace.expand(3, -1, -1, -1)) * of.kspace, 0.05 * scales
    like, random = torch.zeros(3, 1, 33).cdouble(), [generators(1, draws=[k]) for k in range(3)]
    whole = WALKS[kind](kind(of.prior, of.operator, kspace, noise_std), like, sum(random, []))
    for i in range(3):
        one = kind(of.prior, of.operator, kspace[i : i + 1], noise_std[i : i + 1])
        alone = WALKS[kind](one, like[:1], random_again(i))
        assert float((alone[0] - whole[i]).norm() / whole[i].norm()) < 1e-4


def random_again(draw: int) -> list[torch.Generator]:
    return generators(1, draws=[draw])


def test_an_item_without_misfit_stays_where_it_is_beside_one_with():
    of, sigma = problem(33), 0.4
    x = iterates(of, sigma, 2)
    clean = of.prior.denoise(x, sigma)
    kspace = of.operator(clean) + torch.tensor([0.0, 1.0])[:, None, None, None] * of.kspace
    found = MMPS(of.prior, of.operator, kspace, of.noise_std, iterations=4).denoise(x, sigma)
    assert float((found[0] - clean[0]).norm()) < 1e-6
    assert float((found[1] - clean[1]).norm()) > 0.01


class Turned(ScoreModel):
    """Its Jacobian is -1 for items of the negative kind, which no covariance has, and 0.5 for others."""

    sd = 0.3

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return torch.tensor([-1.0, 0.5]).double()[:, None, None] * x


def test_an_item_whose_jacobian_is_no_covariance_stops_and_its_mate_goes_on():
    of, x = problem(33), iterates(problem(33), 0.4, 2)
    found = MMPS(Turned(), of.operator, of.kspace, of.noise_std, iterations=50).denoise(x, 0.4)
    assert torch.equal(found[0], -x[0])
    b = of.operator.adjoint(of.kspace) - of.operator.normal(0.5 * x)
    expected = 0.5 * x + of.operator.solve(b, of.noise_std**2 / (0.5 * 0.4**2), tolerance=1e-9)
    assert float((found[1] - expected[1]).norm() / expected[1].norm()) < 1e-3


@pytest.mark.parametrize(
    ("kind", "calls", "products"), [(DPS, 40, 40), (PiGDM, 8, 8), (MMPS, 8, 24), (MMPSDraw, 8, 48)]
)
def test_network_calls_and_products_are_counted(kind, calls, products):
    of = problem(33)
    prior = CountedPrior(of.prior)
    WALKS[kind](kind(prior, of.operator, of.kspace, of.noise_std), of.mean.expand(2, 1, 33), generators(0, draws=2))
    assert (prior.calls, prior.products) == (2 * calls, 2 * products)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_networks_give_products_under_no_grad_in_any_precision(precision):
    """The product of a convolution with a convolution's Jacobian, by autograd in double precision as the witness."""
    torch.manual_seed(0)

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 16, 3, padding=1), nn.Conv2d(16, 2, 3, padding=1)

        def forward(self, x, c_noise, extra=None):
            return self.second(torch.tanh(self.first(x)))

    prior = NetworkPrior(Small()).requires_grad_(False)
    x, v = (noise_like(torch.zeros(2, 9, 11, dtype=torch.complex64), generators(k, draws=2)) for k in (0, 1))
    exact = x.to(torch.complex128).requires_grad_()
    value = prior.double().denoise(exact, 0.5)
    (expected,) = torch.autograd.grad(value, exact, v.to(torch.complex128))
    prior = prior.float()
    prior.precision = precision
    with torch.no_grad():
        _, product = linearise(lambda x: prior.denoise(x, 0.5), x)
        found = product(v)
    assert found.dtype == torch.complex64
    assert float((found - expected).norm() / expected.norm()) < (1e-5 if precision == torch.float32 else 0.02)
