"""Losses for undersampled scans against the true error of images that they never saw, on small Gaussian problems."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mri_score.data.masks import make_mask
from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.losses import undersampled
from mri_score.losses.ambient import Ambient
from mri_score.losses.gsure import Gsure
from mri_score.losses.splitting import LEAST, Splitting
from mri_score.losses.sure import SureRisk
from mri_score.losses.undersampled import Scans, density, further_mask, kept_share
from mri_score.models.analytic import GaussianPrior
from mri_score.models.base import ScoreModel
from mri_score.models.network import NetworkPrior
from mri_score.networks.unet import UNet
from mri_score.noise.schedules import Geometric
from mri_score.numerics.channels import per_item, squared_norm
from mri_score.numerics.fourier import fft
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense

SCHEDULE = Geometric(0.05, 5.0)
MANY, SHAPE, NOISE = 4000, (3, 11), 0.1
LAW, R, CALIBRATION = "fastmri-random", 2.0, 3
COMPONENTS = 2 * SHAPE[0] * SHAPE[1]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return noise_like(torch.zeros(shape, dtype=torch.complex128), generators(seed, "normal", draws=shape[0]))


def coil_maps() -> Tensor:
    place = torch.linspace(0, 1, SHAPE[1]).double()
    maps = torch.stack([torch.polar(1.2 - place, 2 * place), torch.polar(0.2 + place, -place)])[:, None]
    maps = (maps / maps.abs().square().sum(0).sqrt()).expand(2, *SHAPE)
    return maps[None].contiguous()


def prior() -> GaussianPrior:
    root = normal(33, 33, seed=1) / 20
    return GaussianPrior(0.2 * normal(*SHAPE, seed=2), root @ root.mH)


def probabilities() -> Tensor:
    """Of the lines of `LAW`, exactly."""
    p = torch.full((1, SHAPE[1]), (SHAPE[1] / R - CALIBRATION) / (SHAPE[1] - CALIBRATION)).double()
    p[:, 4:7] = 1
    return p


@pytest.fixture
def exact_density(monkeypatch):
    monkeypatch.setattr(undersampled, "density", lambda *_: probabilities())


def simulated(noise_std: float = NOISE, count: int = MANY, full: bool = False) -> tuple[Tensor, Scans]:
    """Clean images and what scans of them gave, each with a mask of its own."""
    clean = prior().sample(generators(3, draws=count))
    draws = torch.stack([torch.rand(1, SHAPE[1], generator=one) for one in generators(4, draws=count)])[:, None]
    mask = (draws < probabilities()) | full
    kspace = Sense(coil_maps(), mask)(clean)
    kspace = kspace + noise_std * mask * noise_like(kspace, generators(5, draws=count))
    return clean, Scans(kspace, coil_maps(), mask, torch.full((count,), noise_std).double())


class Wrong(ScoreModel):
    """Some linear answer to a zero-filled image and its mask, far from the best; it keeps what it answered."""

    def __init__(self) -> None:
        super().__init__()
        self.sd = prior().sd
        self.matrix = torch.eye(33, dtype=torch.complex128) + 0.1 * normal(33, 33, seed=8)

    def denoise(self, x, sigma, extra=None):
        filled = 1.0 if extra is None else extra.mean((1, 2, 3))
        turned = (x.flatten(1) @ self.matrix.T).reshape(x.shape)
        self.sigma, self.extra, self.answer = sigma, extra, per_item(0.5 / (0.5 + filled), x) * turned
        return self.answer


def levels(value: float) -> Tensor:
    return torch.full((MANY,), value).double()


def errors_in_the_mean(difference: Tensor, scale: Tensor, largest: float = 0.04) -> float:
    error = difference.std() / math.sqrt(len(difference))
    assert error < largest * scale.mean()
    return float(difference.mean() / error)


# Masks.


def test_density_is_what_a_law_does():
    """fastMRI's random law, whose lines are independent, against its formula; an exact law against its budget."""
    found = density(LAW, SHAPE, R, CALIBRATION, -1)
    p = probabilities()
    assert bool(((found - p).abs() <= 4.5 * (p * (1 - p) / undersampled.MASKS).sqrt()).all())
    assert float(density("random", (40, 6), 4.0, 4, -2).sum()) == pytest.approx(10)
    assert density("random", (40, 6), 4.0, 4, -2).shape == (40, 1)


@pytest.mark.parametrize("shape", [(1, 11), (12, 1), (7, 9)])
def test_further_masks_keep_the_centre_and_their_share_of_the_rest(shape):
    mask = torch.rand(2000, 1, *shape, generator=generators(0)[0]) < 0.6
    share = kept_share(shape, 0.7, 3)
    kept = further_mask(mask, share, generators(1, draws=2000))
    assert not bool((kept & ~mask).any())
    middle = torch.zeros(shape, dtype=torch.bool)
    middle[tuple(slice((n - 2) // 2, (n - 2) // 2 + 3) if n > 1 else slice(None) for n in shape)] = True
    assert torch.equal(kept[..., middle], mask[..., middle])
    found = kept[..., ~middle].sum() / mask[..., ~middle].sum()
    assert float(found) == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / int(mask[..., ~middle].sum())))


def test_the_kept_centre_is_where_masks_have_their_calibration_lines():
    for size, count in ((20, 4), (21, 4), (20, 5), (21, 5)):
        mask = make_mask("random", (6, size), size / count, count)
        assert torch.equal(kept_share((1, size), 0.5, count) == 1, mask)


# Splitting.


@pytest.mark.parametrize("noise_std", [0.0, NOISE])
@pytest.mark.parametrize("sigma", [LEAST * NOISE, 0.5])
def test_splitting_is_the_error_of_the_whole_image(exact_density, noise_std, sigma):
    clean, data = simulated(noise_std)
    model = Wrong()
    loss = Splitting(SCHEDULE, keep=0.6, centre=3, law=LAW, acceleration=R, calibration_lines=CALIBRATION)
    risk = loss.risk(model, data, levels(sigma), generators(6, draws=MANY))
    error = squared_norm(model.answer - clean) / COMPONENTS
    assert abs(errors_in_the_mean(risk - error, error)) < 4


@pytest.mark.parametrize("wrong", [0.5, 2.0])
def test_splitting_shows_a_noise_variance_that_is_wrong_by_two(exact_density, wrong):
    clean, data = simulated(0.3)
    model, loss = Wrong(), Splitting(SCHEDULE, keep=0.6, centre=3, law=LAW, acceleration=R)
    believed = replace(data, noise_std=math.sqrt(wrong) * data.noise_std)
    risk = loss.risk(model, believed, levels(0.6), generators(6, draws=MANY))
    error = squared_norm(model.answer - clean) / COMPONENTS
    assert abs(errors_in_the_mean(risk - error, error)) > 6


def test_splitting_without_weights_misses_what_is_rarely_sampled(exact_density):
    clean, data = simulated()
    model, loss = Wrong(), Splitting(SCHEDULE, keep=0.6, centre=3)
    risk = loss.risk(model, data, levels(0.5), generators(6, draws=MANY))
    error = squared_norm(model.answer - clean) / COMPONENTS
    assert errors_in_the_mean(risk - error, error) < -10


def test_splitting_hides_samples_from_the_network():
    """What is asked for outside K had no part in the input: changing it there changes nothing that the network sees."""
    _, data = simulated(count=8)
    model, loss = Wrong(), Splitting(SCHEDULE, keep=0.5, centre=3)
    loss.risk(model, data, levels(0.5)[:8], generators(6, draws=8))
    answer, kept = model.answer, model.extra[:, :, :1] > 0
    loss.risk(model, replace(data, kspace=data.kspace + 3 * (data.mask & ~kept)), model.sigma, generators(6, draws=8))
    assert torch.equal(model.answer, answer)
    assert bool((data.mask & ~kept).any()) and not bool((kept & ~data.mask).any())


# GSURE.


def weighted_error(image: Tensor, clean: Tensor, data: Scans, weight: Tensor | float) -> Tensor:
    samples = fft(coil_maps() * (image - clean)[:, None])
    return (weight * data.mask * samples.abs().square()).flatten(1).sum(1) / COMPONENTS


@pytest.mark.parametrize("step", [0.1, None])
@pytest.mark.parametrize(("sigma", "law"), [(NOISE, LAW), (0.3, LAW), (0.3, None)])
def test_gsure_is_the_error_of_the_samples(exact_density, step, sigma, law):
    clean, data = simulated()
    model, loss = Wrong(), Gsure(SCHEDULE, step=step, law=law, acceleration=R, calibration_lines=CALIBRATION)
    with torch.no_grad():
        risk, noisier = loss.risk(model, data, levels(sigma), generators(6, draws=MANY))
    image = model.denoise(data.operator().adjoint(noisier), levels(sigma), model.extra)
    error = weighted_error(image, clean, data, 1 / probabilities() if law else 1.0)
    assert abs(errors_in_the_mean(risk - error, error)) < 4


@pytest.mark.parametrize("wrong", [0.5, 2.0])
def test_gsure_shows_a_noise_variance_that_is_wrong_by_two(wrong):
    clean, data = simulated(0.3)
    believed = replace(data, noise_std=math.sqrt(wrong) * data.noise_std)
    model = Wrong()
    risk, noisier = Gsure(SCHEDULE).risk(model, believed, believed.noise_std, generators(6, draws=MANY))
    image = model.denoise(data.operator().adjoint(noisier), believed.noise_std, model.extra)
    assert abs(errors_in_the_mean(risk - weighted_error(image, clean, data, 1.0), risk.abs())) > 6


def test_gsure_of_full_scans_is_sure():
    """In expectation: of the images that coils make of full scans, at the scans' own noise."""
    _, data = simulated(full=True)
    images = data.operator().adjoint(data.kspace)
    found, noisier = Gsure(SCHEDULE).risk(Wrong(), data, data.noise_std, generators(6, draws=MANY))
    assert torch.equal(noisier, data.kspace)
    wanted, _ = SureRisk()(AsFull(), images, data.noise_std, generators(7, draws=MANY))
    assert abs(errors_in_the_mean(found - wanted, wanted)) < 4


class AsFull(Wrong):
    def denoise(self, x, sigma, extra=None):
        return super().denoise(x, sigma, torch.ones(len(x), 1, 1, 1).double())


# Ambient.


def conditional_mean(seen: Tensor, sigma: Tensor, kept: Tensor) -> Tensor:
    """E[x0 | G (x0 + sigma n)], G = K^H K, of `prior`, item by item."""
    truth, count = prior(), SHAPE[0] * SHAPE[1]
    basis = torch.eye(count, dtype=torch.complex128).reshape(count, *SHAPE)
    covariance = truth.axes @ (truth.variances[:, None] * truth.axes.mH)
    answers = []
    for one, level, lines in zip(seen, sigma, kept, strict=True):
        g = Sense(coil_maps(), lines[None]).normal(basis).flatten(1).T
        noisy = g @ (covariance + level**2 * torch.eye(count)) @ g
        gain = covariance @ g @ torch.linalg.pinv(noisy, rtol=1e-10, hermitian=True)
        answers.append((gain @ (one.flatten() - g @ truth.mean.flatten()) + truth.mean.flatten()).reshape(SHAPE))
    return torch.stack(answers)


class Best(ScoreModel):
    """The conditional mean plus `amount` of a fixed wrong answer."""

    def __init__(self, amount: float = 0.0, factor: float = 1.0) -> None:
        super().__init__()
        self.sd, self.amount, self.factor = prior().sd, torch.tensor(amount).double().requires_grad_(), factor

    def denoise(self, x, sigma, extra=None):
        best = conditional_mean(x.detach(), sigma, extra[:, :, :1] > 0)
        return self.factor * best + self.amount * Wrong().denoise(x, sigma, extra)


@pytest.mark.parametrize("factor", [1.0, 0.8])
def test_ambient_has_its_minimum_at_the_conditional_mean(factor):
    """There the loss is flat in every direction, item by item in the mean; elsewhere it is not."""
    many = 400
    _, data = simulated(0.0, many)
    model = Best(factor=factor)
    error = Ambient(SCHEDULE, keep=0.6, centre=3).error(model, data, levels(0.3)[:many], generators(6, draws=many))
    slopes = torch.stack([torch.autograd.grad(one, model.amount, retain_graph=True)[0] for one in error])
    found = float(slopes.mean() / slopes.std() * math.sqrt(many))
    assert abs(found) < 4 if factor == 1.0 else abs(found) > 8


def test_ambient_is_the_error_of_all_samples_not_only_those_that_the_network_saw():
    clean, data = simulated(0.0, 50)
    model, loss = Wrong(), Ambient(SCHEDULE, keep=0.5, centre=3)
    found = loss.error(model, data, levels(0.3)[:50], generators(6, draws=50))
    assert torch.allclose(found, weighted_error(model.answer, clean, data, 1.0))
    seen = replace(data, mask=model.extra[:, :, :1] > 0)
    assert bool((found > 1.05 * weighted_error(model.answer, clean, seen, 1.0)).any())


def test_ambient_shows_the_network_noise_of_sigma_under_the_further_mask():
    """K^H K (x0 + sigma n): at K full the image itself with noise of sigma in each real component."""
    _, data = simulated(0.0, full=True)
    inputs: list[Tensor] = []

    class Watched(Wrong):
        def denoise(self, x, sigma, extra=None):
            inputs.append(x)
            return super().denoise(x, sigma, extra)

    Ambient(SCHEDULE, keep=0.5, centre=SHAPE[1]).error(Watched(), data, levels(0.3), generators(6, draws=MANY))
    noise = inputs[0] - data.operator().adjoint(data.kspace)
    assert float(squared_norm(noise).mean() / COMPONENTS) == pytest.approx(0.09, rel=0.02)


# All of them.


LOSSES = {
    "ambient": Ambient(SCHEDULE, keep=0.6, centre=3),
    "gsure": Gsure(SCHEDULE),
    "gsure at every level": Gsure(SCHEDULE, every_level=True, law=LAW, acceleration=R, calibration_lines=CALIBRATION),
    "splitting": Splitting(SCHEDULE, centre=3, score_weight=0.5),
}


def as_batch(data: Scans, items: slice = slice(None)) -> TrainingItem:
    return TrainingItem(
        "scan", kspace=data.kspace[items], maps=data.maps, mask=data.mask[items], noise_std=data.noise_std[items]
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_an_items_loss_does_not_depend_on_its_batch(loss):
    _, data = simulated(count=4)
    together = LOSSES[loss](Wrong(), as_batch(data), generators(9, draws=4), 0)
    for i in range(4):
        one = LOSSES[loss](Wrong(), as_batch(data, slice(i, i + 1)), generators(9, draws=[i]), 0)
        assert torch.allclose(one, together[i : i + 1])
    assert together.shape == (4,) and len(set(together.tolist())) == 4


@pytest.mark.parametrize("loss", LOSSES)
def test_a_network_learns_from_its_mask(loss):
    """Gradients reach the weights of the mask's channel."""
    torch.manual_seed(0)
    model = NetworkPrior(UNet(widths=(4,), blocks=1, unshuffle=1, embedding=8, extra_channels=1), sd=0.3).double()
    torch.nn.init.normal_(model.network.leave.weight)
    _, data = simulated(count=4)
    LOSSES[loss](model, as_batch(data), generators(9, draws=4), 0).sum().backward()
    assert float(model.network.enter.weight.grad[:, 2].abs().max()) > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_say_what_is_missing(loss):
    name = loss.partition(" ")[0]
    with pytest.raises(InputError, match=f"scan_7: {name} learns from k-space"):
        LOSSES[loss](Wrong(), TrainingItem("scan_7"), generators(0), 0)
    with pytest.raises(InputError, match="network.extra_channels: 1"):
        plain = NetworkPrior(UNet(widths=(4,), blocks=1, embedding=8)).double()
        LOSSES[loss](plain, as_batch(simulated(count=1)[1]), generators(0), 0)


def test_masks_of_another_law_are_refused():
    _, data = simulated(count=1)
    with pytest.raises(InputError, match="set loss.law and loss.axis"):
        Gsure(SCHEDULE, law="random", acceleration=1.5, calibration_lines=1, axis=-2)(
            Wrong(), as_batch(data), generators(0), 0
        )


def test_a_full_mask_is_what_a_network_assumes():
    torch.manual_seed(0)
    model = NetworkPrior(UNet(widths=(4,), blocks=1, embedding=8, extra_channels=1)).double()
    torch.nn.init.normal_(model.network.leave.weight)
    x = normal(2, 5, 7)
    full, half = (model.denoise(x, 0.2, torch.full((2, 1, 5, 7), value).double()) for value in (1.0, 0.5))
    assert torch.equal(model.denoise(x, 0.2), full) and not torch.allclose(full, half)


@pytest.mark.parametrize("loss", [Gsure, Splitting])
def test_score_matching_is_on_a_detached_full_image(loss):
    """At a weight w the gradient is that at 0 plus w times score matching's, images fixed."""
    model = Scalable()
    _, data = simulated(count=5)
    found = []
    for weight in (0.0, 1.0):
        (slope,) = torch.autograd.grad(
            loss(SCHEDULE, score_weight=weight)(model, as_batch(data), generators(2, draws=5), 0).sum(), model.factor
        )
        found.append(float(slope))
    assert model.bare is not None
    (noisy, sigma), image = model.bare, model.images[-1]
    value = LOSSES["gsure"].denoising.weight(sigma, model.sd) * squared_norm(model.denoise(noisy, sigma) - image)
    (slope,) = torch.autograd.grad(value.sum() / COMPONENTS, model.factor)
    assert found[1] - found[0] == pytest.approx(float(slope), rel=1e-6)


class Scalable(ScoreModel):
    """factor * x; keeps the last images made without gradient and the last question without a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.sd, self.factor = 0.3, torch.tensor(0.7).double().requires_grad_()
        self.images: list[Tensor] = []
        self.bare: tuple[Tensor, Tensor] | None = None

    def denoise(self, x, sigma, extra=None):
        if extra is None:
            self.bare = x, sigma
        elif not torch.is_grad_enabled():
            self.images.append(self.factor * x)
        return self.factor * x
