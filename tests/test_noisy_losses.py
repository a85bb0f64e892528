"""The score of clean images from noisy ones: the regression's expectation is that of clean score matching."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.losses.base import mean_square
from mri_score.losses.noisy_score import BELOW, HAND_OVER, NoisyScore, recorrupt, share, target_variance
from mri_score.losses.sure import SureRisk
from mri_score.models.analytic import GaussianPrior, MixturePrior
from mri_score.models.base import ScoreModel
from mri_score.noise.schedules import Geometric
from mri_score.numerics.channels import inner, per_item, real_size
from mri_score.numerics.noise import generators, noise_like

SCHEDULE = Geometric(0.05, 5.0)
MANY, SHAPE, SD, NOISE = 5000, (3, 5), 0.6, 0.2


class Scaled(ScoreModel):
    """A denoiser that is wrong by a factor; it keeps what it was asked."""

    def __init__(self, model: ScoreModel, factor: float = 1.0) -> None:
        super().__init__()
        self.model, self.factor, self.sd = model, factor, model.sd
        self.asked: list[tuple[Tensor, Tensor]] = []

    def denoise(self, x, sigma):
        self.asked.append((x, sigma))
        return self.factor * self.model.denoise(x, sigma)


def white() -> GaussianPrior:
    return GaussianPrior(torch.zeros(SHAPE, dtype=torch.complex128), SD**2 * torch.eye(15, dtype=torch.complex128))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return noise_like(torch.zeros(shape, dtype=torch.complex128), generators(seed, "normal", draws=shape[0]))


def two_modes() -> MixturePrior:
    means = 0.4 * normal(2, *SHAPE, seed=3)
    return MixturePrior(means, torch.tensor([0.2, 0.4]).double(), torch.tensor([1.0, 2.0]).double())


def images(prior: ScoreModel, noise_std: Tensor) -> tuple[Tensor, Tensor]:
    clean = torch.zeros(len(noise_std), *SHAPE, dtype=torch.complex128)
    clean = prior.draw(clean, 1e6, generators(4, draws=len(clean)))
    return clean, clean + per_item(noise_std, clean) * noise_like(clean, generators(5, draws=len(clean)))


def levels(value: float, count: int = MANY) -> Tensor:
    return torch.full((count,), value).double()


def errors_in_the_mean(difference: Tensor) -> float:
    return float(difference.mean() / difference.std() * math.sqrt(len(difference)))


# Above the noise.


def regression_bias(prior: ScoreModel, factor: float, sigma: Tensor, believed: float) -> float:
    """How many standard errors the regression, share undone, is off the error against the clean images."""
    clean, noisy = images(prior, levels(NOISE))
    loss, model = NoisyScore(SCHEDULE), Scaled(prior, factor)
    found = loss.above(model, noisy, levels(believed), sigma, generators(6, draws=MANY))
    ((x, _),) = model.asked
    error = mean_square(model.denoise(x, sigma) - clean)
    difference = found / loss.denoising.weight(sigma, prior.sd) / share(levels(believed), sigma, prior.sd) - error
    assert difference.std() / math.sqrt(MANY) < 0.05 * error.mean()
    return errors_in_the_mean(difference)


@pytest.mark.parametrize(("make", "factor"), [(white, 1.0), (two_modes, 0.8)])
@pytest.mark.parametrize("ratio", [1.15, 2.0, 8.0])
def test_regression_is_the_denoising_error_against_images_it_never_saw(make, factor, ratio):
    """The expectation of score matching on clean images, up to the share."""
    assert abs(regression_bias(make(), factor, levels(ratio * NOISE), NOISE)) < 4


@pytest.mark.parametrize("wrong", [0.5, 2.0])
def test_a_noise_variance_that_is_wrong_by_two_shows(wrong):
    assert abs(regression_bias(white(), 1.0, levels(2 * NOISE), math.sqrt(wrong) * NOISE)) > 8


def test_targets_noise_has_the_stated_variance_and_nothing_to_do_with_the_inputs():
    noise_std, sigma = levels(0.2), levels(0.3)
    noise = noise_like(torch.zeros(MANY, *SHAPE, dtype=torch.complex128), generators(1, draws=MANY))
    x, target = recorrupt(0.2 * normal(MANY, *SHAPE, seed=9), noise_std, sigma, noise)
    components = real_size(x) * MANY
    assert float(mean_square(x).mean()) == pytest.approx(0.3**2, rel=0.01)
    assert float(mean_square(target).mean()) == pytest.approx(float(target_variance(noise_std, sigma)[0]), rel=0.01)
    common = inner(x, target).sum() / components / (mean_square(x).mean() * mean_square(target).mean()).sqrt()
    assert abs(float(common)) < 4 / math.sqrt(components)


def test_share_is_the_ratio_of_the_spreads_of_image_and_target():
    """Given x, of a white Gaussian: the default weight times the share is one over the target's spread."""
    noise_std, sigma = levels(0.3), levels(0.5)
    clean, noisy = images(white(), noise_std)
    x, target = recorrupt(noisy, noise_std, sigma, noise_like(noisy, generators(7, draws=MANY)))
    best = white().denoise(x, sigma)
    found = mean_square(clean - best).mean() / mean_square(target - best).mean()
    assert float(share(noise_std, sigma, SD)[0]) == pytest.approx(float(found), rel=0.02)


# The parts together.


def batch(count: int = 6) -> TrainingItem:
    noise_std = torch.linspace(0.1, 0.6, count).double()
    return TrainingItem("noisy", image=images(white(), noise_std)[1], noise_std=noise_std)


def test_levels_near_the_noise_and_below_go_to_sure():
    model, data, loss = Scaled(white(), 0.9), batch(40), NoisyScore(SCHEDULE, sure_share=0.0)
    found = loss(model, data, generators(8, draws=40), 0)
    sigma = SCHEDULE.draw(generators(8, draws=40))
    assert data.noise_std is not None and data.image is not None
    above = sigma >= HAND_OVER * data.noise_std
    assert 5 < int(above.sum()) < 35
    asked = torch.cat([level for _, level in model.asked[:2]])
    assert torch.equal(asked, torch.cat([sigma[above], data.noise_std[~above]]))
    for i in range(40):
        one = generators(8, draws=[i])
        SCHEDULE.draw(one)
        torch.rand((), generator=one[0], dtype=torch.float64)
        part = loss.above if above[i] else loss.at_noise
        args = data.image[i : i + 1], data.noise_std[i : i + 1], sigma[i : i + 1]
        assert torch.allclose(part(Scaled(white(), 0.9), *args, one), found[i : i + 1])


def test_a_share_of_one_is_sure_alone():
    data, loss = batch(), NoisyScore(SCHEDULE, sure_share=1.0)
    found = loss(white(), data, generators(8, draws=6), 0)
    random = generators(8, draws=6)
    SCHEDULE.draw(random)
    for one in random:
        torch.rand((), generator=one, dtype=torch.float64)
    assert data.noise_std is not None and data.image is not None
    risk, _ = SureRisk()(white(), data.image, data.noise_std, random)
    assert torch.allclose(found, (data.noise_std**-2 + SD**-2) * risk)


def test_an_items_loss_does_not_depend_on_its_batch():
    data, loss = batch(), NoisyScore(SCHEDULE, consistency=1.0)
    assert data.noise_std is not None and data.image is not None
    model = Scaled(two_modes(), 0.8)
    together = loss(model, data, generators(9, draws=6), 0)
    for i in range(6):
        one = TrainingItem("noisy", image=data.image[i : i + 1], noise_std=data.noise_std[i : i + 1])
        assert torch.allclose(loss(model, one, generators(9, draws=[i]), 0), together[i : i + 1])
    assert len(set(together.tolist())) == 6


def test_says_what_is_missing():
    with pytest.raises(InputError, match="scan_7: noisy_score needs noisy images and their noise_std"):
        NoisyScore(SCHEDULE)(white(), TrainingItem("scan_7", image=normal(1, 3, 5)), generators(0), 0)
    with pytest.raises(InputError, match="loss.sure_share is 2"):
        NoisyScore(SCHEDULE, sure_share=2)


# Below the noise.


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_consistency_is_the_closed_form_and_nothing_for_the_true_denoiser(factor):
    """For white images D = g x: E[D(x') | x] - D(x) = (g' (g + k (1 - g)) - g) x, k = BELOW^2."""
    noise_std, sigma = levels(0.4), levels(0.25)
    _, noisy = images(white(), noise_std)

    def gain(level: float) -> float:
        return factor * SD**2 / (SD**2 + level**2)

    found = NoisyScore(SCHEDULE, consistency=1.0).below(
        Scaled(white(), factor), noisy, noise_std, sigma, generators(3, draws=MANY)
    )
    k, first = BELOW**2, (0.25 / 0.4) ** 2
    variance = (gain(0.4) + first * (1 - gain(0.4))) ** 2 * (SD**2 + 0.4**2) + 0.25**2 * (1 - first)
    gap = gain(BELOW * 0.25) * (gain(0.25) + k * (1 - gain(0.25))) - gain(0.25)
    expected = (0.25**-2 + SD**-2) * gap**2 * variance
    assert abs(errors_in_the_mean(found - expected)) < 4
    if factor == 1.0:
        assert abs(gap) < 1e-12
    else:
        assert found.std() / math.sqrt(MANY) < 0.03 * expected


def test_consistency_counts_below_the_noise_only():
    data = batch(40)
    losses = [NoisyScore(SCHEDULE, consistency=weight) for weight in (0, 1)]
    parts = [loss(Scaled(white(), 0.5), data, generators(8, draws=40), 0) for loss in losses]
    below = SCHEDULE.draw(generators(8, draws=40)) < data.noise_std
    assert torch.equal(parts[0] != parts[1], below) and 5 < int(below.sum()) < 35
