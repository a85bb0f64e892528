"""One network call a draw: the energy score against closed forms, the data step, and the method by its name."""

from __future__ import annotations

import math

import pytest
import torch
from command import mri_score
from torch import nn

from mri_score.data.masks import make_mask, undersample
from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.evaluation.out_of_distribution import unlike_training
from mri_score.losses import EnergyScore
from mri_score.models.base import ScoreModel
from mri_score.models.generator import Generator, expected_error
from mri_score.networks.unet import UNet
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.pixels import Pixels
from mri_score.operators.sense import Sense
from mri_score.posteriors.one_step import OneStep
from mri_score.priors.store import build_prior, load_prior, save_prior
from mri_score.reconstruction import WalkOptions, reconstruct
from mri_score.simulation.phantom import phantom
from mri_score.simulation.simulate import simulate
from mri_score.sources.simulated_scans import random_maps, scan

NETWORK = {"name": "unet", "widths": [8, 16], "blocks": 1, "embedding": 8, "extra_channels": 2}


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert float((found - expected).norm() / expected.norm()) < tolerance


def fresh() -> Generator:
    """A generator with random weights, so that its noise shows."""
    torch.manual_seed(0)
    found = build_prior(NETWORK, precondition="generator", sd=0.3, sigma_min=0.02, sigma_max=0.2)
    for parameter in found.network.leave.parameters():
        nn.init.normal_(parameter, std=0.1)
    return found.eval().requires_grad_(False)


class Linear(ScoreModel):
    """g = gain r + spread n, with white noise n: the posterior of white images seen in white noise has this form."""

    generates = True

    def __init__(self, gain: float, spread: float) -> None:
        super().__init__()
        self.gain, self.spread = (nn.Parameter(torch.tensor(value)) for value in (gain, spread))
        self.sd = 1.0

    def draw(self, x, sigma, random):
        noise = torch.randn(x.shape, dtype=x.dtype, generator=random[0])  # one generator is enough here, and faster
        return self.gain * x + self.spread * 2**0.5 * noise


NOISE = 0.5
GAIN, SPREAD = 1 / (1 + NOISE**2), NOISE / math.sqrt(1 + NOISE**2)
"""Mean and standard deviation of the posterior of unit white images."""


def pairs(count: int, seed: int = 3) -> TrainingItem:
    """White images and the same with noise."""
    shape, random = (count, 4, 4), generators(seed)[0]
    image, noise = (torch.randn(shape, dtype=torch.complex128, generator=random) * 2**0.5 for _ in range(2))
    full = torch.full((count,), 1.0, dtype=torch.double)
    return TrainingItem("x", image, noise_std=NOISE * full, acceleration=full, estimate=image + NOISE * noise)


@pytest.mark.slow
def test_the_minimum_of_the_energy_score_is_the_exact_posterior():
    """Adam from a wrong gain and spread, with a falling rate; the block sizes are those that fit into the images."""
    model, loss = Linear(0.3, 0.9), EnergyScore(blocks=(1, 4))
    steps = torch.optim.Adam(model.parameters(), 0.08)
    rate = torch.optim.lr_scheduler.ExponentialLR(steps, 0.95)
    for step in range(70):
        steps.zero_grad()
        loss(model, pairs(128, step), generators(step, "noise"), step).mean().backward()
        steps.step()
        rate.step()
    assert float(model.gain.detach()) == pytest.approx(GAIN, rel=0.05)
    assert float(model.spread.detach()) == pytest.approx(SPREAD, rel=0.05)


@pytest.mark.parametrize("gain, spread", [(1.2, 1), (0.8, 1), (1, 0.7), (1, 1.4), (1, 0)])
@pytest.mark.parametrize("blocks", [(), (1,), (4,)])
def test_every_part_of_the_score_is_proper(blocks, gain, spread):
    """Another mean, a narrower and a wider distribution, and the posterior mean itself, all score worse."""
    batch, loss = pairs(512), EnergyScore(blocks)

    def score(model):
        with torch.no_grad():
            return loss(model, batch, generators(1), 0)

    worse = score(Linear(gain * GAIN, spread * SPREAD)) - score(Linear(GAIN, SPREAD))
    assert float(worse.mean()) > 3 * float(worse.std()) / math.sqrt(512)


def test_the_data_step_turns_prior_draws_into_posterior_draws():
    """The generator ignores the scan and draws white images: then the rule of Matheron is exact, mean and covariance.

    r^2 is half of the misfit here too, for |y - A v|^2 holds two independent images.
    """
    count, shape, sd, noise = 3000, (1, 12), 0.3, 0.2
    mask = torch.ones(shape, dtype=torch.bool)
    mask[..., ::3] = False
    operator = Sense(random_maps(shape, 2, generators(2)[0]).to(torch.complex128), mask[None, None])
    truth = sd * noise_like(torch.zeros(1, *shape, dtype=torch.complex128), generators(8))
    y = operator(truth)
    y = y + noise * mask * noise_like(y, generators(9))
    model = Linear(0.0, sd)
    posterior = OneStep(model, operator, y, noise)
    posterior.misfit = lambda v, sigma: torch.full((len(v),), 2 * sd**2, dtype=torch.double)  # its expectation
    like = torch.zeros(count, *shape, dtype=torch.complex128)
    with torch.no_grad():
        draws = posterior.draw(like, 0.1, generators(1, draws=count))
    mean = operator.solve(operator.adjoint(y), noise**2 / sd**2)
    matrix = torch.stack([operator.normal(one[None])[0, 0] for one in torch.eye(12, dtype=y.dtype)[:, None]], 1)
    covariance = torch.linalg.inv(matrix / noise**2 + torch.eye(12) / sd**2)
    away = (draws - draws.mean(0))[:, 0]
    found = away.T @ away.conj() / (2 * (count - 1))
    errors = torch.diagonal(covariance).real.sqrt()
    assert float(((draws.mean(0) - mean)[0, 0].abs() / errors).max()) < 5 / math.sqrt(count)
    assert float((found - covariance).norm() / covariance.norm()) < 0.08


def test_the_result_follows_the_samples_where_they_are_many():
    """Measured samples are met within their noise, whatever the generator makes; and items are independent."""
    truth = phantom((24, 32), coils=4)
    given = undersample(truth, acceleration=2, seed=1)
    operator, noise = given.operator(), torch.tensor([0.01, 0.02])
    y = given.kspace.expand(2, -1, -1, -1)
    posterior = OneStep(fresh(), operator, y, noise)
    like = torch.zeros(2, 24, 32, dtype=torch.complex64)
    with torch.no_grad():
        z = posterior.draw(like, 0.1, generators(4, draws=2))
        alone = OneStep(fresh(), operator, y[1:], noise[1:]).draw(like[1:], 0.1, generators(4, draws=[1]))
    assert_close(z[1:], alone, 1e-4)
    misfit = (y - operator(z)).flatten(1).abs().square().sum(1) / (2 * (given.kspace != 0).sum())
    assert bool((misfit.sqrt() < 2 * noise).all())


# ---- The generator.


@torch.no_grad()
def test_a_generator_starts_as_the_prior_whose_weights_it_takes():
    torch.manual_seed(1)
    small = UNet(widths=(8, 16), blocks=1, embedding=8)
    nn.init.normal_(small.leave.weight, std=0.1)
    large = UNet(widths=(8, 16), blocks=1, embedding=8, extra_channels=2)
    large.grow_from(small.state_dict())
    x, level = torch.randn(1, 2, 12, 16), torch.tensor([0.1])
    assert_close(large(x, level, torch.randn(1, 2, 12, 16)), small(x, level), 1e-6)


def test_the_level_is_that_of_the_aliasing_and_of_the_noise():
    assert float(expected_error(torch.tensor(0.0), torch.tensor(4.0))) == pytest.approx(0.04)
    assert float(expected_error(torch.tensor(10.0), torch.tensor(4.0))) == pytest.approx(20, rel=1e-4)


def test_the_item_has_the_maps_and_the_image_of_its_calibration_lines():
    """The image is what the estimated maps make of the coil images: it reaches the samples, with another phase."""
    shape = (32, 48)
    image = phantom(shape, coils=1).image
    assert image is not None
    maps = random_maps(shape, 4, generators(3)[0])
    mask = make_mask("variable-density", shape, 2, calibration_lines=16, seed=1)[None, None]
    true, found = (scan(image, maps, mask, 1e-4, generators(5)[0], calibrated) for calibrated in (False, True))
    assert torch.equal(true.kspace, found.kspace) and not torch.allclose(true.maps, found.maps)
    residual = (Sense(found.maps, mask)(found.image) - found.kspace).norm() / found.kspace.norm()
    assert float(residual) < 0.1
    assert float((true.image.abs() - found.image.abs()).norm() / true.image.norm()) < 0.1


# ---- The method by its name.


@pytest.fixture
def stored(tmp_path):
    scans = {"laws": ["variable-density"], "accelerations": [3, 4]}
    save_prior(tmp_path / "prior.safetensors", fresh(), NETWORK, {"scans": scans})
    return tmp_path


def test_one_call_a_draw_and_the_seed_decides(stored):
    given = undersample(phantom((32, 32), coils=4), acceleration=2, seed=1)
    options = {"maps": given.maps, "noise_std": 0.01, "prior": stored, "method": "one-step", "samples": 3}
    one = reconstruct(given.kspace, **options)
    assert (one.work.calls, one.work.products) == (3, 0)
    assert torch.equal(one.samples, reconstruct(given.kspace, **options).samples)
    assert not torch.equal(one.samples, reconstruct(given.kspace, **options, seed=1).samples)
    split = reconstruct(given.kspace, **options, batch_size=2)
    assert_close(split.samples, one.samples, 1e-4)
    assert bool((one.std > 0).all())


def test_the_command_reconstructs_and_warns_of_other_masks(stored, tmp_path):
    """R = 6 is beyond the accelerations of the stored generator; `--sampler` is the former name of `--method`."""
    (path,) = simulate(tmp_path / "scans", volumes=1, slices=1, size=64, coils=4, noise=30.0)
    options = ["--prior", stored, "--samples", "2", "--baselines", "zero-filled", "--out", tmp_path / "out"]
    said = mri_score("reconstruct", path, "--accel", "6", "--sampler", "one-step", *options)
    assert "the generator was trained at accelerations 3 to 4" in " ".join(said.split())
    assert list((tmp_path / "out").rglob("*.h5"))


@pytest.mark.parametrize("option", [{"steps": 5}, {"warm_start": 0.3}])
def test_options_of_a_walk_are_refused(option):
    with pytest.raises(InputError, match="one-step has one noise level and no walk: leave out steps and warm start"):
        WalkOptions(method="one-step", **option)
    WalkOptions(method="one-step", steps=1)


def test_a_generator_and_a_score_model_do_not_replace_one_another(stored):
    given = undersample(phantom((32, 32), coils=4), acceleration=2, seed=1)
    options = {"maps": given.maps, "noise_std": 0.01}
    with pytest.raises(InputError, match="needs a generator as its prior"):
        reconstruct(given.kspace, **options, method="one-step", prior="brain-fast")
    with pytest.raises(InputError, match="take --method one-step"):
        reconstruct(given.kspace, **options, prior=stored)
    with pytest.raises(InputError, match="Cartesian scans only"):
        OneStep(load_prior(stored), Pixels(torch.ones(8, 8)), torch.ones(1, 8, 8, dtype=torch.complex64), 0.1)
    with pytest.raises(InputError, match="network.extra_channels"):
        build_prior({**NETWORK, "extra_channels": 0}, precondition="generator")
    with pytest.raises(InputError, match="data.name to simulated_scans"):
        EnergyScore()(fresh(), TrainingItem("x", image=torch.ones(1, 8, 8)), [], 0)


@pytest.mark.parametrize(
    "law, acceleration, expected",
    [
        ("variable-density", 3.9, None),
        (None, 3.9, None),
        ("magic", 4, "not magic"),
        ("variable-density", 8, "the scan has 8.00"),
        (None, 8, "the scan has 8.00"),
    ],
)
def test_scans_unlike_the_training_are_warned_of(law, acceleration, expected):
    scans = {"laws": ["variable-density"], "accelerations": [3, 4]}
    found = unlike_training(scans, acceleration, law)
    assert found is None if expected is None else expected in found
    assert unlike_training(None, acceleration, law) is None


@pytest.mark.parametrize(
    "scans",
    [3, {}, {"laws": ["magic"]}, {"laws": [4], "accelerations": [3]}, {"laws": ["magic"], "accelerations": [-1]}],
)
def test_a_record_with_wrong_masks_is_refused(tmp_path, scans):
    save_prior(tmp_path / "prior.safetensors", fresh(), NETWORK, {"scans": scans})
    with pytest.raises(InputError, match="about.scans"):
        load_prior(tmp_path)
