"""Precision `auto`: bfloat16 exactly where the device has instructions for it, said by every command that takes it."""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import pytest
import torch
import yaml
from command import mri_score
from torch import nn

from mri_score.models import precision
from mri_score.models.network import NetworkPrior
from mri_score.models.precision import find_precision, has_bfloat16, precision_note, resolved_precision
from mri_score.priors.store import build_prior, save_prior
from mri_score.reconstruction import reconstruct
from mri_score.simulation.phantom import phantom
from mri_score.simulation.simulate import simulate

WITH, WITHOUT = {"avx2": True, "avx512_bf16": True}, {"avx2": True, "avx512_f": True, "avx512_bf16": False}
CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@pytest.fixture
def flags(monkeypatch):
    """Sets the instructions that this processor seems to have."""
    return lambda present: monkeypatch.setattr(precision, "cpu_flags", lambda: dict(present))


@pytest.mark.parametrize(
    ("present", "taken"),
    [
        (WITH, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"neon": True, "bf16": True}, "bfloat16"),
        (WITHOUT, "float32"),
        ({"amx_bf16": False, "amx_tile": True}, "float32"),
        ({}, "float32"),
    ],
)
def test_auto_is_what_the_processor_has_instructions_for(flags, present, taken):
    flags(present)
    assert resolved_precision("auto") == taken and find_precision("auto") == getattr(torch, taken)
    assert resolved_precision("float32") == "float32" and resolved_precision("bfloat16") == "bfloat16"


@pytest.mark.parametrize(("capability", "taken"), [((9, 0), True), ((8, 0), True), ((7, 5), False)])
def test_a_graphics_card_is_asked_for_its_own_capability(monkeypatch, flags, capability, taken):
    flags(WITHOUT if taken else WITH)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bfloat16("cuda:1") is taken


def test_this_processor_is_read_as_its_kernel_lists_it():
    """By /proc/cpuinfo as the witness."""
    listed = Path("/proc/cpuinfo")
    if not listed.exists() or "avx512" not in listed.read_text():
        pytest.skip("no list of instructions to compare with")
    words = listed.read_text().split()
    assert has_bfloat16("cpu") is ("avx512_bf16" in words or "amx_bf16" in words)


def test_the_sentence_says_what_was_taken_and_why(flags):
    flags(WITH)
    assert precision_note("auto", "cpu") == "precision bfloat16: this cpu computes in bfloat16"
    assert precision_note("bfloat16", "cpu") is None and precision_note("float32", "cpu") is None
    flags(WITHOUT)
    assert precision_note("auto", "cpu") == "precision float32: this cpu has no instructions for bfloat16"
    assert "float32 is faster; --precision auto" in str(precision_note("bfloat16", "cpu"))


def test_walks_take_what_auto_stands_for(flags):
    network = nn.Conv2d(2, 2, 1, bias=False).requires_grad_(False)
    kinds = []
    network.forward = lambda channels, label: kinds.append(torch.is_autocast_enabled("cpu")) or channels
    scan = phantom(16, coils=2)
    given = {"kspace": scan.kspace, "maps": scan.maps, "noise_std": 0.1, "prior": NetworkPrior(network), "steps": 2}
    for present in (WITH, WITHOUT):
        flags(present)
        reconstruct(**given, samples=1, method="exact-draw", precision="auto", device="cpu")
        assert set(kinds) == {present is WITH}
        kinds.clear()


def test_reconstruct_writes_and_says_the_precision_that_it_took(tmp_path, flags):
    (scan,) = simulate(tmp_path / "scans", volumes=1, slices=1, size=32, coils=2)
    network = {"name": "unet", "widths": [6, 8], "blocks": 1, "embedding": 8}
    prior = tmp_path / "tiny.safetensors"
    save_prior(prior, build_prior(network, sd=0.3, sigma_min=0.01, sigma_max=5.0), network, {})
    quick = ["--accel", 3, "--steps", 2, "--samples", 1, "--baselines", "none", "--prior", prior, "--again"]
    for present, asked, told, line in (
        (WITH, "auto", "bfloat16", "precision bfloat16: this cpu computes in bfloat16"),
        (WITHOUT, "auto", "float32", "precision float32: this cpu has no instructions"),
        (WITHOUT, "bfloat16", "bfloat16", "note: this cpu has no instructions for bfloat16"),
    ):
        flags(present)
        output = mri_score("reconstruct", scan, "--out", tmp_path / "out", "--precision", asked, *quick)
        assert line in output
        with h5py.File(tmp_path / "out" / "reconstructions" / scan.name) as file:
            assert file.attrs["precision"] == told


def test_training_says_what_auto_stands_for(tmp_path, flags, caplog):
    from test_training import run

    caplog.set_level(logging.INFO, "mri_score")
    for number, (present, asked, level) in enumerate(
        [(WITH, "auto", "INFO"), (WITHOUT, "auto", "INFO"), (WITHOUT, "bfloat16", "WARNING")]
    ):
        flags(present)
        caplog.clear()
        run(tmp_path / str(number), precision=asked, steps=1, validation=None)
        told = [record for record in caplog.records if "bfloat16" in record.getMessage()]
        assert [record.levelname for record in told] == [level]


def test_configs_ask_for_bfloat16_only_where_there_is_hardware():
    asked = {path.name: yaml.safe_load(path.read_text())["training"].get("precision") for path in CONFIGS.glob("*.yml")}
    assert set(asked.values()) <= {"auto", "float32", None} and list(asked.values()).count("auto") >= 9, asked
