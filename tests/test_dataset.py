"""The numbers of a dataset: the three techniques against brute force and published values, and the file."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from mri_score.errors import InputError
from mri_score.noise.ncsnv2_levels import (
    excess_variance,
    largest_distance,
    level_count,
    level_overlap,
    level_ratio,
    step_size,
)
from mri_score.noise.parameters import Parameters, measure, read_parameters, write_parameters


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(5)


def brute_force(images):
    x = images.numpy()
    return max(np.linalg.norm(a - b) for a in x for b in x)


@pytest.mark.parametrize("block", [1, 3, 8, 64])
@pytest.mark.parametrize("kind", ["real", "complex", "spread"])
def test_largest_distance_is_that_of_all_pairs(kind, block):
    dtype = torch.complex128 if kind == "complex" else torch.float64
    images = torch.randn(23, 5, 7, dtype=dtype)
    if kind == "spread":  # radii that differ: most pairs are ruled out unseen
        images *= torch.rand(23, 1, 1) ** 3
    measured = largest_distance(images, global_phase=False, block=block)
    assert measured == pytest.approx(brute_force(images), rel=1e-12)
    assert measured == largest_distance(list(images), global_phase=False, block=block)


def test_largest_distance_of_single_precision_is_measured_in_double():
    """Many pairs that products in single precision cannot tell apart: equal distances but for the last digits."""
    images = torch.eye(40) * (1 + 1e-6 * torch.rand(40)) + torch.randn(40)
    images[[7, 31]] *= 1 + 1e-3
    expected = max(float((a - b).norm()) for a in images.double() for b in images.double())
    assert largest_distance(images, global_phase=False) == pytest.approx(expected, rel=1e-12)
    assert largest_distance(images.bfloat16(), global_phase=False) == pytest.approx(expected, rel=2e-2)


def test_largest_distance_keeps_its_digits_far_from_zero():
    images = 1e4 + torch.randn(20, 30).double() * 1e-3
    assert largest_distance(images, global_phase=False) == pytest.approx(brute_force(images), rel=1e-6)


def test_largest_distance_over_all_phases_bounds_every_turned_pair_and_is_reached():
    images = torch.randn(6, 5, 4, dtype=torch.complex128)
    supremum = largest_distance(images)
    phases = torch.exp(1j * torch.linspace(0, 2 * math.pi, 200, dtype=torch.float64))
    turned = [(a - phase * b).norm() for i, a in enumerate(images) for b in images[:i] for phase in phases]
    assert max(turned) <= supremum
    norms = images.flatten(1).norm(dim=1).sort().values
    parallel = torch.stack([images[0] * norm for norm in (1.0, 2.0, 3.0)])
    assert supremum == pytest.approx(float(norms[-1] + norms[-2]), rel=1e-12)
    assert largest_distance(parallel) == pytest.approx(float((parallel[2] + parallel[1]).norm()), rel=1e-12)


@pytest.mark.parametrize("global_phase", [True, False])
def test_largest_distance_of_noisy_images_is_that_of_the_clean_ones(global_phase):
    clean = 0.3 * torch.randn(4, 100, 101, dtype=torch.complex128)
    noise = 0.2 * torch.view_as_complex(torch.randn(4, 100, 101, 2, dtype=torch.float64))
    measured = largest_distance(clean + noise, global_phase=global_phase, noise_std=0.2)
    assert measured == pytest.approx(largest_distance(clean, global_phase=global_phase), rel=0.02)
    assert largest_distance(clean + noise, global_phase=global_phase) > 1.2 * measured


@pytest.mark.parametrize(
    ("dimension", "sigma_max", "sigma_min", "ratio", "levels"),
    [
        (3 * 32**2, 50, 0.01, 1.0398, 219),
        (3 * 64**2, 90, 0.01, 1.0195, 472),
        (3 * 96**2, 140, 0.01, 1.01292, 745),
        (3 * 128**2, 190, 0.01, 1.00966, 1026),
        (3 * 256**2, 348, 0.01, 1.00481, 2182),
        (2 * 320**2, None, None, 1.00471, None),
        (2 * 384**2, 232, 0.0066, 1.00392, 2675),
    ],
)
def test_ladders_of_overlap_one_half(dimension, sigma_max, sigma_min, ratio, levels):
    measured = level_ratio(dimension)
    assert measured == pytest.approx(ratio, abs=6e-5 if ratio > 1.015 else 6e-6)
    assert level_overlap(dimension, measured) == pytest.approx(0.5, abs=1e-9)
    if levels:
        assert level_count(sigma_max, sigma_min, measured) == levels


@pytest.mark.parametrize(
    ("side", "sigma_max", "levels"), [(32, 50, 232), (64, 90, 500), (96, 140, 788), (128, 190, 1086), (256, 348, 2311)]
)
def test_published_ladders_have_an_overlap_of_567(side, sigma_max, levels):
    """One level of tolerance: the five published counts lie between the overlaps 0.5662 and 0.5670."""
    dimension = 3 * side**2
    assert abs(level_count(sigma_max, 0.01, level_ratio(dimension, 0.567)) - levels) <= 1
    assert 0.566 < level_overlap(dimension, (sigma_max / 0.01) ** (1 / (levels - 1))) < 0.567


@pytest.mark.parametrize("dimension", [5, 6, 50])
@pytest.mark.parametrize("overlap", [1e-6, 0.5, 0.99])
def test_level_ratio_solves_its_equation_in_few_dimensions(dimension, overlap):
    ratio = level_ratio(dimension, overlap)
    assert ratio > 1
    assert level_overlap(dimension, ratio) == pytest.approx(overlap, rel=1e-6)


@pytest.mark.parametrize(
    ("side", "channels", "repeats", "e", "left"),
    [(32, 3, 5, 0.065, 1.058), (256, 3, 3, 0.0095, 1.009), (320, 2, 3, 0.0093, None)],
)
def test_published_step_sizes(side, channels, repeats, e, left):
    ratio, sigma_min = level_ratio(channels * side**2), 0.0066
    measured = step_size(ratio, sigma_min, repeats) / sigma_min**2
    assert measured == pytest.approx(e, rel=0.01)
    if left:
        assert 1 + excess_variance(measured, ratio, repeats) == pytest.approx(left, abs=5e-4)


@pytest.mark.parametrize(("ratio", "repeats"), [(1.00001, 1), (1.004, 3), (1.004, 2000), (1.3, 5), (5.0, 1), (40.0, 1)])
def test_step_size_is_the_best_of_the_whole_range(ratio, repeats):
    measured = step_size(ratio, 1.0, repeats)
    others = np.concatenate([np.geomspace(1e-12, 1, 20_000), np.linspace(0.5, 1.9999, 20_000)])
    best = excess_variance(others, ratio, repeats).min()
    assert 0 < measured < 2
    assert 0 < excess_variance(measured, ratio, repeats) <= best * (1 + 1e-9)


def test_excess_variance_is_that_of_simulated_langevin_steps():
    """x <- x - e x + sqrt(2 e) z on a unit Gaussian: variances by recursion."""
    e, ratio, repeats = 0.3, 1.4, 4
    variance = ratio**2
    for _ in range(repeats):
        variance = (1 - e) ** 2 * variance + 2 * e
    assert excess_variance(e, ratio, repeats) == pytest.approx(variance - 1, rel=1e-12)


def test_measure_of_complex_images():
    images = 0.4 * torch.randn(7, 21, 16, dtype=torch.complex64)
    p = measure(iter(images))
    x = images.numpy().astype(np.complex128)
    norms = np.sort(np.linalg.norm(x.reshape(7, -1), axis=1))
    assert p.sigma_max == pytest.approx(norms[-1] + norms[-2], rel=1e-5)
    assert p.sd == pytest.approx(np.sqrt((x.real**2).mean() / 2 + (x.imag**2).mean() / 2), rel=1e-5)
    assert p.mean == pytest.approx(np.abs(x).mean(), rel=1e-5)
    assert (p.count, p.dimension, p.sigma_min, p.noise_std) == (7, 2 * 21 * 16, 0.004, None)
    ratio = (p.sigma_max / p.sigma_min) ** (1 / (p.levels - 1))
    assert level_overlap(p.dimension, ratio) == pytest.approx(0.5, abs=2e-3)
    assert p.step_size == pytest.approx(step_size(ratio, p.sigma_min, 3), rel=1e-4)


def test_measure_of_real_images_compares_pairs():
    images = 1 + 0.1 * torch.randn(30, 9, 8)
    p = measure(images)
    assert p.sigma_max == pytest.approx(brute_force(images.double()), rel=1e-5)
    assert p.mean == pytest.approx(1, abs=0.01)
    assert p.sd == pytest.approx(math.sqrt(1.01), rel=0.01)


def test_measure_of_a_subsample_is_seeded_and_bounded():
    images = torch.randn(300, 40)
    few = [measure(images, subsample=12, seed=seed).sigma_max for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2]
    assert max(few) <= measure(images).sigma_max


def test_the_subsample_takes_every_image_alike():
    """One image is far away: it is seen by the share of it, wherever it stands."""
    for position in (0, 39):
        images = [torch.zeros(6) + 0.01 * k for k in range(40)]
        images[position] = torch.full((6,), 99.0)
        seen = sum(measure(images, subsample=10, seed=seed).sigma_max > 50 for seed in range(120))
        assert seen / 120 == pytest.approx(0.25, abs=0.12)


def test_measure_of_noisy_images_takes_the_noise_out():
    clean = 0.3 * torch.randn(5, 80, 81, dtype=torch.complex64)
    noisy = clean + 0.15 * torch.view_as_complex(torch.randn(5, 80, 81, 2))
    p, truth = measure(noisy, noise_std=0.15), measure(clean)
    assert p.sigma_max == pytest.approx(truth.sigma_max, rel=0.02)
    assert p.sd == pytest.approx(truth.sd, rel=0.02)
    assert p.sigma_min == 0.15 == p.noise_std
    with pytest.raises(InputError, match="no more than their noise.*smaller noise_std"):
        measure(noisy, noise_std=3.0)


def test_each_noisy_image_loses_its_own_noise():
    """A faint image with much noise has more energy than a bright clean one, and is not what sets sigma_max."""
    clean = torch.tensor([0.3, 0.05, 0.29])[:, None, None] * torch.randn(3, 80, 81, dtype=torch.complex64)
    levels = [0.02, 0.25, 0.02]
    noise = torch.view_as_complex(torch.randn(3, 80, 81, 2))
    noisy = clean + torch.tensor(levels)[:, None, None] * noise
    p, truth = measure(noisy, noise_std=levels), measure(clean)
    root_mean_square = float(np.sqrt(np.mean(np.square(levels))))
    assert p.noise_std == p.sigma_min == pytest.approx(root_mean_square, rel=1e-12)
    assert p.sigma_max == pytest.approx(truth.sigma_max, rel=0.02)
    assert p.sd == pytest.approx(truth.sd, rel=0.04)
    assert measure(noisy, noise_std=root_mean_square).sigma_max < 0.9 * truth.sigma_max
    with pytest.raises(ValueError, match="zip"):
        measure(noisy, noise_std=levels[:2])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "no training images"),
        ([torch.ones(4, 4), torch.ones(4, 5)], "image 1 has 20 real components, but image 0 has 16"),
        ([torch.ones(4, 4), torch.full((4, 4), math.nan)], "image 1 holds numbers that are not finite"),
        ([torch.ones(4, 4)], "needs two training images"),
        ([torch.ones(4, 4), torch.ones(4, 4)], "hold 0 of energy"),
    ],
)
def test_measure_refuses(images, message):
    with pytest.raises(InputError, match=message):
        measure(images)


@pytest.mark.parametrize("noise_std", [None, 0.02])
def test_a_written_file_is_read_back_the_same(tmp_path, noise_std):
    p = measure(0.4 * torch.randn(4, 15, 16, dtype=torch.complex64), noise_std=noise_std)
    write_parameters(tmp_path / "brain.txt", p)
    assert read_parameters(tmp_path / "brain.txt") == p
    text = (tmp_path / "brain.txt").read_text()
    assert ("noise_std 0.02" in text) == ("noise subtracted" in text) == (noise_std is not None)
    assert all("  # " in line for line in text.splitlines())
    partial = dataclasses.replace(p, levels=None, mean=None, dimension=None)
    write_parameters(tmp_path / "partial.txt", partial)
    assert read_parameters(tmp_path / "partial.txt") == partial


@pytest.mark.parametrize("text", ["232", "232.0\n", "# from elsewhere\n\n2.32e2  # far\n", "sigma_max 232"])
def test_one_bare_number_is_sigma_max(tmp_path, text):
    (tmp_path / "p.txt").write_text(text)
    assert read_parameters(tmp_path / "p.txt") == Parameters(sigma_max=232.0)


def test_exponents_and_comments_are_read(tmp_path):
    (tmp_path / "p.txt").write_text("# a scan\nsigma_max 2.3e2 # far\nsigma_min 1e-4\nmean -0.5\nlevels 20#few\n")
    assert read_parameters(tmp_path / "p.txt") == Parameters(sigma_max=230.0, sigma_min=1e-4, mean=-0.5, levels=20)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sigma_max 10\nsigma_mix 3", "p.txt, line 2: unknown key 'sigma_mix'; known keys: sigma_max, sigma_min"),
        ("sigma_max 10\n\nsigma_max 11", "p.txt, line 3: sigma_max is given twice"),
        ("sigma_max inf", "p.txt, line 1: sigma_max is 'inf'; it must be a finite number"),
        ("sigma_max nan", "sigma_max is 'nan'"),
        ("inf", "sigma_max is 'inf'"),
        ("sigma_max ten", "sigma_max is 'ten'"),
        ("sigma_max 10\nlevels 20.5", "line 2: levels is '20.5'; it must be a whole number"),
        ("sigma_max 10\nlevels 1", "levels is '1'; it must be at least 2"),
        ("sigma_max 10\nsd -1", "sd is '-1'; it must be at least 0"),
        ("sigma_max 10\nsigma_min 10", "p.txt: parameters need 0 < sigma_min < sigma_max; got 10.0 and 10.0"),
        ("sigma_max 10\nsigma_min 0", "got 0.0 and 10.0"),
        ("sigma_max = 10", "line 1 is 'sigma_max = 10'; a line must be"),
        ("sigma_max", "line 1 is 'sigma_max'"),
        ("10\n11", "line 1 is '10'"),
        ("sigma_min 0.01", "has no sigma_max; add a line"),
        ("", "has no sigma_max"),
    ],
)
def test_a_faulty_file_is_refused_with_its_place(tmp_path, text, message):
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(InputError) as caught:
        read_parameters(tmp_path / "p.txt")
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot read .*absent.txt"):
        read_parameters(tmp_path / "absent.txt")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: level_ratio(4), "at least 5 real dimensions; got 4"),
        (lambda: level_ratio(100, 1.0), "overlap is 1.0"),
        (lambda: level_count(1.0, 2.0, 1.1), "levels need"),
        (lambda: step_size(0.99, 0.01, 3), "a step needs ratio > 1"),
    ],
)
def test_impossible_techniques_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
