"""A run becomes a prior to pass on: the same denoiser, half the room, and a card that says what it is."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from mri_score.cli import main
from mri_score.priors.card import storage_error, training_curve
from mri_score.priors.store import build_prior, load_prior, read_record, save_prior

NETWORK = {"name": "unet", "widths": [6, 8], "blocks": 1, "embedding": 32}


@pytest.fixture
def run(tmp_path):
    """What a training run leaves behind."""
    prior = build_prior(NETWORK, sd=0.31, sigma_min=0.005, sigma_max=120.0)
    random = torch.Generator().manual_seed(0)
    for parameter in prior.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random) / max(parameter[0].numel(), 4) ** 0.5
    folder = tmp_path / "runs" / "knee"
    save_prior(folder / "prior.safetensors", prior, NETWORK, {"dataset": "knee", "step": 1200, "images": 9600})
    (folder / "config.yaml").write_text("dataset: knee\nloss: {name: denoising}\n")
    entries = [{"step": 100 * k, "denoising_errors": {"0.1": 0.5 / k, "1.0": 0.25 / k}} for k in range(1, 13)]
    lines = [{"step": 50, "loss": 1.0}, *entries]
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder


def export(run, out, *more):
    options = ["--name", "knee", "--summary", "Adult knees.", "--out", out, *more]
    return CliRunner().invoke(main, ["export-prior", str(run), *map(str, options)])


def test_what_is_exported_is_the_prior_of_the_run(run, tmp_path):
    (tmp_path / "data.md").write_text("## Data\n\nTwo hundred knees, CC BY 4.0.\n")
    (tmp_path / "limits.md").write_text("## Limits\n\nNo hips.\n")
    done = export(run, tmp_path / "out", "--data-card", tmp_path / "data.md", "--data-card", tmp_path / "limits.md")
    assert done.exit_code == 0, done.output
    path = tmp_path / "out" / "knee.safetensors"
    found, trained = load_prior(path), load_prior(run)
    assert 0 < storage_error(trained, found) < 2e-3 and found.sd == 0.31
    assert path.stat().st_size < 0.75 * (run / "prior.safetensors").stat().st_size
    card = path.with_suffix(".md").read_text()
    for words in ("# Prior `knee`", "Adult knees.", "1,200 steps", "CC BY 4.0", "float16", read_record(path)["sha256"]):
        assert words in card
    assert "| 1,200 | 0.042 | 0.021 |" in card and "| 100 | 0.500 | 0.250 |" in card


def test_a_prior_that_float16_would_change_is_stored_in_full(run, tmp_path):
    prior = load_prior(run)
    with torch.no_grad():
        next(prior.network.parameters()).mul_(1e6)  # overflows float16
    save_prior(run / "prior.safetensors", prior, NETWORK, read_record(run / "prior.safetensors")["about"])
    done = export(run, tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert storage_error(prior, load_prior(tmp_path / "out" / "knee.safetensors")) == 0
    assert "float32" in done.output and "Not stated" in (tmp_path / "out" / "knee.md").read_text()


def test_what_cannot_be_exported_is_refused(run, tmp_path):
    assert export(run, tmp_path / "out").exit_code == 0
    for more, words in (
        ([], "exists already"),
        (["--name", "a/b"], "must be a file name without a folder"),
        (["--name", "new", "--data-card", tmp_path / "none.md"], "cannot be read"),
    ):
        done = export(run, tmp_path / "out", *more)
        assert done.exit_code == 2 and words in done.output and "Traceback" not in done.output
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["knee.json", "knee.md", "knee.safetensors"]


def test_a_curve_without_validation_says_so():
    assert "no validation images" in training_curve([{"step": 1, "loss": 0.1}])
    assert "no log of a run" in training_curve([])
