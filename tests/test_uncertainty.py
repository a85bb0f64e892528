"""Exact Gaussian ensembles are calibrated for any number of draws; wrong ones are found out by the right amount."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mri_score.errors import InputError
from mri_score.evaluation.uncertainty import (
    calibration,
    coverage,
    ensemble_coverage,
    kspace_spread_skill,
    pixel_std,
    spread_skill,
)
from mri_score.numerics.noise import generators, noise_like

LEVELS = (0.5, 0.8, 0.95)


def gaussian(draws, seed=0, shape=(3, 101, 90)):
    """Draws of one Gaussian whose std differs by pixel and between real and imaginary parts; the law's mean and std."""
    ramp = torch.linspace(0.2, 2, shape[-1], dtype=torch.float64).expand(shape)
    mean = torch.complex(10 * ramp, 3 - ramp)
    noise = noise_like(torch.zeros(draws, *shape, dtype=torch.complex128), generators(seed, draws=draws))
    return mean + torch.complex(ramp * noise.real, 0.5 * ramp * noise.imag + 0.3 * ramp * noise.real), mean, ramp


@pytest.mark.parametrize("draws", [2, 4, 8])
def test_an_exact_ensemble_is_calibrated(draws):
    samples, _, _ = gaussian(draws + 1)
    result = calibration(samples[1:], samples[0])
    assert result.draws == draws
    assert result.spread_skill == pytest.approx(1, abs=0.02)
    assert result.coverage == pytest.approx(dict(zip(LEVELS, LEVELS, strict=True)), abs=0.008)


def test_an_exact_ensemble_is_calibrated_at_every_scale_of_image_and_kspace():
    samples, _, _ = gaussian(7, seed=1)
    measured = np.arange(90) % 3 == 0
    result = calibration(samples[1:], samples[0], measured=measured)
    assert list(result.blocks) == [1, 4, 8, 16] and set(result.measured) == {"measured", "unmeasured"}
    assert [*result.blocks.values()] == pytest.approx([1, 1, 1, 1], abs=0.15)
    assert [*result.measured.values()] == pytest.approx([1, 1], abs=0.02)
    assert result.outliers.share == pytest.approx(result.outliers.expected, abs=0.003)
    predicted, actual = np.array(result.bins).T
    assert (np.diff(predicted) > 0).all() and np.mean(predicted**2) == pytest.approx(np.mean(actual**2), rel=0.03)
    assert actual[0] > predicted[0] and actual[-1] < predicted[-1]  # six draws: their std is itself uncertain


def test_an_error_that_neighbours_share_shows_in_blocks_and_at_its_place_in_kspace():
    samples, _, _ = gaussian(7, seed=2, shape=(1, 96, 96))
    wave = 0.5 * torch.cos(2 * torch.pi * 2 * torch.arange(96) / 96)  # DC is at point 48: this stands at 46 and 50
    result = calibration(samples[1:], samples[0] + wave)
    pixels, *_, large = result.blocks.values()
    assert pixels > 0.9 and large < 0.5
    place = np.isin(np.arange(96), (46, 50))
    ratios = kspace_spread_skill(samples[1:], samples[0] + wave, place)
    assert ratios["measured"] < 0.7 and ratios["unmeasured"] == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("draws", [4, 8])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_spread_that_is_wrong_by_a_factor_shows_it(draws, factor):
    samples, mean, _ = gaussian(draws + 1)
    wrong = mean + factor * (samples[1:] - mean)
    expected = np.sqrt(factor**2 * (1 + 1 / draws) / (1 + factor**2 / draws))
    assert spread_skill(wrong, samples[0]) == pytest.approx(expected, rel=0.02)
    error = np.array([ensemble_coverage(wrong, samples[0])[level] - level for level in LEVELS])
    assert (error < -0.05).all() if factor < 1 else (error > 0.02).all()


def test_a_biased_mean_is_skill_lost():
    samples, mean, ramp = gaussian(5)
    variance = spread_skill(samples[1:], samples[0] + 3) ** -2
    within = (ramp.square().mean() * (1 + 0.25 + 0.09) / 2).item()
    assert variance == pytest.approx(1 + (9 / 2) / (within * 1.25), rel=0.02)


def test_the_known_law_covers_its_level_and_few_draws_do_not_without_the_prediction_factor():
    samples, mean, ramp = gaussian(5)
    real = samples.real
    assert coverage(mean.real, ramp, real[0]) == pytest.approx(dict(zip(LEVELS, LEVELS, strict=True)), abs=0.01)
    few = coverage(real[1:].mean(0), pixel_std(real[1:]), real[0])
    assert few[0.95] < 0.87


def test_pixel_std_is_that_of_each_real_component():
    samples, _, ramp = gaussian(300, shape=(1, 5, 6))
    closed_form = ramp * np.sqrt((1 + 0.25 + 0.09) / 2)
    np.testing.assert_allclose(pixel_std(samples), closed_form, rtol=0.15)
    complex_std = samples.sub(samples.mean(0)).abs().square().sum(0).div(299).sqrt()
    np.testing.assert_allclose(pixel_std(samples), complex_std / 2**0.5)
    magnitude = torch.complex(samples.real + 1e4, samples.imag).abs()  # a high signal: one component is seen
    np.testing.assert_allclose(magnitude.std(0), pixel_std(samples.real), rtol=1e-3)


def test_only_pixels_of_the_mask_count():
    samples, _, _ = gaussian(9)
    mask = np.zeros(samples.shape[1:], bool)
    mask[1, 16:64] = True  # whole blocks of every size
    spoiled = np.where(mask, samples.numpy(), 0)
    cut = calibration(samples[1:, 1, 16:64], samples[0, 1, 16:64])
    assert calibration(spoiled[1:], spoiled[0] + 5 * ~mask, mask) == cut


def test_a_perfect_constant_ensemble_is_inside_its_empty_intervals():
    truth = np.full((1, 4, 5), 2 + 1j)
    result = calibration(np.stack([truth] * 3), truth)
    assert result.spread_skill == np.inf and set(result.coverage.values()) == {1.0}


@pytest.mark.parametrize(
    ("samples", "truth", "message"),
    [
        (np.ones((1, 4, 5)), np.ones((4, 5)), "at least 2 samples"),
        (np.ones((3, 4, 5)), np.ones((4, 4)), "(4, 4)"),
        (np.ones((3, 4, 5), complex), np.ones((4, 5)), "all must be complex or all real"),
        (np.full((3, 4, 5), np.nan), np.ones((4, 5)), "not finite"),
    ],
    ids=["one draw", "shape", "kind", "nan"],
)
def test_bad_ensembles_are_refused(samples, truth, message):
    with pytest.raises(InputError) as error:
        spread_skill(samples, truth)
    assert message in str(error.value)
