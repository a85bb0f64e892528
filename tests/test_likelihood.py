"""Log-likelihoods against closed forms: Gaussians, a mixture, units, and what the end law costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from command import mri_score
from torch import Tensor

from mri_score.data.pixel_values import PixelValues
from mri_score.errors import InputError
from mri_score.likelihood import FlowOptions, bits_per_dimension, log_likelihood, pixel_bits
from mri_score.models.analytic import GaussianPrior, MixturePrior
from mri_score.models.base import ScoreModel
from mri_score.models.counted import CountedPrior
from mri_score.models.network import NetworkPrior
from mri_score.numerics.channels import real_size
from mri_score.numerics.noise import generators, noise_like
from mri_score.priors.store import build_prior, load_prior, save_prior

END, TOP = 0.05, 200.0


def apart() -> GaussianPrior:
    """Real (1, 3), the components independent: J is diagonal, and signs find its trace exactly."""
    return GaussianPrior(torch.zeros(1, 3).double(), torch.diag(torch.tensor([1.0, 0.25, 0.04]).double()))


def tied() -> GaussianPrior:
    """Complex (5,) about a mean, its components tied together."""
    root = torch.randn(5, 5, dtype=torch.complex128, generator=torch.Generator().manual_seed(1)) / 3
    mean = torch.tensor([0.5 + 0.2j, -0.3j, 1.0, 0.0, 0.4 - 0.1j], dtype=torch.complex128)
    return GaussianPrior(mean, root @ root.mH + 0.02 * torch.eye(5))


def mixture() -> MixturePrior:
    means = torch.tensor([[-1.5, 0.0, 0.3], [1.5, 0.5, 0.0]]).double()
    return MixturePrior(means, torch.tensor([0.2, 0.4]).double(), torch.tensor([3.0, 7.0]).double())


def gaussian_density(prior: GaussianPrior, x: Tensor, sigma: float) -> Tensor:
    """log p of x0 + sigma n at x, by real components: (B,)."""
    variances = prior.variances + sigma**2
    along = (x - prior.mean).flatten(1) @ prior.axes.conj()
    components = real_size(x) // len(variances)
    return -(along.abs().square() / variances).sum(1) / 2 - components / 2 * (2 * math.pi * variances).log().sum()


def mixture_density(prior: MixturePrior, x: Tensor, sigma: float) -> Tensor:
    variance = prior.stds**2 + sigma**2
    distance = (x[:, None] - prior.means).square().sum(-1)
    return torch.logsumexp(prior.weights.log() - distance / (2 * variance) - 1.5 * (2 * math.pi * variance).log(), 1)


def noised(prior: GaussianPrior, count: int, sigma: float = END) -> Tensor:
    random = generators(2, draws=count)
    x = prior.sample(random)
    return x + sigma * noise_like(x, random)


def of_probes(prior: ScoreModel, x: Tensor, probes: int, **options) -> tuple[float, float]:
    """Mean of 40 estimates for one image and its standard error."""
    estimates = log_likelihood(
        prior, x.expand(40, *x.shape[1:]), END, TOP, generators(3, draws=40), probes=probes, **options
    )
    return float(estimates.mean()), float(estimates.std() / 40**0.5)


def test_a_gaussian_of_independent_components_has_its_density():
    x = noised(apart(), 20)
    found = log_likelihood(apart(), x, END, TOP, generators(0, draws=20), rtol=1e-7, atol=1e-7)
    assert torch.allclose(found, gaussian_density(apart(), x, END), atol=1e-3)


@pytest.mark.parametrize("sigma", [0.02, 0.3])
def test_it_is_the_density_of_images_with_the_noise_of_sigma_min(sigma):
    x = noised(apart(), 5)
    found = log_likelihood(apart(), x, sigma, TOP, generators(0, draws=5), rtol=1e-7, atol=1e-7)
    assert torch.allclose(found, gaussian_density(apart(), x, sigma), atol=1e-3)
    assert float((found - gaussian_density(apart(), x, END)).abs().max()) > 0.02  # at END


@pytest.mark.parametrize("seed", range(2))
def test_complex_images_whose_components_are_tied_have_their_density_within_the_probes_error(seed):
    prior = tied()
    x = noised(prior, 2)[seed : seed + 1]
    mean, error = of_probes(prior, x, 20, mean=prior.mean)
    assert error < 0.1
    assert mean == pytest.approx(float(gaussian_density(prior, x, END)), abs=4 * error)


@pytest.mark.parametrize("x", [[-1.4, 0.1, 0.3], [1.2, 0.9, -0.4], [0.0, 0.2, 0.2]])
def test_a_mixture_has_its_density_in_its_modes_and_between(x):
    prior, x = mixture(), torch.tensor([x]).double()
    mean, error = of_probes(prior, x, 25, mean=(prior.weights[:, None] * prior.means).sum(0))
    assert error < 0.15
    assert mean == pytest.approx(float(mixture_density(prior, x, END)), abs=4 * error + 1e-3)


def test_more_probes_spread_less():
    """The variance of the mean of eight is an eighth."""
    x = noised(tied(), 1)
    one, eight = (of_probes(tied(), x, probes)[1] for probes in (1, 8))
    assert one / eight == pytest.approx(8**0.5, rel=0.3)


def test_the_end_law_misleads_an_item_by_the_second_power_of_sigma_max_and_the_average_by_the_fourth():
    x = noised(apart(), 4000)
    random = generators(0, draws=len(x))
    exact = gaussian_density(apart(), x, END)
    tops = (2.0, 4.0)
    errors = [log_likelihood(apart(), x, END, top, random, steps=150) - exact for top in tops]
    spread = [float(error.std()) for error in errors]
    assert spread[0] / spread[1] == pytest.approx(4, rel=0.25)
    v, expected = apart().variances, []
    for top in tops:
        ratio = (top**2 + v) / (top**2 + v.mean())
        expected.append(float((ratio.log() - ratio + 1).sum()) / 2)  # -KL of the true end law from the round one
    assert expected[0] / expected[1] > 10
    for error, bias in zip(errors, expected, strict=True):
        assert float(error.mean()) == pytest.approx(bias, abs=4 * float(error.std()) / len(x) ** 0.5 + 1e-3)


def test_the_datas_mean_makes_the_end_law_right_at_a_lower_sigma_max():
    white = GaussianPrior(torch.full((4,), 3.0).double(), 0.09 * torch.eye(4).double())
    x = noised(white, 5)
    exact, random = gaussian_density(white, x, END), generators(0, draws=5)
    centred = log_likelihood(white, x, END, 3.0, random, mean=white.mean, rtol=1e-6, atol=1e-6)
    assert torch.allclose(centred, exact, atol=1e-3)  # round about its mean, as the end law is
    assert float((log_likelihood(white, x, END, 3.0, random) - exact).abs().min()) > 0.1


def test_heuns_steps_are_of_second_order_and_the_adaptive_ones_keep_their_tolerance():
    x, random = noised(apart(), 5), generators(0, draws=5)
    sharp = log_likelihood(apart(), x, END, 30.0, random, rtol=1e-10, atol=1e-10)
    errors = [float((log_likelihood(apart(), x, END, 30.0, random, steps=n) - sharp).norm()) for n in (100, 200)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    loose = log_likelihood(apart(), x, END, 30.0, random)
    assert 0 < float((loose - sharp).abs().max()) < 5e-3


def test_evaluations_and_products_are_counted_by_steps_and_probes():
    model = CountedPrior(mixture())
    log_likelihood(model, torch.zeros(4, 3).double(), END, TOP, generators(0, draws=4), steps=7, probes=3)
    assert (model.calls, model.products) == (4 * 14, 4 * 14 * 3)


@pytest.mark.parametrize("steps", [None, 20])
def test_an_image_has_its_likelihood_whatever_its_company(steps):
    x = torch.tensor([[-1.4, 0.1, 0.3], [0.0, 0.2, 0.2], [9.0, -3.0, 2.0]]).double()
    options = {"rtol": 1e-2, "atol": 1e-2, "steps": steps}  # by the errors of 1e-2 shared steps would show
    together = log_likelihood(mixture(), x, END, TOP, generators(0, draws=3), **options)
    alone = [log_likelihood(mixture(), x[i : i + 1], END, TOP, generators(0, draws=[i]), **options) for i in range(3)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-8)


def test_a_learned_prior_in_single_precision_has_the_density_that_its_denoiser_implies():
    """A network that says 0 leaves D = sd^2 x / (sd^2 + sigma^2): white images, complex."""

    class Nothing(torch.nn.Module):
        def forward(self, x, c_noise, extra=None):
            return 0 * x

    prior = NetworkPrior(Nothing(), sd=0.3)
    x = 0.3 * noise_like(torch.zeros(3, 7, 5, dtype=torch.complex64), generators(4, draws=3))
    found = log_likelihood(prior, x, END, 100.0, generators(0, draws=3))
    variance = 0.09 + END**2
    exact = -x.abs().square().flatten(1).sum(1) / (2 * variance) - 35 * math.log(2 * math.pi * variance)
    assert torch.allclose(found, exact.double(), atol=0.05)
    assert not found.requires_grad


# Units.


def test_bits_per_dimension_of_gaussian_images_are_their_entropy():
    """log2(sd sqrt(2 pi e)) on average, real or complex."""
    for kind in (torch.float64, torch.complex128):
        x = 0.5 * noise_like(torch.zeros(2000, 40, dtype=kind), generators(5, draws=2000))
        white = GaussianPrior(torch.zeros(40, dtype=kind), 0.25 * torch.eye(40, dtype=kind))
        found = bits_per_dimension(gaussian_density(white, x, 0.0), x).mean()
        assert float(found) == pytest.approx(math.log2(0.5 * math.sqrt(2 * math.pi * math.e)), abs=0.01)


@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
def test_bits_of_scaled_images_are_those_of_the_same_images_in_their_own_units(kind):
    covariance = torch.diag(torch.tensor([1.0, 0.3, 0.1])).to(kind)
    x = noise_like(torch.zeros(4, 3, dtype=kind), generators(6, draws=4))
    scale, zero = 256.0, torch.zeros(3, dtype=kind)
    grey = gaussian_density(GaussianPrior(zero, scale**2 * covariance), scale * x, scale * END)
    one = gaussian_density(GaussianPrior(zero, covariance), x, END)
    assert torch.allclose(bits_per_dimension(one, x, scale), bits_per_dimension(grey, scale * x))
    assert torch.allclose(bits_per_dimension(one, x, torch.full((4,), scale)), bits_per_dimension(one, x) + 8)


@pytest.mark.parametrize("options", [{"probes": 0}, {"steps": 0}])
def test_refuses_no_probes_and_no_steps(options):
    with pytest.raises(InputError, match="1 or more probes and steps"):
        log_likelihood(mixture(), torch.zeros(1, 3).double(), END, TOP, generators(0), **options)


def test_a_prior_without_gradient_says_so():
    class Detached(MixturePrior):
        def denoise(self, x, sigma):
            return super().denoise(x, sigma).detach()

    prior = Detached(mixture().means, mixture().stds, mixture().weights)
    with pytest.raises(InputError, match="carries no gradient"):
        log_likelihood(prior, torch.zeros(1, 3).double(), END, TOP, generators(0))


# Pixels.


@pytest.mark.parametrize("kind", [{}, {"centred": True}, {"logit": True}])
def test_bits_of_pixels_are_those_of_the_closed_form(kind):
    """A Gaussian of v has a density of pixels by the slope of the map; its bits count grey values of 256."""
    values = PixelValues(**kind)
    prior = GaussianPrior(torch.full((1, 3), 0.2).double(), torch.diag(torch.tensor([0.3, 0.1, 0.05]).double()))
    prior.sigma_min, prior.sigma_max = 0.02, 500.0
    pixels = torch.tensor([[[0.0, 128.0, 255.0]], [[30.0, 60.0, 90.0]]]).double() / 255
    found = pixel_bits(prior, pixels, generators(4, draws=2), values, options=FlowOptions(rtol=1e-6, atol=1e-6),
                       mean=prior.mean)  # fmt: skip
    noise = torch.stack([torch.rand(1, 3, generator=one) for one in generators(4, draws=2)])
    y = (255 * pixels + noise) / 256
    density = gaussian_density(prior, values.forward(y), prior.sigma_min)
    jacobians = [torch.autograd.functional.jacobian(values.forward, one).reshape(3, 3) for one in y]
    slope = torch.stack(jacobians).det().log()
    expected = -(density + slope - 3 * math.log(256)) / (3 * math.log(2))
    assert torch.allclose(found, expected, atol=2e-3)


def test_dequantised_bits_bound_the_code_length_of_whole_numbers():
    """Of whole numbers k under a Gaussian: the mean over the noise is above -log2 of its mass between k and k + 1."""
    prior = GaussianPrior(torch.full((1, 1), 0.5).double(), torch.tensor([[0.01]]).double())
    prior.sigma_min, prior.sigma_max = 1e-3, 100.0
    pixels = (torch.tensor([100.0, 128.0, 150.0]).double() / 255).repeat_interleave(40)[:, None, None]
    bits = pixel_bits(prior, pixels, generators(0, draws=120), mean=prior.mean)
    edges = (torch.tensor([[100.0, 101], [128, 129], [150, 151]]).double() / 256 - 0.5) / (0.01 + 1e-6) ** 0.5
    mass = torch.special.ndtr(edges).diff(dim=1)[:, 0]
    gap = bits.reshape(3, 40).mean(1) + mass.log2()
    assert float(gap.min()) > -0.01 and float(gap.max()) < 0.02


def test_the_command_gives_the_mean_and_its_standard_error(tmp_path):
    network = {"name": "unet", "widths": [4], "blocks": 1, "embedding": 4, "channels": 3}
    about = {"mean": [0.4, 0.5, 0.6], "pixels": {"channels": 3, "scale": "bits", "size": [4, 4]}}
    save_prior(tmp_path / "rgb.safetensors", build_prior(network, sigma_min=0.05, sigma_max=5.0), network, about)
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), np.uint8))
    output = mri_score("likelihood", tmp_path / "images.npy", "-p", tmp_path / "rgb.safetensors", "--steps", 4,
                       "--batch-size", 2, "-o", tmp_path)  # fmt: skip
    rows = (tmp_path / "likelihood.csv").read_text().splitlines()
    bits = torch.tensor([float(row.split(",")[1]) for row in rows[1:]])
    assert [row.split(",")[0] for row in rows[1:]] == [f"images.npy:{n}" for n in range(3)]
    assert f"{float(bits.mean()):.4f} +/- {float(bits.std()) / 3**0.5:.2g}" in output and "one grey value" in output
    pixels = torch.from_numpy(np.load(tmp_path / "images.npy")).movedim(-1, 1) / 255
    mean, random = torch.tensor(about["mean"])[:, None, None].expand(3, 4, 4), generators(0, "likelihood", draws=[2])
    prior = load_prior(tmp_path / "rgb.safetensors")
    alone = pixel_bits(prior, pixels[2:], random, options=FlowOptions(steps=4), mean=mean)
    assert float(bits[2]) == pytest.approx(float(alone), rel=1e-4)
