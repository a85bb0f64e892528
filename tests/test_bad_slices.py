"""A slice that cannot be used costs no other: found before the first walk, left out with a note or refused."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
from command import mri_score, refused

from mri_score.data.scan import Scan, Undersampling
from mri_score.errors import InputError
from mri_score.models.network import NetworkPrior
from mri_score.pipeline import volume as walking
from mri_score.pipeline.options import Options
from mri_score.pipeline.volume import reconstruct_volume
from mri_score.priors.store import build_prior, load_prior, save_prior
from mri_score.readers import open_scan
from mri_score.simulation.simulate import simulate

QUICK = ["--steps", "2", "--samples", "1", "--threads", "1", "--baselines", "zero-filled", "--accel", "3"]
FAULTS = {
    "NaN": lambda kspace: kspace.__setitem__((1, 2, 5), np.nan),
    "empty": lambda kspace: kspace.__setitem__(1, 0),
    "coil": lambda kspace: kspace.__setitem__((1, 0), 0),
}
WORDS = {"NaN": "slice 1, coil 2 holds NaN", "empty": "slice 1 is all zeros", "coil": "slice 1, coil 0 is all zeros"}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Three slices; the middle one is to be spoilt."""
    (path,) = simulate(tmp_path_factory.mktemp("scan"), volumes=1, slices=3, size=32, coils=3, noise=30.0)
    return path


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Options of a short run, with a tiny prior."""
    network = {"name": "unet", "widths": [6, 8], "blocks": 1, "embedding": 8}
    path = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    save_prior(path, build_prior(network, sd=0.3, sigma_min=0.01, sigma_max=5.0), network, {})
    return [*QUICK, "--prior", path]


@pytest.fixture(params=FAULTS)
def bad(good, tmp_path, request):
    path = tmp_path / good.name
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        FAULTS[request.param](file["kspace"])
    return path, request.param


@pytest.fixture(scope="module")
def without(good, quick, tmp_path_factory):
    """The result of the same scan whose middle slice is empty: which fault it is makes no difference to the others."""
    folder = tmp_path_factory.mktemp("without")
    path = folder / good.name
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        FAULTS["empty"](file["kspace"])
    mri_score("reconstruct", path, *quick, "--slices", "0,2", "--out", folder)
    with h5py.File(folder / "reconstructions" / path.name) as file:
        return file["reconstruction"][()]


def test_a_bad_slice_is_left_out_with_a_note(bad, quick, without, tmp_path):
    path, kind = bad
    output = mri_score("reconstruct", path, *quick, "--out", tmp_path / "out")
    assert "note: slice 1 is left out: " in output and WORDS[kind] in output and "2 slices" in output
    with h5py.File(tmp_path / "out" / "reconstructions" / path.name) as file:
        assert file["slices"][()].tolist() == [0, 2] and file.attrs["left_out"].tolist() == [1]
        assert np.array_equal(file["reconstruction"], without)
    assert "slice 1 is left out" in (tmp_path / "out" / "report" / "index.html").read_text()
    spared = mri_score("reconstruct", path, *quick, "--slices", "0,2", "--out", tmp_path / "spared")
    assert "left out" not in spared  # what was not asked for is not talked about


def test_a_bad_slice_is_refused_before_the_first_walk(bad, quick, tmp_path, monkeypatch):
    path, kind = bad
    monkeypatch.setattr(NetworkPrior, "denoise", lambda *_: pytest.fail("the network was called"))
    for more in (["--bad-slices", "refuse"], ["--slices", "1"]):
        assert WORDS[kind] in refused("reconstruct", path, *quick, *more, "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "reconstructions").exists()


@pytest.mark.parametrize("command", ["denoise", "maps", "info"])
def test_other_commands_do_what_can_be_done(command, good, quick, tmp_path):
    path = tmp_path / good.name
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        FAULTS["NaN"](file["kspace"])
    out = [] if command == "info" else ["--out", tmp_path / "out"]
    output = mri_score(command, path, *out, *(["--probes", "1", "--prior", quick[-1]] if command == "denoise" else []))
    assert ("slice 1 is left out: " in output) == (command != "info")
    if command == "maps":
        with h5py.File(tmp_path / "out" / path.name) as file:
            assert file["maps"].shape[0] == 3 and not file["maps"][1].any() and file["maps"][2].any()
    if command == "denoise":
        with h5py.File(tmp_path / "out" / "denoised" / path.name) as file:
            assert file["slices"][()].tolist() == [0, 2]


@pytest.mark.parametrize("where", ["preparation", "walk"])
def test_a_slice_that_fails_later_costs_no_other(where, good, quick, monkeypatch):
    scan = Scan(open_scan(good), Undersampling(2.0, calibration_lines=8))
    options = Options(steps=2, samples=1, baselines=(), check_lines=2)
    prior, walk, prepare = load_prior(quick[-1]), walking.sample_posterior, walking._prepare_one

    def fails(*arguments, slices=(), **more):
        if 1 in (slices or arguments[1:2]):
            raise InputError("no such luck")
        return walk(*arguments, slices=slices, **more) if slices else prepare(*arguments)

    names = {"preparation": "_prepare_one", "walk": "sample_posterior"}
    whole = reconstruct_volume(scan, prior, options)
    monkeypatch.setattr(walking, names[where], fails)
    monkeypatch.setattr(walking, "slices_together", lambda options: 3)
    with pytest.raises(InputError, match="no such luck"):
        reconstruct_volume(scan, prior, options)
    found = reconstruct_volume(scan, prior, Options(**{**vars(options), "bad_slices": "skip"}))
    assert found.slices == [0, 2] and found.left_out == [1] and "no such luck" in found.notes[-1]
    assert (found.image - whole.image[[0, 2]]).norm() < 1e-4 * found.image.norm()
    assert len(found.geometries) == len(found.accelerations) == len(found.truth) == 2
    assert 0 < found.held_out[options.estimate].count < whole.held_out[options.estimate].count
    monkeypatch.setattr(walking, names[where], lambda *_, **__: (_ for _ in ()).throw(InputError("never")))
    with pytest.raises(InputError, match="never; none of 3 slices can be used"):
        reconstruct_volume(scan, prior, Options(**{**vars(options), "bad_slices": "skip"}))
