"""Laws of the losses: the published ones term by term, their minimum at the truth, two that agree."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.losses import Denoising, Sliced, Sure
from mri_score.losses.base import Loss
from mri_score.models.analytic import GaussianPrior, MixturePrior
from mri_score.models.base import ScoreModel
from mri_score.models.network import NetworkPrior
from mri_score.noise.schedules import VP, Geometric, Karras, LinearBetas, LogNormal, SubVP
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import generators, noise_like, uniform
from mri_score.training.validation import denoising_errors

SHAPE, N = (2, 3), 12
RANGE = Geometric(0.2, 3.0)
MANY = 1500


def normal(*shape: int, seed: int = 0) -> Tensor:
    return noise_like(torch.zeros(shape, dtype=torch.complex128), generators(seed, "normal", draws=shape[0]))


def gaussian() -> GaussianPrior:
    root = normal(6, 6, seed=1)
    return GaussianPrior(0.5 * normal(*SHAPE, seed=2), root @ root.mH / 12)


def mixture() -> MixturePrior:
    return MixturePrior(normal(2, *SHAPE, seed=3), torch.tensor([0.3, 0.6]).double(), torch.tensor([1.0, 2.0]).double())


def clean(truth: ScoreModel, count: int) -> Tensor:
    return truth.draw(torch.zeros(count, *SHAPE, dtype=torch.complex128), 1e6, generators(4, draws=count))


# ---- The published losses of score SDE and EDM, written in time and x_t, with their t and their noise.


class Toy(nn.Module):
    """A network whose answer depends on the image, on its neighbours and on the label."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return torch.sin(x + 0.3 * x.roll(1, -1)) + torch.cos(label)[:, None, None, None] * x.square()


BETA_MIN, BETA_MAX, EPS = 0.1, 20.0, 1e-5
LOW, HIGH = 0.01, 50.0


def ve(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """mean coefficient, standard deviation and g^2 of the process at time t."""
    std = LOW * (HIGH / LOW) ** t
    return torch.ones_like(t), std, std**2 * 2 * (math.log(HIGH) - math.log(LOW))


def vp(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    log_mean = -0.25 * t**2 * (BETA_MAX - BETA_MIN) - 0.5 * t * BETA_MIN
    return torch.exp(log_mean), torch.sqrt(1 - torch.exp(2 * log_mean)), BETA_MIN + t * (BETA_MAX - BETA_MIN)


def sub_vp(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    log_mean = -0.25 * t**2 * (BETA_MAX - BETA_MIN) - 0.5 * t * BETA_MIN
    discount = 1 - torch.exp(-2 * BETA_MIN * t - (BETA_MAX - BETA_MIN) * t**2)
    return torch.exp(log_mean), 1 - torch.exp(2 * log_mean), (BETA_MIN + t * (BETA_MAX - BETA_MIN)) * discount


def published(process: Callable, eps: float, likelihood: bool, x0: Tensor, random) -> Tensor:
    """1/2 sum |s std + z|^2, or 1/2 g^2 sum |s + z / std|^2, of real images (B, 1, H, W)."""
    t = uniform(random)
    t = 1 - (1 - eps) * t  # even in [eps, 1]; downwards, as our fractions run
    z = noise_like(x0, random)
    mean, std, g2 = (part[:, None, None, None] for part in process(t))
    x_t = mean * x0 + std * z
    score = Toy()(x_t, std.flatten().log()) / std if process is ve else -Toy()(x_t, 999 * t) / std
    error = g2 * (score + z / std) ** 2 if likelihood else (score * std + z) ** 2
    return 0.5 * error.flatten(1).sum(1)


PROCESSES = {
    "ncsn": (ve, 0.0, Geometric(LOW, HIGH)),
    "vp": (vp, EPS, VP()),
    "sub-vp": (sub_vp, EPS, SubVP()),
}


@pytest.mark.parametrize("likelihood", [False, True])
@pytest.mark.parametrize("row", PROCESSES)
def test_losses_of_score_sde_term_by_term(row, likelihood):
    process, eps, schedule = PROCESSES[row]
    images = noise_like(torch.zeros(40, 4, 5).double(), generators(5, draws=40))
    loss = Denoising(schedule, weighting="likelihood" if likelihood else "noise")
    found = loss(NetworkPrior(Toy(), row), TrainingItem("x", image=images), generators(6, draws=40), 0)
    expected = published(process, eps, likelihood, images[:, None], generators(6, draws=40))
    assert torch.allclose(20 * found, expected, rtol=1e-5)


def test_the_loss_of_ddpm_term_by_term():
    """Algorithm 1 of DDPM with its integer step as the label: 1/2 mean |eps(x_t, t) - n|^2."""
    images = noise_like(torch.zeros(40, 4, 5).double(), generators(5, draws=40))
    loss = Denoising(LinearBetas(), weighting="noise")
    found = loss(NetworkPrior(Toy(), "ddpm"), TrainingItem("x", image=images), generators(6, draws=40), 0)
    random = generators(6, draws=40)
    t = (1000 * uniform(random)).long()
    share = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000).double(), 0)[t][:, None, None]
    n = noise_like(images, random)
    x_t = share.sqrt() * images + (1 - share).sqrt() * n
    expected = (Toy()(x_t[:, None], t.double())[:, 0] - n).square().flatten(1).mean(1) / 2
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_the_least_loss_of_ddpm_on_gaussian_images():
    """The exact denoiser of variance s^2 leaves mean_t s^2 / (s^2 + sigma_t^2) / 2, which no network lowers."""
    s = 0.6
    exact = GaussianPrior(torch.zeros(8).double(), s**2 * torch.eye(8).double())
    images = s * noise_like(torch.zeros(4000, 8).double(), generators(5, draws=4000))
    loss = Denoising(LinearBetas(), weighting="noise")
    found = loss(exact, TrainingItem("x", image=images), generators(6, draws=4000), 0)
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000).double(), 0)
    least = (s**2 * abar / (s**2 * abar + 1 - abar) / 2).mean()
    assert float(found.mean()) == pytest.approx(float(least), abs=4 * float(found.std()) / 4000**0.5)
    with pytest.raises(InputError, match="no continuous growth"):
        Denoising(LinearBetas(), weighting="likelihood")(exact, TrainingItem("x", image=images[:1]), generators(6), 0)


def test_the_loss_of_edm_term_by_term():
    """(sigma^2 + sd^2) / (sigma sd)^2 |D - y|^2 with log sigma ~ N(-1.2, 1.2^2), sd 0.5."""
    images = noise_like(torch.zeros(40, 4, 5).double(), generators(5, draws=40))
    schedule = LogNormal(1e-9, 1e9, centre=math.exp(-1.2), spread=1.2, share=0.0)
    found = Denoising(schedule)(NetworkPrior(Toy(), "edm", sd=0.5), TrainingItem("x", image=images),
                                generators(7, draws=40), 0)  # fmt: skip

    random = generators(7, draws=40)
    uniform(random)  # the choice between the normal and the even part
    rnd_normal = torch.distributions.Normal(0.0, 1.0).icdf(1 - uniform(random))
    sigma = (rnd_normal * 1.2 - 1.2).exp()[:, None, None]
    noisy = images + sigma * noise_like(images, random)
    root = (sigma**2 + 0.25).sqrt()
    output = Toy()((noisy / root)[:, None], sigma.log().flatten() / 4)[:, 0]
    denoised = 0.25 / root**2 * noisy + sigma * 0.5 / root * output
    expected = ((sigma**2 + 0.25) / (sigma * 0.5) ** 2 * (denoised - images) ** 2).flatten(1).mean(1)
    assert torch.allclose(found, expected, rtol=1e-6)


def test_the_validation_error_of_a_level_is_edms_loss_there():
    """One curve serves each loss: theirs at a level are its multiples."""
    torch.manual_seed(0)
    prior, level = NetworkPrior(Toy(), "edm", sd=0.5), 0.3
    prior.register_buffer("place", torch.zeros(1))
    batch = TrainingItem("x", image=normal(5, *SHAPE))
    found = denoising_errors(prior, [batch], (level,))[level]
    loss = Denoising(RANGE).at(
        prior, batch.image, torch.full((5,), level).double(), generators(0, f"validation {level}", 0, 5)
    )
    assert found == pytest.approx(float(loss.mean()), rel=1e-6)


@pytest.mark.parametrize("make", [Denoising, Sliced])
def test_an_unknown_weighting_is_refused(make):
    with pytest.raises(InputError, match="loss.weighting is 'snr'; known names: edm, likelihood, noise"):
        make(RANGE, weighting="snr")


# ---- The minimum is at the truth.


class Perturbed(ScoreModel):
    """The truth with a wrong part: the score is off by h(x) / (1 + sigma^2)."""

    def __init__(self, truth: ScoreModel, wrong: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.truth, self.wrong, self.sd = truth, wrong, truth.sd

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        s2 = per_item(sigma, x) ** 2
        return self.truth.denoise(x, sigma) + s2 / (1 + s2) * self.wrong(x)


DIRECTIONS = {
    "shift": lambda x: torch.ones_like(x) * (1 - 0.5j),
    "scale": lambda x: x,
    "turn": lambda x: 1j * x,
    "mix": lambda x: x.roll(1, -1),
    "conjugate": torch.conj,
    "bend": lambda x: torch.complex(torch.sin(2 * x.real), torch.cos(x.imag)),
}
LOSSES: dict[str, Loss] = {
    "edm": Denoising(LogNormal(0.2, 3.0)),
    "ncsn": Denoising(RANGE, anneal_power=2.0),
    "VE likelihood": Denoising(RANGE, weighting="likelihood"),
    "VP": Denoising(VP(t_min=1e-2), weighting="noise"),
    "VP likelihood": Denoising(VP(), weighting="likelihood"),
    "sub-VP likelihood": Denoising(SubVP(), weighting="likelihood"),
    "sliced": Sliced(RANGE),
    "sliced, plain, gaussian": Sliced(RANGE, probes="gaussian", variance_reduced=False),
    "sliced likelihood, two projections": Sliced(Karras(0.2, 3.0), weighting="likelihood", projections=2),
    "sure": Sure(RANGE, score_weight=0.0),
}


def batch_for(name: str, truth: ScoreModel, count: int) -> TrainingItem:
    """Clean images; for SURE images with noise of a known level."""
    images = clean(truth, count)
    if name != "sure":
        return TrainingItem("x", image=images)
    levels = torch.linspace(0.3, 1.0, count).double()
    noisy = images + levels[:, None, None] * noise_like(images, generators(8, draws=count))
    return TrainingItem("x", image=noisy, noise_std=levels)


@pytest.mark.parametrize("make", [gaussian, mixture])
@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_least_at_the_truth(name, make):
    """It rises both ways in every direction, with the same images, levels, noise and probes on both sides."""
    truth = make()
    batch, loss = batch_for(name, truth, MANY), LOSSES[name]

    def values(model: ScoreModel) -> Tensor:
        with torch.no_grad():
            return loss(model, batch, generators(9, draws=MANY), 0)

    least = values(truth)
    for direction in DIRECTIONS.values():
        for step in (1.0, -1.0):
            rise = values(Perturbed(truth, lambda x, h=direction, s=step: s * h(x))) - least
            assert rise.mean() > 3 * rise.std() / math.sqrt(MANY)


@pytest.mark.parametrize("make", [gaussian, mixture])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_vanish_at_the_truth_and_only_there(name, make):
    """Each item has parameters of its own, so that the gradients' error is known."""
    truth = make()
    batch, loss = batch_for(name, truth, MANY), LOSSES[name]

    def gradients(at: float) -> Tensor:
        steps = torch.full((len(DIRECTIONS), MANY, 1, 1), at).double().requires_grad_()
        model = Perturbed(truth, lambda x: sum(s * h(x) for s, h in zip(steps, DIRECTIONS.values(), strict=True)))
        (found,) = torch.autograd.grad(loss(model, batch, generators(10, draws=MANY), 0).sum(), steps)
        return found[..., 0, 0]

    def significance(found: Tensor) -> Tensor:
        return found.mean(1) / (found.std(1) / math.sqrt(MANY))

    assert (significance(gradients(0.0)).abs() < 4).all()
    assert significance(gradients(1.0)).max() > 6


# ---- Denoising and sliced score matching agree.


@pytest.mark.parametrize("variance_reduced", [True, False])
@pytest.mark.parametrize("probes", ["rademacher", "gaussian"])
@pytest.mark.parametrize("step", [0.0, 0.5])
@pytest.mark.parametrize("weighting", ["noise", "edm"])
def test_sliced_and_denoising_differ_by_a_known_constant(weighting, step, probes, variance_reduced):
    """E DSM - E SSM = sigma^2 weight(sigma): 1/2 for the weighting `noise`, for right and for wrong models."""
    truth = mixture()
    model = Perturbed(truth, lambda x: step * (x.roll(1, -1) + torch.sin(2 * x.real)))
    images, sigma = clean(truth, MANY), torch.linspace(0.3, 3.0, MANY).double()
    with torch.no_grad():
        denoising = Denoising(RANGE, weighting=weighting)
        sliced = Sliced(RANGE, weighting=weighting, projections=3, probes=probes, variance_reduced=variance_reduced)
        one = denoising.at(model, images, sigma, generators(11, draws=MANY))
        other = sliced.at(model, images, sigma, generators(11, draws=MANY))
    constant = sigma**2 * denoising.weight(sigma, model.sd)
    gap = one - other - constant
    error = gap.std() / math.sqrt(MANY)
    assert abs(gap.mean()) < 4 * error
    assert error < 0.05 * constant.mean()  # the test could see a fifth of it missing
