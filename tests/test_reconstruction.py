"""Reconstruction from arrays: shapes, units, seeds, and slices that do not know of each other."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from mri_score import phantom, reconstruct, undersample
from mri_score.data.scan import from_arrays
from mri_score.errors import InputError
from mri_score.methods import METHODS, Method
from mri_score.models.base import ScoreModel
from mri_score.models.network import NetworkPrior
from mri_score.noise.schedules import Karras
from mri_score.numerics.channels import per_item
from mri_score.posteriors import ExactDraw
from mri_score.reconstruction import MethodChanges, WalkOptions, make_sampler, sample_posterior, walk_end
from mri_score.samplers.base import Sampler

SHAPE = (40, 45)
SLICES = 3


class White(ScoreModel):
    """White images of a given sd."""

    sd = 0.3

    def denoise(self, x, sigma):
        return x / (1 + per_item(sigma, x) ** 2 / self.sd**2)


QUICK = {"prior": White(), "steps": 4, "samples": 2}


@pytest.fixture(scope="module")
def scan():
    """Three slices with their maps and mask, the last one ten times and the first three times as dark."""
    full = undersample(phantom(SHAPE, coils=4, slices=SLICES), acceleration=3)
    return replace(full, kspace=full.kspace * torch.tensor([0.3, 1, 0.1]).reshape(-1, 1, 1, 1))


def difference(found, expected):
    return float((found - expected).norm() / expected.norm())


def test_the_example_of_the_readme_runs():
    scan = undersample(phantom(size=64, coils=8), acceleration=4)
    result = reconstruct(scan.kspace, mask=scan.mask, steps=12, samples=2)
    assert result.samples.shape == (2, 1, 64, 64) and result.rss.shape == result.std.shape == (1, 64, 64)
    truth, found = scan.image.abs(), result.rss
    zero_filled = scan.operator().adjoint(scan.kspace).abs()
    assert (found - truth).norm() < 0.7 * (zero_filled - truth).norm()


def test_one_slice_comes_with_or_without_its_axis(scan):
    y, maps = scan.kspace[1], scan.maps[1]
    with_axis = reconstruct(y[None], maps[None], scan.mask, **QUICK)
    for kspace, given in ((y, maps), (y.numpy(), maps.numpy()), (y, maps[None]), (y.to(torch.complex128), maps)):
        found = reconstruct(kspace, given, scan.mask, **QUICK)
        assert found.samples.shape == (2, 1, *SHAPE) and found.image.shape == (1, *SHAPE)
        assert torch.equal(found.samples, with_axis.samples)


def test_keywords_are_the_fields_of_the_walk_and_the_former_name_of_the_method(scan):
    assert set(MethodChanges.__annotations__) == {one.name for one in fields(WalkOptions)} | {"sampler"}
    with pytest.raises(InputError, match="the argument is 'stepz'; known names: batch_size, .*, steps, warm_start"):
        reconstruct(scan.kspace, scan.maps, stepz=3)


@pytest.mark.parametrize("form", [(1, 1, 1, SHAPE[1]), (SHAPE[1],), (1, SHAPE[1])])
def test_a_mask_is_found_where_it_is_not_given(scan, form):
    found = reconstruct(scan.kspace, scan.maps, **QUICK)
    given = reconstruct(scan.kspace, scan.maps, scan.mask.reshape(form).float().numpy(), **QUICK)
    assert torch.equal(found.acquisition.mask, scan.mask)
    assert difference(found.samples, given.samples) < 1e-5


@pytest.mark.parametrize("batch_size", [2, 8])
def test_maps_of_one_slice_serve_all(scan, batch_size):
    y, mask = scan.kspace, scan.mask
    shared = reconstruct(y, scan.maps[:1], mask, batch_size=batch_size, **QUICK)
    each = reconstruct(y, scan.maps[:1].expand(SLICES, -1, -1, -1).contiguous(), mask, batch_size=8, **QUICK)
    assert shared.samples.shape == (2, SLICES, *SHAPE)
    assert shared.weight.shape == (SLICES, *SHAPE) and shared.maps.shape == y.shape
    assert difference(shared.samples, each.samples) < 1e-5
    assert torch.allclose(shared.rss, each.rss, rtol=1e-4, atol=1e-6)


def test_an_acquisition_may_hold_maps_and_numbers_of_one_slice(scan):
    prepared = from_arrays(scan.kspace[[1, 1]], scan.mask, scan.maps[1:2], 0.01)
    once = replace(prepared, maps=prepared.maps[:1], noise_std=prepared.noise_std[0], scale=prepared.scale[0])
    options = {"prior": White(), "steps": 3, "samples": 2, "slices": [0, 1]}
    a, b = sample_posterior(prepared, **options), sample_posterior(once, **options)
    assert torch.equal(a.samples, b.samples) and torch.equal(a.weight, b.weight)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "one-step"])
def test_a_slice_alone_is_the_slice_of_a_volume(scan, method):
    """Whatever the batch size: each slice has its own noise level, and so its own walk."""
    options = {"prior": White(), "method": method, "steps": 5, "samples": 3}
    prepared = from_arrays(scan.kspace, scan.mask, noise_std=0.003)
    assert len({walk_end(White(), float(level)) for level in prepared.noise_std}) == 3
    volume = sample_posterior(prepared, batch_size=8, slices=[0, 1, 2], **options)
    assert torch.equal(volume.samples, sample_posterior(prepared, batch_size=9, slices=[0, 1, 2], **options).samples)
    for number in range(SLICES):
        part = slice(number, number + 1)
        one = from_arrays(scan.kspace[part], scan.mask, noise_std=0.003)
        found = sample_posterior(one, batch_size=2, slices=[number], **options)
        assert difference(found.samples, volume.samples[:, part]) < 1e-4
        assert difference(found.rss, volume.rss[part]) < 1e-4


def test_slices_of_different_masks_share_a_batch():
    full = phantom(SHAPE, coils=4, slices=2)
    one, two = (undersample(full, acceleration=3, seed=seed) for seed in (1, 2))
    y = torch.cat([one.kspace[:1], two.kspace[1:]])
    given = {"samples": 2, "batch_size": 4, "steps": 4}
    together = sample_posterior(from_arrays(y, None, full.maps, 0.01), White(), slices=[0, 1], **given)
    assert not torch.equal(one.mask, two.mask) and len(together.acquisition.mask) == 2
    alone = sample_posterior(from_arrays(y[1:], None, full.maps[1:], 0.01), White(), slices=[1], **given)
    assert difference(alone.samples, together.samples[:, 1:]) < 1e-4


def test_slices_with_one_walk_share_batches(scan):
    prepared = from_arrays(scan.kspace[[1, 1, 1]], scan.mask, scan.maps[1:2], 0.05)
    calls: list[int] = []
    given = {"samples": 2, "batch_size": 4, "steps": 2, "slices": [0, 1, 2], "progress": calls.append}
    sample_posterior(prepared, White(), "exact-draw", **given)
    assert calls == [4, 4, 2, 2]


class Stays(Sampler):
    """A walk that leaves its first iterate as it is."""

    def step(self, model, x, sigma, sigma_next, random):
        return x


def test_a_warm_start_is_cg_sense_with_the_noise_of_the_first_level(scan):
    method = Method(ExactDraw, Stays, Karras, steps=30, calls=0)
    given = {**QUICK, "steps": 30, "method": method, "warm_start": 0.05}
    found = reconstruct(scan.kspace[1:2], scan.maps[1:2], scan.mask, **given)
    image = found.acquisition.operator().cg_sense(found.acquisition.kspace)
    noise = torch.view_as_real(found.samples[:, 0] / found.acquisition.scale - image)
    level = max(sigma for sigma in Karras(0.01, 5.0).levels(30).tolist() if sigma <= 0.05)
    assert abs(noise.mean()) < 0.1 * level and float(noise.std()) == pytest.approx(level, rel=0.2)


def test_the_first_draws_of_a_reconstruction_are_its_first_draws(scan):
    """Those of `compare` for fewer draws, with their share of the work."""
    whole = reconstruct(scan.kspace[1:2], mask=scan.mask, **{**QUICK, "samples": 4})
    part = whole.first(1)
    assert torch.equal(part.samples, whole.samples[:1]) and torch.equal(part.image, whole.means[:1].mean(0))
    assert not torch.equal(whole.samples[0], whole.samples[-1]) and 4 * part.work.calls == whole.work.calls


def test_units_are_those_of_the_kspace(scan):
    one = reconstruct(scan.kspace[1:2], mask=scan.mask, **QUICK)
    thousand = reconstruct(1000 * scan.kspace[1:2], mask=scan.mask, **QUICK)
    assert difference(thousand.image, 1000 * one.image) < 1e-3
    assert difference(thousand.std, 1000 * one.std) < 1e-3
    assert difference(thousand.rss, 1000 * one.rss) < 1e-3


def test_seeds_decide(scan):
    one, same, other = (reconstruct(scan.kspace[1], scan.maps[1], seed=seed, **QUICK).samples for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert difference(other, one) > 0.01 and difference(one[0], one[1]) > 0.01


def test_equal_slices_have_draws_of_their_own(scan):
    twice = scan.kspace[1].expand(2, -1, -1, -1)
    samples = reconstruct(twice, scan.maps[1], **QUICK).samples
    assert difference(samples[:, 0], samples[:, 1]) > 0.01


def test_mean_and_spread_are_those_of_the_draws(scan):
    found = reconstruct(scan.kspace[1], scan.maps[1], prior=White(), steps=2, samples=3)
    draws = found.samples.numpy()
    assert np.allclose(found.image, found.means.mean(0), atol=1e-6)
    assert np.allclose(found.first(2).image, found.means[:2].mean(0), atol=1e-6)
    estimate = reconstruct(scan.kspace[1], scan.maps[1], prior=White(), steps=2, samples=3, sampler="proximal")
    assert np.allclose(estimate.image, estimate.samples.mean(0), atol=1e-6)
    spread = np.sqrt((draws.real.var(0, ddof=1) + draws.imag.var(0, ddof=1)) / 2)
    assert np.allclose(found.std, spread / (4 / 3) ** 0.5, rtol=1e-4, atol=1e-7)  # antithetic draws of one group of 4
    independent = reconstruct(scan.kspace[1], scan.maps[1], prior=White(), steps=2, samples=3, method="adaptive-draw")
    assert np.allclose(independent.std, torch.view_as_real(independent.samples).var(0).mean(-1).sqrt(), rtol=1e-4)
    single = reconstruct(scan.kspace[1], scan.maps[1], prior=White(), steps=2, samples=1)
    assert not single.std.any()


def test_walks_end_where_noise_and_prior_say():
    assert walk_end(White(), 0.5) == 0.01 and walk_end(White(), 0.004) == 0.002
    network = NetworkPrior(torch.nn.Identity(), sigma_min=0.004, sigma_max=3.0)
    assert walk_end(network, 0.004) == 0.004 and walk_end(network, 0.5) == 0.01
    levels = make_sampler("adaptive-draw", network, 0.004, None).sigmas
    assert (len(levels), float(levels[0]), float(levels[-1])) == (50, 3.0, 0.004)
    assert float(make_sampler("exact-draw", White(), 0.01, 7).sigmas[0]) == 5.0


def test_what_cannot_be_reconstructed_is_refused(scan):
    y, maps = scan.kspace, scan.maps
    for options, message in (
        ({"sampler": "magic"}, "magic.*adaptive-draw"),
        ({"samples": 0}, "at least 1; got 0"),
        ({"device": "cupboard"}, "cupboard"),
    ):
        with pytest.raises(InputError, match=message):
            reconstruct(y, maps, scan.mask, **{**QUICK, **options})
    with pytest.raises(InputError, match="maps of shape"):
        reconstruct(y, maps[:2], scan.mask, **QUICK)
    with pytest.raises(InputError, match="not prepared: it needs maps, mask or trajectory"):
        sample_posterior(phantom(16), White(), slices=[0])


def test_an_empty_slice_is_named(scan):
    y = scan.kspace.clone()
    y[2] = 0
    for maps in (None, scan.maps):
        with pytest.raises(InputError, match="k-space: slice 2 is zero at all sampled points"):
            reconstruct(y, maps, scan.mask, **QUICK)


class Breaks(White):
    """Turns into NaN below sigma 0.5."""

    def denoise(self, x, sigma):
        return super().denoise(x, sigma) * (float("nan") if float(torch.as_tensor(sigma).max()) < 0.5 else 1.0)


def test_a_walk_that_breaks_names_slice_draw_and_level(scan):
    prepared = from_arrays(scan.kspace, scan.mask, noise_std=0.05)
    with pytest.raises(InputError, match=r"slice 7, draw 0: not finite any more at level \d \(sigma 0\.\d+\)"):
        sample_posterior(prepared, Breaks(), steps=6, samples=2, slices=[7, 8, 9])
