"""Sliced score matching: NCSN's formula, exact traces, what projections buy, gradients to second order, training."""

from __future__ import annotations

import json
import math

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mri_score import experiment
from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.losses import Denoising, Sliced
from mri_score.models.analytic import GaussianPrior
from mri_score.models.base import ScoreModel
from mri_score.models.network import NetworkPrior
from mri_score.noise.parameters import Parameters
from mri_score.noise.schedules import Geometric
from mri_score.numerics.channels import to_channels
from mri_score.numerics.noise import generators, noise_like, signs_like
from mri_score.priors.store import load_prior

SCHEDULE = Geometric(0.05, 5.0)
DTYPES = [torch.float64, torch.complex128]
SHAPE = (3, 5)


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return noise_like(torch.zeros(shape, dtype=dtype), generators(seed, "normal", draws=shape[0]))


class Small(nn.Module):
    """Two convolutions that see the noise level."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.second = nn.Conv2d(4, channels, 3, padding=1)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x) + c_noise[:, None, None, None]))


def small(dtype: torch.dtype) -> NetworkPrior:
    torch.manual_seed(0)
    return NetworkPrior(Small(2 if dtype.is_complex else 1).double(), sd=0.6)


def jacobian(model: ScoreModel, x: Tensor, sigma: Tensor) -> Tensor:
    """ds/dx of one item over its real components, by brute force: (n, n)."""

    def of_channels(parts: Tensor) -> Tensor:
        image = torch.complex(*parts) if len(parts) == 2 else parts[0]
        return to_channels(model.score(image[None], sigma))[0]

    parts = to_channels(x[None])[0]
    return torch.autograd.functional.jacobian(of_channels, parts).reshape(parts.numel(), parts.numel())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variance_reduced", [True, False])
@pytest.mark.parametrize("probes", ["rademacher", "gaussian"])
def test_it_is_the_published_formula_over_real_components(dtype, variance_reduced, probes):
    """[1/2 |s|^2 or 1/2 (v . s)^2, plus v . J v] sigma^2 / n, J by brute force."""
    model, images = small(dtype), normal(3, *SHAPE, dtype=dtype)
    sigma = torch.tensor([0.1, 0.7, 3.0]).double()
    loss = Sliced(SCHEDULE, probes=probes, variance_reduced=variance_reduced)
    found = loss.at(model, images, sigma, generators(1, draws=3))

    random = generators(1, draws=3)
    noisy = images + sigma[:, None, None] * noise_like(images, random)
    v = to_channels((signs_like if probes == "rademacher" else noise_like)(images, random)).flatten(1)
    for i in range(3):
        score = to_channels(model.score(noisy[i : i + 1], sigma[i : i + 1])).flatten().detach()
        slope = v[i] @ jacobian(model, noisy[i], sigma[i : i + 1]) @ v[i]
        energy = score @ score if variance_reduced else (v[i] @ score) ** 2
        expected = sigma[i] ** 2 * (energy / 2 + slope) / score.numel()
        assert float(found[i].detach()) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_signs_give_the_exact_trace_of_a_diagonal_score(dtype):
    variances = torch.linspace(0.1, 2.0, 15).double()
    model = GaussianPrior(torch.zeros(SHAPE, dtype=dtype), torch.diag(variances).to(dtype))
    images, sigma = normal(4, *SHAPE, dtype=dtype), torch.tensor([0.1, 0.5, 1.0, 2.0]).double()
    found = Sliced(SCHEDULE).at(model, images, sigma, generators(2, draws=4))
    noisy = images + sigma[:, None, None] * noise_like(images, generators(2, draws=4))
    total = variances.reshape(SHAPE) + sigma[:, None, None] ** 2
    components = 2 if dtype.is_complex else 1
    expected = (noisy.abs() / total).square() / 2 - components / total
    assert torch.allclose(found, sigma**2 * expected.mean((1, 2)) / components)


def test_projections_divide_the_variance():
    """Of one image with next to no noise, seen by many probes."""
    many, root = 3000, normal(15, 15, dtype=torch.complex128, seed=7)
    model = GaussianPrior(torch.zeros(SHAPE, dtype=torch.complex128), root @ root.mH)
    image = torch.zeros(many, *SHAPE, dtype=torch.complex128)
    sigma = torch.full((many,), 1e-3).double()
    spread = {}
    for count in (1, 4):
        with torch.no_grad():
            spread[count] = Sliced(SCHEDULE, projections=count).at(model, image, sigma, generators(3, draws=many)).var()
    assert float(spread[1] / spread[4]) == pytest.approx(4, rel=0.25)


def test_an_items_loss_does_not_depend_on_its_batch():
    model, images, loss = small(torch.complex128), normal(4, *SHAPE, dtype=torch.complex128), Sliced(SCHEDULE)
    together = loss(model, TrainingItem("x", image=images), generators(4, draws=4), 0)
    for i in range(4):
        one = loss(model, TrainingItem("x", image=images[i : i + 1]), generators(4, draws=[i]), 0)
        assert torch.allclose(one, together[i : i + 1])


def test_parameters_get_the_gradient_of_the_slope_too():
    model, images = small(torch.complex128), normal(3, *SHAPE, dtype=torch.complex128)

    def value() -> Tensor:
        return Sliced(SCHEDULE, projections=2)(model, TrainingItem("x", image=images), generators(5, draws=3), 0).sum()

    parameter = model.network.first.weight
    (gradient,) = torch.autograd.grad(value(), parameter)
    direction, h = normal(*parameter.shape, seed=6), 1e-5
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter.add_(sign * h * direction)
            sides.append(value())
            parameter.sub_(sign * h * direction)
    assert not sides[0].requires_grad
    assert float((gradient * direction).sum()) == pytest.approx(float(sides[0] - sides[1]) / (2 * h), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": "uniform"}, "loss.probes is 'uniform'; known names: gaussian, rademacher"),
        ({"projections": 0}, "loss.projections is 0; sliced score matching needs at least 1"),
    ],
)
def test_what_cannot_be_sliced_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        Sliced(SCHEDULE, **options)


# ---- By name, in a config.


@pytest.fixture
def stack(tmp_path):
    """Squares of random sizes and values."""
    random, images = np.random.default_rng(0), np.zeros((6, 32, 32), np.float32)
    for image in images:
        image[4:28, 4:28] = 1
        top, side = random.integers(6, 14), random.integers(6, 12)
        image[top : top + side, top : top + side] = random.uniform(2, 3)
    with h5py.File(tmp_path / "squares.h5", "w") as file:
        file["image"] = images
    return tmp_path / "squares.h5"


def config(stack, **sections):
    parts = {
        "data": {"name": "images", "paths": [str(stack)], "augment": False},
        "network": {"name": "unet", "widths": [8, 16], "blocks": 1, "embedding": 8},
        "training": {"steps": 80, "warmup": 5, "learning_rate": 3e-3, "batch_size": 4, "workers": 0, "log_every": 10,
                     "save_every": 80},
    }  # fmt: skip
    return {"dataset": "squares", **parts, **sections}


class SoftThreshold(ScoreModel):
    """Real images less a threshold: the slope jumps at a place that a parameter moves."""

    sd = 1.0

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold, dtype=torch.float64))

    def denoise(self, x, sigma):
        return torch.relu(x - self.threshold)


def test_of_a_kink_the_value_is_right_and_the_gradient_is_not():
    """d / d threshold against denoising score matching: it misses the density of x at the kink."""
    many, sigma = 400_000, torch.tensor([0.5], dtype=torch.float64)
    clean, gaps = normal(1, many, seed=1), []
    for threshold in (0.5, -0.4):
        model = SoftThreshold(threshold)
        losses = [
            loss.at(model, clean, sigma, generators(2))
            for loss in (Sliced(SCHEDULE), Denoising(SCHEDULE, weighting="noise"))
        ]
        sliced, true = (float(torch.autograd.grad(one.sum(), model.threshold)[0]) for one in losses)
        missed = math.exp(-(threshold**2) / 2.5) / math.sqrt(2.5 * math.pi)
        assert sliced - true == pytest.approx(missed, abs=0.01) and missed > 0.3
        gaps.append(float((losses[0] - losses[1]).detach()))
    assert gaps[0] == pytest.approx(gaps[1], abs=0.01)


def test_a_config_trains_with_it(stack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loss = {"name": "sliced", "projections": 2, "probes": "gaussian"}
    validation = {"name": "images", "paths": [str(stack)], "augment": False}
    schedule = {"name": "geometric", "sigma_min": 0.1, "sigma_max": 3.0}
    settings = config(stack, loss=loss, schedule=schedule, prior={"precondition": "edm"}, validation=validation)
    experiment.run(settings, tmp_path / "run", quiet=True)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["denoising_errors"]["0.3"] < 0.9  # at the start the network is silent: 1
    prior = load_prior(tmp_path / "run")
    assert (prior.sigma_min, prior.sigma_max) == (0.1, 3.0)  # what it was trained on


@pytest.mark.parametrize(
    ("schedule", "ends"),
    [
        ({"name": "uniform", "count": 10}, (0.01, 20.0)),
        ({"name": "vp"}, (0.001, 152.17)),
        ({"name": "sub-vp", "t_min": 1e-3}, (1.1e-4, 152.17)),
        ({"name": "automatic", "overlap": 0.567}, (0.01, 20.0)),
        ({"name": "above-noise", "count": "automatic"}, (0.05 * ((20 / 0.05) ** (1 / 40) - 1), 19.95)),
    ],
)
def test_every_schedule_has_a_name_and_knows_the_dataset(schedule, ends):
    parameters = Parameters(20.0, 0.01, levels=40, sd=0.3, noise_std=0.05, dimension=2048)
    settings = {"network": {"name": "unet", "widths": [8]}, "schedule": schedule, "loss": {"name": "sliced"}}
    loss = experiment.make_loss(settings, parameters)
    assert (loss.schedule.sigma_min, loss.schedule.sigma_max) == pytest.approx(ends, rel=0.01)
    prior = experiment.make_prior(settings, parameters)
    assert (prior.sigma_min, prior.sigma_max) == (loss.schedule.sigma_min, loss.schedule.sigma_max)


def test_a_schedule_that_needs_noise_says_so():
    with pytest.raises(InputError, match="schedule.noise_std is missing"):
        experiment.make_loss({"schedule": {"name": "above-noise", "count": 9}}, Parameters(20.0))
