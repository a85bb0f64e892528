"""`mri-score doctor` finds what is missing or wrong, and says it by its exit code."""

from __future__ import annotations

import json

import pytest
import torch
from command import mri_score

from mri_score import doctor
from mri_score.models.network import NetworkPrior
from mri_score.numerics import fourier


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Without programs that may be slow to start."""
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)


def test_a_good_installation_passes_and_its_json_says_so():
    found = json.loads(mri_score("doctor", "--quick", "--json"))
    assert found["ok"] and {one["group"] for one in found["checks"]} == {"versions", "machine", "programs"}
    by_name = {one["name"]: one["found"] for one in found["checks"]}
    assert by_name["torch"].partition("+")[0] == torch.__version__.partition("+")[0] and "GiB" in by_name["free memory"]


@pytest.mark.parametrize(
    ("version", "outcome"), [("2.9.9", "failed"), ("2.10", "ok"), ("2.10.0+cpu", "ok"), (None, "failed")]
)
def test_a_package_below_its_bound_fails(monkeypatch, version, outcome):
    monkeypatch.setattr(doctor, "requires", lambda name: ["torch>=2.10", 'bm3d>=4.0; extra == "bm3d"'])

    def installed(name):
        if name != "torch" or version is None:
            raise doctor.PackageNotFoundError
        return version

    monkeypatch.setattr(doctor, "version", installed)
    found = {one.name: one for one in doctor.installation()}
    assert found["torch"].outcome == outcome and bool(found["torch"].advice) == (outcome == "failed")
    assert found["extra bm3d"].outcome == "ok" and "not installed" in found["extra bm3d"].found
    assert mri_score("doctor", "--quick", code=int(outcome == "failed"))


def test_little_memory_is_a_note(monkeypatch):
    monkeypatch.setattr(doctor, "free_memory", lambda: 1 << 30)
    (memory,) = [one for one in doctor.machine() if one.name == "free memory"]
    assert memory.outcome == "note" and "--batch-size" in memory.advice


@pytest.mark.slow
def test_the_self_test_passes():
    checks = list(doctor.self_test())
    assert [one for one in checks if one.outcome != "ok"] == []
    assert {"network", "reconstruction", "reading process"} <= {one.name for one in checks}


def test_the_self_test_finds_a_wrong_network_and_a_wrong_transform(monkeypatch):
    """A network that is one per cent off, an unnormalised transform, and a test that raises are failures."""
    monkeypatch.setattr(doctor, "_reconstruction", lambda: 1 / 0)
    denoise, fft = NetworkPrior.denoise, fourier.fft
    monkeypatch.setattr(NetworkPrior, "denoise", lambda self, x, sigma: 1.01 * denoise(self, x, sigma))
    monkeypatch.setattr(fourier, "fft", lambda x: 2 * fft(x))
    monkeypatch.setattr(doctor, "_file", lambda: ("left out", True))
    outcomes = {one.name: one.outcome for one in doctor.self_test()}
    assert outcomes["network"] == outcomes["Fourier transform"] == outcomes["reconstruction"] == "failed"
    assert outcomes["forward operator"] == "ok"
