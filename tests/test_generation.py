"""Samples of priors whose law is known: plain, given some pixels, and between two of them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import h5py
import pytest
import torch
from gaussian import gaussian_problem

from mri_score.errors import InputError
from mri_score.generation import (
    INPAINTING,
    WALKS,
    draws_noise,
    inpaint,
    interpolate,
    make_walk,
    noise_range,
    prior_mean,
    sample_prior,
)
from mri_score.models.analytic import GaussianPrior, MixturePrior
from mri_score.models.base import ScoreModel
from mri_score.noise.parameters import Parameters, write_parameters
from mri_score.numerics.noise import generators
from mri_score.priors.store import build_prior, save_prior
from mri_score.readers.hdf5 import write_arrays

NETWORK = {"name": "unet", "widths": [4, 6], "blocks": 1, "embedding": 8}
prior = cache(lambda: gaussian_problem(33).prior)


# Unconditional.


FINE = {"ddim": {"steps": 300}, "euler": {"steps": 100}, "heun": {"steps": 36},
        "predictor-corrector": {"steps": 300, "options": {"snr": 0.05}}}  # fmt: skip
"""What these need to be near the law; with their defaults they are cheaper."""
SPREADS = {"ddim": 0.89, "langevin": 1.06}
"""Variance over the prior's where it is not 1: a fixed share of new noise, and Langevin's steps of finite size."""


@pytest.mark.parametrize("name", [name for name in WALKS if name != "plain-langevin"])
def test_each_sampler_draws_from_the_prior(name):
    samples = sample_prior(
        prior(), 120, (1, 33), sampler=name, batch_size=120, dtype=torch.complex128, **FINE.get(name, {})
    )
    along = (samples.flatten(1) @ prior().axes.conj()).abs().square().mean(0) / 2
    spread = float((along / prior().variances).mean())
    assert spread == pytest.approx(SPREADS.get(name, 1), abs=0.08)  # 120 draws leave 0.016
    assert float(samples.mean(0).abs().square().mean().sqrt() / prior().sd) < 0.25  # 120 draws leave 0.13


def test_plain_langevin_stays_in_the_basin_where_it_starts_and_annealing_reaches_the_weights():
    """Figure 3 of NCSN: with exact scores, one small level gives the shares of the basins, levels those of the law."""
    modes = MixturePrior(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).double(), torch.full((2,), 0.1).double(),
                         torch.tensor([2.0, 8.0]).double())  # fmt: skip
    modes.sigma_min, modes.sigma_max = 0.1, 4.0
    shared = {"dtype": torch.float64, "batch_size": 400}
    settings = {"repeats": 300, "start_std": 2.0}
    plain = sample_prior(modes, 400, (2,), method="plain-langevin", options=settings, **shared)
    annealed = sample_prior(modes, 400, (2,), method="langevin", steps=60, **shared)
    shares = [float((samples[:, 0] > 0).double().mean()) for samples in (plain, annealed)]
    assert shares[0] == pytest.approx(0.5, abs=0.08) and shares[1] == pytest.approx(0.8, abs=0.08)
    assert float((plain[:, 0].abs() - 1).square().mean().sqrt()) < 0.2  # within a basin it is a draw


def test_modes_of_a_mixture_come_by_their_weights():
    modes = MixturePrior(torch.tensor([[-1.0, 2.0], [3.0, 0.0]]).double(), torch.tensor([0.2, 0.4]).double(),
                         torch.tensor([3.0, 7.0]).double())  # fmt: skip
    samples = sample_prior(modes, 1000, (2,), steps=40, mean=0.5, dtype=torch.float64, batch_size=1000)
    right = samples[:, 0] > 1
    assert float(right.double().mean()) == pytest.approx(0.7, abs=0.05)
    assert float(samples[right].std(0).mean()) == pytest.approx(0.4, rel=0.1)


def test_walks_start_about_the_mean_at_the_largest_level():
    class First(ScoreModel):
        sd = 1.0

        def denoise(self, x, sigma):
            if not hasattr(self, "seen"):
                self.seen = x.clone(), float(sigma)
            return torch.zeros_like(x)

    model = First()
    sample_prior(model, 2, (100, 100), mean=1000.0, dtype=torch.float64, sampler="euler")
    x, sigma = model.seen
    assert sigma == noise_range(model)[1] == 100
    assert float(x.mean()) == pytest.approx(1000, abs=4) and float(x.std()) == pytest.approx(100, rel=0.03)


@pytest.mark.parametrize("name", ["heun", "ancestral"])
def test_a_sample_depends_on_its_seed_and_number_alone(name):
    whole = sample_prior(prior(), 7, (1, 33), sampler=name, steps=20)
    for size in (1, 3):
        split = sample_prior(prior(), 7, (1, 33), sampler=name, steps=20, batch_size=size)
        assert torch.allclose(split, whole, atol=1e-5)
    assert torch.allclose(sample_prior(prior(), 2, (1, 33), sampler=name, steps=20), whole[:2], atol=1e-5)
    assert not torch.allclose(sample_prior(prior(), 7, (1, 33), sampler=name, steps=20, seed=1), whole, atol=0.1)


@pytest.mark.parametrize("name", ["heun", "euler", "ancestral", "langevin"])
def test_progress_counts_every_evaluation(name):
    seen: list[int] = []
    sample_prior(prior(), 5, (1, 33), sampler=name, steps=4, batch_size=2, progress=seen.append)
    last = {"heun": 5, "langevin": -5}.get(name, 0)  # Heun ends with Euler's step, Langevin with a denoising
    assert sum(seen) == 5 * 4 * WALKS[name].calls - last and len(seen) == 12


def test_an_image_that_is_not_finite_is_named():
    class Breaks(ScoreModel):
        sd = 1.0

        def denoise(self, x, sigma):
            return torch.where(torch.arange(len(x))[:, None] == len(x) - 1, torch.nan, x)

    with pytest.raises(InputError, match="sample 1: not finite any more at level 0 .* more --steps"):
        sample_prior(Breaks(), 4, (3,), batch_size=2, dtype=torch.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampler": "hoin"}, "the method is 'hoin'; known names: ancestral, ddim"),
        ({"options": {"chrun": 1}}, "the option of heun-churn is 'chrun'; known names: churn"),
        ({"batch_size": 0}, "at least 1; got 2 and 0"),
        ({"steps": 1}, "at least 2 noise levels"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        sample_prior(prior(), 2, (1, 33), **arguments)


# Known pixels.


@cache
def known_pixels():
    """The exact law of a row of 33 correlated pixels of which 8 are hidden: image, mask, mean and covariance."""
    keep = torch.ones(1, 33, dtype=torch.bool)
    keep[0, 12:20] = False
    image = prior().sample(generators(5, "truth"))[0]
    covariance = prior().axes @ (prior().variances[:, None] * prior().axes.mH)
    seen = (keep[0] / 0.05**2).to(covariance.dtype)
    posterior = torch.linalg.inv(torch.diag(seen) + torch.linalg.inv(covariance))
    return image, keep, posterior @ (seen * image[0]), posterior


RATIOS = {"adaptive-draw": 0.85, "exact-draw": 1.08, "langevin": 1.25, "mmps": 0.78, "mmps-draw": 1.01, "pigdm": 1.09}
"""Hidden variance over the exact one: what each method is known to get."""


@pytest.mark.parametrize("name", INPAINTING)
def test_inpainting_against_the_exact_conditional(name):
    image, keep, mean, covariance = known_pixels()
    draws = inpaint(prior(), image, keep, 120, noise_std=0.05, sampler=name, batch_size=120)[:, 0]
    hidden = ~keep[0]
    expected = covariance.diagonal().real[hidden]
    error = (draws.mean(0) - mean)[hidden].abs().square().mean() / (2 * expected.mean())
    assert float(error.sqrt()) < (0.6 if name == "pigdm" else 0.4)  # in standard deviations; 120 draws leave 0.09
    ratio = draws.var(0)[hidden].sum() / (2 * expected.sum())
    assert float(ratio) == pytest.approx(RATIOS[name], abs=0.25)
    assert float((draws.mean(0) - image[0])[~hidden].abs().mean()) < 0.1  # the noise of known pixels is 0.05


def test_an_inpainting_does_not_depend_on_its_batch():
    image, keep, _, _ = known_pixels()
    whole = inpaint(prior(), image, keep, 5, steps=10)
    assert torch.allclose(inpaint(prior(), image, keep, 5, steps=10, batch_size=2), whole, atol=1e-4)


def test_hidden_pixels_of_the_image_do_not_matter():
    image, keep, _, _ = known_pixels()
    other = torch.where(keep, image, 7.0)
    assert torch.equal(inpaint(prior(), image, keep, 1, steps=5), inpaint(prior(), other, keep, 1, steps=5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": torch.ones(1, 32)}, r"mask has shape \(1, 32\) and 32 known pixels, the image has shape \(1, 33\)"),
        ({"keep": torch.zeros(1, 33)}, "at least one known pixel"),
        ({"noise_std": 0.0}, "the noise of known pixels is 0.0; it must be above 0"),
        ({"sampler": "heun"}, "the method is 'heun'; known names: adaptive-draw"),
        ({"options": {"zeta": 1}}, "the option of exact-draw is 'zeta'"),
    ],
)
def test_bad_inpainting(change, message):
    image, keep, _, _ = known_pixels()
    with pytest.raises(InputError, match=message):
        inpaint(prior(), **{"image": image, "keep": keep, "n": 1, "sampler": "exact-draw", **change})


# Between two samples.


@pytest.mark.parametrize("name", ["heun", "euler", "rk45"])
def test_an_interpolation_ends_in_the_two_samples(name):
    plain = sample_prior(prior(), 4, (1, 33), sampler=name, mean=0.3)
    way = interpolate(prior(), 5, (1, 33), between=(3, 1), sampler=name, mean=0.3, batch_size=2)
    assert torch.allclose(way[0], plain[3], atol=1e-4) and torch.allclose(way[-1], plain[1], atol=1e-4)


def test_every_image_on_the_way_has_the_law_of_the_prior():
    """The flow of a Gaussian is linear, so that cos t n1 + sin t n2 passes through: the middle is (a + b) / sqrt 2."""
    way = interpolate(prior(), 3, (1, 33))
    assert torch.allclose(way[1], (way[0] + way[2]) / 2**0.5, atol=1e-4)


@pytest.mark.parametrize(("name", "options"), [("ancestral", {}), ("heun", {"churn": 10.0}), ("langevin", {})])
def test_an_interpolation_refuses_samplers_that_draw_noise(name, options):
    with pytest.raises(InputError, match=f"{name} draws noise on its way"):
        interpolate(prior(), 3, (1, 33), sampler=name, options=options)
    assert len(interpolate(prior(), 2, (1, 33), sampler="ancestral", options={"eta": 0.0}, steps=5)) == 2


@pytest.mark.parametrize("name", WALKS)
def test_what_is_said_to_draw_noise_does(name):
    walk = make_walk(WALKS, name, prior(), 5)
    begin, like = walk.begin, torch.zeros(1, 1, 33, dtype=torch.complex128)
    first = begin(prior(), like, float(walk.sigmas[0]), generators(0))
    walk.begin = lambda *_: first
    different = not torch.equal(walk(prior(), like, generators(1)), walk(prior(), like, generators(2)))
    assert draws_noise(walk) == different == (name not in ("euler", "heun", "rk45"))


def test_an_interpolation_has_two_ends():
    with pytest.raises(InputError, match="of 1 images has no two ends"):
        interpolate(prior(), 1, (1, 33))


# What the data's mean is; the file.


def test_where_the_mean_is_from(tmp_path):
    path = tmp_path / "prior.safetensors"
    network = {**NETWORK, "channels": 1}
    save_prior(path, build_prior(network), network, {"dataset": "brain_images"})
    assert prior_mean(path) == 0
    assert f"mean {prior_mean(path, False)}" in (files("mri_score.parameters") / "brain_images.txt").read_text()
    write_parameters(tmp_path / "parameters.txt", Parameters(sigma_max=10.0, mean=0.41))
    assert prior_mean(path, False) == 0.41 and prior_mean(path) == 0
    save_prior(path, build_prior(network), network, {"mean": 0.47})
    assert prior_mean(path, False) == prior_mean(path) == 0.47
    (tmp_path / "parameters.txt").unlink()
    save_prior(path, build_prior(network), network, {})
    assert prior_mean(path, False) == 0.5


def test_the_file_holds_images_and_what_made_them(tmp_path):
    images = sample_prior(GaussianPrior(torch.zeros(4).cfloat(), torch.eye(4).cfloat()), 2, (4,), steps=3)
    path = write_arrays(tmp_path / "out" / "samples.h5", {"samples": images}, {"seed": 3, "sampler": "heun"})
    with h5py.File(path) as file:
        assert (torch.from_numpy(file["samples"][()]) == images).all()
        assert file.attrs["seed"] == 3 and file.attrs["sampler"] == "heun" and "mri_score" in file.attrs
