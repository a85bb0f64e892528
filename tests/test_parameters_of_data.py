"""Parameters of a dataset belong to its data: those of other data, or of another size of images, are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from command import mri_score, refused

from mri_score.experiment import calibrate, data_fingerprint, find_parameters, make_source
from mri_score.noise.parameters import read_parameters, write_parameters
from mri_score.simulation.simulate import simulate

SETTINGS = {"dataset": "heads", "seed": 0, "data": {"name": "fastmri", "size": 32, "augment": False}}


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulate(tmp_path / "scans", volumes=2, slices=1, size=32, coils=2, noise=30.0)
    return {**SETTINGS, "data": {**SETTINGS["data"], "paths": [str(tmp_path / "scans")]}}


def found(config, folder=None, notes=None):
    return find_parameters(config, lambda: make_source(config), folder, None if notes is None else notes.append)


def with_data(config, **changes):
    return {**config, "data": {**config["data"], **changes}}


def test_measured_parameters_fit_their_data_wherever_these_lie(config, tmp_path):
    measured = found(config)
    assert measured.dimension == 2 * 32 * 32 and not (tmp_path / "parameters").exists()
    write_parameters(tmp_path / "parameters" / "heads.txt", measured)
    assert found(config) == measured == read_parameters(tmp_path / "parameters" / "heads.txt")
    (tmp_path / "scans").rename(tmp_path / "moved")
    moved = with_data(config, paths=[str(tmp_path / "moved")], cache=str(tmp_path / "cache"), memory=2)
    assert found(moved) == measured


def test_other_data_are_refused_with_the_way_on(config, tmp_path):
    write_parameters(tmp_path / "parameters" / "heads.txt", found(config))
    fingerprints = {data_fingerprint(config)}
    (tmp_path / "more").mkdir()
    for path in Path("scans").iterdir():
        (tmp_path / "more" / path.name).write_bytes(path.read_bytes() + b"0")
    for other in (
        with_data(config, paths=[str(tmp_path / "more")]),
        with_data(config, augment=True),
        with_data(config, size=24),
        with_data(config, exclude=["*2"]),
    ):
        fingerprints.add(data_fingerprint(other))
        with pytest.raises(Exception, match="measured on other data.*mri-score calibrate"):
            found(other)
    assert len(fingerprints) == 5


def test_another_size_is_refused_even_without_a_fingerprint(config, tmp_path):
    notes = []
    file = tmp_path / "parameters" / "heads.txt"
    bare = replace(found(config), data=None)
    write_parameters(file, bare)
    assert found(config, notes=notes) == bare and "does not state the data" in notes[0]
    for folder in (None, tmp_path / "run"):
        write_parameters(file if folder is None else folder / "parameters.txt", replace(bare, dimension=9 * 32 * 32))
        with pytest.raises(Exception, match="of 9216 real numbers, but the training images have 2048 .32 x 32."):
            found(config, folder)


def test_bundled_numbers_of_another_size_are_used_with_a_note_and_again_when_the_run_resumes(config, tmp_path):
    notes = []
    config = {**config, "dataset": "brain_images"}  # measured on patches of 96 x 96
    bundled = found(config, notes=notes)
    assert bundled.dimension == 18432 and "have 2048 (32 x 32)" in notes[-1] and "used as they are" in notes[-1]
    write_parameters(tmp_path / "run" / "parameters.txt", bundled)
    assert found(config, tmp_path / "run") == bundled
    write_parameters(tmp_path / "run" / "parameters.txt", replace(bundled, sd=0.3))
    with pytest.raises(Exception, match="of 18432 real numbers"):
        found(config, tmp_path / "run")


@pytest.mark.slow
def test_a_dry_run_writes_nothing(config, tmp_path):
    sizes = ["--set", "data.size=32", "--set", "data.patch=32"]
    arguments = ["--config", "tiny.yml", "--data", "scans", *sizes, "--out", "run"]
    mri_score("calibrate", *arguments[:-2], "--count", "4")
    assert "data " in (tmp_path / "parameters" / "simulated.txt").read_text()
    before = sorted(tmp_path.rglob("*"))
    mri_score("train", *arguments, "--dry-run")
    assert sorted(tmp_path.rglob("*")) == before
    assert "other data" in refused("train", *arguments, "--set", "data.size=40", "--dry-run")


def test_undersampled_data_have_a_size_too(config):
    config = {**config, "data": {"name": "undersampled_scans", "paths": config["data"]["paths"], "acceleration": 2.0}}
    assert calibrate(config, make_source(config), 2).dimension == 2 * 32 * 32
    find_parameters(config, lambda: make_source(config), None)
