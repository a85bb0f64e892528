"""Two networks in one prior: each item goes through the network of its noise level, and nothing else changes."""

from __future__ import annotations

import json
import math

import h5py
import pytest
import torch
from click.testing import CliRunner

from mri_score import experiment
from mri_score.cli import main
from mri_score.errors import InputError
from mri_score.generation import bare_prior, sample_prior
from mri_score.memory.footprint import network_bytes
from mri_score.numerics.noise import generators, noise_like
from mri_score.priors.record import add_to_record
from mri_score.priors.store import build_prior, join_experts, load_prior, read_record, save_prior

LOW = {"name": "unet", "widths": [6, 8], "blocks": 1, "embedding": 32}
HIGH = {"name": "unet", "widths": [6], "blocks": 1, "embedding": 32, "unshuffle": 4}


def new_run(folder, network, seed, sigma_min=0.01, sigma_max=10.0, **about):
    """What a training run leaves behind, no weight at zero."""
    prior = build_prior(network, **{"sd": 0.3, "sigma_min": sigma_min, "sigma_max": sigma_max, **about})
    random = torch.Generator().manual_seed(seed)
    for parameter in prior.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random) / max(parameter[0].numel(), 4) ** 0.5
    told = {"dataset": "heads", "step": 100 * seed, "images": 800}
    save_prior(folder / "prior.safetensors", prior, network, told)
    (folder / "config.yaml").write_text("dataset: heads\nloss: {name: denoising}\n")
    entry = {"step": 100 * seed, "denoising_errors": {f"{sigma_max}": 0.125 * seed}}
    (folder / "log.jsonl").write_text(json.dumps(entry) + "\n")
    return folder


@pytest.fixture
def runs(tmp_path):
    return new_run(tmp_path / "low", LOW, 1), new_run(tmp_path / "high", HIGH, 2, sigma_min=1.0, sigma_max=300.0)


def noisy(levels):
    image = torch.zeros(len(levels), 20, 24, dtype=torch.cfloat)
    return torch.tensor(levels)[:, None, None] * noise_like(image, generators(7, draws=len(levels)))


def test_each_item_is_denoised_by_the_network_of_its_level(runs):
    low, high = (load_prior(run) for run in runs)
    joined, _ = join_experts(*runs, 2.0)
    levels = torch.tensor([0.05, 30.0, 1.9, 2.1, 0.5])
    x = noisy([0.05, 30.0, 1.9, 2.1, 0.5])
    expected = torch.where((levels > 2)[:, None, None], high.denoise(x, levels), low.denoise(x, levels))
    torch.testing.assert_close(joined.denoise(x, levels), expected, rtol=1e-5, atol=1e-6)
    for level, one in ((0.5, low), (20.0, high)):
        torch.testing.assert_close(joined.denoise(x, level), one.denoise(x, level))
    assert (joined.sigma_min, joined.sigma_max, joined.sd) == (0.01, 300.0, 0.3)


def test_derivatives_pass_through_both(runs):
    """The vector-Jacobian product of a mixed batch is that of each item alone."""
    joined, _ = join_experts(*runs, 2.0)
    levels = torch.tensor([3.0, 0.4, 8.0])
    x = noisy([3.0, 0.4, 8.0])

    def product(x, levels):
        x = x.clone().requires_grad_(True)
        return torch.autograd.grad(joined.denoise(x, levels), x, torch.ones_like(x))[0]

    alone = torch.cat([product(x[i : i + 1], levels[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(product(x, levels), alone, rtol=1e-4, atol=1e-5)


def test_what_is_exported_reads_back_and_its_card_tells_of_both(runs, tmp_path):
    options = ["--name", "heads", "--summary", "Heads.", "--out", str(tmp_path / "out"), "--border", "2"]
    done = CliRunner().invoke(main, ["export-prior", str(runs[0]), "--high", str(runs[1]), *options])
    assert done.exit_code == 0, done.output
    path = tmp_path / "out" / "heads.safetensors"
    joined, found = join_experts(*runs, 2.0)[0], load_prior(path)
    x = noisy([0.1, 5.0])
    levels = torch.tensor([0.1, 5.0])
    torch.testing.assert_close(found.denoise(x, levels), joined.denoise(x, levels), rtol=2e-3, atol=2e-3)
    assert read_record(path)["network"]["border"] == pytest.approx(math.log(2) / 4)
    card = path.with_suffix(".md").read_text()
    for words in (
        "two experts",
        "100 steps",
        "above sigma 2: 200 steps",
        "sigma up to 2",
        "sigma from 2",
        "| 200 | 0.250 |",
    ):
        assert words in card


def test_training_goes_on_from_the_expert_that_fits(runs, tmp_path):
    joined, network = join_experts(*runs, 2.0)
    save_prior(tmp_path / "heads.safetensors", joined, network, {})
    x = noisy([1.5])
    for section, run in zip((LOW, HIGH), runs, strict=True):
        fresh = build_prior(section, sd=0.3)
        experiment._start_from(fresh, tmp_path / "heads.safetensors")
        torch.testing.assert_close(fresh.denoise(x, 1.5), load_prior(run).denoise(x, 1.5))
    with pytest.raises(InputError, match="its network is not the one of the config"):
        experiment._start_from(build_prior({**LOW, "widths": [5, 7]}, sd=0.3), tmp_path / "heads.safetensors")


def test_of_two_experts_alike_training_goes_on_from_the_one_of_its_levels(tmp_path):
    runs = new_run(tmp_path / "a", LOW, 1), new_run(tmp_path / "b", LOW, 2, sigma_min=1.0, sigma_max=300.0)
    joined, network = join_experts(*runs, 2.0)
    save_prior(tmp_path / "heads.safetensors", joined, network, {})
    x = noisy([1.5])
    for run, levels in zip(runs, ((0.01, 10.0), (1.0, 300.0)), strict=True):
        fresh = build_prior(LOW, sd=0.3, sigma_min=levels[0], sigma_max=levels[1])
        experiment._start_from(fresh, tmp_path / "heads.safetensors")
        torch.testing.assert_close(fresh.denoise(x, 1.5), load_prior(run).denoise(x, 1.5))


def test_memory_is_that_of_the_larger_network(runs, tmp_path):
    wide = new_run(tmp_path / "wide", {**LOW, "widths": [24, 32]}, 4, sigma_min=1.0, sigma_max=300.0)
    for high, larger in ((runs[1], runs[0]), (wide, wide)):
        joined, _ = join_experts(runs[0], high, 2.0)
        assert network_bytes(joined, 2, (64, 64)) == network_bytes(load_prior(larger), 2, (64, 64))


def test_float16_is_tried_above_the_border_too(runs, tmp_path):
    prior = load_prior(runs[1])
    with torch.no_grad():
        next(prior.network.parameters()).mul_(1e6)  # overflows float16
    save_prior(runs[1] / "prior.safetensors", prior, HIGH, {})
    options = ["--name", "heads", "--summary", "Heads.", "--out", str(tmp_path / "out"), "--border", "2"]
    done = CliRunner().invoke(main, ["export-prior", str(runs[0]), "--high", str(runs[1]), *options])
    assert done.exit_code == 0 and "float32" in done.output
    assert "above sigma 2: not said" in (tmp_path / "out" / "heads.md").read_text()


def test_samples_begin_with_the_base_that_a_record_names(runs, tmp_path):
    low, high = (run / "prior.safetensors" for run in runs)
    add_to_record(low, base={"prior": str(high), "border": 2.0})
    joined, told = bare_prior(low)
    assert told == {"base": str(high), "base_sha256": read_record(high)["sha256"], "border": 2.0}
    x = noisy([5.0, 0.3])
    levels = torch.tensor([5.0, 0.3])
    torch.testing.assert_close(joined.denoise(x, levels), join_experts(low, high, 2.0)[0].denoise(x, levels))
    alone, told = bare_prior(low, "none")
    assert told == {} and torch.equal(alone.denoise(x, 0.3), load_prior(low).denoise(x, 0.3))
    assert bare_prior(low, border=3.0)[1]["border"] == 3.0
    with pytest.raises(InputError, match="--base PRIOR and --border SIGMA go together"):
        bare_prior(high, str(low))

    options = ["-p", str(low), "-n", "2", "--size", "16", "--steps", "4", "--seed", "3"]
    done = CliRunner().invoke(main, ["sample", *options, "--out", str(tmp_path / "with")])
    assert done.exit_code == 0 and f"above sigma 2 with {high}, below with {low}" in done.output
    expected = sample_prior(joined, 2, (16, 16), steps=4, seed=3)
    with h5py.File(tmp_path / "with" / "samples.h5") as file:
        torch.testing.assert_close(torch.from_numpy(file["samples"][:]), expected)
        assert file.attrs["border"] == 2.0 and file.attrs["base"] == str(high)
    done = CliRunner().invoke(main, ["sample", *options, "--base", "none", "--out", str(tmp_path / "without")])
    assert done.exit_code == 0 and "above sigma" not in done.output
    with h5py.File(tmp_path / "without" / "samples.h5") as file:
        torch.testing.assert_close(
            torch.from_numpy(file["samples"][:]), sample_prior(alone, 2, (16, 16), steps=4, seed=3)
        )


def test_what_cannot_be_joined_is_refused(runs, tmp_path):
    with pytest.raises(InputError, match="outside of the noise levels that both learned: 1 to 10"):
        join_experts(*runs, 0.5)
    with pytest.raises(InputError, match="give them the other way round"):
        join_experts(*reversed(runs), 2.0)
    other = new_run(tmp_path / "other", HIGH, 3, sd=0.4)
    with pytest.raises(InputError, match="has sd 0.3 and .* 0.4; experts share it"):
        join_experts(runs[0], other, 2.0)
    real = new_run(tmp_path / "real", {**HIGH, "channels": 1}, 3, sigma_min=1.0)
    with pytest.raises(InputError, match="these take 2 and 1 channels"):
        join_experts(runs[0], real, 2.0)
    done = CliRunner().invoke(main, ["export-prior", str(runs[0]), "--name", "x", "--summary", "x", "--border", "2"])
    assert done.exit_code == 2 and "--high RUN and --border SIGMA must be given together" in done.output
