"""Metrics against skimage, fastMRI's definitions and closed forms; folders against metrics."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mri_score.errors import InputError
from mri_score.evaluation.metrics import bootstrap_interval, complex_nrmse, foreground, ssim, volume_scores
from mri_score.pipeline.folder_scores import score_folders


def pair(shape=(3, 21, 18), seed=0, scale=1.0):
    """A smooth volume whose slices differ in brightness, and a noisy one."""
    random = np.random.default_rng(seed)
    rows, columns = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape[1:]], indexing="ij")
    disc = (rows**2 + columns**2 < 0.6) * (1 + 0.5 * np.sin(7 * rows) * np.cos(5 * columns))
    truth = disc * np.linspace(0.5, 2, shape[0])[:, None, None]
    return scale * truth, scale * np.abs(truth + 0.1 * random.standard_normal(shape))


@pytest.mark.parametrize("shape", [(3, 21, 18), (2, 16, 16), (1, 7, 9)])
@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_the_four_metrics_are_fastmris(shape, scale):
    truth, prediction = pair(shape, scale=scale)
    top = truth.max()
    slices = zip(truth, prediction, strict=True)
    expected = {
        "mse": np.mean((truth - prediction) ** 2),
        "nmse": np.linalg.norm(truth - prediction) ** 2 / np.linalg.norm(truth) ** 2,
        "psnr": peak_signal_noise_ratio(truth, prediction, data_range=top),
        "ssim": np.mean([structural_similarity(a, b, data_range=top) for a, b in slices]),
    }
    assert volume_scores(truth, prediction) == pytest.approx(expected, rel=1e-9)
    as_float32 = volume_scores(torch.tensor(truth).float(), torch.tensor(prediction).float())
    assert as_float32 == pytest.approx(expected, rel=1e-5)


def test_ssim_is_the_formula_with_sample_covariance():
    truth, prediction = pair((1, 7, 7))
    covariance = np.cov(truth.ravel(), prediction.ravel())
    means, c1, c2 = (truth.mean(), prediction.mean()), (0.01 * truth.max()) ** 2, (0.03 * truth.max()) ** 2
    luminance = (2 * means[0] * means[1] + c1) / (means[0] ** 2 + means[1] ** 2 + c1)
    structure = (2 * covariance[0, 1] + c2) / (covariance[0, 0] + covariance[1, 1] + c2)
    assert ssim(truth, prediction) == pytest.approx(luminance * structure, rel=1e-9)


def test_a_foreground_of_ones_changes_nothing():
    truth, prediction = pair()
    assert volume_scores(truth, prediction, np.ones(truth.shape)) == pytest.approx(volume_scores(truth, prediction))


def test_inside_counts_only_its_pixels_but_keeps_the_volume_range():
    truth, prediction = pair()
    inside = np.zeros(truth.shape, bool)
    inside[0, 8:12, 8:11] = True
    error = np.mean((truth - prediction)[inside] ** 2)
    similarity = structural_similarity(truth[0], prediction[0], data_range=truth.max(), full=True)[1]
    expected = {
        "mse": error,
        "nmse": error / np.mean(truth[inside] ** 2),
        "psnr": 10 * np.log10(truth.max() ** 2 / error),
        "ssim": similarity[inside[0]].mean(),
    }
    assert volume_scores(truth, prediction, inside) == pytest.approx(expected)
    spoiled = np.where(inside, prediction, 0)
    scores = volume_scores(truth, spoiled, inside)
    assert (scores["psnr"], scores["nmse"]) == pytest.approx((expected["psnr"], expected["nmse"]))


def test_scores_do_not_depend_on_units_and_complex_images_count_by_magnitude():
    truth, prediction = pair()
    scores, scaled = volume_scores(truth, prediction), volume_scores(1e-5 * truth, 1e-5 * prediction)
    for name in ("psnr", "ssim", "nmse"):
        assert scaled[name] == pytest.approx(scores[name], rel=1e-9)
    phase = np.exp(1j * np.arange(truth.size).reshape(truth.shape))
    assert volume_scores(truth * phase, prediction * phase.conj()) == pytest.approx(scores)


def test_negative_predictions_are_not_rectified():
    truth, _ = pair()
    assert volume_scores(truth, -truth)["nmse"] == pytest.approx(4)


def test_two_sizes_are_cropped_as_fastmri_crops():
    truth, prediction = pair((2, 21, 18))
    small = prediction[:, 3:17, 4:13]  # from (21 - 14) // 2 and (18 - 9) // 2
    assert volume_scores(truth, small) == pytest.approx(volume_scores(truth[:, 3:17, 4:13], small))


def test_equal_images():
    truth, _ = pair()
    assert volume_scores(truth, truth) == {"psnr": np.inf, "ssim": pytest.approx(1), "nmse": 0, "mse": 0}


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.ones((2, 6, 9)), np.ones((2, 6, 9)), "6 x 9"),
        (np.zeros((2, 9, 9)), np.ones((2, 9, 9)), "zero everywhere"),
        (np.ones((2, 9, 9)), np.full((2, 9, 9), np.nan), "the prediction holds 162 values"),
        (np.ones((2, 9, 9)), np.ones((3, 9, 9)), "(3, 9, 9)"),
        (np.ones((9, 9)), np.ones((9, 9)), "(9, 9)"),
    ],
    ids=["small", "zero", "nan", "slices", "axes"],
)
def test_what_has_no_score_is_refused(truth, prediction, message):
    with pytest.raises(InputError) as error:
        volume_scores(truth, prediction)
    assert message in str(error.value)


def test_foreground_is_the_filled_object():
    rows, columns = np.indices((31, 24))
    radius = np.hypot(rows - 15, columns - 12)
    ring = np.where((radius < 10) & (radius > 6), 1.0, 0.05)
    assert np.array_equal(foreground(ring[None])[0], radius < 10)
    dim = np.where(radius < 10, 1.0, 0.14)
    assert np.array_equal(foreground(dim[None])[0], radius < 10)
    assert foreground(np.where(radius < 10, 1.0, 0.16)[None]).all()


def test_complex_nrmse_sees_phase_and_projects_onto_the_maps():
    random = np.random.default_rng(3)
    x, *coils = (random.standard_normal((5, 2, 9, 8)) + 1j * random.standard_normal((5, 2, 9, 8)))[:]
    maps = np.stack(coils, 1)
    maps /= np.linalg.norm(maps, axis=1, keepdims=True)
    outside = np.stack([maps[:, 1].conj(), -maps[:, 0].conj(), 0 * x, 0 * x], 1)  # orthogonal to the maps
    coil_images = maps * x[:, None] + outside
    assert complex_nrmse(coil_images, maps, x) == pytest.approx(0, abs=1e-12)
    assert complex_nrmse(coil_images, maps, x * np.exp(0.1j)) == pytest.approx(2 * np.sin(0.05))
    assert complex_nrmse(torch.tensor(coil_images), torch.tensor(maps), torch.tensor(1.2 * x)) == pytest.approx(0.2)
    inside = np.zeros(x.shape, bool)
    inside[:, 2:5, 3] = True
    assert complex_nrmse(coil_images, maps, np.where(inside, 0.7 * x, 9), inside) == pytest.approx(0.3)


def test_bootstrap_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(30, 2, 200)
    low, high = bootstrap_interval(values, seed=1)
    half = 1.96 * values.std() / np.sqrt(200)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.06 * half)
    assert bootstrap_interval(values, seed=1) == (low, high)


def test_bootstrap_draws_whole_groups():
    values = np.repeat(np.random.default_rng(0).normal(30, 2, 50), 4)
    alone, grouped = bootstrap_interval(values), bootstrap_interval(values, np.repeat(np.arange(50), 4).tolist())
    assert np.ptp(grouped) == pytest.approx(2 * np.ptp(alone), rel=0.1)  # four copies say no more than one
    assert np.isnan(bootstrap_interval([30.0, 31.0], ["a", "a"])).all()
    with pytest.raises(InputError, match="finite"):
        bootstrap_interval([30.0, np.inf])


def write(path, name, volume, **attributes):
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        file[name] = volume
        file.attrs.update(attributes)


@pytest.fixture
def folders(tmp_path):
    """Two targets of 20 x 15 and their predictions of 21 x 17, which both lose their margins."""
    for seed, kind in enumerate(["AXT1", b"AXT2"]):
        truth, prediction = pair((2, 20, 15), seed)
        write(tmp_path / f"targets/{seed}.h5", "reconstruction_rss", truth, acquisition=np.asarray(kind).item())
        padded = np.pad(prediction[:, 2:17], ((0, 0), (3, 3), (1, 1)), constant_values=9)
        write(tmp_path / f"predictions/{seed}.h5", "reconstruction", padded, acceleration=4 * (seed + 1))
    return tmp_path / "targets", tmp_path / "predictions"


def test_folders_are_scored_volume_by_volume_on_centre_squares(folders):
    scores = score_folders(*folders)
    expected = [volume_scores(*(x[:, 2:17] for x in pair((2, 20, 15), seed))) for seed in range(2)]
    assert scores.volumes["0.h5"] == pytest.approx(expected[0])
    assert scores.volumes["1.h5"] == pytest.approx(expected[1])
    truth, prediction = (x[:, 2:17] for x in pair((2, 20, 15), 1))
    assert scores.foreground["1.h5"] == pytest.approx(volume_scores(truth, prediction, foreground(truth)))
    assert scores.summary("foreground")["ssim"][0] == pytest.approx(
        np.mean([one["ssim"] for one in scores.foreground.values()])
    )
    psnr = [one["psnr"] for one in expected]
    assert scores.summary()["psnr"] == pytest.approx((np.mean(psnr), 2 * np.std(psnr, ddof=1)))


def test_folders_are_filtered_by_attributes(folders):
    assert list(score_folders(*folders, acquisition="AXT2").volumes) == ["1.h5"]
    assert list(score_folders(*folders, acceleration=4).volumes) == ["0.h5"]
    assert np.isnan(score_folders(*folders, acceleration=4).summary()["ssim"][1])
    with pytest.raises(InputError, match="acquisition AXT1, acquisition AXT2"):
        score_folders(*folders, acquisition="AXFLAIR")


def outside_link(path):
    with h5py.File(path, "w") as file:
        file["reconstruction"] = h5py.ExternalLink(str(path.with_name("1.h5")), "reconstruction")


def outside_storage(path):
    path.with_suffix(".raw").write_bytes(bytes(2 * 17 * 17 * 4))
    with h5py.File(path, "w") as file:
        file.create_dataset("reconstruction", (2, 17, 17), "f4", external=[(str(path.with_suffix(".raw")), 0, 2312)])


def claimed_size(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("reconstruction", (100_000, 4096, 4096), "f4", chunks=(1, 4096, 4096))


FAULTS = {
    "missing": (lambda path: path.unlink(), "no prediction for 0.h5"),
    "broken": (lambda path: path.write_bytes(path.read_bytes()[:700]), "cannot be read as HDF5"),
    "other name": (lambda path: write(path, "recon", np.ones((2, 17, 17))), "it has recon"),
    "small": (lambda path: write(path, "reconstruction", np.ones((2, 14, 17))), "at least 15 x 15"),
    "complex": (lambda path: write(path, "reconstruction", np.ones((2, 17, 17), "c8")), "complex64"),
    "nan": (lambda path: write(path, "reconstruction", np.full((2, 17, 17), np.nan)), "not finite"),
    "link": (outside_link, "is a link"),
    "outside storage": (outside_storage, "stored in other files"),
    "size bomb": (claimed_size, "are stored"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_prediction_is_named(folders, fault):
    spoil, message = FAULTS[fault]
    path = folders[1] / "0.h5"
    spoil(path)
    with pytest.raises(InputError) as error:
        score_folders(*folders)
    assert message in str(error.value) and "0.h5" in str(error.value)


def test_the_files_of_real_scans_score_perfectly_against_themselves(shared, tmp_path):
    with h5py.File(shared / "data/kspace/brain_t2_4ch.h5") as file:
        rss = file["reconstruction_rss"][()]
    write(tmp_path / "predictions/brain_t2_4ch.h5", "reconstruction", rss)
    write(tmp_path / "targets/brain_t2_4ch.h5", "reconstruction_rss", rss)
    scores = score_folders(tmp_path / "targets", tmp_path / "predictions").volumes["brain_t2_4ch.h5"]
    assert scores == {"psnr": np.inf, "ssim": pytest.approx(1), "nmse": 0, "mse": 0}
    assert 0.35 < foreground(rss).mean() < 0.75  # a head fills about half of its field of view
