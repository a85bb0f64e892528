"""Priors on disk: what is saved comes back, and what does not belong together is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mri_score.errors import InputError
from mri_score.files import sha256
from mri_score.models.network import NetworkPrior
from mri_score.numerics.noise import generators, noise_like
from mri_score.priors import record as record_module
from mri_score.priors.record import bundled_priors
from mri_score.priors.store import build_prior, load_prior, read_record, save_prior

NETWORK = {"name": "unet", "widths": [6, 8], "blocks": 1, "embedding": 32}
LEVELS = torch.tensor([0.01, 0.3, 3.0, 40.0])


@pytest.fixture
def prior() -> NetworkPrior:
    """A prior with no weight at zero."""
    prior = build_prior(NETWORK, precondition="edm", sd=0.37, sigma_min=0.005, sigma_max=120.0)
    random = torch.Generator().manual_seed(0)
    for parameter in prior.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random) / max(parameter[0].numel(), 4) ** 0.5
    return prior


@pytest.fixture
def saved(prior, tmp_path) -> Path:
    save_prior(tmp_path / "knee.safetensors", prior, NETWORK, {"data": "synthetic"})
    return tmp_path / "knee.safetensors"


def denoised(prior: NetworkPrior) -> torch.Tensor:
    noise = noise_like(torch.zeros(4, 12, 13, dtype=torch.complex64), generators(0, draws=4))
    with torch.no_grad():
        return prior.denoise(LEVELS[:, None, None] * noise, LEVELS)


def test_a_saved_prior_comes_back_to_the_bit(prior, saved):
    found = load_prior(saved)
    assert torch.equal(denoised(found), denoised(prior))
    assert (found.precondition, found.sd, found.sigma_min, found.sigma_max) == ("edm", 0.37, 0.005, 120.0)
    assert not found.training and not any(p.requires_grad for p in found.parameters())
    assert read_record(saved)["about"] == {"data": "synthetic"} and read_record(saved)["network"] == NETWORK


def test_half_precision_takes_half_the_room_and_a_thousandth_of_accuracy(prior, saved, tmp_path):
    save_prior(tmp_path / "half.safetensors", prior, NETWORK, {}, half=True)
    found, exact = denoised(load_prior(tmp_path / "half.safetensors")), denoised(prior)
    error = (found - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert 0 < float(error.max()) < 1e-3
    assert all(p.dtype == torch.float32 for p in load_prior(tmp_path / "half.safetensors").parameters())
    assert (tmp_path / "half.safetensors").stat().st_size < 0.75 * saved.stat().st_size


def test_buffers_stay_exact_in_half_precision(prior, tmp_path):
    """The embedding's frequencies multiply c_noise inside a cosine: rounding them shifts its phase."""
    save_prior(tmp_path / "half.safetensors", prior, NETWORK, {}, half=True)
    found = load_prior(tmp_path / "half.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(found.buffers(), prior.buffers(), strict=True))


def test_a_run_folder_stands_for_its_prior(prior, tmp_path):
    save_prior(tmp_path / "prior.safetensors", prior, NETWORK, {})
    assert torch.equal(denoised(load_prior(tmp_path)), denoised(prior))
    assert torch.equal(denoised(load_prior(str(tmp_path))), denoised(prior))


def test_a_folder_without_a_prior_says_so(tmp_path):
    with pytest.raises(InputError, match="holds no prior.safetensors; has its training saved once"):
        load_prior(tmp_path)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(InputError, match="nothing.safetensors does not exist"):
        load_prior(tmp_path / "nothing.safetensors")


def test_bundled_priors_go_by_name_and_unknown_names_list_them(prior, tmp_path, monkeypatch):
    for name in ("brain", "knee"):
        save_prior(tmp_path / "weights" / f"{name}.safetensors", prior, NETWORK, {})
    monkeypatch.setattr(record_module, "files", lambda package: tmp_path)
    assert list(bundled_priors()) == ["brain", "knee"]
    assert torch.equal(denoised(load_prior("knee")), denoised(prior))
    assert torch.equal(denoised(load_prior()), denoised(prior))
    with pytest.raises(InputError, match=r"'spine' is no bundled or installed prior \(brain, knee\), run folder or"):
        load_prior("spine")


def edit(saved: Path, **changes) -> None:
    beside = saved.with_suffix(".json")
    record = {**json.loads(beside.read_text()), **changes}
    record.pop("record_sha256", None)  # as in records of earlier versions, or by whoever forges one
    beside.write_text(json.dumps(record))


def cut(saved: Path, key: str) -> None:
    beside = saved.with_suffix(".json")
    record = json.loads(beside.read_text())
    del record[key], record["record_sha256"]
    beside.write_text(json.dumps(record))


def refused(saved: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_prior(saved)


def test_refuses_weights_of_another_sum(saved):
    with open(saved, "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    refused(saved, r"knee.safetensors is damaged: its SHA-256 is not the one in knee.json; copy both files again")


def test_refuses_weights_without_description(saved):
    saved.with_suffix(".json").unlink()
    refused(saved, "knee.safetensors needs knee.json beside it")


@pytest.mark.parametrize("text", ["", "{", "[]", '"mri_score prior 1"', "{}", '{"format": "mri_score prior 99"}'])
def test_refuses_what_is_no_description(saved, text):
    saved.with_suffix(".json").write_text(text)
    refused(saved, "knee.json")


def test_refuses_another_format(saved):
    edit(saved, format="mri_score prior 99")
    refused(saved, "knee.json is not a prior's description; it should say format: 'mri_score prior 1'")


@pytest.mark.parametrize("key", ["sha256", "network", "prior"])
def test_refuses_an_incomplete_description(saved, key):
    cut(saved, key)
    refused(saved, f"knee.json lacks {key}")


def test_refuses_an_unknown_network(saved):
    edit(saved, network={"name": "transformer"})
    refused(saved, "network.name is 'transformer'; known names: ddpm, edm, experts, ncsn, ncsnpp, ncsnv2, unet")


def test_refuses_an_unknown_preconditioning(saved):
    edit(saved, prior={"precondition": "flow"})
    refused(saved, "prior.precondition is 'flow'; known names: ddpm, denoiser, edm")


@pytest.mark.parametrize("place", ["network", "prior"])
def test_refuses_an_unknown_argument(saved, place):
    record = read_record(saved)
    edit(saved, **{place: {**record[place], "wings": 2}})
    refused(saved, "wings")


def test_refuses_weights_of_another_network(saved):
    edit(saved, network={**NETWORK, "widths": [6, 10]})
    refused(saved, "knee.safetensors does not fit its knee.json")


@pytest.mark.parametrize("length", [0, 5, 500, -7])
def test_refuses_truncated_weights_even_with_their_own_sum(saved, length):
    saved.write_bytes(saved.read_bytes()[:length])
    edit(saved, sha256=sha256(saved))
    refused(saved, "knee.safetensors does not fit its knee.json")
