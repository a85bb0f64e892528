"""The supervised baseline: simulated scans that hide the truth, a loss with the posterior mean as minimum, a run."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch

from mri_score import experiment
from mri_score.baselines import cg_sense, supervised
from mri_score.data.masks import make_mask
from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.losses import Regression
from mri_score.models.analytic import GaussianPrior
from mri_score.numerics.fourier import ifft
from mri_score.numerics.noise import generators, noise_like
from mri_score.numerics.solve import conjugate_gradient
from mri_score.operators.sense import Sense
from mri_score.priors.store import build_prior, load_prior, load_supervised, save_prior
from mri_score.sources.simulated_scans import UndersampledImages, random_maps, scan
from mri_score.training.batches import Batches

SHAPE = (12, 41)
NETWORK = {"name": "unet", "widths": [8, 16], "blocks": 1, "embedding": 8}


def one(seed: int = 0):
    return generators(seed)[0]


def image(shape=SHAPE, dtype=torch.complex64):
    return noise_like(torch.zeros(1, *shape, dtype=dtype), generators(5))


def lines(acceleration=3.0, shape=SHAPE):
    return make_mask("variable-density", shape, acceleration, calibration_lines=4, seed=1)[None, None]


def heads(count=3, size=40):
    """Discs of random places and values in a dim square: magnitude images (count, size, size)."""
    rows, cols = np.mgrid[:size, :size] / size - 0.5
    random = np.random.default_rng(0)
    images = np.where(np.maximum(abs(rows), abs(cols)) < 0.4, 400.0, 0.0)[None].repeat(count, 0)
    for one_image in images:
        for _ in range(6):
            y, x = random.uniform(-0.3, 0.3, 2)
            one_image[(rows - y) ** 2 + (cols - x) ** 2 < random.uniform(0.05, 0.12) ** 2] += random.uniform(100, 500)
    return images.astype(np.uint16)


@pytest.fixture
def stack(tmp_path):
    path = tmp_path / "heads.h5"
    with h5py.File(path, "w") as file:
        file["image"] = heads()
    return path


# ---- Simulated scans.


def test_the_estimate_is_cg_sense_of_the_samples():
    maps = random_maps(SHAPE, 5, one())
    item = scan(image(), maps, lines(), 0.02, one())
    witness = cg_sense(item.kspace[0], maps[0], item.mask[0])
    assert torch.allclose(item.estimate[0], witness, atol=1e-4 * float(witness.abs().max()))


@pytest.mark.parametrize("coils", [1, 2])
def test_truth_that_was_not_sampled_does_not_reach_the_estimate(coils):
    maps, mask, truth = random_maps(SHAPE, coils, one()).to(torch.complex128), lines(6.0), image(dtype=torch.complex128)
    operator, change = Sense(maps, mask), noise_like(truth, generators(9))
    seen, _ = conjugate_gradient(operator.normal, operator.normal(change), tolerance=1e-12, max_iterations=2000)
    unseen = change - seen
    assert float(operator(unseen).norm()) < 1e-8 * float(unseen.norm()) and unseen.norm() > 0.3 * change.norm()
    first, second = (scan(x, maps, mask, 0.02, one()) for x in (truth, truth + unseen))
    assert torch.allclose(first.estimate, second.estimate, rtol=0, atol=1e-6)
    seen_too = scan(truth + change, maps, mask, 0.02, one())
    assert not torch.allclose(first.estimate, seen_too.estimate, rtol=0, atol=1e-2)


def test_noise_has_its_level_on_sampled_points_and_none_elsewhere():
    shape = (64, 65)
    maps, mask, truth = random_maps(shape, 8, one()), lines(shape=shape), image(shape)
    item = scan(truth, maps, mask, 0.03, one())
    noise = item.kspace - Sense(maps, mask)(truth)
    sampled = noise[mask.expand_as(noise)]
    assert not noise[~mask.expand_as(noise)].any()
    assert float(sampled.real.std()) == pytest.approx(0.03, rel=0.03) == float(sampled.imag.std())
    assert float(item.acceleration) == pytest.approx(shape[1] / int(mask.sum()))


def test_maps_have_unit_norm_are_smooth_and_a_band_is_part_of_the_whole():
    maps = random_maps((50, 61), 7, one(3))
    assert torch.allclose(maps.abs().square().sum(1), torch.ones(1, 50, 61), atol=1e-5)
    assert maps.diff(dim=-1).abs().max() < 0.2 and maps.diff(dim=-2).abs().max() < 0.2
    assert torch.allclose(random_maps((50, 61), 7, one(3), slice(10, 30)), maps[..., 10:30, :], atol=1e-6)


def test_a_band_of_rows_is_scanned_as_within_the_whole_image():
    maps, mask, band = random_maps(SHAPE, 3, one()), lines(), slice(2, 9)
    whole = ifft(Sense(maps, mask)(image()), axes=(-2,))[..., band, :]
    alone = ifft(Sense(maps[..., band, :], mask)(image()[:, band]), axes=(-2,))
    assert torch.allclose(whole, alone, atol=1e-5)


def test_items_follow_from_their_generator_and_batches_carry_what_the_loss_needs(stack):
    source = UndersampledImages([stack], patch=(24, 40), accelerations=[2], noise_std=(0.01, 0.02))
    batch = Batches(source, 5, seed=0)[3]
    again = Batches(source, 5, seed=0)[3]
    assert torch.equal(batch.estimate, again.estimate)
    assert batch.image.shape == batch.estimate.shape == (5, 24, 40)
    assert ((batch.noise_std >= 0.01) & (batch.noise_std <= 0.02)).all() and len(batch.noise_std.unique()) == 5
    assert torch.allclose(batch.acceleration, torch.full((5,), 2.0), rtol=0.1)
    errors = (batch.image - batch.estimate).abs().square().mean((1, 2)).sqrt()
    assert (errors > 0.003).all() and (errors < 0.3).all()  # two views of one image, not the same and not unrelated


def test_bad_settings_are_named(stack):
    for wrong in ({"accelerations": []}, {"coils": (8, 4)}, {"noise_std": (0.0, 0.1)}):
        with pytest.raises(InputError, match=f"data.{next(iter(wrong))}"):
            UndersampledImages([stack], **wrong)


# ---- The loss.


def test_the_minimum_is_the_posterior_mean_whatever_the_accelerations():
    """Of Gaussian images in white noise the posterior mean and its error have closed forms."""
    root = noise_like(torch.zeros(6, 6, dtype=torch.complex128), generators(1, draws=6)) / 4
    prior, sigma, count = GaussianPrior(torch.zeros(2, 3, dtype=torch.complex128), root @ root.mH), 0.3, 20_000
    clean = prior.sample(generators(2, draws=count))
    noisy = clean + sigma * noise_like(clean, generators(3, draws=count))
    level, acceleration = torch.full((count,), sigma).double(), torch.tensor([4.0, 8.0]).repeat(count // 2)
    batch = TrainingItem("x", image=clean, estimate=noisy, noise_std=level, acceleration=acceleration)

    losses = Regression()(prior, batch, [], 0)
    variance = float((prior.variances * sigma**2 / (prior.variances + sigma**2)).mean())
    for fold, found in ((4, losses[::2]), (8, losses[1::2])):
        assert float(found.mean()) == pytest.approx(variance / (0.01 * fold) ** 2, rel=0.03)
    for factor in (0.9, 1.1):
        other = GaussianPrior(prior.mean, factor**4 * root @ root.mH)
        assert Regression()(other, batch, [], 0).mean() > losses.mean()


def test_images_without_scans_are_refused():
    with pytest.raises(InputError, match="set data.name to simulated_scans"):
        Regression()(build_prior(NETWORK), TrainingItem("x", image=image()), [], 0)


# ---- The network, stored and used.


def fresh():
    torch.manual_seed(0)
    network = build_prior(NETWORK, precondition="regression", sd=0.3, sigma_min=0.01, sigma_max=0.05)
    for name, parameter in network.named_parameters():  # what starts at zero hides the noise level
        if any(part in name for part in ("leave", "modulation", "second")):
            torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def test_a_stored_network_restores_the_same_image_and_is_no_prior(tmp_path):
    save_prior(tmp_path / "prior.safetensors", fresh(), NETWORK, {})
    with pytest.raises(InputError, match="supervised network"):
        load_prior(tmp_path)
    loaded = load_supervised(tmp_path)
    item = scan(image(), random_maps(SHAPE, 4, one()), lines(), 0.02, one())
    slice_of = (item.kspace[0], item.maps[0], item.mask[0])
    restored = supervised(*slice_of, 0.02, loaded)
    with torch.no_grad():
        expected = fresh().denoise(item.estimate, 0.02)[0]
    assert torch.allclose(restored, expected, atol=1e-3) and not torch.allclose(restored, item.estimate[0], atol=1e-2)
    assert torch.equal(supervised(*slice_of, 1e-3, loaded), supervised(*slice_of, 0.01, loaded))
    assert not torch.equal(supervised(*slice_of, 0.05, loaded), supervised(*slice_of, 0.01, loaded))


def test_a_prior_is_no_supervised_network(tmp_path):
    save_prior(tmp_path / "prior.safetensors", build_prior(NETWORK), NETWORK, {})
    with pytest.raises(InputError, match="is a prior"):
        load_supervised(tmp_path)


def test_a_fresh_network_leaves_the_estimate_as_it_is():
    network = build_prior(NETWORK, precondition="regression")
    assert torch.allclose(network.denoise(image(), 0.02), image())


@pytest.mark.slow
def test_the_bundled_config_trains_a_network_that_improves_on_cg_sense(stack, tmp_path):
    data = {"paths": [str(stack)], "patch": [40, 40], "least_resolution": 1.0, "accelerations": [2, 3], "coils": [2, 4]}
    parts = {"data": {"exclude": {}, **data}, "validation": data, "network": NETWORK,
             "training": {"steps": 180, "warmup": 10, "learning_rate": 5e-3, "batch_size": 4, "workers": 0,
                          "log_every": 10, "save_every": 90}}  # fmt: skip
    changes = [f"{name}.{key}={json.dumps(value)}" for name, part in parts.items() for key, value in part.items()]
    run = tmp_path / "run"
    experiment.run(experiment.read_config("brain_supervised.yml", changes), run, quiet=True)

    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    for psnr in log[-1]["psnr"].values():
        assert psnr["network"] > psnr["estimate"] + 0.5
    assert load_supervised(run).sigma_max == 0.05
    assert [path.name for path in sorted((run / "figures").iterdir())] == ["step-00000090.png", "step-00000180.png"]
