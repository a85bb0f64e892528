"""Losses against closed forms on Gaussian images: weights, minima, unbiasedness, what gradients see."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.losses import Denoising, Sure
from mri_score.losses.base import mean_square
from mri_score.models.analytic import GaussianPrior, MixturePrior
from mri_score.models.base import ScoreModel
from mri_score.models.network import NetworkPrior
from mri_score.noise.schedules import Geometric
from mri_score.numerics.divergence import divergence
from mri_score.numerics.noise import generators, noise_like, signs_like

DTYPES = [torch.float64, torch.complex128]
SCHEDULE = Geometric(0.05, 5.0)
SD = 0.6
MANY, SHAPE = 4000, (4, 5)


class Scaled(ScoreModel):
    """A model whose denoiser is wrong by a factor."""

    def __init__(self, model: ScoreModel, factor: float) -> None:
        super().__init__()
        self.model, self.factor, self.sd = model, factor, model.sd

    def denoise(self, x, sigma):
        return self.factor * self.model.denoise(x, sigma)


def white(dtype: torch.dtype) -> GaussianPrior:
    return GaussianPrior(torch.zeros(SHAPE, dtype=dtype), SD**2 * torch.eye(20, dtype=dtype))


def structured(dtype: torch.dtype) -> GaussianPrior:
    root = normal(20, 20, dtype=dtype, seed=1) / 6
    return GaussianPrior(normal(*SHAPE, dtype=dtype, seed=2), root @ root.mH)


def two_modes(dtype: torch.dtype) -> MixturePrior:
    means = 0.4 * normal(2, *SHAPE, dtype=dtype, seed=3)
    return MixturePrior(means, torch.tensor([0.2, 0.4]).double(), torch.tensor([1.0, 2.0]).double())


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return noise_like(torch.zeros(shape, dtype=dtype), generators(seed, "normal", draws=shape[0]))


def clean_images(prior: ScoreModel, like: Tensor) -> Tensor:
    if isinstance(prior, GaussianPrior):
        return prior.sample(generators(4, draws=len(like)))
    return prior.draw(like, 1e6, generators(4, draws=len(like)))  # an iterate that says nothing


# Denoising score matching.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factor", [1.0, 0.8, 1.1])
@pytest.mark.parametrize("anneal_power", [None, 2.0, 1.0])
def test_denoising_loss_is_the_weighted_closed_form(dtype, factor, anneal_power):
    """E|D - x0|^2 = mmse + (factor - 1)^2 E|D|^2 for a factor on the true denoiser: smallest at 1."""
    prior, loss = white(dtype), Denoising(SCHEDULE, anneal_power)
    images = prior.sample(generators(5, draws=MANY))
    for value in (0.1, 0.6, 3.0):
        sigma = torch.full((MANY,), value).double()
        found = loss.at(Scaled(prior, factor), images, sigma, generators(6, draws=MANY)).mean()
        total = value**2 + SD**2
        expected = value**2 * SD**2 / total + (factor - 1) ** 2 * SD**4 / total
        weight = total / (value * SD) ** 2 if anneal_power is None else 0.5 * value ** (anneal_power - 4)
        assert float(found) == pytest.approx(weight * expected, rel=0.02)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_anneal_power_weighs_the_error_of_the_score(dtype, power):
    """1/2 sigma^p |score - target|^2 with target -n / sigma, as score matching is written."""
    model, images = Scaled(structured(dtype), 0.7), normal(6, *SHAPE, dtype=dtype)
    sigma = torch.tensor([0.05, 0.2, 0.5, 1.0, 2.0, 5.0]).double()
    found = Denoising(SCHEDULE, power).at(model, images, sigma, generators(7, draws=6))
    noise = noise_like(images, generators(7, draws=6))
    error = model.score(images + sigma[:, None, None] * noise, sigma) + noise / sigma[:, None, None]
    parts = torch.view_as_real(error) if dtype.is_complex else error
    assert torch.allclose(found, 0.5 * sigma**power * parts.square().flatten(1).mean(1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_edm_weight_makes_every_level_count_the_same(dtype):
    prior = white(dtype)
    batch = TrainingItem(name="x", image=prior.sample(generators(5, draws=MANY)))
    values = Denoising(SCHEDULE)(prior, batch, generators(8, draws=MANY), 0)
    assert float(values.mean()) == pytest.approx(1.0, rel=0.02)


LOSSES = {"denoising": Denoising(SCHEDULE), "sure": Sure(SCHEDULE)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_an_items_loss_does_not_depend_on_its_batch(loss, dtype):
    model, images = structured(dtype), normal(5, *SHAPE, dtype=dtype)
    levels = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]).double()
    together = LOSSES[loss](model, TrainingItem("x", image=images, noise_std=levels), generators(9, draws=5), 0)
    for i in range(5):
        one = TrainingItem("x", image=images[i : i + 1], noise_std=levels[i : i + 1])
        assert torch.allclose(LOSSES[loss](model, one, generators(9, draws=[i]), 0), together[i : i + 1])
    assert together.shape == (5,) and len(set(together.tolist())) == 5


def test_losses_say_what_is_missing():
    batch = TrainingItem(name="scan_7", image=torch.zeros(1, 4, 4))
    with pytest.raises(InputError, match="scan_7: SURE needs noisy images and their noise_std"):
        Sure(SCHEDULE)(white(torch.float64), batch, generators(0), 0)
    with pytest.raises(InputError, match="scan_8 has no image"):
        Denoising(SCHEDULE)(white(torch.float64), TrainingItem(name="scan_8"), generators(0), 0)


# Divergence.


def linear(matrix: Tensor):
    return lambda x: (x.flatten(1) @ matrix.T).reshape(x.shape)


@pytest.mark.parametrize("dtype", DTYPES)
def test_divergence_of_a_diagonal_map_is_its_trace_with_one_probe(dtype):
    """Over real components: tr M for real, 2 Re tr M for complex."""
    x, values = normal(3, *SHAPE, dtype=dtype), normal(20, dtype=dtype)
    f = linear(values.diag())
    found = divergence(f, x, f(x), torch.tensor([1e-3, 0.1, 2.0]).double(), generators(0, draws=3))
    expected = 2 * values.real.sum() if dtype.is_complex else values.sum()
    assert torch.allclose(found, expected.expand(3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_divergence_of_any_linear_map_is_unbiased(dtype):
    matrix, x = normal(20, 20, dtype=dtype), torch.zeros(MANY, *SHAPE, dtype=dtype)
    f = linear(matrix)
    found = divergence(f, x, f(x), torch.full((MANY,), 0.1).double(), generators(1, draws=MANY))
    expected = 2 * matrix.trace().real if dtype.is_complex else matrix.trace()
    assert abs(found.mean() - expected) < 4 * found.std() / math.sqrt(MANY)


def test_complex_conjugation_has_no_divergence():
    x = normal(1, *SHAPE, dtype=torch.complex128)
    found = [divergence(torch.conj, x, x.conj(), torch.tensor([0.1]), generators(seed)) for seed in range(3)]
    assert torch.allclose(torch.cat(found), torch.zeros(3).double())


@pytest.mark.parametrize("dtype", DTYPES)
def test_probes_are_independent_signs(dtype):
    probe = signs_like(torch.zeros(MANY, 3, dtype=dtype), generators(2, draws=MANY))
    parts = torch.view_as_real(probe).flatten(1) if dtype.is_complex else probe
    assert bool((parts.abs() == 1).all())
    assert torch.allclose(parts.T @ parts / MANY, torch.eye(parts.shape[1]).double(), atol=5 / math.sqrt(MANY))


# Stein's unbiased risk estimate.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [white, structured, two_modes])
@pytest.mark.parametrize("factor", [1.0, 0.5, 1.3])
def test_sure_is_the_true_error_in_expectation(make, dtype, factor):
    """Against clean images that it never saw, for right and for wrong denoisers, each item at its own level."""
    prior = make(dtype)
    clean = clean_images(prior, torch.zeros(MANY, *SHAPE, dtype=dtype))
    noise_std = torch.linspace(0.1, 0.6, MANY).double()
    noisy = clean + noise_std[:, None, None] * noise_like(clean, generators(10, draws=MANY))
    risk, denoised = Sure(SCHEDULE).risk(Scaled(prior, factor), noisy, noise_std, generators(11, draws=MANY))
    difference = risk - mean_square(denoised - clean)
    assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(MANY)
    assert difference.std() / math.sqrt(MANY) < 0.03 * risk.mean()  # and the test could see an error of a tenth


class Small(nn.Module):
    """Two convolutions that see the noise level."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x) + c_noise[:, None, None, None]))


@pytest.fixture
def prior() -> NetworkPrior:
    torch.manual_seed(0)
    return NetworkPrior(Small(), sd=SD)


@pytest.fixture
def noisy() -> TrainingItem:
    return TrainingItem("noisy", image=normal(3, 8, 9, dtype=torch.complex64), noise_std=torch.tensor([0.1, 0.2, 0.3]))


def test_sure_keeps_its_precision_under_autocast(prior, noisy):
    loss, plain_part = Sure(SCHEDULE, score_weight=0.0), Sure(SCHEDULE)
    plain = loss(prior, noisy, generators(0, draws=3), 0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss(prior, noisy, generators(0, draws=3), 0)
        both = plain_part(prior, noisy, generators(0, draws=3), 0)
    assert torch.equal(plain, mixed)
    assert not torch.equal(plain_part(prior, noisy, generators(0, draws=3), 0), both)  # score matching is mixed


def gradients(prior: NetworkPrior, value: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value.sum(), list(prior.parameters()))])


def test_score_matching_does_not_push_on_what_was_denoised(prior, noisy):
    """The gradient is that of the two parts apart, the second with fixed images."""
    weight = 0.7
    found = gradients(prior, Sure(SCHEDULE, score_weight=weight)(prior, noisy, generators(1, draws=3), 0))

    random = generators(1, draws=3)
    assert noisy.image is not None and noisy.noise_std is not None
    risk, denoised = Sure(SCHEDULE).risk(prior, noisy.image, noisy.noise_std, random)
    first = gradients(prior, risk / noisy.noise_std**2)
    fixed = TrainingItem("fixed", image=denoised.detach())
    second = gradients(prior, Denoising(SCHEDULE)(prior, fixed, random, 0))
    assert torch.allclose(found, first + weight * second, rtol=1e-4, atol=1e-4 * float(found.abs().max()))
    assert second.norm() > 0.01 * found.norm()
