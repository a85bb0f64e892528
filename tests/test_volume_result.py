"""What is said and written of a volume, on made-up images whose figures are computed here by numpy."""

from __future__ import annotations

import csv

import h5py
import numpy as np
import pytest
import torch

from mri_score.evaluation.intervals import Factor, Intervals
from mri_score.pipeline.derived import Metrics, Page, Panels, restore
from mri_score.pipeline.options import Options
from mri_score.pipeline.output import draw_pictures, score_rows, write_volume
from mri_score.pipeline.result import Volume, measured_points
from mri_score.pipeline.result_file import finished, read_scores

SLICES, DRAWS, SHAPE = 2, 3, (24, 20)
R = 4.0


def intervals() -> Intervals:
    one = Factor(R, magnitude=1.5, component=2.5, units=60)
    return Intervals(
        level=0.9, unit="slice", factors=(one,), prior="made up", prior_sha256="0" * 64, sampler="adaptive-draw",
        steps=4, samples=DRAWS, mask="variable-density", volumes=60, slices=60,
    )  # fmt: skip


def made_up(draws: int = DRAWS, truth: bool = True, **changes) -> Volume:
    """Slices 3 and 7 of a volume: a bright square on dark ground, with draws that err, at a weight far from 1."""
    random = np.random.default_rng(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.from_numpy(random.normal(size=(*shape, *SHAPE, 2))).float().mul(0.1)

    clean = torch.zeros(SLICES, *SHAPE)
    clean[:, 5:19, 4:15] = torch.tensor([1.0, 2.0]).reshape(-1, 1, 1)
    weight = torch.linspace(2, 3, SHAPE[1]).expand(SLICES, *SHAPE)
    samples = clean[:, None] + torch.view_as_complex(noise(SLICES, draws))
    known = clean + torch.view_as_complex(noise(SLICES))
    volume = Volume(
        "head.h5", [3, 7], R, {"Seed": "0"}, [], mask=torch.ones(1, 1, 1, SHAPE[1], dtype=torch.bool),
        intervals=intervals(), images=list(samples.mean(1)), samples=list(samples), noise=[0.05, 0.07],
        stds=list(0.1 + 0.05 * clean), weight=list(weight), seconds={"zero-filled": 0.5},
        baselines={"zero-filled": list(clean * weight * 0.8)},
    )  # fmt: skip
    if truth:
        volume.truth, volume.projected = list(known), list(known)
        volume.truth_rss, volume.complex_nrmse = list(known.abs() * weight), [0.1] * SLICES
    for name, value in changes.items():
        setattr(volume, name, value)
    return volume


def psnr(truth: np.ndarray, image: np.ndarray, inside: np.ndarray) -> float:
    return 10 * np.log10(truth.max() ** 2 / np.mean((truth - image)[inside] ** 2))


def test_magnitudes_and_deviations_are_in_the_units_of_the_root_sum_of_squares():
    volume = made_up()
    weight, samples = np.stack(volume.weight), np.stack(volume.samples)
    np.testing.assert_allclose(volume.rss, np.abs(samples.mean(1)) * weight, rtol=1e-5)
    np.testing.assert_allclose(volume.one_draw, np.abs(samples[:, 0]) * weight, rtol=1e-5)
    np.testing.assert_allclose(volume.std, np.stack(volume.stds) * weight, rtol=1e-5)
    own = np.square(np.stack(volume.stds)) + (1 - 1 / R) * np.square([[[0.05]], [[0.07]]])
    np.testing.assert_allclose(volume.interval("magnitude"), 1.5 * np.sqrt(own) * weight, rtol=1e-5)
    np.testing.assert_allclose(volume.interval("component"), 2.5 * np.sqrt(own), rtol=1e-5)


def test_scores_of_the_foreground_and_of_the_whole_image_are_not_mixed_up():
    volume = made_up()
    scores = {one.method: one for one in volume.scores("mean")["RSS of full k-space"]}
    assert set(scores) == {"zero-filled", "one draw", "mean"}
    truth, inside = np.stack(volume.truth_rss), volume.foreground
    assert 0.1 < inside.mean() < 0.6
    for name, image in (("mean", volume.rss.numpy()), ("zero-filled", np.stack(volume.baselines["zero-filled"]))):
        assert scores[name].foreground["psnr"] == pytest.approx(psnr(truth, image, inside), abs=1e-3)
        assert scores[name].whole["psnr"] == pytest.approx(psnr(truth, image, np.ones_like(inside)), abs=1e-3)
    assert scores["mean"].foreground["psnr"] > scores["one draw"].foreground["psnr"] + 1


@pytest.mark.parametrize(("draws", "known", "judged"), [(1, True, False), (2, True, True), (3, False, False)])
def test_calibration_takes_two_draws_and_a_truth(draws, known, judged):
    found = made_up(draws, known).calibration()
    assert (found is not None) == judged
    assert found is None or 0.5 < found.spread_skill < 2


def test_the_file_holds_the_slices_by_number_and_the_draws_first(tmp_path):
    volume = made_up(misfit_ratios=[2.0, 5.0])
    options = Options(samples=DRAWS, keep_samples=True)
    path = write_volume(tmp_path, volume, options, {"identity": "17"})
    with h5py.File(path) as file:
        assert file["slices"][()].tolist() == [3, 7]
        assert file["samples"].shape == (DRAWS, SLICES, *SHAPE)
        np.testing.assert_allclose(file["samples"][1, 0], volume.samples[0][1])
        np.testing.assert_allclose(file["reconstruction"][()], volume.rss)
        np.testing.assert_allclose(file["std"][()], volume.std)
        np.testing.assert_allclose(file["interval"][()], volume.interval("magnitude"))
        np.testing.assert_allclose(file["interval_complex"][()], volume.interval("component"))
        assert file.attrs["misfit_ratio"] == 5.0  # of the worst slice
        assert file.attrs["interval_factor_magnitude"] == 1.5 and file.attrs["true_acceleration"] == R
    assert finished(tmp_path, "head.h5", 17)
    assert not finished(tmp_path, "head.h5", 18) and not finished(tmp_path, "other.h5", 17)


def test_metrics_of_other_files_stay_and_those_of_this_one_are_renewed(tmp_path):
    path, options = tmp_path / "metrics.csv", Options(samples=DRAWS)
    better = made_up(name="a.h5")
    better.images = better.truth
    for volume in (made_up(name="a.h5"), made_up(name="b.h5"), better):
        Metrics(path).write(write_volume(tmp_path, volume, options, {}))
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    per_file = 3 * 2 * 2  # methods, targets, regions
    assert [row["file"] for row in rows] == ["a.h5"] * per_file + ["b.h5"] * per_file
    means = [row["psnr"] for row in rows if row["method"] == options.estimate and row["target"].startswith("RSS")]
    assert means[:2] == ["inf", "inf"] and "inf" not in means[2:]


def test_everything_beside_a_result_is_made_from_it_again_and_nothing_else_is(tmp_path):
    volume, options = made_up(), Options(samples=DRAWS)
    result = write_volume(tmp_path, volume, options, {})
    derived = [Panels(tmp_path / "panels"), Page(tmp_path / "report"), Metrics(tmp_path / "metrics.csv")]
    assert restore(result, derived) == ["pictures", "report", "scores"] and restore(result, derived) == []
    found = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".h5"}
    kinds = [path.suffix for path in found if not path.name.startswith(".")]
    assert sorted(kinds) == [".csv", ".html", ".png", ".png"]
    for path, content in found.items():  # lost, cut short, or of another volume
        for damage in (path.unlink, lambda path=path, part=content[:40]: path.write_bytes(part)):
            damage()
            assert len(restore(result, derived)) == (not path.name.startswith("."))
            assert path.name.startswith(".") or path.read_bytes() == content
    assert repr(read_scores(result)) == repr(score_rows(volume, options))  # NaN for seconds that were not measured
    other = write_volume(tmp_path, made_up(truth=False), options, {})
    assert restore(other, derived) and len((tmp_path / "metrics.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize(("method", "draws"), [("adaptive-draw", True), ("proximal", False)])
def test_only_a_report_of_estimates_warns_that_their_spread_says_nothing(method, draws):
    page = draw_pictures(made_up(), Options(method=method, samples=DRAWS), {}).page
    assert ("point estimates" in page) != draws


@pytest.mark.parametrize("known", [True, False])
def test_only_a_report_without_a_truth_says_that_nothing_is_scored(known):
    page = draw_pictures(made_up(truth=known), Options(samples=DRAWS), {}).page
    assert ("there is no ground truth" in page) != known


@pytest.mark.parametrize("small", [60, 64, 96])
def test_the_mask_on_the_grid_of_a_cropped_image_keeps_frequencies(small):
    """A wave of one frequency of the large grid stands, after the crop, at the point that the mask names."""
    large = 128
    for line in (64, 70, 40):
        mask = torch.zeros(1, 1, large, dtype=torch.bool)
        mask[..., line - 1 : line + 2] = True
        wave = torch.exp(2j * torch.pi * (line - 64) * torch.arange(small) / large)
        spectrum = torch.fft.fftshift(torch.fft.fft(wave)).abs()
        points = measured_points(mask, (1, small))[0, 0]
        assert points[spectrum.argmax()]
        assert abs(float(points.sum()) - 3 * small / large) < 1
