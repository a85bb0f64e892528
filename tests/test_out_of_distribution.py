"""The out-of-distribution score in closed form, and the warning of a run."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from mri_score.data.scan import Scan, Undersampling
from mri_score.errors import InputError
from mri_score.evaluation.out_of_distribution import expected_error, misfit_ratio, threshold_at
from mri_score.files import sha256
from mri_score.models.analytic import GaussianPrior
from mri_score.noise.schedules import Karras
from mri_score.numerics.fourier import ifft
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense
from mri_score.pipeline.facts import out_of_distribution_note
from mri_score.pipeline.options import Options
from mri_score.pipeline.output import write_volume
from mri_score.pipeline.volume import reconstruct_volume
from mri_score.posteriors import AdaptiveDraw
from mri_score.priors.store import build_prior, load_prior, read_record, save_prior
from mri_score.readers.fastmri import FastMRI
from mri_score.samplers import SAMPLERS
from mri_score.samplers.base import WalkResult
from mri_score.simulation.simulate import simulate

N = 48
SIGMAS = (0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.6, 1.0, 3.0)
NETWORK = {"name": "unet", "widths": [4], "blocks": 1, "embedding": 4}


# The ratio in closed form: Gaussian images (1, N), white over space, of a known spectrum.


def spectrum(power: float) -> Tensor:
    """The variance of each frequency of images with sd 0.3, falling as this power."""
    values = (1 + (torch.arange(N, dtype=torch.float64) - N // 2).abs()) ** -power
    return values * 0.3**2 / values.mean()


def gaussian(variances: Tensor) -> GaussianPrior:
    unitary = ifft(torch.eye(N, dtype=torch.complex128), axes=(-1,)).T
    return GaussianPrior(torch.zeros(1, N, dtype=torch.complex128), unitary @ (variances[:, None] * unitary.mH))


def closed_errors(variances: Tensor) -> dict[float, float]:
    """What validation would log of the best denoiser: mean p s^2 / (p + s^2), in its unit."""
    sd2 = float(variances.mean())
    found = {sigma: float((variances / (variances + sigma**2)).mean()) for sigma in SIGMAS}
    return {sigma: error * (sd2 + sigma**2) / sd2 for sigma, error in found.items()}


def seen(prior: GaussianPrior, images: Tensor, mask: Tensor, noise_std: float = 0.02) -> WalkResult:
    """One walk for each of two-coil scans of these images."""
    place = torch.linspace(0, 1, N, dtype=torch.float64)
    maps = torch.stack([torch.polar(1.2 - place, 2 * place), torch.polar(0.2 + place, -place)])
    maps = (maps / maps.abs().square().sum(0).sqrt())[None, :, None, :]
    operator, random = Sense(maps, mask), generators(5, draws=len(images))
    y = operator(images)
    y = y + noise_std * mask * noise_like(y, random)
    posterior = AdaptiveDraw(prior, operator, y, noise_std)
    found = SAMPLERS["renoise"](Karras(0.01, 5.0).levels(30)).walk(posterior, torch.zeros_like(images), random)
    assert posterior.mean is None and not posterior.errors, "a walk hands its results on and leaves none behind"
    return found


def ratio(prior: GaussianPrior, errors: dict[float, float], images: Tensor, mask: Tensor) -> float:
    """Mean over the scans."""
    found = misfit_ratio(seen(prior, images, mask).errors, errors, prior.sd)
    assert found is not None and found.shape == (len(images),)
    return float(found.mean())


def truths(variances: Tensor) -> Tensor:
    return gaussian(variances).sample(generators(1, draws=64))


FULL, QUARTER = torch.ones(N, dtype=torch.bool), torch.arange(N) % 4 == 0


@pytest.mark.parametrize("mask", [FULL, QUARTER], ids=["full", "a quarter"])
def test_white_images_of_the_right_variance_have_the_ratio_one(mask):
    variances = spectrum(0.0)
    found = ratio(gaussian(variances), closed_errors(variances), truths(variances), mask)
    assert found == pytest.approx(1, abs=0.1)


def test_a_right_covariance_has_the_ratio_one_and_wrong_ones_more():
    """Of other frequencies, and brighter than expected; sampled fully, so that all frequencies count alike."""
    right = spectrum(2.0)
    prior, errors = gaussian(right), closed_errors(right)
    assert ratio(prior, errors, truths(right), FULL) == pytest.approx(1, abs=0.15)
    assert ratio(prior, errors, truths(torch.roll(right, N // 2)), FULL) > 2
    assert ratio(prior, errors, truths(9 * right), FULL) > 1.5


def test_items_are_told_apart():
    right = spectrum(2.0)
    images = truths(right)[:4]
    images[2] = truths(torch.roll(right, N // 2))[2]
    found = misfit_ratio(seen(gaussian(right), images, FULL).errors, closed_errors(right), 0.3)
    assert int(found.argmax()) == 2 and float(found[2]) > 1.8 * float(found[[0, 1, 3]].max())


def test_a_walk_gives_an_error_for_each_of_its_levels():
    prior = gaussian(spectrum(0.0))
    found = seen(prior, truths(spectrum(0.0))[:1], FULL)
    assert [one.sigma for one in found.errors] == pytest.approx(Karras(0.01, 5.0).levels(30).tolist())


# The parts.


def test_expected_errors_are_interpolated_in_the_logarithm():
    errors, sd = {0.1: 0.04, 1.0: 0.16}, 0.3
    unit = 0.1 * 0.09 / (0.1 + 0.09)
    assert expected_error(0.1**0.5, errors, sd) == pytest.approx(0.08 * unit)
    assert expected_error(0.01, errors, sd) == pytest.approx(0.04 * 1e-4 * 0.09 / (1e-4 + 0.09))  # the nearest known


def test_the_ratio_is_the_weighted_mean_over_the_levels_that_count():
    """sd so large that the unit is sigma^2; by hand."""
    one, zero = torch.ones(1), torch.zeros(1)
    levels = [(2.0, 100 * one, zero), (1.0, 3 * one, one), (0.1, 0.05 * one, zero), (0.01, 100 * one, zero)]
    found = misfit_ratio(levels, {0.01: 1.0, 2.0: 1.0}, 1e9)
    assert float(found) == pytest.approx((3 / 2 + 5) / (1 / 2 + 1))
    assert misfit_ratio(levels[:1], {0.01: 1.0}, 1e9) is None


def test_a_slightly_wrong_noise_level_counts_less_where_the_noise_decides():
    errors = {0.01: 1.0, 2.0: 1.0}
    noise, wrong = torch.tensor([0.01]), torch.tensor([1.1])
    levels = [(sigma, sigma**2 + 0.1 * noise, noise) for sigma in (0.9, 0.3, 0.03)]
    plain = sum(float(error) / sigma**2 for sigma, error, _ in levels) / 3
    found = float(misfit_ratio(levels, errors, 1e9))
    assert 1 < found < float(wrong) and plain > 1.3


@pytest.mark.parametrize(
    ("ratios", "threshold", "words"),
    [
        ([3.14], 2.0, "for the prior: misfit ratio 3.1, expected below 2.0 at this acceleration"),
        ([1.0, 3.14, 2.5], 2.0, "expected below 2.0 at this acceleration; 2 of 3 slices are above that. The prior"),
    ],
)
def test_the_note(ratios, threshold, words):
    assert words in out_of_distribution_note(ratios, threshold, {})
    assert all(out_of_distribution_note(*nothing, {}) is None for nothing in ((ratios, None), (ratios, 5.0), ([], 1.0)))
    basis = {"slices": 18, "law": "variable-density", "scans": ["head.h5"]}
    calibrated = "at this acceleration (calibrated on 18 slices, variable-density masks)"
    assert calibrated in out_of_distribution_note(ratios, threshold, basis)


def test_thresholds_are_interpolated_in_the_logarithm_of_the_acceleration():
    known = {"8": 5.0, "4": 3.0}
    assert threshold_at(32**0.5, known) == pytest.approx(4.0)
    assert threshold_at(2.0, known) == 3.0 and threshold_at(16.0, known) == 5.0  # the nearest known
    assert threshold_at(4.0, None) is None and threshold_at(4.0, {}) is None


def test_thresholds_fall_with_the_matrix_where_the_record_says_so():
    known, basis = {"4": 3.0}, {"matrix": 256, "power": 0.5}
    assert threshold_at(4.0, known, 64, basis) == pytest.approx(6.0)
    assert threshold_at(4.0, known, 64, {}) == threshold_at(4.0, known, None, basis) == 3.0
    for wrong in ({"matrix": 0, "power": 1.0}, {"matrix": "big", "power": 1.0}, {"matrix": 256, "power": float("nan")}):
        with pytest.raises(InputError, match="about.ood_basis with matrix"):
            threshold_at(4.0, known, 64, wrong)


@pytest.mark.parametrize("wrong", [5.0, {"four": 3.0}, {"4": None}, {"0": 3.0}])
def test_thresholds_of_another_kind_are_refused(wrong):
    with pytest.raises(InputError, match="about.ood_thresholds .* a ratio for each acceleration"):
        threshold_at(4.0, wrong)


# A run.


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    (path,) = simulate(tmp_path_factory.mktemp("scan"), volumes=1, slices=1, size=40, coils=4)
    return path


def prior_file(folder: Path, **about) -> Path:
    """A new network, which denoises as if images were white, and says that it errs as such a one does."""
    torch.manual_seed(0)
    path = folder / "prior.safetensors"
    errors = dict.fromkeys(("0.01", "0.1", "1.0"), 1.0)
    save_prior(path, build_prior(NETWORK, sd=0.3), NETWORK, {"denoising_errors": errors, **about})
    return path


def volume(scan: Path, prior: Path, method: str = "adaptive-draw"):
    options = Options(method=method, steps=8, samples=2, baselines=(), device="cpu")
    return options, reconstruct_volume(Scan(FastMRI(scan), Undersampling(3.0)), load_prior(prior), options)


@pytest.mark.parametrize(
    ("about", "warns"), [({"ood_thresholds": {"4": 1e-6}}, True), ({"ood_thresholds": {"4": 1e6}}, False), ({}, False)]
)
def test_a_run_warns_above_the_threshold_of_its_prior(scan, tmp_path, about, warns):
    options, found = volume(scan, prior_file(tmp_path, **about))
    words = "this scan may be out of distribution for the prior: misfit ratio"
    assert any(words in note for note in found.notes) == warns
    assert len(found.misfit_ratios) == 1 and found.misfit_ratios[0] > 0
    with h5py.File(write_volume(tmp_path, found, options, {})) as file:
        assert file.attrs["misfit_ratio"] == pytest.approx(found.misfit_ratios[0])


def test_a_threshold_of_another_method_is_not_used(scan, tmp_path):
    """Scores of methods have ranges of their own: the record says which method its thresholds are of."""
    for method, warns in (("matched-draw", False), ("adaptive-draw", True)):
        about = {"ood_thresholds": {"4": 1e-6}, "ood_basis": {"method": "adaptive-draw"}}
        _, found = volume(scan, prior_file(tmp_path, **about), method=method)
        assert any("out of distribution" in note for note in found.notes) == warns


def test_methods_that_do_not_look_say_nothing(scan, tmp_path):
    _, found = volume(scan, prior_file(tmp_path, ood_thresholds={"4": 1e-6}), method="exact-draw")
    assert not found.misfit_ratios and not any("out of distribution" in note for note in found.notes)


def test_the_script_writes_a_threshold_that_these_scans_keep(scan, tmp_path, monkeypatch):
    """95 % of log-normal scores with the mean and spread of those in the state file lie below it."""
    path = prior_file(tmp_path, summary="white")
    before = sha256(path)
    scripts = Path(__file__).resolve().parents[1] / "scripts"
    monkeypatch.syspath_prepend(str(scripts))
    spec = spec_from_file_location("out_of_distribution", scripts / "out_of_distribution.py")
    script = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, script)
    spec.loader.exec_module(script)
    state = tmp_path / "cases.jsonl"
    arguments = ["--prior", str(path), "--head", str(scan), "--accel", "3", "--slices", "2", "--state", str(state)]
    arguments += ["--precision", "float32"]
    shown = CliRunner().invoke(script.main, arguments, catch_exceptions=False)
    assert shown.exit_code == 0 and "ood_thresholds" not in json.loads(path.with_suffix(".json").read_text())["about"]
    rows = [json.loads(line) for line in state.read_text().splitlines()]
    assert [row["case"][4] for row in rows] == [f"{scan.stem} slice 0"]

    def threshold(*scores):
        state.write_text("".join(json.dumps({**rows[0], "case": [*rows[0]["case"][:4], f"{scan.stem} slice {n}"],
                                             "score": one}) + "\n" for n, one in enumerate(scores)))  # fmt: skip
        CliRunner().invoke(script.main, [*arguments, "--no-run", "--write"], catch_exceptions=False)
        return read_record(path)["about"]["ood_thresholds"]["3"]

    assert threshold(2.0, 2.0) == 2.0
    scores = np.exp(np.random.default_rng(0).normal(0.5, 0.2, 4000))
    assert np.mean(scores < threshold(*scores)) == pytest.approx(0.95, abs=0.01)
    about = read_record(path)["about"]
    assert about["ood_basis"]["scans"] == [scan.stem] and about["ood_basis"]["law"] == "variable-density"
    assert about["ood_basis"]["power"] == 0 and about["summary"] == "white" and sha256(path) == before
    assert not any("out of distribution" in note for note in volume(scan, path)[1].notes)
