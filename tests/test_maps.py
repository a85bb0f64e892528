"""Coil maps on disk: what is read is what was written, bad files are named, the cache makes once."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from mri_score.errors import InputError
from mri_score.numerics.noise import generators, noise_like
from mri_score.readers.maps import cache_key, cached_maps, normalise_maps, read_maps, write_maps


def some_maps(*shape):
    """Random maps (slices, C, H, W) with unit sum of squares."""
    maps = noise_like(torch.empty(shape, dtype=torch.complex64), generators(0, "maps", draws=shape[0]))
    return maps / maps.abs().square().sum(1, keepdim=True).sqrt()


def test_maps_are_normalised_once():
    maps = 3 * some_maps(1, 4, 9, 7)
    maps[..., 2, 3] = 0
    unit = normalise_maps(maps)
    assert torch.allclose(unit.abs().square().sum(1), torch.ones(1, 9, 7), atol=1e-6)
    assert torch.allclose(unit[0, :, 2, 3], torch.full((4,), 4**-0.5, dtype=unit.dtype))
    assert torch.allclose(unit[..., 4, 4], maps[..., 4, 4] / 3, atol=1e-6)
    assert torch.equal(normalise_maps(unit), unit)


def test_maps_travel_through_files(tmp_path):
    maps, eigenvalue = some_maps(2, 4, 48, 51), torch.rand(2, 48, 51)
    write_maps(tmp_path / "a.h5", maps, eigenvalue, {"source": "full k-space", "kernel": 6})
    assert torch.equal(read_maps(tmp_path / "a.h5", maps.shape)[:], maps)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["source"] == "full k-space"
        assert np.array_equal(file["eigenvalue"][()], eigenvalue.numpy())
    np.save(tmp_path / "b.npy", 7 * maps[0].numpy().astype(np.complex128))
    assert torch.allclose(read_maps(tmp_path / "b.npy", maps[:1].shape)[0:1], maps[:1], atol=1e-6)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["s_maps"] = maps.numpy()
    assert torch.equal(read_maps(tmp_path / "c.h5", maps.shape)[:], maps)


def test_bad_map_files_are_named(tmp_path):
    maps = np.ones((2, 3, 5, 4), np.complex64)
    np.save(tmp_path / "a.npy", maps)
    with pytest.raises(InputError, match=r"\(2, 3, 5, 4\).*\(2, 3, 5, 6\)"):
        read_maps(tmp_path / "a.npy", (2, 3, 5, 6))
    np.save(tmp_path / "one.npy", maps[0])
    with pytest.raises(InputError, match=r"\(3, 5, 4\).*\(2, 3, 5, 4\)"):
        read_maps(tmp_path / "one.npy", maps.shape)
    np.save(tmp_path / "nan.npy", maps * np.nan)
    with pytest.raises(InputError, match="NaN"):
        read_maps(tmp_path / "nan.npy", maps.shape)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["kspace"] = maps
    with pytest.raises(InputError, match="but has .'kspace'"):
        read_maps(tmp_path / "b.h5", maps.shape)
    (tmp_path / "c.h5").write_text("no")
    with pytest.raises(InputError, match="cannot read"):
        read_maps(tmp_path / "c.h5", maps.shape)


def test_cache_makes_once(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return torch.ones(1, 2, 3, 3, dtype=torch.complex64) / 2**0.5, torch.ones(1, 3, 3)

    first = cached_maps(tmp_path, "scan-1", make)
    again = cached_maps(tmp_path, "scan-1", make)
    assert len(calls) == 1 and torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    (tmp_path / "scan-1.h5").write_text("torn")
    cached_maps(tmp_path, "scan-1", make)
    assert len(calls) == 2 and torch.equal(cached_maps(tmp_path, "scan-1", make)[0], first[0]) and len(calls) == 2


def test_cache_key_follows_what_maps_are_made_from(tmp_path):
    path = tmp_path / "scan.h5"
    path.write_text("a")
    mask = (torch.arange(20) % 4 == 0).reshape(1, 1, 1, 20)
    keys = {
        cache_key(path, mask, rows=64, kernel=6),
        cache_key(path, mask, rows=64, kernel=5),
        cache_key(path, ~mask, rows=64, kernel=6),
        cache_key(path, mask.mT, rows=64, kernel=6),
        cache_key(path, None, rows=64, kernel=6),
    }
    assert len(keys) == 5 and all(key.startswith("scan-") for key in keys)
    assert cache_key(path, mask.clone(), kernel=6, rows=64) in keys
    path.write_text("ab")
    assert cache_key(path, mask, rows=64, kernel=6) not in keys


def test_links_to_other_files_are_not_followed(tmp_path):
    maps = some_maps(1, 2, 5, 4)
    write_maps(tmp_path / "secret.h5", maps, torch.ones(1, 5, 4), {})
    with h5py.File(tmp_path / "scan-1.h5", "w") as file:
        for key in ("maps", "eigenvalue"):
            file[key] = h5py.ExternalLink(tmp_path / "secret.h5", key)
    with pytest.raises(InputError, match="maps is a link"):
        read_maps(tmp_path / "scan-1.h5", maps.shape)
    made = (some_maps(1, 2, 5, 4).flip(1), torch.zeros(1, 5, 4))
    assert torch.equal(cached_maps(tmp_path, "scan-1", lambda: made)[0], made[0])
    assert torch.equal(read_maps(tmp_path / "secret.h5", maps.shape)[:], maps)
