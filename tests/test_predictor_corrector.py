"""Predictors and correctors: each step by its formula, their order, and the defaults that score-mri walks by."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.models.analytic import GaussianPrior, MixturePrior
from mri_score.models.counted import CountedPrior
from mri_score.noise.schedules import Geometric
from mri_score.numerics.noise import generators, noise_like
from mri_score.samplers import Ancestral, PredictorCorrector
from mri_score.samplers.predictor_corrector import PREDICTORS

WHITE = GaussianPrior(torch.zeros(3).double(), torch.eye(3).double())  # its score is -x / (1 + sigma^2)
LIKE = torch.zeros(1, 3).double()
PAIR = torch.tensor([2.0, 1.0]).double()


def first_step(walk: PredictorCorrector, seed: int = 0) -> Tensor:
    """The iterate after the first level."""
    seen: list[Tensor] = []
    walk(WHITE, LIKE, generators(seed), lambda level, sigma, x: seen.append(x))
    return seen[0]


def corrected(x: Tensor, sigma: float, snr: float, random) -> Tensor:
    n, score = noise_like(x, random), -x / (1 + sigma**2)
    a = 2 * snr**2 * n.norm() ** 2 / score.norm() ** 2
    return x + a * score + (2 * a).sqrt() * n


@pytest.mark.parametrize(("predictor", "drift", "variance"), [
    ("reverse-diffusion", 3.0, 3.0),
    ("euler-maruyama", 8 * math.log(2), 8 * math.log(2)),
    ("ancestral", 3.0, 3 / 4),
])  # fmt: skip
def test_one_step_of_each_predictor_is_its_formula(predictor, drift, variance):
    again = generators(0)
    x = 2 * noise_like(LIKE, again)
    expected = x - drift * x / 5 + variance**0.5 * noise_like(LIKE, again)
    assert torch.allclose(first_step(PredictorCorrector(PAIR, repeats=0, predictor=predictor)), expected)


def test_the_ancestral_predictor_is_the_ancestral_walk():
    levels, mixed = Geometric(0.02, 20.0).levels(30), MixturePrior(
        torch.tensor([[-2.0, 0.0, 1.0], [2.0, 1.0, 0.0]]).double(), torch.ones(2).double(), torch.ones(2).double()
    )  # fmt: skip
    like = LIKE.expand(5, 3)
    walk = PredictorCorrector(levels, repeats=0, predictor="ancestral")
    assert torch.allclose(
        walk(mixed, like, generators(1, draws=5)), Ancestral(levels)(mixed, like, generators(1, draws=5))
    )


def test_predictors_agree_as_levels_draw_together_and_reverse_diffusion_adds_the_most_noise_after_euler_maruyama():
    steps = {name: law(1.0, 1 - 1e-4) for name, law in PREDICTORS.items() if law is not None}
    for drift, variance in steps.values():
        assert drift == pytest.approx(2e-4, rel=1e-3) and variance == pytest.approx(2e-4, rel=1e-3)
    far = {name: law(1.0, 0.5)[1] for name, law in PREDICTORS.items() if law is not None}
    assert far["euler-maruyama"] > far["reverse-diffusion"] > far["ancestral"]


def test_the_corrector_comes_first_unless_told_otherwise():
    again = generators(3)
    x = corrected(2 * noise_like(LIKE, again), 2.0, 0.1, again)
    first = x - 3 * x / 5 + 3**0.5 * noise_like(LIKE, again)
    assert torch.allclose(first_step(PredictorCorrector(PAIR, snr=0.1), seed=3), first)

    again = generators(3)
    x = 2 * noise_like(LIKE, again)
    x = x - 3 * x / 5 + 3**0.5 * noise_like(LIKE, again)
    second = corrected(x, 1.0, 0.1, again)  # at the new level
    assert torch.allclose(first_step(PredictorCorrector(PAIR, snr=0.1, predict_first=True), seed=3), second)


def test_without_a_predictor_a_level_is_its_corrections():
    again = generators(4)
    x = 2 * noise_like(LIKE, again)
    for _ in range(3):
        x = corrected(x, 2.0, 0.16, again)
    assert torch.allclose(first_step(PredictorCorrector(PAIR, repeats=3, predictor="none"), seed=4), x)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_the_walk_ends_in_the_denoised_image(predictor):
    """Its corrections come before, at the last level; predicting first, they have been."""
    last, again = torch.tensor([0.5]).double(), generators(5)
    x = 0.5 * noise_like(LIKE, again)
    found = PredictorCorrector(last, predictor=predictor, predict_first=True)(WHITE, LIKE, generators(5))
    assert torch.allclose(found, WHITE.denoise(x, 0.5))
    found = PredictorCorrector(last, predictor=predictor)(WHITE, LIKE, generators(5))
    assert torch.allclose(found, WHITE.denoise(corrected(x, 0.5, 0.16, again), 0.5))


class Recorded(GaussianPrior):
    """White images that note at which sigma they are projected."""

    def project(self, x, sigma, random):
        self.seen.append(sigma)
        return x


@pytest.mark.parametrize(("predict_first", "sigmas"), [
    (False, [2.0, 2.0, 1.0, 1.0, 1.0, 0.0]),  # corrections at 2, prediction to 1, and again
    (True, [1.0, 1.0, 1.0, 0.0]),  # prediction to 1, its corrections, the end
])  # fmt: skip
def test_the_model_projects_after_each_correction_and_each_prediction(predict_first, sigmas):
    model = Recorded(torch.zeros(3).double(), torch.eye(3).double())
    model.seen = []
    PredictorCorrector(PAIR, repeats=2, predict_first=predict_first)(model, LIKE, generators(0))
    assert model.seen == sigmas


@pytest.mark.parametrize(("options", "calls"), [
    ({}, 20), ({"repeats": 3}, 40), ({"repeats": 0}, 10), ({"predict_first": True}, 19),
    ({"predictor": "none", "repeats": 2}, 21), ({"predictor": "none", "repeats": 2, "predict_first": True}, 19),
])  # fmt: skip
def test_evaluations_are_one_a_prediction_and_one_a_correction(options, calls):
    model = CountedPrior(WHITE)
    PredictorCorrector(Geometric(0.02, 20.0).levels(10), **options)(model, LIKE, generators(0))
    assert model.calls == calls


@pytest.mark.parametrize("options", [{"repeats": -1}, {"predictor": "none", "repeats": 0}])
def test_refuses_a_walk_of_nothing(options):
    with pytest.raises(InputError, match="repeats is 0 or more, and at least 1 without a predictor"):
        PredictorCorrector(PAIR, **options)


def test_an_unknown_predictor_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="'heun'; known names: ancestral, euler-maruyama, none, reverse-diffusion"):
        PredictorCorrector(PAIR, predictor="heun")
