"""SURE: exact and finite-difference divergences, their gradients at kinks, the joint objective of SURE-Score."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.losses.base import mean_square
from mri_score.losses.denoising import Denoising
from mri_score.losses.sure import Sure, SureRisk, full_precision
from mri_score.losses.sure_score import SureScore
from mri_score.models.analytic import MixturePrior
from mri_score.models.base import ScoreModel
from mri_score.models.network import NetworkPrior
from mri_score.networks.unet import UNet
from mri_score.noise.schedules import Geometric
from mri_score.numerics.channels import per_item
from mri_score.numerics.divergence import divergence, exact_divergence
from mri_score.numerics.noise import generators, noise_like

SCHEDULE = Geometric(0.05, 5.0)
MANY, SHAPE = 3000, (3, 5)


def normal(*shape: int, dtype: torch.dtype = torch.complex128, seed: int = 0) -> Tensor:
    return noise_like(torch.zeros(shape, dtype=dtype), generators(seed, "normal", draws=shape[0]))


def two_modes() -> MixturePrior:
    means = 0.4 * normal(2, *SHAPE, seed=3)
    return MixturePrior(means, torch.tensor([0.2, 0.4]).double(), torch.tensor([1.0, 2.0]).double())


def mixing(matrix: Tensor):
    return lambda x: (x.flatten(1) @ matrix.T).reshape(x.shape)


def gradient(prior: NetworkPrior, loss: Tensor) -> Tensor:
    found = torch.autograd.grad(loss.sum(), list(prior.parameters()), allow_unused=True)
    parts = zip(found, prior.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in parts])


# Divergences.


def test_exact_divergence_of_a_diagonal_map_is_its_trace():
    values, x = normal(15), normal(4, *SHAPE)
    value, found = exact_divergence(mixing(values.diag()), x, generators(0, draws=4))
    assert torch.allclose(found, (2 * values.real.sum()).expand(4))
    assert torch.allclose(value, mixing(values.diag())(x))


@pytest.mark.parametrize("exact", [True, False])
def test_probes_share_their_noise_out(exact):
    """The mean over k probes is the trace, with a k-th of the variance of one."""
    f, x = mixing(normal(15, 15)), torch.zeros(MANY, *SHAPE, dtype=torch.complex128)
    spreads = {}
    for probes in (1, 4):
        random = generators(1, draws=MANY)
        if exact:
            found = exact_divergence(f, x, random, probes)[1]
        else:
            found = divergence(f, x, f(x), torch.full((MANY,), 0.1).double(), random, probes)
        assert abs(found.mean() - 2 * normal(15, 15).trace().real) < 4 * found.std() / math.sqrt(MANY)
        spreads[probes] = float(found.var())
    assert spreads[1] / spreads[4] == pytest.approx(4, rel=0.15)


def test_exact_and_finite_differences_agree_for_a_smooth_network_with_their_gradients():
    torch.manual_seed(0)
    prior = NetworkPrior(UNet(widths=(4, 8), blocks=1, embedding=8), sd=0.5).double()
    for parameter in prior.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x, level = normal(2, 6, 7), torch.tensor([0.1, 0.3]).double()

    def f(z):
        return prior.denoise(z, level)

    exact = exact_divergence(f, x, generators(2, draws=2))[1]
    near = divergence(f, x, f(x), 1e-5 * level, generators(2, draws=2))
    assert torch.allclose(exact, near, rtol=1e-6)
    slope = gradient(prior, exact)
    assert torch.allclose(slope, gradient(prior, near), rtol=1e-4, atol=1e-4) and float(slope.norm()) > 1


def test_no_gradient_is_left_where_none_is_learned():
    with torch.no_grad():
        value, found = exact_divergence(torch.sin, normal(2, 3, dtype=torch.float64), generators(0, draws=2))
    assert not value.requires_grad and not found.requires_grad


class SoftThreshold(ScoreModel):
    """Real images less a threshold: the slope jumps, at a place that a parameter moves."""

    sd = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(0.5).double())

    def denoise(self, x, sigma):
        return torch.relu(x - self.threshold)


def test_gradients_know_of_kinks_by_finite_differences_only():
    """d SURE / d threshold against that of the true error: exact products miss the kink's 2 s^2 p(threshold)."""
    s, many = 0.5, 400_000
    clean, noise = (normal(1, many, dtype=torch.float64, seed=seed) for seed in (1, 2))
    noisy, level = clean + s * noise, torch.tensor([s]).double()
    model = SoftThreshold()

    def slope(loss: Tensor) -> float:
        return float(torch.autograd.grad(loss.sum(), model.threshold)[0])

    true = slope(mean_square(model.denoise(noisy, level) - clean))
    sampled = slope(SureRisk(step=0.1)(model, noisy, level, generators(3))[0])
    exact = slope(SureRisk(step=None)(model, noisy, level, generators(3))[0])
    variance = 1 + s**2
    missed = 2 * s**2 * math.exp(-(0.5**2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    assert sampled == pytest.approx(true, abs=0.01)
    assert exact - true == pytest.approx(missed, abs=0.01) and missed > 0.1


# The risk.


@pytest.mark.parametrize("step", [0.1, None])
@pytest.mark.parametrize("probes", [1, 3])
def test_sure_is_the_true_error_and_a_wrong_noise_level_shows(step, probes):
    prior = two_modes()
    clean = prior.draw(torch.zeros(MANY, *SHAPE, dtype=torch.complex128), 1e6, generators(4, draws=MANY))
    level = torch.linspace(0.1, 0.6, MANY).double()
    noisy = clean + per_item(level, clean) * noise_like(clean, generators(5, draws=MANY))

    def bias(denoiser_level: Tensor, believed: Tensor) -> float:
        class Fixed(ScoreModel):
            def denoise(self, x, sigma):
                return 0.9 * prior.denoise(x, denoiser_level)

        risk, denoised = SureRisk(step, probes)(Fixed(), noisy, believed, generators(6, draws=MANY))
        difference = risk - mean_square(denoised - clean)
        assert difference.std() / math.sqrt(MANY) < 0.03 * mean_square(denoised - clean).mean()
        return float(difference.detach().mean() / difference.detach().std() * math.sqrt(MANY))

    assert abs(bias(level, level)) < 4
    assert abs(bias(level, math.sqrt(2) * level)) > 10
    assert abs(bias(level, math.sqrt(0.5) * level)) > 10


def test_full_precision_turns_reduced_precision_off_and_back_on():
    before = torch.backends.cudnn.allow_tf32
    with torch.autocast("cpu", torch.bfloat16), full_precision("cpu"):
        assert not torch.backends.cudnn.allow_tf32
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize("wrong", [{"step": 0.0}, {"probes": 0}])
def test_refuses_a_divergence_without_step_or_probes(wrong):
    with pytest.raises(InputError, match=f"loss.{next(iter(wrong))} is 0"):
        Sure(SCHEDULE, **wrong)


# SURE-Score.


@pytest.fixture
def prior() -> NetworkPrior:
    torch.manual_seed(0)
    prior = NetworkPrior(UNet(widths=(4, 8), blocks=1, embedding=8), sd=0.5).double()
    for parameter in prior.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return prior


@pytest.fixture
def noisy() -> TrainingItem:
    return TrainingItem("noisy", image=normal(3, 6, 7), noise_std=torch.tensor([0.1, 0.2, 0.3]).double())


def test_sound_sure_score_is_sure_once_it_has_risen(prior, noisy):
    loss, sure = SureScore(SCHEDULE, score_weight=0.7, rise=10), Sure(SCHEDULE, score_weight=0.7)
    expected = sure(prior, noisy, generators(1, draws=3), 0)
    for step in (10, 1000):
        assert torch.equal(loss(prior, noisy, generators(1, draws=3), step), expected)
    halfway = Sure(SCHEDULE, score_weight=0.35)(prior, noisy, generators(1, draws=3), 0)
    assert torch.allclose(loss(prior, noisy, generators(1, draws=3), 5), halfway)


def test_published_sure_score_is_its_formula(prior, noisy):
    """mean |h - y|^2 + 2 s^2 mean b (h(y + e b) - h(y)) / e - s^2 + c epoch / 2 sum |sigma score + z|^2."""
    loss = SureScore(SCHEDULE, score_weight=0.01, rise=100, published=True)
    found = loss(prior, noisy, generators(1, draws=3), 250)

    random = generators(1, draws=3)
    risk, h = SureRisk()(prior, noisy.image, noisy.noise_std, random)
    sigma = per_item(SCHEDULE.draw(random), h)
    z = noise_like(h, random)
    score = prior.score(h + sigma * z, sigma.flatten())
    expected = risk + 0.01 * 2 * 0.5 * (sigma * score + z).abs().square().flatten(1).sum(1)
    assert torch.allclose(found, expected)
    assert torch.allclose(gradient(prior, found), gradient(prior, expected), rtol=1e-6, atol=1e-8)


def test_published_score_matching_pushes_on_what_was_denoised_and_the_sound_one_does_not(prior, noisy):
    for published in (True, False):
        loss = SureScore(SCHEDULE, anneal_power=2.0, rise=1, published=published)
        found = gradient(prior, loss(prior, noisy, generators(1, draws=3), 1))
        random = generators(1, draws=3)
        risk, h = SureRisk()(prior, noisy.image, noisy.noise_std, random)
        part = Denoising(SCHEDULE, 2.0)(prior, TrainingItem("fixed", image=h.detach()), random, 0)
        apart = gradient(prior, risk + 84 * part if published else risk / noisy.noise_std**2 + part)
        assert torch.allclose(found, apart, rtol=1e-6, atol=1e-8) != published


def test_published_score_matching_starts_at_nothing_and_has_no_cap():
    loss = SureScore(SCHEDULE, score_weight=2.0, rise=100, published=True)
    assert [loss.weight(step) for step in (0, 99, 100, 100_000)] == [0, 0, 2, 2000]
    assert SureScore(SCHEDULE, score_weight=2.0, rise=100).weight(100_000) == 2
