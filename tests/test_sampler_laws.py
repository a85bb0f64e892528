"""Every walk on priors with closed answers: mean, covariance, mode weights, and one item whatever its company."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from gaussian import gaussian_problem
from torch import Tensor

from mri_score.models.analytic import GaussianPrior, MixturePrior
from mri_score.models.base import ScoreModel
from mri_score.noise.schedules import Geometric, Karras
from mri_score.numerics.noise import generators
from mri_score.posteriors import POSTERIORS
from mri_score.samplers import SAMPLERS
from mri_score.samplers.predictor_corrector import PREDICTORS

BATCH, PARTS = 10, 250
MANY = BATCH * PARTS
KARRAS, GEOMETRIC = Karras(0.01, 20.0), Geometric(0.01, 20.0)


@dataclass(frozen=True)
class Walk:
    """A sampler with as many levels as the laws below want."""

    sampler: str
    levels: Tensor
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, model: ScoreModel, like: Tensor, draws: int | range = BATCH) -> Tensor:
        sampler = SAMPLERS[self.sampler](self.levels, **self.options)
        return sampler(model, like, generators(1, "law", draws=draws))


def predictor_corrector(predictor: str, levels: int = 150, **options: Any) -> Walk:
    return Walk("predictor-corrector", GEOMETRIC.levels(levels), {"predictor": predictor, "snr": 0.1, **options})


WALKS = {
    "ancestral": Walk("ancestral", KARRAS.levels(400)),
    "euler": Walk("ddim", KARRAS.levels(150), {"zeta": 0.0}),
    "heun": Walk("heun", KARRAS.levels(25)),
    "heun with churn": Walk("heun", KARRAS.levels(60), {"churn": 15.0, "churn_min": 0.02, "churn_max": 10.0}),
    "langevin": Walk("langevin", GEOMETRIC.levels(200), {"repeats": 4, "step_size": 0.15}),
    "renoise": Walk("renoise", KARRAS.levels(10)),
    "rk45": Walk("rk45", KARRAS.levels(4)),
    "corrector alone": predictor_corrector("none", 200, repeats=8),
    **{f"{name} alone": predictor_corrector(name, 400, repeats=0) for name in PREDICTORS if name != "none"},
    **{f"{name}, corrector": predictor_corrector(name, predict_first=True) for name in PREDICTORS if name != "none"},
    **{f"corrector, {name}": predictor_corrector(name) for name in PREDICTORS if name != "none"},
}


class Parts(ScoreModel):
    """Images of PARTS independent draws of a small prior, (PARTS, *shape): many samples from few generators.

    The corrector steps by norms of a whole image, and wants images of many parts.
    """

    def __init__(self, prior: GaussianPrior | MixturePrior) -> None:
        super().__init__()
        self.prior, self.sd = prior, prior.sd

    def denoise(self, x, sigma):
        return self.prior.denoise(x.flatten(0, 1), of_parts(sigma, x)).reshape(x.shape)

    def draw(self, x, sigma, random):
        each = [one for one in random for _ in range(PARTS)]
        return self.prior.draw(x.flatten(0, 1), of_parts(sigma, x), each).reshape(x.shape)


def of_parts(sigma: Tensor | float, x: Tensor) -> Tensor:
    return torch.as_tensor(sigma, dtype=torch.float64).expand(len(x)).repeat_interleave(PARTS)


@cache
def gaussian() -> GaussianPrior:
    """Complex (3,) about a mean, the components tied together; standard deviations 0.25 to 0.9 along the axes."""
    mean = torch.tensor([0.5 + 0.2j, -0.3j, 1.0], dtype=torch.complex128)
    root = torch.tensor([[0.8, 0.1j, 0.0], [0.2 - 0.3j, 0.4, 0.1], [0.1, -0.2j, 0.3]], dtype=torch.complex128)
    return GaussianPrior(mean, root @ root.mH)


@cache
def mixture() -> MixturePrior:
    means = torch.tensor([[-1.5, 0.0, 0.3], [1.5, 0.5, 0.0]]).double()
    return MixturePrior(means, torch.tensor([0.2, 0.4]).double(), torch.tensor([3.0, 7.0]).double())


def whitened(walk: Walk) -> Tensor:
    """Samples of the Gaussian along its axes, about its mean, in its standard deviations: (MANY, 3)."""
    prior = gaussian()
    samples = walk(Parts(prior), prior.mean.expand(BATCH, PARTS, 3)).flatten(0, 1)
    return ((samples - prior.mean) @ prior.axes.conj()) / prior.variances.sqrt()


@pytest.mark.parametrize("name", WALKS)
def test_samples_of_a_gaussian_have_its_mean_and_covariance(name):
    """The draws leave 0.02 of a mean and 0.014 of a variance, for each real component."""
    z = whitened(WALKS[name])
    mean, covariance = z.mean(0), z.T @ z.conj() / (2 * MANY)
    assert float(mean.abs().max()) < 0.09
    assert float((covariance - torch.eye(3)).abs().max()) < 0.08


@pytest.mark.parametrize("name", WALKS)
def test_samples_of_a_mixture_have_its_mode_weights_means_and_spreads(name):
    """The draws leave 0.009 of a weight, 0.04 of a mean in units of its spread, and 1.5 % of the spread."""
    prior = mixture()
    samples = WALKS[name](Parts(prior), torch.zeros(BATCH, PARTS, 3).double()).flatten(0, 1)
    right = prior.responsibilities(samples, 0.0).argmax(1) == 1
    assert float(right.double().mean()) == pytest.approx(0.7, abs=0.04)
    for chosen, mean, std in ((~right, prior.means[0], 0.2), (right, prior.means[1], 0.4)):
        assert float((samples[chosen].mean(0) - mean).abs().max()) < 0.15 * std
        assert float(samples[chosen].std(0).square().mean().sqrt()) == pytest.approx(std, rel=0.05)


def test_a_fixed_share_of_new_noise_leaves_too_little_spread_however_fine_the_levels():
    """Each step replaces a share zeta of the noise that D sees, not of what D leaves open: (1 + sqrt(1 - zeta)) / 2."""
    ratios = [float(whitened(Walk("ddim", KARRAS.levels(count))).abs().square().mean() / 2) for count in (150, 600)]
    assert ratios[0] < ratios[1] == pytest.approx((1 + 0.7**0.5) / 2, abs=0.02)


# One item, whatever its company.


def given_kspace(posterior: str) -> ScoreModel:
    of = gaussian_problem(9)
    return POSTERIORS[posterior](of.prior, of.operator, of.kspace, of.noise_std)


MODELS = {
    "guided-ancestral": lambda: given_kspace("dps"),
    "preconditioned": lambda: given_kspace("unannealed"),
    "red-diff": lambda: given_kspace("unannealed"),
}
"""What a sampler walks, where that is not any score model."""

SPLITS = {
    **{name: Walk(name, GEOMETRIC.levels(15)) for name in SAMPLERS},
    **WALKS,
    "rk45, coarse": Walk("rk45", KARRAS.levels(2), {"rtol": 1e-2, "atol": 1e-2}),
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_batch_of_four_is_four_batches_of_one(name):
    """The coarse adaptive walk would show by its errors of 1e-2 if items shared their steps."""
    walk = Walk(SPLITS[name].sampler, SPLITS[name].levels[-15:], SPLITS[name].options)
    model = MODELS.get(walk.sampler, mixture)()
    like = torch.zeros(1, 1, 9).cdouble() if walk.sampler in MODELS else torch.zeros(1, 3).double()
    together = walk(model, like.expand(4, *like.shape[1:]), 4)
    alone = torch.cat([walk(model, like, range(item, item + 1)) for item in range(4)])
    difference = (together - alone).flatten(1).norm(dim=1) / alone.flatten(1).norm(dim=1)
    assert float(difference.max()) < 1e-9
