"""Score models: Tweedie's formula, the closed forms against autograd, and draws with the right law."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from mri_score.errors import InputError
from mri_score.models.analytic import GaussianPrior, MixturePrior
from mri_score.models.base import ScoreModel
from mri_score.models.network import NetworkPrior
from mri_score.models.preconditioning import PRECONDITIONINGS
from mri_score.numerics.channels import to_channels
from mri_score.numerics.noise import generators, noise_like

DTYPES = [torch.float64, torch.complex128]
SHAPE = (2, 3)
MANY = 20_000


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return noise_like(torch.zeros(shape, dtype=dtype), generators(seed, "normal", draws=shape[0]))


def components(x: Tensor) -> Tensor:
    """(B, *shape) -> (B, real components): all real parts, then all imaginary ones."""
    x = x.flatten(1)
    return torch.cat([x.real, x.imag], dim=1) if x.is_complex() else x


def real_covariance(covariance: Tensor) -> Tensor:
    """Of the real components of a circular complex vector with E x x^H / 2 = covariance."""
    if not covariance.is_complex():
        return covariance
    a, b = covariance.real, covariance.imag
    return torch.cat([torch.cat([a, -b], 1), torch.cat([b, a], 1)])


def gaussian_prior(dtype: torch.dtype) -> tuple[GaussianPrior, Tensor]:
    root = normal(6, 6, dtype=dtype, seed=1)
    covariance = root @ root.mH / 6
    return GaussianPrior(0.5 * normal(*SHAPE, dtype=dtype, seed=2), covariance), real_covariance(covariance)


def mixture_prior(dtype: torch.dtype, apart: float = 1.0) -> MixturePrior:
    means = apart * normal(3, *SHAPE, dtype=dtype, seed=3)
    return MixturePrior(means, torch.tensor([0.3, 0.8, 0.5]).double(), torch.tensor([1.0, 2.0, 5.0]).double())


def eye_like(covariance: Tensor) -> Tensor:
    return torch.eye(len(covariance), dtype=torch.float64)


def log_density(model: ScoreModel, x: Tensor, sigma: Tensor) -> Tensor:
    """log p_sigma(x) of each item by torch.distributions over real components: it shares no line with the models."""
    values = []
    for one, s in zip(x, sigma, strict=True):
        part = components(one[None])[0]
        if isinstance(model, GaussianPrior):
            covariance = real_covariance(model.axes @ (model.variances[:, None] * model.axes.mH))
            mean = components(model.mean[None])[0]
            values.append(MultivariateNormal(mean, covariance + s**2 * eye_like(covariance)).log_prob(part))
        else:
            assert isinstance(model, MixturePrior)
            terms = [
                torch.distributions.Normal(components(mean[None])[0], torch.sqrt(std**2 + s**2)).log_prob(part).sum()
                for mean, std in zip(model.means, model.stds, strict=True)
            ]
            values.append(torch.logsumexp(torch.stack(terms) + model.weights.log(), 0))
    return torch.stack(values)


MODELS = {"gaussian": lambda dtype: gaussian_prior(dtype)[0], "mixture": mixture_prior}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_score_is_the_gradient_of_the_log_density(model, dtype):
    prior, sigma = MODELS[model](dtype), torch.tensor([0.05, 0.4, 1.0, 7.0]).double()
    x = normal(4, *SHAPE, dtype=dtype, seed=4).requires_grad_()
    (expected,) = torch.autograd.grad(log_density(prior, x, sigma).sum(), x)  # torch: d/dRe + i d/dIm
    assert torch.allclose(prior.score(x, sigma), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_one_level_for_all_or_one_for_each(model, dtype):
    prior, x = MODELS[model](dtype), normal(3, *SHAPE, dtype=dtype)
    sigma = torch.tensor([0.1, 1.0, 3.0]).double()
    each = torch.cat([prior.denoise(x[i : i + 1], float(sigma[i])) for i in range(3)])
    assert torch.allclose(prior.denoise(x, sigma), each)


class OnlyScore(ScoreModel):
    """White Gaussian images of standard deviation 2, told by their score."""

    def score(self, x, sigma):
        return -x / (4 + sigma**2)


class OnlyDenoise(ScoreModel):
    """The same images, told by their denoiser."""

    def denoise(self, x, sigma):
        return 4 * x / (4 + sigma**2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tweedie_leads_from_either_face_to_the_other(dtype):
    x = normal(2, 5, dtype=dtype)
    for sigma in (0.01, 1.0, 30.0):
        assert torch.allclose(OnlyScore().denoise(x, sigma), OnlyDenoise().denoise(x, sigma))
        assert torch.allclose(OnlyScore().score(x, sigma), OnlyDenoise().score(x, sigma))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    parts = components(x)
    return parts.mean(0), parts.T.cov()


def assert_moments(x: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Sample mean and covariance, both in units of the expected standard deviations, within 5 standard errors."""
    found_mean, found = moments(x)
    scale = covariance.diagonal().sqrt()
    assert ((found_mean - mean) / scale).abs().max() < 5 / math.sqrt(len(x))
    assert ((found - covariance) / torch.outer(scale, scale)).abs().max() < 5 * math.sqrt(2 / len(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gaussian_samples_have_mean_and_covariance(dtype):
    prior, covariance = gaussian_prior(dtype)
    samples = prior.sample(generators(5, draws=MANY))
    assert_moments(samples, components(prior.mean[None])[0], covariance)
    assert components(samples).square().mean().sqrt() == pytest.approx(prior.sd, rel=0.02)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sigma", [0.2, 1.5])
def test_gaussian_draws_have_the_posterior_mean_and_covariance(dtype, sigma):
    prior, covariance = gaussian_prior(dtype)
    x = normal(1, *SHAPE, dtype=dtype, seed=6)
    mean = components(prior.mean[None])[0]
    gain = covariance @ torch.linalg.inv(covariance + sigma**2 * eye_like(covariance))
    draws = prior.draw(x.expand(MANY, *SHAPE), sigma, generators(7, draws=MANY))
    assert_moments(draws, mean + gain @ (components(x)[0] - mean), covariance - gain @ covariance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_mixture_draws_choose_modes_by_their_odds(dtype, sigma):
    prior = mixture_prior(dtype, apart=0.4)
    x = 0.3 * normal(1, *SHAPE, dtype=dtype, seed=8)
    odds = torch.stack([  # by Bayes, from the densities of the single components
        prior.weights[k].log()
        + torch.distributions.Normal(components(prior.means[k : k + 1])[0], torch.sqrt(prior.stds[k] ** 2 + sigma**2))
        .log_prob(components(x)[0]).sum()
        for k in range(3)
    ]).softmax(0)  # fmt: skip
    assert torch.allclose(prior.responsibilities(x, sigma)[0], odds)

    draws = components(prior.draw(x.expand(MANY, *SHAPE), sigma, generators(9, draws=MANY)))
    variances = prior.stds**2 * sigma**2 / (prior.stds**2 + sigma**2)
    places = [components(m[None])[0] + (components(x)[0] - components(m[None])[0]) * s**2 / (s**2 + sigma**2)
              for m, s in zip(prior.means, prior.stds, strict=True)]  # fmt: skip
    mean = sum(o * p for o, p in zip(odds, places, strict=True))
    second = sum(o * (p**2 + v) for o, p, v in zip(odds, places, variances, strict=True))
    spread = draws.std(0)
    assert ((draws.mean(0) - mean) / spread).abs().max() < 5 / math.sqrt(MANY)
    assert torch.allclose(draws.square().mean(0), second, rtol=0.06)
    assert torch.allclose(mean, components(prior.denoise(x, sigma))[0])


def test_draws_of_distant_modes_come_by_their_weights():
    means = torch.tensor([[-10.0] * 3, [10.0] * 3]).double()
    prior = MixturePrior(means, torch.tensor([0.1, 0.2]).double(), torch.tensor([1.0, 3.0]).double())
    draws = prior.draw(torch.zeros(MANY, 3).double(), 1000.0, generators(1, draws=MANY))
    assert float((draws[:, 0] > 0).double().mean()) == pytest.approx(0.75, abs=0.02)
    assert float(draws[draws[:, 0] > 0].std()) == pytest.approx(0.2, rel=0.03)


@pytest.mark.parametrize("dtype", DTYPES)
def test_mixture_sd_is_the_root_mean_square_of_real_components(dtype):
    prior = mixture_prior(dtype)
    pure = prior.draw(torch.zeros(MANY, *SHAPE, dtype=dtype), 1e6, generators(2, draws=MANY))  # x says nothing
    assert components(pure).square().mean().sqrt() == pytest.approx(prior.sd, rel=0.02)


SIGMAS = torch.tensor([0.003, 0.1, 0.3, 2.0, 100.0]).double()


def test_edm_gives_unit_variance_to_input_and_target():
    for sd in (0.2, 1.0):
        c_skip, c_out, c_in, _ = PRECONDITIONINGS["edm"](SIGMAS, sd)
        assert torch.allclose(c_in**2 * (sd**2 + SIGMAS**2), torch.ones(5).double())
        target = ((1 - c_skip) ** 2 * sd**2 + c_skip**2 * SIGMAS**2) / c_out**2  # of (x0 - c_skip x) / c_out
        assert torch.allclose(target, torch.ones(5).double())


class Spy(nn.Module):
    """A network that keeps what it was given and returns a fixed multiple of it."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        self.x, self.c_noise = x, c_noise
        return self.gain * x


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_silent_edm_network_is_the_linear_estimate(dtype):
    prior, x = NetworkPrior(Spy(0.0), "edm", sd=0.7), normal(5, *SHAPE, dtype=dtype)
    white = GaussianPrior(torch.zeros(SHAPE, dtype=dtype), 0.49 * torch.eye(6, dtype=dtype))
    assert torch.allclose(prior.denoise(x, SIGMAS), white.denoise(x, SIGMAS))


@pytest.mark.parametrize("dtype", DTYPES)
def test_networks_see_channels_and_their_noise_coordinate(dtype):
    x, spy = normal(5, *SHAPE, dtype=dtype), Spy(1.0)
    NetworkPrior(spy, "edm", sd=0.7).denoise(x, SIGMAS)
    assert torch.allclose(spy.x, to_channels(x / torch.sqrt(SIGMAS**2 + 0.49)[:, None, None]))
    assert torch.allclose(spy.c_noise, SIGMAS.log() / 4)
    assert spy.x.shape == (5, 2 if dtype.is_complex else 1, *SHAPE)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_ncsn_network_over_sigma_is_the_score(dtype):
    x, spy = normal(5, *SHAPE, dtype=dtype), Spy(-3.0)
    score = NetworkPrior(spy, "ncsn").score(x, SIGMAS)
    assert torch.equal(spy.x, to_channels(x))
    assert torch.allclose(score, -3 * x / SIGMAS[:, None, None], rtol=1e-6, atol=1e-6)


def test_a_model_without_draw_says_so_and_leaves_iterates_alone():
    prior, x = NetworkPrior(Spy(0.0)), normal(1, 3)
    with pytest.raises(InputError, match="NetworkPrior has no draw of its own"):
        prior.draw(x, 1.0, generators(0))
    assert prior.project(x, 1.0, generators(0)) is x
