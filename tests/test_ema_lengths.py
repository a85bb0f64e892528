"""Averages of several lengths: each is what a run with that length alone would save; priors that are kept."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator

from mri_score import experiment
from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.losses import Denoising
from mri_score.models.network import NetworkPrior
from mri_score.noise.schedules import Geometric
from mri_score.numerics.noise import generators
from mri_score.priors.store import build_prior, load_prior, read_record, save_prior
from mri_score.sample_quality.checkpoints import checkpoints
from mri_score.training import checkpoint
from mri_score.training.batches import join
from mri_score.training.ema import decays_of
from mri_score.training.loop import TrainingOptions, train

NETWORK = {"name": "unet", "widths": [4, 6], "blocks": 1, "embedding": 8}
LENGTHS = [0.3, 0.4, 0.9]
"""So short that the warm-up does not make them equal within a dozen steps."""


class Pictures:
    """Random images."""

    def sample(self, random: Generator) -> TrainingItem:
        return TrainingItem("picture", image=torch.randn(1, 6, 7, generator=random, dtype=torch.complex64))


class PowerCut(Denoising):
    """Denoising score matching, until the lights go out."""

    def __init__(self, cut: int | None = None) -> None:
        super().__init__(Geometric(0.05, 5.0))
        self.cut = cut

    def __call__(self, model, batch, random, step):
        if step == self.cut:
            raise RuntimeError("power cut")
        return super().__call__(model, batch, random, step)


def run(folder: Path, cut: int | None = None, **changes) -> None:
    """A short run that writes priors as `experiment.run` does."""
    torch.manual_seed(0)
    prior = build_prior(NETWORK, sd=0.5)

    def save(averaged: NetworkPrior, about: dict[str, Any], name: str = "prior") -> None:
        save_prior(folder / f"{name}.safetensors", averaged, NETWORK, about)

    validation = [join([Pictures().sample(one) for one in generators(9, draws=2)])]
    options: dict[str, Any] = {"steps": 12, "batch_size": 2, "learning_rate": 1e-2, "warmup": 2, "workers": 0,
                               "log_every": 3, "save_every": 4, "quiet": True, "seed": 3,
                               "validation": validation}  # fmt: skip
    train(prior, PowerCut(cut), Pictures(), folder, save, **options | changes)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_prior(path).network.state_dict()


def same(one: Path, other: Path) -> bool:
    left, right = weights(one), weights(other)
    return all(torch.equal(left[name], right[name]) for name in left)


def entries(folder: Path) -> list[dict[str, Any]]:
    """The log without its clock."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Path:
    """An uninterrupted run with three lengths."""
    folder = tmp_path_factory.mktemp("several")
    run(folder, ema_decay=LENGTHS)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[float, Path]:
    """Runs with one length each."""
    folders = {decay: tmp_path_factory.mktemp("alone") for decay in LENGTHS}
    for decay, folder in folders.items():
        run(folder, ema_decay=decay)
    return folders


# Lengths.


def test_each_average_is_that_of_a_run_with_its_length_alone(several, alone):
    assert same(several / "prior.safetensors", alone[0.3])
    for decay in (0.4, 0.9):
        assert same(several / f"prior-{decay}.safetensors", alone[decay])
        assert not same(several / f"prior-{decay}.safetensors", several)
        assert read_record(several / f"prior-{decay}.safetensors")["about"]["ema_decay"] == decay


def test_the_validation_reports_each_length(several, alone):
    reports = [entry for entry in entries(several) if "denoising_errors" in entry]
    assert len(reports) == 3
    for decay, folder in alone.items():
        expected = [entry["denoising_errors"] for entry in entries(folder) if "denoising_errors" in entry]
        shown = reports if decay == 0.3 else [report["averages"][str(decay)] for report in reports]
        assert [one["denoising_errors"] for one in shown] == expected
        path = several / ("prior.safetensors" if decay == 0.3 else f"prior-{decay}.safetensors")
        assert read_record(path)["about"]["denoising_errors"] == expected[-1]


def test_one_length_is_on_disk_as_ever(alone):
    """Also written as a list of one."""
    folder = alone[0.9]
    state = checkpoint.load(checkpoint.found(folder)[-1])
    assert list(state) == ["step", "images", "model", "ema", "optimizer", "losses", "batch_loss"]
    names = {path.name for path in folder.iterdir()} - {".lock"}
    assert names == {"log.jsonl", "prior.json", "prior.safetensors", "checkpoint-00000008.pt", "checkpoint-00000012.pt"}
    assert list(entries(folder)[-1]) == ["step", "images", "batch_loss", "denoising_errors"]
    assert list(read_record(folder / "prior.safetensors")["about"]) == list(entries(folder)[-1])


def test_a_run_that_was_cut_off_resumes_to_the_bit(several, tmp_path):
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path, cut=7, ema_decay=LENGTHS)
    run(tmp_path, ema_decay=LENGTHS)
    assert entries(tmp_path) == entries(several)
    for name in ("prior", "prior-0.4", "prior-0.9"):
        assert (tmp_path / f"{name}.safetensors").read_bytes() == (several / f"{name}.safetensors").read_bytes()


def test_an_old_checkpoint_gives_new_lengths_its_average(alone, tmp_path):
    """And a length keeps its average when the order changes."""
    for path in checkpoint.found(alone[0.3]):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    run(tmp_path, ema_decay=[0.9, 0.3], steps=13)
    state = checkpoint.load(checkpoint.found(tmp_path)[-1])
    before, now = checkpoint.load(checkpoint.found(alone[0.3])[-1])["ema"], state["model"]
    for averages, decay in ((state["ema"], 13 / 22), (state["averages"]["0.3"], 0.3)):  # the warm-up's, of 12 updates
        for name, old in before.items():
            if name.endswith(("weight", "bias")):
                torch.testing.assert_close(averages[name], decay * old + (1 - decay) * now[name])
    run(tmp_path, ema_decay=[0.3, 0.9], steps=14)
    swapped = checkpoint.load(checkpoint.found(tmp_path)[-1])
    for name, new in swapped["model"].items():
        if name.endswith(("weight", "bias")):
            expected = 0.3 * state["averages"]["0.3"][name] + 0.7 * new
            torch.testing.assert_close(swapped["ema"][name], expected)


@pytest.mark.parametrize("given", [[], [0.9, 0.9], 1.0, [0.9, -0.1]])
def test_refuses_what_is_no_length(given):
    with pytest.raises(InputError, match="training.ema_decay is .*; give a number from 0 to below 1"):
        decays_of(given)


@pytest.mark.parametrize(("text", "expected"), [(0.99, [0.99]), ([0.999, 0.9999], [0.999, 0.9999]), (0, [0.0])])
def test_a_config_may_give_one_or_several(text, expected):
    options = experiment.call("training", TrainingOptions, {"ema_decay": text})
    assert decays_of(options.ema_decay) == expected


# Priors that are kept.


def test_every_nth_checkpoint_keeps_its_prior_and_the_curve_reads_them(tmp_path):
    seen: dict[int, dict[str, torch.Tensor]] = {}
    run(tmp_path, steps=11, save_every=2, keep_every=2, ema_decay=[0.5, 0.9],
        watch=lambda prior, about: seen.update({about["step"]: copy.deepcopy(prior.network.state_dict())}))  # fmt: skip
    assert list(checkpoint.kept(tmp_path)) == [4, 8]
    assert [checkpoint.load(path)["step"] for path in checkpoint.found(tmp_path)] == [10, 11]
    found = dict(checkpoints(tmp_path))
    assert list(found) == ["step 4", "step 8", "step 10", "step 11"]
    for name, prior in found.items():
        expected = seen[int(name.removeprefix("step "))]
        assert all(torch.equal(value, expected[key]) for key, value in prior.network.state_dict().items())


def test_a_step_that_is_kept_twice_counts_once(tmp_path):
    run(tmp_path, steps=4, save_every=2, keep_every=1)
    assert [name for name, _ in checkpoints(tmp_path)] == ["step 2", "step 4"]


def test_refuses_to_keep_every_zeroth(tmp_path):
    with pytest.raises(InputError, match="training.keep_every is 0; use 1 for every checkpoint"):
        run(tmp_path, keep_every=0)
