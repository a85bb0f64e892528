"""Simulated fastMRI files: what is written, at which level, and that other tools' laws hold for it."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from mri_score.errors import InputError
from mri_score.numerics.fourier import ifft, resize_image
from mri_score.readers.fastmri import FastMRI
from mri_score.simulation.phantom import coil_profiles, pixel_size, slice_heights
from mri_score.simulation.simulate import UNIT, simulate

SMALL = {"volumes": 1, "slices": 2, "size": 64, "coils": 4}


def read(path) -> tuple[torch.Tensor, dict]:
    with h5py.File(path) as file:
        return torch.from_numpy(file["kspace"][()]), dict(file.attrs)


def test_the_same_arguments_write_the_same_samples(tmp_path):
    first = simulate(tmp_path / "a", **SMALL, seed=3)
    second = simulate(tmp_path / "b", **SMALL, seed=3)
    assert [path.name for path in first] == ["sim_T2_0001.h5"]
    assert torch.equal(read(first[0])[0], read(second[0])[0])


def test_volumes_and_seeds_are_other_heads(tmp_path):
    one, two = simulate(tmp_path / "a", **{**SMALL, "volumes": 2}, noise=None)
    other = simulate(tmp_path / "b", **SMALL, seed=1, noise=None)[0]
    images = [FastMRI(path).target(0).flatten() for path in (one, two, other)]
    assert np.corrcoef(np.stack(images))[np.triu_indices(3, 1)].max() < 0.9


def test_contrasts_are_scans_of_one_head(tmp_path):
    t2, pd = (simulate(tmp_path, **SMALL, contrast=c, noise=None)[0] for c in ("T2", "PD"))
    heads = [FastMRI(path).target(0) > 0.1 * UNIT for path in (t2, pd)]
    assert (heads[0] ^ heads[1]).float().mean() < 0.1 * heads[1].float().mean()


def test_noise_is_white_over_the_oversampled_readout(tmp_path):
    noisy, attributes = read(simulate(tmp_path / "a", **SMALL, noise=20.0)[0])
    clean, _ = read(simulate(tmp_path / "b", **SMALL, noise=None)[0])
    assert noisy.shape == (2, 4, 128, 64)
    stated = attributes["noise_std"]
    assert stated == pytest.approx(UNIT * 10 ** (-20 / 20) / 2**0.5)
    noise = noisy - clean
    for part in (noise, ifft(noise)[:, :, :32], ifft(noise)[:, :, 48:80]):
        assert part.real.std().item() == pytest.approx(stated, rel=0.03)
        assert part.imag.std().item() == pytest.approx(stated, rel=0.03)


def test_without_the_head_there_is_only_noise(tmp_path):
    kspace, attributes = read(simulate(tmp_path, **SMALL, noise=20.0)[0])
    margin = ifft(kspace)[:, :, :24]  # outside the field of view that is kept
    assert margin.real.std().item() == pytest.approx(attributes["noise_std"], rel=0.03)


@pytest.mark.parametrize("size", [64, 63, (50, 75)])
def test_the_target_is_the_rss_of_the_samples(tmp_path, size):
    path = simulate(tmp_path, **{**SMALL, "size": size})[0]
    shape = (size, size) if isinstance(size, int) else size
    file = FastMRI(path)
    for slice in range(2):
        rss = ifft(file.kspace(slice)).abs().square().sum(0).sqrt()
        torch.testing.assert_close(rss, file.target(slice), atol=1e-3 * UNIT, rtol=1e-3)
    assert file.target(0).shape == shape
    assert file.target(0).flatten().quantile(0.99).item() == pytest.approx(UNIT, rel=0.2)


def test_the_plain_readout_is_the_oversampled_one_cropped(tmp_path):
    wide = FastMRI(simulate(tmp_path / "a", **SMALL, noise=None)[0]).kspace(1)
    plain, _ = read(simulate(tmp_path / "b", **SMALL, noise=None, oversample=False)[0])
    assert plain.shape == (2, 4, 64, 64)
    difference = (wide - plain[1]).abs().square().sum() / plain[1].abs().square().sum()
    assert difference.item() < 1e-3  # the ringing beyond the field of view is cropped, not folded


def test_no_maps_explain_the_coils_exactly_but_the_true_ones_nearly(tmp_path):
    kspace, _ = read(simulate(tmp_path, **SMALL, noise=None)[0])
    images = resize_image(ifft(kspace), (64, 64))[0]
    maps = coil_profiles((64, 64), pixel_size((64, 64)), slice_heights(2)[0], 4)
    maps = maps / maps.abs().square().sum(0).sqrt()
    residual = images - maps * (maps.conj() * images).sum(0)
    part = (residual.abs().square().sum() / images.abs().square().sum()).item()
    assert 1e-9 < part < 1e-3


def test_unsampled_columns_are_zero_and_the_mask_says_which(tmp_path):
    path = simulate(tmp_path, **SMALL, undersample=3)[0]
    kspace, _ = read(path)
    with h5py.File(path) as file:
        mask = file["mask"][()]
        assert "reconstruction_rss" not in file
    assert mask.shape == (64,) and mask.sum() == round(64 / 3)
    assert (kspace[..., ~mask] == 0).all()
    assert (kspace[..., mask] != 0).all()
    assert np.array_equal(FastMRI(path).mask.numpy(), mask)


def test_bad_places_and_numbers_are_named(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken is a file"):
        simulate(tmp_path / "taken")
    with pytest.raises(InputError, match="volumes=0"):
        simulate(tmp_path, volumes=0)
    with pytest.raises(InputError, match="contrast"):
        simulate(tmp_path, contrast="DWI")
