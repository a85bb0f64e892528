"""What a researcher brings: own denoisers, score models, operators, posteriors, walks and readers, from outside."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mri_score import open_scan, phantom, reconstruct, sample_posterior, undersample
from mri_score.data.scan import Scan, Undersampling
from mri_score.errors import InputError
from mri_score.generation import inpaint, sample_prior
from mri_score.methods import INPAINTING, METHODS, WALKS, Method
from mri_score.models.base import ScoreModel
from mri_score.models.counted import CountedPrior
from mri_score.models.denoiser import as_prior
from mri_score.models.network import NetworkPrior
from mri_score.models.preconditioning import EpsilonPrecondition
from mri_score.noise.schedules import Karras
from mri_score.numerics.channels import per_item
from mri_score.numerics.fourier import fft
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.base import LinearOperator
from mri_score.operators.pixels import Pixels
from mri_score.operators.sense import Sense
from mri_score.operators.sigpy import sigpy_sense
from mri_score.posteriors import POSTERIORS, ExactDraw
from mri_score.posteriors.base import Posterior
from mri_score.readers import READERS
from mri_score.readers.base import PlainReader
from mri_score.samplers import Renoise
from mri_score.samplers.base import Sampler

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
        (lambda: as_prior(White(), sd=SD, precondition="eps"), "'eps'; known names: ddpm, denoiser, edm"),
        (lambda: NetworkPrior(White(), "eps"), "'eps'; known names: ddpm, denoiser, edm"),
        (lambda: NetworkPrior(White(), 3), "it is one of ddpm, denoiser, edm.*or a function of"),
        (lambda: NetworkPrior(White(), sigma_min=3.0, sigma_max=1.0), "0 <= sigma_min <= sigma_max"),
        (lambda: as_prior(lambda x, sigma: x[:, :3], sd=SD).denoise(x, 1.0), "given .1, 24, 20. and gave .1, 3, 20."),
        (lambda: as_prior(lambda x, sigma: x.real, sd=SD).denoise(x, 1.0), "gave torch.float32.*precondition"),
        (lambda: as_prior(lambda x, sigma: (x, x), sd=SD).denoise(x, 1.0), "gave tuple"),
    ):
        with pytest.raises(InputError, match=message):
            make()


@pytest.mark.parametrize("method", [name for name in METHODS if name != "one-step"])
def test_reconstruction_keeps_to_the_range_of_the_prior(scan, method):
    prior = Asked(0.05, 1.0)
    reconstruct(scan.kspace, mask=scan.mask, prior=prior, method=method, **QUICK)
    assert max(prior.levels) == 1.0 and min(prior.levels) == pytest.approx(0.05, rel=1e-6)
    assert prior.walks == 1


@pytest.mark.parametrize("method", [name for name in WALKS if name != "plain-langevin"])
def test_generation_keeps_to_the_range_of_the_prior(method):
    prior = Asked(0.05, 1.0)
    sample_prior(prior, 2, SHAPE, method=method, steps=4)
    assert max(prior.levels) == 1.0 and min(prior.levels) == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize("method", INPAINTING)
def test_inpainting_keeps_to_the_range_of_the_prior(method):
    prior = Asked(0.05, 1.0)
    inpaint(prior, torch.zeros(SHAPE, dtype=torch.complex64), torch.eye(*SHAPE), 2, method=method, steps=4)
    assert max(prior.levels) == 1.0 and min(prior.levels) == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize("name", [name for name in POSTERIORS if name != "one-step"])
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


class Diagonal(LinearOperator):
    """y = w x: every pixel seen with a weight of its own."""

    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, x):
        return self.weights * x

    def adjoint(self, y):
        return self.weights.conj() * y


def test_an_operator_that_was_brought_ready_sees_images_of_any_shape():
    """White images: the posterior mean is known pixel by pixel, and the result is in the unit of the samples."""
    shape = (3, 8, 10)  # rows, columns and partitions, one image
    weights = torch.linspace(0.4, 1.0, math.prod(shape)).reshape(shape).to(torch.complex64)
    image = 5 * SD * noise_like(torch.zeros(2, *shape, dtype=torch.complex64), generators(3, draws=2))
    operator, noise_std = Diagonal(weights), 0.3
    y = operator(image) + noise_std * noise_like(image, generators(4, draws=2))
    found = reconstruct(y, operator=operator, noise_std=noise_std, prior=Asked(), samples=100, steps=30, batch_size=200)
    assert found.samples.shape == (100, 2, *shape) and found.maps is None and found.rss.shape == (2, *shape)
    sd = SD * found.acquisition.scale.reshape(-1, 1, 1, 1)
    expected = weights.conj() * y * sd**2 / (weights.abs() ** 2 * sd**2 + noise_std**2)
    assert float((found.image - expected).norm() / expected.norm()) < 0.1
    spread = (noise_std**2 * sd**2 / (weights.abs() ** 2 * sd**2 + noise_std**2)).sqrt()
    assert float((found.std / spread).mean()) == pytest.approx(1, abs=0.15)
    assert operator.iterations == 0, "the operator that was given does not count the work"


def test_a_sigpy_linop_is_an_operator_with_b0_phase_and_in_three_dimensions(scan):
    linop = pytest.importorskip("sigpy").linop
    rng = np.random.default_rng(0)
    for shape in (SHAPE, (4, 8, 6)):
        maps = rng.standard_normal((3, *shape)) + 1j * rng.standard_normal((3, *shape))
        maps /= np.sqrt((abs(maps) ** 2).sum(0))
        phase = np.exp(1j * np.linspace(-2, 2, shape[-1]) * np.ones(shape))  # an off-resonance of 4 rad across
        multiply = linop.Multiply(shape, (maps * phase).astype(np.complex64))
        keep = np.zeros(shape, np.complex64)
        keep[..., ::2], keep[..., shape[-1] // 2] = 1, 1
        brought = linop.Multiply((3, *shape), keep) * linop.FFT((3, *shape), axes=range(-len(shape), 0)) * multiply
        image = np.ones(shape, np.complex64)
        noise = rng.standard_normal((3, *shape)) + 1j * rng.standard_normal((3, *shape))
        y = brought(image) + 1e-3 * abs(keep) * noise
        found = reconstruct(y.astype(np.complex64), operator=brought, noise_std=1e-3, prior=Asked(), **QUICK)
        assert found.image.shape == (1, *shape)
        assert float((found.image[0] - torch.from_numpy(image)).abs().mean()) < 0.05


def test_a_function_of_maps_and_mask_makes_the_operator(scan):
    given = {"kspace": scan.kspace, "maps": scan.maps, "mask": scan.mask, "noise_std": 0.01, "prior": Asked(), **QUICK}
    plain = reconstruct(**given)
    made = []

    def make(maps, mask):
        made.append(maps.shape)
        return sigpy_sense(maps, mask).linops[0] if len(maps) == 1 else Sense(maps, mask)

    found = reconstruct(**given, operator=make).samples
    assert made and float((found - plain.samples).norm() / plain.samples.norm()) < 2e-3
    for more, message in (
        ({"operator": lambda maps, mask: "sense"}, "a forward operator is str; it needs a LinearOperator"),
        ({"operator": 3}, "a forward operator is int"),
        ({"operator": scan.operator()}, "a ready operator takes neither maps nor mask"),
    ):
        with pytest.raises(InputError, match=message):
            reconstruct(**given, **more)
    with pytest.raises(InputError, match="noise_std is None; with an operator of its own it must be given"):
        reconstruct(scan.kspace, operator=scan.operator(), prior=Asked())


class Shrinks(Posterior):
    """A posterior of one's own: the prior's denoised image, then one step towards the samples."""

    def __init__(self, prior, operator, kspace, noise_std, step=1.0):
        super().__init__(prior, operator, kspace, noise_std)
        self.step = step

    def denoise(self, x, sigma):
        clean = self.prior.denoise(x, sigma)
        return clean + self.step * (self.backprojection - self.operator.normal(clean))


class Straight(Sampler):
    """A walk of one's own: denoise at each level, and add no noise but what is left."""

    def step(self, model, x, sigma, sigma_next, random):
        clean = model.denoise(x, sigma)
        return clean + sigma_next / sigma * (x - clean)


def test_a_posterior_and_a_walk_that_were_brought_reconstruct(scan):
    method = Method(Shrinks, Straight, Karras, steps=5, calls=1, draws=False)
    given = {"kspace": scan.kspace, "mask": scan.mask, "prior": Asked(), "samples": 1}
    found = reconstruct(method=method, **given)
    assert found.work.calls == 5
    # The same walk of the same law by the pieces in the package.
    acquisition = found.acquisition
    posterior = Shrinks(Asked(), acquisition.operator(), acquisition.kspace, acquisition.noise_std)
    walk = Straight(Karras(min(0.01, float(acquisition.noise_std) / 2), 5.0).levels(5))
    x = walk(posterior, torch.zeros(1, *SHAPE, dtype=torch.complex64), generators(0, "k-space", draws=1))
    assert torch.allclose(found.samples[0], x * acquisition.scale, atol=1e-5)
    other = reconstruct(method=method, options={"step": 0.0}, **given)
    assert not torch.allclose(found.image, other.image)
    with pytest.raises(InputError, match="the option of Shrinks is 'steep'; known names: step"):
        reconstruct(method=method, options={"steep": 0.0}, **given)


def test_options_precision_warm_start_and_progress_reach_the_walk(scan):
    told: list[int] = []
    prior = NetworkPrior(nn.Conv2d(2, 2, 1, bias=False).requires_grad_(False), Ignores(), SD)
    prior.network.forward = lambda channels, label: nn.functional.conv2d(channels, prior.network.weight)
    given = {"kspace": scan.kspace, "mask": scan.mask, "prior": prior, "method": "dds", **QUICK}
    plain = reconstruct(progress=told.append, **given).samples
    assert sum(told) == 4 * 2
    for more in ({"options": {"zeta": 0.1}}, {"precision": "bfloat16"}, {"warm_start": 1.0}):
        assert not torch.equal(reconstruct(**given, **more).samples, plain), more
    assert prior.precision == torch.float32
    for more, message in (
        ({"options": {"zetta": 0.1}}, "the option of dds is 'zetta'; known names: gamma, iterations, zeta"),
        ({"precision": "float8"}, "the precision is 'float8'; known names: auto, bfloat16, float32"),
        ({"prior": white}, "the prior is function.*make a score model of a denoiser with as_prior"),
    ):
        with pytest.raises(InputError, match=message):
            reconstruct(**{**given, **more})


class Ignores:
    """A precondition of one's own, as a class: the network's output is added to the image."""

    def __call__(self, sigma, sd):
        one = torch.ones_like(sigma)
        return one / (1 + sigma**2 / sd**2), 0.1 * one / (1 + sigma**2), one, sigma


def test_the_work_of_a_walk_is_in_its_result(scan):
    prior = CountedPrior(Asked())
    posterior = ExactDraw(prior, scan.operator(), scan.kspace, 0.01)
    walk, like = Renoise(Karras(0.01, 5.0).levels(6)), torch.zeros(1, *SHAPE, dtype=torch.complex64)
    for _ in range(2):  # each result is that of its walk alone
        found = walk.walk(posterior, like, generators(0))
        assert found.work is not None and found.work.calls == 6 and found.x.shape == like.shape
    assert found.mean is not None and posterior.mean is None and prior.calls == 12
    assert ExactDraw(Asked(), scan.operator(), scan.kspace, 0.01).end_walk().work is None


class Text(PlainReader):
    """A reader of one's own: the k-space of one coil and one slice in a text file."""

    def __init__(self, path):
        self.path, self._lines = Path(path), np.loadtxt(path, dtype=complex)
        self.name, self.attributes, self.acquisition, self.notes = self.path.stem, {}, "test", []
        self.slices = self.coils = 1
        self.rows, self.cols = self.image_shape = self.crop = self._lines.shape
        self.padding, self.mask = (0, self.cols), None
        self.sampled = torch.ones(1, 1, 1, self.cols, dtype=torch.bool)

    def about(self):
        return {"format": "text"}

    def empty(self, slice):
        return not self._lines.any()

    def kspace(self, slice):
        return torch.from_numpy(self._lines.astype(np.complex64))[None]


def test_a_reader_that_was_brought_is_opened_by_its_suffix(tmp_path, monkeypatch):
    path = tmp_path / "one.txt"
    full = phantom((48, 40), coils=1)
    np.savetxt(path, fft(full.image)[0].numpy())
    monkeypatch.setitem(READERS, ".txt", Text)
    scan = Scan(open_scan(path), Undersampling(2.0))
    found = sample_posterior(scan.acquisition(0), Asked(), slices=[0], **QUICK)
    assert scan.file.name == "one" and found.image.shape == (1, 48, 40)
    assert float((found.rss - full.image.abs()).norm() / full.image.norm()) < 0.5
