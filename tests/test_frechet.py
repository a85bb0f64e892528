"""The Fréchet distance: closed forms, what it does not depend on, and how its small-sample bias is taken off."""

from __future__ import annotations

import csv

import pytest
import torch
from scipy.linalg import sqrtm

from mri_score.errors import InputError
from mri_score.sample_quality.frechet import Gaussian, best, frechet_distance, measure, write_plot, write_table


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(size: int, rank: int, seed: int) -> torch.Tensor:
    half = random(rank, size, seed=seed)
    return half.T @ half / rank


def test_commuting_covariances_have_a_closed_form():
    stds = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([3.0, 0.0, 0.5])
    axes = torch.linalg.qr(random(3, 3)).Q
    means = random(3, seed=1), random(3, seed=2)
    a, b = (
        Gaussian.from_covariance(mean, axes @ torch.diag(std.double() ** 2) @ axes.T)
        for mean, std in zip(means, stds, strict=True)
    )
    expected = (means[0] - means[1]).square().sum() + (stds[0] - stds[1]).square().sum()
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-7)  # the root of a rounded 0 is 1e-8


@pytest.mark.parametrize(("rank_a", "rank_b"), [(9, 9), (3, 9), (2, 4)])
def test_it_is_the_formula_with_the_matrix_root(rank_a, rank_b):
    a, b = covariance(7, rank_a, seed=1), covariance(7, rank_b, seed=2)
    mean = random(7, seed=3)
    root = sqrtm(a.numpy())
    cross = sqrtm(root @ b.numpy() @ root).real.trace()
    expected = mean.square().sum() + a.trace() + b.trace() - 2 * cross
    found = frechet_distance(Gaussian.from_covariance(mean, a), Gaussian.from_covariance(0 * mean, b))
    assert found == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("count", [5, 200])
def test_a_fit_has_the_sample_mean_and_covariance(count):
    features = random(count, 7) @ random(7, 7, seed=1) + 3
    fitted = Gaussian.fit(features)
    torch.testing.assert_close(fitted.mean, features.mean(0))
    torch.testing.assert_close(fitted.root.T @ fitted.root, features.T.cov())


@pytest.mark.parametrize("count", [5, 200])  # a singular covariance, and a full one
def test_a_set_is_at_no_distance_from_itself_and_order_does_not_count(count):
    features, other = random(count, 7), random(30, 7, seed=1)
    shuffled = features[torch.randperm(count, generator=torch.Generator().manual_seed(2))]
    assert frechet_distance(Gaussian.fit(features), Gaussian.fit(shuffled)) < 1e-12
    there, back = (frechet_distance(Gaussian.fit(one), Gaussian.fit(other)) for one in (features, shuffled))
    assert there == pytest.approx(back, rel=1e-12) and there > 0.1


def test_it_is_symmetric_and_grows_with_the_square_of_the_scale():
    a, b = random(40, 5), 2 * random(30, 5, seed=1) + 1
    distance = frechet_distance(Gaussian.fit(a), Gaussian.fit(b))
    assert frechet_distance(Gaussian.fit(b), Gaussian.fit(a)) == pytest.approx(distance)
    assert frechet_distance(Gaussian.fit(3 * a), Gaussian.fit(3 * b)) == pytest.approx(9 * distance)


def test_the_jackknife_takes_the_bias_off_and_knows_its_error():
    """Sets of one law: the true distance is 0, the measured one is not, and the error covers what is left."""
    size, count = 16, 64
    sets = [random(count, size, seed=number) for number in range(80)]
    found = [measure(one, other) for one, other in zip(sets[::2], sets[1::2], strict=True)]
    values, extrapolated, errors = (
        torch.tensor([getattr(one, name) for one in found]) for name in ("value", "extrapolated", "std_error")
    )
    assert values.mean() > 2
    assert abs(extrapolated.mean()) < 0.15 * values.mean()
    assert 0.6 < errors.mean() / extrapolated.std() < 1.7


def test_the_bias_of_means_alone_is_taken_off_exactly():
    """Along one axis with a far mean: E d = (difference)^2 + var / n + var / m + (std - std)^2, all of it 1 / n."""
    found = [measure(random(20, 1, seed=2 * trial) + 2, random(20, 1, seed=2 * trial + 1)).extrapolated
             for trial in range(200)]  # fmt: skip
    mean = torch.tensor(found)
    assert float(mean.mean()) == pytest.approx(4, abs=3 * float(mean.std()) / 200**0.5)


def test_few_images_get_a_caution_and_too_few_are_refused():
    features = random(30, 16)
    assert measure(features, random(17, 16, seed=1)).caution is None
    caution = measure(features, random(16, 16, seed=1)).caution
    assert caution is not None and "30 samples and 16 images are few for 16 features" in caution
    with pytest.raises(InputError, match="3 samples against 30 images"):
        measure(features[:3], features)


def test_features_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="features of 3 and of 4 numbers"):
        measure(random(9, 3), random(9, 4))
    with pytest.raises(InputError, match="finite"):
        measure(random(9, 3) / 0, random(9, 3))


def test_table_and_plot_name_the_best(tmp_path):
    reference = random(20, 3, seed=9)
    distances = {step: measure(random(20, 3, seed=step) + shift, reference) for step, shift in ((100, 2), (200, 0.1))}
    named = {f"step {step}": distance for step, distance in distances.items()}
    assert best(named) == "step 200"
    write_table(tmp_path / "frechet.csv", named)
    with open(tmp_path / "frechet.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(named)
    assert float(rows[1]["value"]) == pytest.approx(distances[200].value)
    assert (rows[0]["samples"], rows[0]["reference"], rows[0]["features"]) == ("20", "20", "3")
    write_plot(tmp_path / "frechet.png", distances, "Fréchet distance (own features)")
    assert (tmp_path / "frechet.png").read_bytes()[:4] == b"\x89PNG"
