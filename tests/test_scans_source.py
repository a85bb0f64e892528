"""Scans as training data: what an item holds, that its samples stay samples of one image, and tiny runs on them."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings

import h5py
import pytest
import torch

from mri_score import experiment
from mri_score.config_file import find_config, read_config
from mri_score.data.acquisition import Acquisition
from mri_score.data.scale import percentile
from mri_score.data.scan import Scan, Undersampling
from mri_score.errors import InputError
from mri_score.experiment import calibrate
from mri_score.numerics.fourier import fft, ifft, resize_image, resize_kspace
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense
from mri_score.readers.fastmri import FastMRI, write_fastmri
from mri_score.simulation.phantom import phantom
from mri_score.simulation.simulate import simulate
from mri_score.sources.full_scans import Slices
from mri_score.sources.undersampled_scans import UndersampledScans, filled_image
from mri_score.training.batches import Batches

SIZE, COILS, R, SNR = 64, 4, 3.0, 20.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("undersampled")
    simulate(path, volumes=2, slices=2, size=SIZE, coils=COILS, noise=SNR, undersample=R)
    return path


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    path = tmp_path_factory.mktemp("full")
    simulate(path, volumes=2, slices=2, size=SIZE, coils=COILS, noise=SNR)
    return path


@pytest.fixture(scope="module")
def source(folder):
    return UndersampledScans([folder], quiet=True)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A file without noise and masks of columns, and what it was made of."""
    scan = phantom((45, 50), coils=COILS, noise_snr=None)
    mask = torch.rand(50, generator=seeded(4)) < 0.4
    mask[17:33] = True
    path = tmp_path_factory.mktemp("known") / "known.h5"
    write_fastmri(path, scan.kspace * mask, mask=mask)
    return path, scan, mask[None, None, None]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def equal(one: Acquisition, other: Acquisition) -> bool:
    keys = ("kspace", "maps", "mask", "noise_std")
    return one.name == other.name and all(torch.equal(getattr(one, key), getattr(other, key)) for key in keys)


# ---- What an item is.


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_slice_that_cannot_be_used_costs_no_other(value, folder, tmp_path):
    path = next(iter(sorted(folder.glob("*.h5"))))
    spoilt = tmp_path / path.name
    shutil.copy(path, spoilt)
    with h5py.File(spoilt, "r+") as file:
        file["kspace"][1, 0, 3, :] = value
    source = UndersampledScans([spoilt], quiet=True)
    whole = UndersampledScans([path], quiet=True)
    assert [slice for _, slice in source.places] == [slice for _, slice in whole.places if slice != 1]
    assert any(note.startswith(f"{path.stem}: left out: ") and "slice 1, coil 0" in note for note in source.notes)


def test_a_slice_is_what_reconstruction_sees(folder, source):
    assert len(source) == 4
    for number, (scan, slice) in enumerate(source.places):
        item, expected = source.item(number), Scan(FastMRI(scan.file.path)).acquisition(slice)
        for key in ("kspace", "maps", "mask", "noise_std", "scale"):
            torch.testing.assert_close(getattr(item, key), getattr(expected, key))
        assert item.image is None
        assert percentile(Sense(item.maps, item.mask).cg_sense(item.kspace)).item() == pytest.approx(1, rel=1e-4)


def test_a_full_file_is_undersampled_by_one_mask(full):
    source = UndersampledScans([full], acceleration=R, calibration_lines=12, mask_seed=5, quiet=True)
    masks = [source.item(number).mask for number in range(4)]
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
    for (scan, _), mask in zip(source.places, masks, strict=True):
        assert torch.equal(mask, Scan(FastMRI(scan.file.path), Undersampling(R, calibration_lines=12, seed=5)).mask)
        assert mask.shape == (1, 1, 1, SIZE) and int(mask.sum()) == round(SIZE / R)
    assert not (source.item(0).kspace * ~masks[0]).any()


def test_noise_is_that_of_the_samples(source):
    """The outermost samples of these heads hold little else."""
    for seed in range(6):
        item = source.sample(seeded(seed))
        columns = item.mask.flatten().nonzero().flatten()
        outer = item.kspace[..., columns[[0, 1, -2, -1]]]
        measured = torch.view_as_real(outer).abs().median() / 0.6745
        assert measured.item() == pytest.approx(item.noise_std.item(), rel=0.2)
        stored = float(FastMRI(source.places[0][0].file.path).attributes["noise_std"])
        assert (item.noise_std * item.scale).item() == pytest.approx(stored, rel=0.12)


def test_what_augments_keeps_the_physics(known):
    """Maps and samples of a flipped band explain each other as well as those of the whole slice do."""
    path, _, mask = known
    plain = UndersampledScans([path], augment=False, quiet=True).item(0)
    image = Sense(plain.maps, plain.mask).cg_sense(plain.kspace)
    whole = float((Sense(plain.maps, plain.mask)(image) - plain.kspace).norm() / plain.kspace.norm())
    source = UndersampledScans([path], band=21, quiet=True)
    flips = set()
    for seed in range(12):
        item = source.sample(seeded(seed))
        assert item.kspace.shape == item.maps.shape == (1, COILS, 21, 50) and torch.equal(item.mask, mask)
        operator = Sense(item.maps, item.mask)
        found = operator.cg_sense(item.kspace)
        assert float((operator(found) - item.kspace).norm() / item.kspace.norm()) < 2 * whole + 0.01
        gain = plain.noise_std / item.noise_std
        windows = [(start, way) for start in range(25) for way in (1, -1)]
        upright = image[0].unfold(0, 21, 1).movedim(-1, 1)
        bands = [upright[start] if way > 0 else upright[start].flip(0) for start, way in windows]
        errors = [float((found[0].abs() * gain - band.abs()).norm() / image.norm()) for band in bands]
        assert min(errors) < 0.02
        flips.add(windows[errors.index(min(errors))][1])
        assert (item.scale * gain**-1).item() == pytest.approx(plain.scale.item())
    assert flips == {1, -1}


def test_size_crops_the_readout_in_the_image_and_the_columns_in_kspace(known):
    path, scan, mask = known
    plain = UndersampledScans([path], augment=False, quiet=True).item(0)
    item = UndersampledScans([path], size=(31, 37), augment=False, quiet=True).item(0)
    assert item.kspace.shape == (1, COILS, 31, 37)
    assert torch.equal(item.mask, resize_kspace(mask, (1, 37)))
    expected = fft(resize_image(ifft(resize_kspace(plain.kspace, (45, 37))), (31, 37)))
    factor = (expected.conj() * item.kspace).sum() / expected.abs().square().sum()
    torch.testing.assert_close(item.kspace, factor * expected, atol=1e-4, rtol=1e-3)
    assert factor.real.item() == pytest.approx((37 / 50) ** 0.5, rel=0.1)  # an image of the same values
    torch.testing.assert_close(item.maps.abs().square().sum(1), torch.ones(1, 31, 37))
    with pytest.raises(InputError, match="make data.size smaller"):
        UndersampledScans([path], size=(31, 51), quiet=True).item(0)


def test_noise_follows_the_samples_that_are_narrowed(folder, source):
    """Noise over samples is one number, whatever the scale of the image."""
    narrow = UndersampledScans([folder], size=(SIZE, 40), augment=False, quiet=True)
    item, plain = narrow.item(1), source.item(1)
    factor = (item.kspace.norm() / resize_kspace(plain.kspace, (SIZE, 40)).norm()).item()
    assert (item.noise_std / plain.noise_std).item() == pytest.approx(factor, rel=1e-4)


@pytest.mark.parametrize("coils", [3, 7])
def test_coils_of_any_number_become_as_many(folder, source, coils):
    item = UndersampledScans([folder], coils=coils, augment=False, quiet=True).item(0)
    assert item.kspace.shape == item.maps.shape == (1, coils, SIZE, SIZE)
    torch.testing.assert_close(item.maps.abs().square().sum(1), torch.ones(1, SIZE, SIZE))
    if coils > COILS:
        blind = item.kspace[:, COILS:, :, item.mask.flatten()]
        assert not item.maps[:, COILS:].any() and not (item.kspace * ~item.mask).any()
        measured = torch.view_as_real(blind).std().item()
        assert measured == pytest.approx(item.noise_std.item(), rel=4 / (2 * blind.numel()) ** 0.5)
        torch.testing.assert_close(item.kspace[:, :COILS], source.item(0).kspace)


def test_samples_follow_their_generator_in_every_process(folder, source):
    travelled = pickle.loads(pickle.dumps(source))
    first = [source.sample(seeded(seed)) for seed in range(4)]
    assert all(equal(travelled.sample(seeded(seed)), first[seed]) for seed in (3, 2, 1, 0))
    assert not equal(first[0], first[1])
    batches = Batches(source, batch_size=3, seed=1)
    (made,) = batches.loader(5, 6, workers=1)
    assert equal(made, batches[5]) and made.image is None
    assert made.kspace.shape == made.maps.shape == (3, COILS, SIZE, SIZE)
    assert made.mask.shape == (3, 1, 1, SIZE) and made.noise_std.shape == (3,)
    assert equal(made.to(torch.device("cpu")), made)


def test_maps_are_kept(folder, source, tmp_path, monkeypatch):
    first = UndersampledScans([folder], cache=tmp_path, augment=False, quiet=True).item(2)
    monkeypatch.setattr("mri_score.sources.undersampled_scans.coil_maps", None)
    assert equal(UndersampledScans([folder], cache=tmp_path, augment=False, quiet=True).item(2), first)
    torch.testing.assert_close(first.maps, source.item(2).maps)


# ---- What cannot be.


def test_scans_of_two_sizes_need_one(folder, tmp_path):
    simulate(tmp_path, volumes=1, slices=1, size=(SIZE, 72), coils=3, noise=SNR, undersample=R)
    with pytest.raises(InputError, match="data.size and data.coils"):
        Batches(UndersampledScans([folder, tmp_path], quiet=True), 16, seed=0)[0]
    even = UndersampledScans([folder, tmp_path], size=SIZE, coils=COILS, quiet=True)
    assert Batches(even, 16, seed=0)[0].kspace.shape == (16, COILS, SIZE, SIZE)


def test_points_leave_no_axis_free(full):
    source = UndersampledScans([full], acceleration=R, law="poisson-disc", quiet=True)
    item = source.sample(seeded(0))
    assert item.mask.shape == (1, 1, SIZE, SIZE) and not (item.kspace * ~item.mask).any()
    source.band = 20
    with pytest.raises(InputError, match="set data.band to null"):
        source.sample(seeded(0))


def test_rows_may_be_the_masked_axis(full):
    source = UndersampledScans([full], acceleration=R, axis=-2, band=30, quiet=True)
    item = source.sample(seeded(0))
    assert item.mask.shape == (1, 1, SIZE, 1) and item.kspace.shape == (1, COILS, SIZE, 30)


@pytest.mark.parametrize(("changes", "message"), [({"coils": 0}, "data.coils is 0"), ({"band": 65}, "make it smaller")])
def test_what_does_not_fit_is_told(folder, changes, message):
    with pytest.raises(InputError, match=message):
        UndersampledScans([folder], quiet=True, **changes).sample(seeded(0))


def test_an_undersampled_file_is_not_undersampled_again(folder, full):
    with pytest.raises(InputError, match="already undersampled"):
        UndersampledScans([folder], acceleration=R, quiet=True)
    both = UndersampledScans([folder, full], acceleration=R, strict=False, quiet=True)
    assert len(both) == 4 and sum(note.startswith("left out") for note in both.notes) == 2


# ---- The numbers of the dataset, and runs.


def test_a_filled_image_has_white_noise_of_the_scan():
    scan = phantom((33, 40), coils=3, noise_snr=None)
    mask = (torch.arange(40) % 3 == 0)[None, None, None]
    noise_std = torch.tensor([0.1])
    noise = 0.1 * noise_like(scan.kspace, generators(1))
    item = Acquisition("noise", noise * mask, scan.maps, mask, noise_std)
    image = filled_image(item, generators(2))
    spectrum = torch.view_as_real(fft(image))
    bound = 4 / (2 * image.numel()) ** 0.5
    for part in (spectrum[..., mask.flatten(), :], spectrum[..., ~mask.flatten(), :], spectrum):
        assert part.std().item() == pytest.approx(0.1, rel=2 * bound)
    whole = Acquisition("full", scan.kspace, scan.maps, torch.ones_like(mask), noise_std)
    torch.testing.assert_close(filled_image(whole, generators(2)), scan.image, atol=1e-4, rtol=1e-3)


def test_calibration_measures_scans_nearly_as_images(full, source):
    """The same heads, full and undersampled: R = 3 hides some energy, and its noisier CG-SENSE image a little scale."""
    found = calibrate({"seed": 0}, source, count=40)
    expected = calibrate({"seed": 0}, Slices([full], noise=True, quiet=True), count=40)
    assert found.sd == pytest.approx(expected.sd, rel=0.25)
    assert found.sigma_max == pytest.approx(expected.sigma_max, rel=0.3)
    assert found.noise_std == pytest.approx(expected.noise_std, rel=0.3)


LOSSES = {
    "ambient": {"keep": 0.8, "centre": 6},
    "gsure": {"law": "variable-density", "acceleration": R},
    "splitting": {"keep": 0.6, "centre": 6, "law": "variable-density", "acceleration": R},
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_run_learns_from_samples_alone(name, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {
        "dataset": "undersampled", "calibration": {"count": 20},
        "data": {"name": "scans", "paths": [str(folder)], "band": 24, "quiet": True},
        "network": {"name": "unet", "widths": [8, 12], "blocks": 1, "embedding": 16, "extra_channels": 1},
        "schedule": {"name": "lognormal", "centre": 0.2}, "loss": {"name": name, **LOSSES[name]},
        "training": {"steps": 60, "batch_size": 4, "learning_rate": 5e-3, "warmup": 5, "workers": 0, "log_every": 5,
                     "save_every": 200, "ema_decay": 0.9},
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        experiment.run(config, tmp_path / "run", device="cpu", quiet=True, say=lambda _: None)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 12 and sum(losses[-4:]) < 0.9 * 2 * sum(losses[:2])
    record = json.loads((tmp_path / "run" / "prior.json").read_text())
    assert record["network"]["extra_channels"] == 1


def test_validation_needs_images(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = {"name": "scans", "paths": [str(folder)], "quiet": True}
    config = {"dataset": "undersampled", "calibration": {"count": 4}}
    config |= {"data": section, "validation": section, "network": {"name": "unet"}}
    with pytest.raises(InputError, match="validation needs images"):
        experiment.run(config, tmp_path / "run", device="cpu", quiet=True, say=lambda _: None)


@pytest.mark.parametrize("loss", ["ambient", "splitting"])
def test_the_bundled_configs_bind(loss, folder, tmp_path):
    name = f"brain_undersampled_{loss}.yml"
    changes = [f"data.paths=[{folder}]", "data.size=64", "data.band=null", "data.cache=null", "data.coils=4"]
    config = read_config(name, changes)
    assert find_config(name).exists() and config["network"]["extra_channels"] == 1
    source = experiment.make_source(config)
    parameters = calibrate(config, source, count=4)
    prior, value = experiment.make_prior(config, parameters), experiment.make_loss(config, parameters)
    batch = Batches(source, 2, seed=0)[0]
    losses = value(prior, batch, generators(0, draws=2), 0)
    assert losses.shape == (2,) and 0.1 < float(losses.detach().mean()) < 10
