"""Results name what is wrong with them, and priors are found where they were written."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from command import mri_score

from mri_score.cli.options import data_changes
from mri_score.config_file import read_config
from mri_score.evaluation.report import MethodScores
from mri_score.experiment import make_source
from mri_score.pipeline.facts import worse_than_nothing
from mri_score.priors.record import find_prior
from mri_score.priors.store import build_prior, save_prior
from mri_score.simulation.simulate import simulate


def scores(method, psnr):
    return MethodScores(method, {"psnr": psnr, "ssim": 0.5, "nmse": 0.1}, {})


@pytest.mark.parametrize(
    ("methods", "loss"),
    [
        ([("zero-filled", 20.0), ("CG-SENSE", 30.0), ("mean", 17.5)], "2.5 dB worse"),
        ([("zero-filled", 20.0), ("mean", 20.5)], None),
        ([("CG-SENSE", 30.0), ("mean", 17.5)], None),
        ([], None),
    ],
)
def test_a_result_that_is_worse_than_zero_filling_names_the_prior(methods, loss):
    found = worse_than_nothing([scores(*one) for one in methods])
    assert (found is None) if loss is None else (loss in found and "--prior" in found)


def test_a_prior_is_found_by_the_name_it_was_written_by(tmp_path):
    """Without its suffix, as import-checkpoint --out takes it."""
    network = {"name": "unet", "widths": [6, 8], "blocks": 1, "embedding": 8}
    save_prior(tmp_path / "own.safetensors", build_prior(network, sd=0.3, sigma_min=0.01, sigma_max=5.0), network, {})
    assert find_prior(tmp_path / "own") == tmp_path / "own.safetensors"
    (path,) = simulate(tmp_path / "scan", volumes=1, slices=1, size=32, coils=3)
    quick = ["--accel", "3", "--steps", "2", "--samples", "2", "--threads", "1", "--baselines", "zero-filled"]
    output = mri_score("reconstruct", path, *quick, "--prior", tmp_path / "own", "--out", tmp_path / "out")
    assert "dB worse than the zero-filled image" in output  # an untrained network is no prior
    with h5py.File(tmp_path / "out" / "reconstructions" / path.name) as file:
        for name, value in {"draws": 2, "seed": 0, "acceleration": 3}.items():
            assert isinstance(file.attrs[name], np.number) and file.attrs[name] == value
        assert 0 < file.attrs["noise_std"] < np.abs(file["reconstruction"][()]).max()


def test_data_replaces_the_paths_of_a_validation_on_the_same_data(tmp_path):
    paths = ['data.paths=["mine"]', 'validation.paths=["mine"]']
    assert data_changes("tiny.yml", "mine") == [*paths, "data.exclude=[]", 'validation.include=["*"]']
    for name in ("a.h5", "b[1].h5"):
        (tmp_path / name).touch()
    held_out = ['data.exclude=["b[[]1].h5"]', 'validation.include=["b[[]1].h5"]']
    assert data_changes("tiny.yml", str(tmp_path))[2:] == held_out


def test_tiny_validates_on_a_volume_that_it_does_not_train_on(tmp_path, monkeypatch):
    simulate(tmp_path / "data" / "simulated", volumes=2, slices=1, size=64, coils=3)
    monkeypatch.chdir(tmp_path)
    config = read_config("tiny.yml")
    sources = [make_source(config, section) for section in ("data", "validation")]
    assert [{volume.name for volume in one.volumes} for one in sources] == [{"sim_T2_0001"}, {"sim_T2_0002"}]
    assert not any(one.notes for one in sources)


def test_configs_without_a_validation_on_the_same_data_keep_theirs():
    assert data_changes("knee_384.yml", "mine") == ['data.paths=["mine"]'] and data_changes("tiny.yml", None) == []
