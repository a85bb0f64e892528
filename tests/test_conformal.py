"""Conformal intervals have their nominal coverage on new slices, whatever the calibration of the draws was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from command import mri_score
from scipy.stats import norm

from mri_score.errors import InputError
from mri_score.evaluation.intervals import (
    Factor,
    Intervals,
    conformal_factor,
    covered,
    least_margin,
    predicted_std,
    read_intervals,
    relative_errors,
)
from mri_score.evaluation.uncertainty import pixel_std
from mri_score.numerics.noise import generators, noise_like
from mri_score.simulation.simulate import simulate

SHAPE = (41, 36)


def slices(numbers, spread=1.0, draws=8, hard=0.3):
    """Scores of slices whose noise differs by pixel and by slice; the draws have `spread` times its std."""
    scores = []
    for number in numbers:
        random = generators(7, "slice", number, draws + 1)
        ramp = torch.linspace(0.2, 3, SHAPE[1], dtype=torch.float64).expand(SHAPE)
        difficulty = np.exp(hard * float(torch.randn((), generator=random[-1])))
        noise = noise_like(torch.zeros(draws + 1, *SHAPE, dtype=torch.complex128), random)
        samples, truth = spread * ramp * noise[:draws], difficulty * ramp * noise[draws]
        scores.append(relative_errors(samples.mean(0), pixel_std(samples), truth, ramp > 0.5))
    return scores


def test_the_factor_of_a_known_gaussian_is_its_quantile():
    random = np.random.default_rng(0)
    scores = [np.abs(random.standard_normal(2000)) for _ in range(400)]
    for level in (0.5, 0.8, 0.9, 0.95):
        # the one unknown unit counts as missed altogether: the level of the 400 known ones is a little higher
        quantile = norm.ppf((1 + level * 401 / 400) / 2)
        assert conformal_factor(scores, level) == pytest.approx(quantile, rel=0.01)
    assert conformal_factor(scores, 0.9) == pytest.approx(1.645, rel=0.02)


@pytest.mark.parametrize("spread", [1.0, 0.4, 2.5])
def test_other_slices_have_the_nominal_coverage(spread):
    factor = conformal_factor(slices(range(60), spread), 0.9)
    others = slices(range(60, 200), spread)
    assert 0.87 < covered(others, factor) < 0.93
    if spread != 1:
        assert abs(covered(others, 1.645) - 0.9) > 0.05  # the coverage of the draws' own intervals


def test_the_guarantee_holds_on_average_over_small_fits():
    """Nine slices are the fewest: their factor covers the hardest pixel, and with nineteen it is still careful."""
    for count, most in ((9, 1.0), (19, 0.97)):
        rates = []
        for fold in range(12):
            numbers = range(1000 * fold, 1000 * fold + count)
            factor = conformal_factor(slices(numbers, draws=4), 0.9)
            rates.append(covered(slices(range(5000, 5010), draws=4), factor))
        assert 0.9 < np.mean(rates) < most + 1e-9


def test_units_count_alike_however_many_pixels_they_hold():
    easy, hard = np.linspace(0, 1, 10), np.linspace(0, 4, 100_000)
    factor = conformal_factor([easy, hard] * 50, 0.75)
    # (1 + q / 4) / 2 of an even mixture is covered at q, and a hundredth of all is the unit to come
    assert factor == pytest.approx(4 * (2 * 0.75 * 101 / 100 - 1), abs=0.01)


def test_a_margin_holds_for_the_nominal_share_of_new_units():
    random = np.random.default_rng(1)
    kept = [random.normal() <= least_margin(list(random.normal(size=19)), 0.9) for _ in range(4000)]
    assert np.mean(kept) == pytest.approx(18 / 20, abs=0.015)  # the 18th of 19: exact for any distribution
    assert least_margin(range(9), 0.9) == 8
    with pytest.raises(InputError, match="at least 9 are needed"):
        least_margin(range(8), 0.9)


def test_too_few_units_or_a_wrong_level_are_refused():
    scores = slices(range(8))
    with pytest.raises(InputError, match="at least 9 are needed"):
        conformal_factor(scores, 0.9)
    assert np.isfinite(conformal_factor(scores, 0.8))
    with pytest.raises(InputError, match="between 0 and 1"):
        conformal_factor(scores, 90)


def test_the_noise_of_a_full_scan_is_part_of_what_is_foretold():
    """One coil, exact draws of lines that a white prior knows nothing of: errors are the std and the rest's noise."""
    sd, noise_std, acceleration, shape = 0.3, 0.1, 4, (64, 64)
    random = generators(3, "floor", draws=4)
    clean, noise, draw, share = (noise_like(torch.zeros(1, *shape, dtype=torch.complex128), [one]) for one in random)
    sampled = torch.zeros(shape, dtype=torch.bool)
    sampled[:, ::acceleration] = True
    full = sd * clean + noise_std * noise  # k-space and images alike: the FFT is orthonormal
    gain = sd**2 / (sd**2 + noise_std**2)
    mean = torch.where(sampled, gain * full, 0)
    variance = (gain * noise_std**2 + (acceleration - 1) * sd**2) / acceleration  # of a pixel, by its lines
    error = float(torch.view_as_real(full - mean).square().mean())
    assert predicted_std(np.sqrt(variance), noise_std, acceleration) ** 2 == pytest.approx(error, rel=0.05)
    assert predicted_std(np.zeros(3), noise_std, acceleration) == pytest.approx(noise_std * 0.75**0.5)


def test_a_std_of_zero_has_no_interval():
    with pytest.raises(InputError, match="predicted_std"):
        relative_errors(np.zeros(4), np.array([1, 0, 1, 1]), np.ones(4))


INTERVALS = Intervals(
    level=0.9,
    unit="slice",
    factors=(Factor(3.9, 1.8, 1.7, 88, {"16": 2.6}, {"psnr": 1.2, "ssim": 0.1}), Factor(7.8, 2.3, 2.2, 88)),
    prior="brain",
    prior_sha256="ab12",
    sampler="adaptive-draw",
    steps=30,
    samples=8,
    mask="variable-density",
    volumes=2,
    slices=88,
)


def test_intervals_are_read_as_written_and_nothing_else_is(tmp_path):
    INTERVALS.write(tmp_path / "a.json")
    assert read_intervals(tmp_path / "a.json") == INTERVALS
    for text in ("", "[]", "{}", (tmp_path / "a.json").read_text().replace("1.8", "-1.8")):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(InputError, match="mri-score intervals"):
            read_intervals(tmp_path / "b.json")
    with pytest.raises(InputError, match="missing.json"):
        read_intervals(tmp_path / "missing.json")


def test_another_run_than_that_of_the_fit_is_refused_and_another_acceleration_is_said():
    INTERVALS.check(prior_sha256="ab12", sampler="adaptive-draw", steps=30, samples=8)
    with pytest.raises(InputError, match="samples 8, but this run has samples 4"):
        INTERVALS.check(prior_sha256="ab12", sampler="adaptive-draw", steps=30, samples=4)
    assert [INTERVALS.at(r).magnitude for r in (2, 4.2, 5.4, 5.6, 20)] == [1.8, 1.8, 1.8, 2.3, 2.3]
    assert INTERVALS.caution(4.2, INTERVALS.mask) is None
    assert "7.80, the scan has 10.00" in INTERVALS.caution(10, INTERVALS.mask)
    assert "masks, not equispaced" in INTERVALS.caution(4.2, "equispaced")


@pytest.mark.slow
def test_the_command_line_fits_writes_and_refuses(tmp_path):
    import h5py

    scans = simulate(tmp_path / "fit", volumes=2, slices=5, size=48, coils=4, noise=24.0)
    (new,) = simulate(tmp_path / "new", volumes=1, slices=2, size=48, coils=4, noise=24.0, seed=3)
    file = tmp_path / "intervals.json"
    quick = ["--samples", 3, "--steps", 4, "--threads", 1, "--prior", "brain-fast"]
    output = mri_score("intervals", scans[0].parent, "--accel", "3", "--level", 0.8, "--out", file, *quick)
    intervals = read_intervals(file)
    assert (intervals.slices, intervals.volumes, len(intervals.factors)) == (10, 2, 1)
    factor = intervals.factors[0]
    assert f"80% within std x {factor.magnitude:.3f} (magnitude), {factor.component:.3f}" in output
    assert set(factor.blocks) <= {"4", "8", "16"} and set(factor.margins) == {"psnr", "ssim"} and factor.units == 10
    patients = mri_score("intervals", scans[0].parent, "--accel", "3", "--unit", "patient", "--level", 0.8, code=2)
    assert "2 slices, volumes or patients are too few" in patients

    run = ["reconstruct", new, "--accel", "3", "--out", tmp_path / "out", "--intervals", file, "--baselines", "none"]
    output = mri_score(*run, *quick)
    with h5py.File(tmp_path / "out/reconstructions" / new.name) as found:
        interval, parts, std = (found[name][()] for name in ("interval", "interval_complex", "std"))
        assert interval.shape == parts.shape == std.shape and (parts > factor.component * std).all()
        np.testing.assert_allclose(interval / parts, factor.magnitude / factor.component, rtol=1e-4)
        for target in ("magnitude", "component"):
            kept = found.attrs[f"interval_coverage_{target}"]
            assert f"{kept:.1%} of the {target}s" in output and 0.6 < kept < 0.97
        with h5py.File(new) as full:  # what anyone finds who takes both files and compares
            truth = full["reconstruction_rss"][()]
        half, image = found["interval_blocks_4"][()], found["reconstruction"][()]
        means, wanted = (one.reshape(2, 12, 4, 12, 4).mean((2, 4)) for one in (image, truth))
        object_ = wanted > 0.3 * np.percentile(wanted, 99)
        assert half.shape == (2, 12, 12) and np.mean((np.abs(means - wanted) <= half)[object_]) > 0.6
        assert 10 < found.attrs["psnr_bound"] < 50 and 0 < found.attrs["ssim_bound"] < 1
        inside = truth > 0.3 * np.percentile(truth, 99)
        rate = np.mean((np.abs(found["reconstruction"][()] - truth) <= interval)[inside])
        assert rate == pytest.approx(found.attrs["interval_coverage_magnitude"], abs=0.1)
    page = (tmp_path / "out/report/index.html").read_text()
    assert "Conformal intervals" in page and "mean of 4 x 4 pixels" in page and "its PSNR is at least" in page
    assert "samples 3, but this run has samples 2" in mri_score(*run, *quick, "--samples", 2, code=2)
    replace(intervals, prior_sha256="0").write(file)
    assert "prior_sha256" in mri_score(*run, *quick, code=2)
    assert "4,x" in mri_score("intervals", scans[0].parent, "--accel", "4,x", code=2)
