"""What a researcher brings: own denoisers, score models, operators, posteriors, walks and readers, from outside."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mri_score import phantom, reconstruct, undersample
from mri_score.errors import InputError
from mri_score.generation import inpaint, sample_prior
from mri_score.methods import INPAINTING, METHODS, WALKS
from mri_score.models.base import ScoreModel
from mri_score.models.denoiser import as_prior
from mri_score.models.network import NetworkPrior
from mri_score.models.preconditioning import EpsilonPrecondition
from mri_score.noise.schedules import Karras
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.pixels import Pixels
from mri_score.posteriors import POSTERIORS, ExactDraw
from mri_score.samplers import Renoise

SHAPE, SD = (24, 20), 0.3
QUICK = {"steps": 4, "samples": 2}
ABAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
"""The published schedule of DDPM."""


@pytest.fixture(scope="module")
def scan():
    return undersample(phantom(SHAPE, coils=3), acceleration=2)


def white(x, sigma):
    """The posterior mean of white images of standard deviation SD."""
    return x / (1 + per_item(sigma, x) ** 2 / SD**2)


class White(nn.Module):
    def forward(self, x, sigma):
        return white(x, sigma)


class Guess(nn.Module):
    """A network of DDPM's kind that predicts the noise of white images without an error."""

    def forward(self, channels, step):
        share = ABAR[step.round().long()].to(channels).reshape(-1, 1, 1, 1)
        return (1 - share).sqrt() / (share * SD**2 + 1 - share) * channels


class Output:
    def __init__(self, sample):
        self.sample = sample


class Wrapped(Guess):
    """Its output is a class, as in diffusers."""

    def forward(self, channels, step):
        return Output(super().forward(channels, step))


class Asked(ScoreModel):
    """White images; it notes the levels that it is asked at, and the walks that it is told of."""

    def __init__(self, low=0.0, high=math.inf):
        super().__init__()
        self.sd, self.sigma_min, self.sigma_max = SD, low, high
        self.levels, self.walks = [], 0

    def begin_walk(self):
        self.walks += 1

    def denoise(self, x, sigma):
        self.levels += torch.as_tensor(sigma).double().flatten().tolist()
        return white(x, sigma)


def test_a_function_and_a_module_are_priors_to_reconstruct_with(scan):
    brought = [as_prior(white, sd=SD), as_prior(White(), sd=SD), as_prior(White(), sd=SD, precondition="denoiser")]
    found = [reconstruct(scan.kspace, mask=scan.mask, prior=one, **QUICK).samples for one in (Asked(), *brought)]
    assert all(torch.allclose(found[0], other, atol=1e-4 * float(found[0].abs().max())) for other in found[1:])
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("network", [Guess(), Wrapped()])
def test_a_network_that_predicts_the_noise_is_a_denoiser_at_the_levels_of_its_betas(network):
    prior = as_prior(network, sd=SD, precondition=EpsilonPrecondition(ABAR))
    sigmas = ((1 - ABAR) / ABAR).sqrt()
    assert (prior.sigma_min, prior.sigma_max) == (float(sigmas[0]), float(sigmas[-1]))
    x = noise_like(torch.zeros(4, *SHAPE, dtype=torch.complex128), generators(0, draws=4))
    at = sigmas[[0, 10, 500, 999]]
    assert torch.allclose(prior.denoise(x, at), white(x, at), rtol=1e-6)


def test_steps_between_those_of_the_betas_are_even_in_log_sigma():
    precondition = EpsilonPrecondition(ABAR)
    sigmas = ((1 - ABAR) / ABAR).sqrt()
    c_skip, c_out, c_in, label = precondition(torch.cat([(sigmas[3:4] * sigmas[4:5]).sqrt(), sigmas[[0, 7, 999]]]), SD)
    assert label.tolist() == pytest.approx([3.5, 0, 7, 999])
    assert torch.equal(c_skip, torch.ones(4)) and torch.allclose(c_out * c_in, -((1 - 1 / (1 + c_out**2)).sqrt()))
    with pytest.raises(InputError, match="alphas_cumprod.*falling numbers between 0 and 1"):
        EpsilonPrecondition(torch.linspace(1e-4, 0.02, 10))


def test_a_network_of_diffusers_is_a_prior(scan):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install diffusers")
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(
        in_channels=2, out_channels=2, block_out_channels=(4, 8), down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2, layers_per_block=1, norm_num_groups=2,
    ).eval().requires_grad_(False)  # fmt: skip
    prior = as_prior(network, sd=SD, precondition=EpsilonPrecondition(ABAR))
    x, sigma = torch.randn(2, *SHAPE, dtype=torch.complex64), ((1 - ABAR[300]) / ABAR[300]).sqrt()
    channels = torch.view_as_real(x / (1 + sigma**2).sqrt()).movedim(-1, 1).float()
    noise = network(channels, torch.tensor([300.0, 300.0])).sample
    expected = x - sigma * torch.view_as_complex(noise.movedim(1, -1).contiguous())
    assert torch.allclose(prior.denoise(x, sigma), expected.to(x.dtype), atol=1e-4)
    assert torch.isfinite(reconstruct(scan.kspace, mask=scan.mask, prior=prior, **QUICK).samples.abs()).all()
    with pytest.raises(InputError, match="takes 2 channels, the images have 1"):
        prior.denoise(x.real, sigma)


def test_what_is_no_denoiser_is_refused():
    x = torch.zeros(1, *SHAPE, dtype=torch.complex64)
    for make, message in (
        (lambda: as_prior("brain", sd=SD), "a denoiser is str; it needs a function or a module"),
        (lambda: as_prior(Asked(), sd=SD), "Asked is a score model already"),
        (lambda: as_prior(white, sd=0.0), "sd > 0"),
        (lambda: as_prior(white, sd=SD, sigma_min=2.0, sigma_max=1.0), "sigma_min < sigma_max; got sd 0.3, range 2.0"),
        (lambda: as_prior(white, sd=SD, precondition="edm"), "a precondition belongs to a network"),
        (lambda: as_prior(White(), sd=SD, precondition="eps"), "'eps'; known names: denoiser, edm"),
        (lambda: NetworkPrior(White(), "eps"), "'eps'; known names: denoiser, edm"),
        (lambda: NetworkPrior(White(), 3), "it is one of denoiser, edm.*or a function of"),
        (lambda: NetworkPrior(White(), sigma_min=3.0, sigma_max=1.0), "0 <= sigma_min < sigma_max"),
        (lambda: as_prior(lambda x, sigma: x[:, :3], sd=SD).denoise(x, 1.0), "given .1, 24, 20. and gave .1, 3, 20."),
        (lambda: as_prior(lambda x, sigma: x.real, sd=SD).denoise(x, 1.0), "gave torch.float32.*precondition"),
        (lambda: as_prior(lambda x, sigma: (x, x), sd=SD).denoise(x, 1.0), "gave tuple"),
    ):
        with pytest.raises(InputError, match=message):
            make()


@pytest.mark.parametrize("method", METHODS)
def test_reconstruction_keeps_to_the_range_of_the_prior(scan, method):
    prior = Asked(0.05, 1.0)
    reconstruct(scan.kspace, mask=scan.mask, prior=prior, method=method, **QUICK)
    assert max(prior.levels) == 1.0 and min(prior.levels) == pytest.approx(0.05, rel=1e-6)
    assert prior.walks == 1


@pytest.mark.parametrize("method", WALKS)
def test_generation_keeps_to_the_range_of_the_prior(method):
    prior = Asked(0.05, 1.0)
    sample_prior(prior, 2, SHAPE, method=method, steps=4)
    assert max(prior.levels) == 1.0 and min(prior.levels) == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize("method", INPAINTING)
def test_inpainting_keeps_to_the_range_of_the_prior(method):
    prior = Asked(0.05, 1.0)
    inpaint(prior, torch.zeros(SHAPE, dtype=torch.complex64), torch.eye(*SHAPE), 2, method=method, steps=4)
    assert max(prior.levels) == 1.0 and min(prior.levels) == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize("name", POSTERIORS)
def test_every_posterior_tells_its_prior_that_a_walk_begins(scan, name):
    prior = Asked(0.01, 7.0)
    posterior = POSTERIORS[name](prior, scan.operator(), scan.kspace, 0.01)
    posterior.begin_walk()
    assert prior.walks == 1 and (posterior.sigma_min, posterior.sigma_max) == (0.01, 7.0)


def test_the_model_that_was_given_stays_as_it_is(scan):
    prior = NetworkPrior(White(), "denoiser", SD).in_precision(torch.bfloat16)
    before = dict(vars(prior))
    single = prior.in_precision(torch.float32)
    assert prior.precision == torch.bfloat16 and single.precision == torch.float32 and single.network is prior.network
    reconstruct(scan.kspace, mask=scan.mask, prior=prior, **QUICK)
    assert vars(prior) == before


def test_the_four_pieces_compose_around_a_denoiser_that_was_brought():
    """White images seen with noise of their own standard deviation: mean y / 2, half of the variance."""
    y = torch.full((300, 6, 6), 0.5, dtype=torch.complex128)
    posterior = ExactDraw(as_prior(white, sd=SD), Pixels(torch.ones(1, 6, 6)), y, SD)
    draws = Renoise(Karras(0.001, 5.0).levels(60))(posterior, torch.zeros_like(y), generators(0, draws=len(y)))
    assert float(abs(draws.mean() - 0.25)) < 0.01
    assert float(draws.real.var() / (SD**2 / 2)) == pytest.approx(1, abs=0.05)
