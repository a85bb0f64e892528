"""`mri-score config`: a merged config means the same as its config, and the schema accepts what training accepts."""

from __future__ import annotations

import json

import pytest
import yaml
from command import mri_score, refused

from mri_score.config_file import read_config
from mri_score.experiment import training_options
from mri_score.files import write_text
from mri_score.settings.differences import differences, settings_of
from mri_score.settings.merged import as_yaml, merged_settings

CONFIGS = ["tiny.yml", "knee_384.yml", "brain.yml", "brain_undersampled_ambient.yml", "brain_supervised.yml"]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_merged_config_is_a_config_with_the_same_values(tmp_path, name):
    """All defaults written out change no value, and then every value comes from the config."""
    settings = merged_settings(name)
    write_text(tmp_path / "all.yml", as_yaml(settings))
    again = merged_settings(tmp_path / "all.yml")
    values = [[(one.section, one.key, one.value) for one in found] for found in (settings, again)]
    assert values[0] == values[1]
    assert {one.source for one in again} <= {"config", f"parameters/{read_config(name)['dataset']}.txt"}
    assert training_options(read_config(name), "cpu") == training_options(read_config(tmp_path / "all.yml"), "cpu")


def test_each_value_states_its_source():
    found = {f"{one.section}.{one.key}": one for one in merged_settings("knee_384.yml", ["training.steps=7", "seed=3"])}
    sources = {key: found[key].source for key in ("training.steps", ".seed", "training.batch_size", "training.clip")}
    assert sources == {
        "training.steps": "--set", ".seed": "--set", "training.batch_size": "config", "training.clip": "default",
    }  # fmt: skip
    assert found["training.steps"].value == 7 and found["schedule.sigma_max"].source == "parameters/fastmri_knee.txt"
    assert "loss.schedule" not in found and "prior.network" not in found  # no keys of a config


@pytest.mark.parametrize(
    ("change", "words"),
    [("loss.name=nope", "loss.name is 'nope'"), ("training.stepz=3", "stepz"), ("network.width=[1]", "network.width")],
)
def test_what_training_refuses_is_not_shown(change, words):
    assert words in refused("config", "show", "tiny.yml", "--set", change)


@pytest.fixture(scope="module")
def schema():
    jsonschema = pytest.importorskip("jsonschema", reason="the witness of the schema is jsonschema, in the test extra")
    found = json.loads(mri_score("config", "schema"))
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def test_the_schema_accepts_every_bundled_config(schema):
    from importlib.resources import files
    from pathlib import Path

    for path in sorted(Path(str(files("mri_score.configs"))).glob("*.yml")):
        assert not [error.message for error in schema.iter_errors(read_config(path))], path


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ("loss.name=nope", "loss"), ("training.stepz=3", "training"), ("training.steps=much", "training"),
        ("training.learning_rate=-1", "training"), ("network.widths=[1]", "network"), ("dta={}", ""),
    ],
)  # fmt: skip
def test_the_schema_refuses_what_training_refuses(schema, change, place):
    config = yaml.safe_load(as_yaml(merged_settings("tiny.yml")))
    assert not list(schema.iter_errors(config))
    key, _, value = change.partition("=")
    *above, last = key.split(".")
    section = config[above[0]] if above else config
    section[last] = yaml.safe_load(value)
    errors = list(schema.iter_errors(config))
    assert errors and all("".join(map(str, list(error.path)[:1])) == place for error in errors)


def test_runs_are_compared_by_config_parameters_and_prior(tmp_path):
    for name, steps, digest in (("a", 7, "00"), ("b", 8, "ff")):
        write_text(tmp_path / name / "config.yaml", f"dataset: d\ntraining: {{steps: {steps}}}\n")
        write_text(tmp_path / name / "parameters.txt", f"sigma_max {steps}.5  # measured\nsd 0.3\n")
        write_text(tmp_path / name / "prior.json", json.dumps({"sha256": digest}))
    found = differences(settings_of(tmp_path / "a"), settings_of(tmp_path / "b"))
    assert found == {
        "parameters.sigma_max": ("7.5", "8.5"), "prior.sha256": ("00", "ff"), "training.steps": ("7", "8"),
    }  # fmt: skip
    text = mri_score("config", "diff", tmp_path / "a", tmp_path / "b")
    assert text.splitlines()[-3:] == ["training.steps", "  - 7", "  + 8"]
    assert mri_score("config", "diff", tmp_path / "a", tmp_path / "a") == "No differences.\n"
    assert "config.yaml" in refused("config", "diff", tmp_path, tmp_path / "a")
