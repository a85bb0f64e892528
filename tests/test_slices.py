"""Training slices of fastMRI folders: what an image is, its noise and scale, the cache, and what is refused."""

from __future__ import annotations

import os
import pickle

import h5py
import numpy as np
import pytest
import torch

from mri_score.data.coils import coil_maps, truth_image
from mri_score.data.noise_rings import whiten
from mri_score.data.scale import percentile
from mri_score.data.scan import LEAST_NOISE
from mri_score.errors import InputError
from mri_score.numerics.fourier import fft, ifft, resize_image
from mri_score.numerics.noise import generators, noise_like
from mri_score.readers.fastmri import FastMRI, write_fastmri
from mri_score.simulation.simulate import simulate
from mri_score.sources import combined_images as combined
from mri_score.sources.augmentation import SCALES
from mri_score.sources.full_scans import Slices
from mri_score.training.batches import Batches

SMALL = {"volumes": 2, "slices": 3, "size": 64, "coils": 4}
SNR = 15.0  # dB; in scans of 64 lines with less noise the outer k-space is signal


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noisy")
    simulate(folder, **SMALL, noise=SNR)
    return folder


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    simulate(folder, **SMALL, noise=None)
    return folder


@pytest.fixture(scope="module")
def source(noisy):
    return Slices([noisy], augment=False, noise=True)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def true_noise(source: Slices, number: int) -> float:
    """The noise_std that the simulation stored, in the file's units."""
    return float(FastMRI(source.places[number][0].file.path).attributes["noise_std"])


def one_volume(path, kspace):
    write_fastmri(path, kspace)
    return path


# ---- The image.


def test_images_carry_all_the_signal_of_the_coils(clean):
    source = Slices([clean])
    assert len(source) == 6
    for number, (volume, slice) in enumerate(source.places):
        image = source.image(number)
        target = volume.file.target(slice)
        target = target / percentile(target)
        inside = target > 0.15
        assert image.dtype == torch.complex64 and image.shape == (64, 64)
        assert ((image.abs() - target)[inside].norm() / target[inside].norm()).item() < 0.01


def test_the_99th_percentile_of_the_whole_image_is_one(source):
    for number in range(6):
        assert percentile(source.image(number)).item() == pytest.approx(1)
    cropped = Slices([path.file.path for path in source.volumes], size=(40, 33))
    assert torch.equal(cropped.image(4), resize_image(source.image(4), (40, 33)))


def test_one_coil_is_its_own_image(tmp_path):
    kspace = noise_like(torch.empty(2, 31, 26, dtype=torch.complex64), generators(0, draws=2))
    source = Slices([one_volume(tmp_path / "scan.h5", kspace)], augment=False)
    image = ifft(kspace[1])
    torch.testing.assert_close(source.image(1), image / percentile(image), atol=1e-5, rtol=1e-4)


def test_scale_leads_back_to_the_files_units(source):
    item = source.sample(seeded(3))
    raw = [volume.image(slice) for volume, slice in source.places]
    assert sum(torch.allclose(item.image[0] * item.scale, image, rtol=1e-4) for image in raw) == 1


def test_samples_follow_their_generator_in_every_process(noisy, source):
    """Also of one that travelled to a worker, and in batches that workers made."""
    augmented = Slices([noisy], patch=20, noise=True)
    travelled = pickle.loads(pickle.dumps(augmented))
    first = [augmented.sample(seeded(seed)) for seed in range(5)]
    for seed in (4, 3, 2, 1, 0):
        again = travelled.sample(seeded(seed))
        assert torch.equal(again.image, first[seed].image) and torch.equal(again.noise_std, first[seed].noise_std)
        assert again.name == first[seed].name and again.image.shape == (1, 20, 20)
    assert not any(torch.equal(first[0].image, other.image) for other in first[1:])
    batches = Batches(augmented, batch_size=3, seed=1)
    (made,) = batches.loader(5, 6, workers=1)
    assert torch.equal(made.image, batches[5].image) and torch.equal(made.noise_std, batches[5].noise_std)
    assert made.noise_std.shape == (3,)


def test_all_slices_are_drawn(source):
    random = seeded(0)
    counts: dict[tuple, int] = {}
    for _ in range(300):
        item = source.sample(random)
        key = (item.name, round(float(item.scale) * 1e9))
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 6 and min(counts.values()) > 25


def test_patches_are_windows_of_the_image(noisy, source):
    patches = Slices([noisy], patch=50, augment=False)
    windows = torch.stack([source.image(number) for number in range(6)]).unfold(1, 50, 1).unfold(2, 50, 1)
    for seed in range(5):
        found = (windows.flatten(0, 2) == patches.sample(seeded(seed)).image).flatten(1).all(1)
        assert found.sum() == 1


def test_mixed_matrices_need_a_size(noisy, tmp_path):
    simulate(tmp_path, volumes=1, slices=2, size=(50, 75), coils=3, noise=SNR)
    mixed = Slices([noisy, tmp_path], augment=False)
    assert {mixed.image(number).shape for number in range(8)} == {(64, 64), (50, 75)}
    with pytest.raises(InputError, match="data.size"):
        Batches(mixed, 32, seed=0)[0]
    sized = Slices([noisy, tmp_path], size=(64, 60))
    assert Batches(sized, 8, seed=0)[0].image.shape == (8, 64, 60)  # turned by a half, never by a quarter
    padded = Slices([tmp_path], size=(64, 60), augment=False)
    assert torch.equal(padded.image(0)[7:57], resize_image(mixed.image(6), (50, 60)))
    assert not padded.image(0)[:7].any() and not padded.image(0)[57:].any()


# ---- The noise.


def test_noise_std_is_that_of_the_scan(source):
    for number, (volume, _) in enumerate(source.places):
        _, noise_std, scale = source._item(number)
        assert float(noise_std * scale) == pytest.approx(true_noise(source, number), rel=0.05)
        assert volume.whitening is not None
    assert source.notes == []


def test_the_noise_in_the_image_has_noise_std(source, clean):
    """The same maps on both scans: those of a clean one would turn the phase. They know a little of the noise."""
    for number, (volume, slice) in enumerate(source.places):
        with_noise, without = (
            whiten(FastMRI(folder / volume.file.path.name).kspace(slice)[None], volume.whitening)
            for folder in (volume.file.path.parent, clean)
        )
        maps = coil_maps(with_noise)[0]
        noise = source.image(number) * source._item(number)[2] - truth_image(without, maps)[0]
        for part in (noise.real, noise.imag):
            assert part.std().item() == pytest.approx(true_noise(source, number), rel=0.08)
        neighbours = (noise[1:] * noise[:-1].conj()).mean() / noise.abs().square().mean()
        assert neighbours.abs() < 0.05


def test_unequal_coils_are_whitened(tmp_path):
    """One loud and two mixed coils: combined as they are, they would make a noise that varies with the maps."""
    mixing = torch.tensor([[4, 0, 0], [0, 1, 0.7], [0, 0, 1]], dtype=torch.complex64)
    noise = noise_like(torch.empty(8, 3, 64, 64, dtype=torch.complex64), generators(0, draws=8))
    signal = torch.zeros(3, 64, 64, dtype=torch.complex64)
    signal[:, 28:36, 28:36] = 300 * noise[0, :, :8, :8]
    path = one_volume(tmp_path / "scan.h5", whiten(noise, mixing) + signal)
    volume = Slices([path], augment=False, noise=True).volumes[0]
    power = (mixing @ mixing.mH).diagonal().real.mean()
    assert volume.noise_std == pytest.approx(float(power.sqrt()), rel=0.03)
    whitened = volume.whitening @ mixing
    torch.testing.assert_close(whitened @ whitened.mH / power, torch.eye(3) + 0j, atol=0.06, rtol=0)
    maps = coil_maps(whiten(volume.file.kspace(5)[None], volume.whitening))[0]
    combined_noise = truth_image(whiten(whiten(noise[5:6], mixing), volume.whitening), maps)
    assert combined_noise.real.std().item() == pytest.approx(volume.noise_std, rel=0.05)


def test_noise_std_has_a_floor(tmp_path):
    y, x = torch.arange(64) - 32, torch.arange(48) - 24
    disc = torch.exp(-(y[:, None] ** 2 + x**2) / 50.0) + 0j
    kspace = fft(disc)[None, None] * torch.tensor([1, 0.5j])[:, None, None]
    kspace = kspace + 1e-5 * noise_like(kspace, generators(0))
    source = Slices([one_volume(tmp_path / "scan.h5", kspace)], augment=False, noise=True)
    assert source.sample(seeded(0)).noise_std == LEAST_NOISE
    assert source.volumes[0].noise_std < 1e-4


def test_a_given_noise_std_is_that_of_the_items(noisy, source):
    given = Slices([noisy], augment=False, noise_std=0.07)
    item, measured = given.sample(seeded(3)), source.sample(seeded(3))
    assert float(item.noise_std) == pytest.approx(0.07) and torch.equal(item.image, measured.image)
    with pytest.raises(InputError, match="data.noise_std is -1; it must be positive"):
        Slices([noisy], noise_std=-1)


def test_without_noise_items_have_no_level(noisy, source):
    silent = Slices([noisy], augment=False)
    assert silent.sample(seeded(0)).noise_std is None
    assert torch.equal(silent.image(2), source.image(2))


def test_augmentation_scales_noise_and_image_alike(noisy, source):
    augmented = Slices([noisy], noise=True)
    gains, phases = [], []
    for seed in range(60):
        item, plain = augmented.sample(seeded(seed)), source.sample(seeded(seed))
        gain = float(plain.scale / item.scale)
        assert float(item.noise_std) == pytest.approx(gain * float(plain.noise_std), rel=1e-5)
        symmetric = [torch.rot90(one, turn) for turn in range(4) for one in (plain.image[0], plain.image[0].flip(-1))]
        ratios = torch.stack([item.image[0] / one for one in symmetric])
        ratio = ratios[(ratios - ratios[:, :1, :1]).abs().flatten(1).amax(1) < 1e-3]
        assert len(ratio) == 1 and ratio[0, 0, 0].abs().item() == pytest.approx(gain, rel=1e-3)
        gains.append(gain)
        phases.append(ratio[0, 0, 0] / gain)
    assert SCALES[0] <= min(gains) < 0.7 and 1.1 < max(gains) <= SCALES[1]
    assert torch.stack(phases).mean().abs() < 0.35


def test_what_size_adds_is_noise_too(noisy, source):
    wide = Slices([noisy], size=91, augment=False, noise=True, memory=0)
    image, noise_std, _ = wide._item(3)
    torch.testing.assert_close(resize_image(image, (64, 64)), source.image(3))
    added = torch.cat([image[:13].flatten(), image[77:].flatten()])
    assert added.real.std().item() == pytest.approx(noise_std.item(), rel=0.05)
    assert added.imag.std().item() == pytest.approx(noise_std.item(), rel=0.05)
    assert torch.equal(wide.image(3), image)
    other, level, _ = wide._item(4)  # noise of its own, not the same at another scale
    assert not torch.allclose(other[:13] / level, image[:13] / noise_std, atol=0.1)
    assert not Slices([noisy], size=91).image(3)[:13].any()


# ---- Cache and memory.


def test_cached_images_are_made_once(noisy, source, tmp_path, monkeypatch):
    first = Slices([noisy], augment=False, noise=True, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2

    def refuse(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(combined, "truth_image", refuse)
    monkeypatch.setattr(FastMRI, "kspace", refuse)
    again = Slices([noisy], augment=False, noise=True, cache=tmp_path)
    assert len(again) == len(first) == 6
    for seed in range(4):
        expected = source.sample(seeded(seed))
        for item in (first.sample(seeded(seed)), again.sample(seeded(seed))):
            assert torch.equal(item.image, expected.image) and torch.equal(item.noise_std, expected.noise_std)


def test_a_changed_file_and_a_broken_cache_are_made_anew(tmp_path):
    (path,) = simulate(tmp_path / "scans", **{**SMALL, "volumes": 1}, noise=SNR)
    cache = tmp_path / "cache"
    expected = Slices([path], cache=cache).image(0)
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:3000])
    assert torch.equal(Slices([path], cache=cache).image(0), expected)
    with h5py.File(kept, "a") as file:
        del file.attrs["noise_std"]
    assert torch.equal(Slices([path], cache=cache).image(0), expected)
    os.utime(path, ns=(0, 0))
    assert torch.equal(Slices([path], cache=cache).image(0), expected)
    assert len(list(cache.iterdir())) == 2
    source = Slices([path], cache=cache)
    for file in cache.iterdir():
        file.unlink()
    with pytest.raises(InputError, match="is not a file"):
        source.image(0)


def test_what_is_read_again_is_the_same(noisy, tmp_path):
    """The scale of a slice is kept, and neither the cache of images nor that of scales changes a bit."""
    first, again = (Slices([noisy], noise=True, memory=0, cache=cache) for cache in (None, tmp_path))
    for seed in (0, 1, 0):
        items = [source.sample(seeded(seed)) for source in (first, again, again)]
        for item in items[1:]:
            assert torch.equal(item.image, items[0].image) and torch.equal(item.noise_std, items[0].noise_std)
            assert torch.equal(item.scale, items[0].scale)
    assert set(again._scales) == {number for number in range(len(again)) if number in first._scales}


def test_memory_is_bounded_and_spares_work(noisy, monkeypatch):
    source, made = Slices([noisy], memory=2), []
    monkeypatch.setattr(combined, "truth_image", lambda kspace: made.append(1) or truth_image(kspace))
    for number in (0, 1, 0, 1, 2, 2, 0):
        source.image(number)
    assert len(made) == 4 and len(source._images) == 2


def test_no_file_stays_open(noisy):
    source = Slices([noisy])
    source.image(0)
    assert all(volume.file._handle is None for volume in source.volumes)


# ---- Which files and slices.


def test_patterns_choose_volumes(noisy):
    first, second = ({volume.name for volume in Slices([noisy], include=[p]).volumes} for p in ("*1.h5", "sim_T2_0002"))
    assert (first, second) == ({"sim_T2_0001"}, {"sim_T2_0002"})
    rest = Slices([noisy], exclude=["*_0001*", "file*"])
    assert {volume.name for volume in rest.volumes} == second and rest.notes == ["no file matches 'file*'"]
    assert len(Slices([noisy, noisy / "sim_T2_0001.h5"])) == 6  # named twice, used once
    with pytest.raises(InputError, match="can be used; no file matches 'knee.'"):
        Slices([noisy], include=["knee*"])


def test_slices_without_signal_are_left_out(noisy, tmp_path):
    kspace = torch.stack([FastMRI(noisy / "sim_T2_0001.h5").kspace(slice) for slice in range(3)])
    level = FastMRI(noisy / "sim_T2_0001.h5").attributes["noise_std"]
    noise = level * noise_like(kspace[:1], generators(1))
    path = one_volume(tmp_path / "scan.h5", torch.cat([torch.zeros_like(noise), noise, kspace]))
    source = Slices([path], noise=True, augment=False)
    assert [slice for _, slice in source.places] == [2, 3, 4]
    assert source.volumes[0].noise_std == pytest.approx(level, rel=0.05)
    assert [slice for _, slice in Slices([path], cache=tmp_path / "cache").places] == [2, 3, 4]
    with pytest.raises(InputError, match="slice 0, coil 0 is all zeros"):
        Slices([path], skip_empty=False)
    path = one_volume(tmp_path / "noise.h5", torch.cat([noise, kspace]))
    assert len(Slices([path], skip_empty=False)) == 4 and len(Slices([path])) == 3


def test_undersampled_scans_are_refused(tmp_path):
    simulate(tmp_path, **SMALL, undersample=3)
    with pytest.raises(InputError, match="sim_T2_0001.h5 is undersampled 3.048 fold, .* need fully sampled scans"):
        Slices([tmp_path])
    with pytest.raises(InputError, match="no scan of .* can be used; left out: .*_0001.*; left out: .*_0002"):
        Slices([tmp_path], strict=False)


def test_a_stored_mask_of_ones_is_no_undersampling(noisy, tmp_path):
    kspace = FastMRI(noisy / "sim_T2_0001.h5").kspace(0)[None]
    write_fastmri(tmp_path / "scan.h5", kspace, mask=np.ones(64))
    assert len(Slices([tmp_path])) == 1


@pytest.mark.parametrize("cached", [False, True])
def test_bad_files_are_named_or_left_out(noisy, tmp_path, cached):
    cache = tmp_path / "cache" if cached else None
    folder = tmp_path / "scans"
    folder.mkdir()
    kspace = FastMRI(noisy / "sim_T2_0001.h5").kspace(0)[None].repeat(12, 1, 1, 1)
    one_volume(folder / "good.h5", kspace)
    assert Slices([folder], cache=cache, strict=False).notes == []
    broken = kspace.clone()
    broken[10, 2, 30, 30] = torch.nan
    one_volume(folder / "nan.h5", broken)
    (folder / "text.h5").write_text("no")
    with pytest.raises(InputError, match="text.h5"):
        Slices([folder], cache=cache)
    source = Slices([folder], cache=cache, strict=False)
    assert [slice for _, slice in source.places] == [*range(12), *range(10), 11]
    assert len(source.notes) == 2 and all(note.startswith("left out: ") for note in source.notes)
    assert "nan.h5: kspace of slice 10, coil 2 holds NaN" in source.notes[0] and "text.h5" in source.notes[1]
    assert source.volumes[1].noise_std == pytest.approx(source.volumes[0].noise_std, rel=0.05)


def test_a_volume_without_a_good_slice_is_refused(noisy, tmp_path):
    kspace = FastMRI(noisy / "sim_T2_0001.h5").kspace(0)[None].repeat(2, 1, 1, 1)
    kspace[0], kspace[1, 0] = 0, torch.inf
    path = one_volume(tmp_path / "bad.h5", kspace)
    with pytest.raises(InputError, match="bad.h5: kspace of slice 1, coil 0 holds NaN or infinity"):
        Slices([path])


def test_scans_too_small_for_maps_are_named(tmp_path):
    kspace = noise_like(torch.empty(1, 2, 2, 30, dtype=torch.complex64), generators(0))
    source = Slices([one_volume(tmp_path / "scan.h5", kspace)])
    with pytest.raises(InputError, match="scan.h5, slice 0: coil maps: .* at least 3"):
        source.image(0)


def test_no_data_says_how_to_get_some(tmp_path):
    for place in (tmp_path / "absent", tmp_path):
        with pytest.raises(InputError, match="mri-score simulate --out DIR.*fastmri.med.nyu.edu") as caught:
            Slices([place])
        assert str(place) in str(caught.value)


def test_a_patch_larger_than_the_size_is_refused(noisy):
    with pytest.raises(InputError, match="patch of 40 .* size .32, 64."):
        Slices([noisy], size=(32, 64), patch=40)
