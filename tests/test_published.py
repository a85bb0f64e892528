"""Published checkpoints: each layout gives the published score, any size comes back, and nothing in a file is run."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mri_score.cli import main
from mri_score.errors import InputError
from mri_score.files import sha256
from mri_score.networks import ncsnpp_published
from mri_score.networks.ncsn import NCSN
from mri_score.networks.ncsnv2 import STAGES, NCSNv2
from mri_score.priors.published import import_published
from mri_score.priors.store import build_prior, load_prior, read_record
from mri_score.priors.unpickling import Skipped, read_checkpoint
from mri_score.untrusted.process import trust

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
published_weights = pytest.importorskip("fuzz", reason="scripts/ is not beside the tests").published_weights

SIGMAS = torch.tensor([40.0, 3.0, 0.02])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(5)


def relative(score: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference of an item, as a part of its largest value; a complex score against its channels."""
    if score.is_complex():
        score = torch.view_as_real(score).movedim(-1, 1)
    return float(((score - expected).abs().amax((1, 2, 3)) / expected.abs().amax((1, 2, 3))).max())


@pytest.mark.parametrize(
    ("file", "answers", "raw", "output"),
    [
        ("ncsn.pth", "ncsn_io.pt", False, "score"),  # stores no average
        ("ncsnv2_low.pth", "ncsnv2_low_io.pt", True, "score"),
        ("ncsnv2_low.pth", "ncsnv2_low_io.pt", False, "score_ema"),
        ("ncsnv2_large.pth", "ncsnv2_large_io.pt", True, "score"),
        ("ncsnv2_large.pth", "ncsnv2_large_io.pt", False, "score_ema"),
        ("score_diffusion_training_medium.pt", "score_diffusion_training_medium_io.pt", False, "score_ema"),
        ("ncsnpp_rewrite.pth", "ncsnpp_rewrite_io.pt", False, "score"),
        ("ncsnpp_score_sde.pth", "ncsnpp_rewrite_io.pt", False, "score"),
    ],
)
def test_every_layout_gives_the_published_score(shared, file, answers, raw, output):
    folder = shared / "fixtures/checkpoints"
    known = torch.load(folder / answers, weights_only=True)
    prior, network, about = import_published(folder / file, raw=raw)
    x = known["x"]
    if network["channels"] == 2:
        x = torch.complex(x[:, 0], x[:, 1])
    sigma = known["sigma"] if "sigma" in known else prior.network.sigmas[known["label"]]
    with torch.no_grad():
        assert relative(prior.score(x, sigma), known[output]) < 1e-5
    assert about["weights"] == ("raw" if raw or file == "ncsn.pth" else "averaged (EMA)")
    assert about["source_sha256"] == sha256(folder / file)


def ema_beside(state: dict[str, torch.Tensor]) -> list:
    """The list of the NCSNv2 releases: the weights as average, others as those of the last step."""
    raw = {f"module.{key}": 2 * value for key, value in state.items()} | {"module.sigmas": SIGMAS}
    return [raw, {"state": {}}, 7, 900, state]


@pytest.mark.parametrize("depth", STAGES)
@pytest.mark.parametrize(("width", "channels"), [(4, 2), (6, 1)])
def test_ncsnv2_of_any_depth_width_and_channels_comes_back(tmp_path, depth, width, channels):
    ours = NCSNv2(depth, width, channels, published_input=True)
    torch.save(ema_beside(published_weights(ours, depth)), tmp_path / "checkpoint.pth")
    prior, network, _ = import_published(tmp_path / "checkpoint.pth", sd=0.2)
    assert network == {
        "name": "ncsnv2", "depth": depth, "width": width, "channels": channels, "published_input": True
    }  # fmt: skip
    assert (prior.sd, prior.sigma_max, prior.sigma_min) == pytest.approx((0.2, 40.0, 0.02))
    x = torch.randn(1, channels, 11, 16)
    assert torch.allclose(prior.network(x, torch.zeros(1)), ours(x, torch.zeros(1)), atol=1e-5)


@pytest.mark.parametrize(("levels", "width", "channels"), [(3, 4, 2), (7, 6, 1)])
@pytest.mark.parametrize("zipped", [True, False])  # files of torch before 1.6 are no zip
def test_ncsn_of_any_size_comes_back(tmp_path, levels, width, channels, zipped):
    ours = NCSN(levels, 5.0, 0.05, width, channels, published_input=True)
    state = published_weights(ours, "low")
    del state["sigmas"]
    path = tmp_path / "checkpoint.pth"
    torch.save([state, {"state": {}}], path, _use_new_zipfile_serialization=zipped)
    prior, network, about = import_published(path, sigma_max=5.0, sigma_min=0.05)
    assert (network["levels"], network["width"], network["channels"]) == (levels, width, channels)
    assert (about["layout"], about["weights"]) == ("ermongroup/ncsn", "raw")
    x, c_noise = torch.randn(2, channels, 9, 14), torch.tensor([5.0, 0.06]).log()
    assert torch.equal(prior.network(x, c_noise), ours(x, c_noise))
    assert import_published(path)[0].sigma_max == 1.0  # the release's own ladder, where nothing else is known


def test_a_stored_ladder_is_the_labels_ladder(tmp_path):
    state = published_weights(NCSN(3, width=4), "low") | {"sigmas": SIGMAS}
    torch.save(state, tmp_path / "state.pth")
    prior, _, about = import_published(tmp_path / "state.pth")
    assert torch.equal(prior.network.sigmas, SIGMAS) and about["layout"] == "a state dict"


def test_an_averaged_list_may_leave_out_the_frozen_frequencies(shared, tmp_path):
    saved = torch.load(shared / "fixtures/checkpoints/ncsnpp_score_sde.pth", weights_only=True)
    saved["ema"]["shadow_params"] = [value + 1 for value in saved["ema"]["shadow_params"][1:]]
    torch.save(saved, tmp_path / "checkpoint.pth")
    averaged = import_published(tmp_path / "checkpoint.pth")[0].network.state_dict()
    raw = import_published(tmp_path / "checkpoint.pth", raw=True)[0].network.state_dict()
    assert [name for name in raw if torch.equal(raw[name], averaged[name]) and "kernel" not in name] != []
    changed = [name for name in raw if torch.allclose(averaged[name], raw[name] + 1)]
    assert len(changed) == len(saved["ema"]["shadow_params"])
    saved["ema"]["shadow_params"].pop()
    torch.save(saved, tmp_path / "short.pth")
    with pytest.raises(InputError, match="155 averaged tensors for 157 parameters.*--raw"):
        import_published(tmp_path / "short.pth")


class Reduced:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "argument"),
    [
        (os.system, lambda target: f"touch {target}"),
        (subprocess.check_output, lambda target: ["touch", str(target)]),
        (exec, lambda target: f"open({str(target)!r}, 'w')"),
        (eval, lambda target: f"open({str(target)!r}, 'w')"),
        (os.mkdir, str),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("layout", [lambda bad: [{}, bad], lambda bad: {"model_state": {}, "config": bad}])
def test_a_file_that_would_run_something_is_refused_and_runs_nothing(tmp_path, function, argument, zipped, layout):
    touched, path = tmp_path / "touched", tmp_path / "checkpoint.pth"
    torch.save(layout(Reduced(function, argument(touched))), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="not tensors and plain values; nothing of it was run") as caught:
        import_published(path)
    assert not touched.exists() and "weights_only" not in str(caught.value)
    torch.load(path, weights_only=False)
    assert touched.exists()  # what the refusal is worth


@pytest.mark.parametrize("name", ["numpy.made_up", "torch.nn.made_up", "ncsnv2", "dotmap"])
def test_no_name_of_a_skipped_module_is_looked_up(tmp_path, monkeypatch, name):
    """A function of such a module: saved where it does harm, read where it must not."""
    touched = []

    def harm(*arguments):
        touched.append(arguments)

    harm.__module__, harm.__qualname__, module = name, "harm", ModuleType(name)
    module.harm = harm
    monkeypatch.setitem(sys.modules, name, module)
    torch.save({"model_state": {}, "config": Reduced(harm, 1)}, tmp_path / "checkpoint.pth")
    allowed = torch.serialization.get_safe_globals()
    with trust():  # in this process, which has the module
        if name == "dotmap":
            with pytest.raises(InputError, match="dotmap.harm"):
                read_checkpoint(tmp_path / "checkpoint.pth")
        else:
            assert type(read_checkpoint(tmp_path / "checkpoint.pth")["config"]) is Skipped
    assert not touched
    assert set(torch.serialization.get_safe_globals()) == set(allowed)


class DotMap(OrderedDict):
    """Pickles as dotmap's class does: items, and a state of its own."""

    def __reduce__(self):
        return type(self), (), {"_map": OrderedDict(self), "_dynamic": True}, None, iter(self.items())


def test_the_config_of_a_training_run_is_read_past_what_is_no_plain_value(tmp_path, monkeypatch):
    """score-diffusion-training stores numpy numbers, tensors and the network itself beside the weights."""
    monkeypatch.setitem(sys.modules, "dotmap", ModuleType("dotmap"))
    sys.modules["dotmap"].DotMap = DotMap
    monkeypatch.setattr(DotMap, "__module__", "dotmap")
    state = published_weights(NCSNv2("medium", 4), "medium")
    model = DotMap(sigma_begin=np.array(40.0), sigma_rate=np.float64(0.9), sigmas=SIGMAS)
    config = DotMap(model=model, data=DotMap(file="knee", rescaled=False))
    saved = {
        "diffuser": torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ELU()),
        "model_state": {f"module.{key}": value for key, value in state.items()} | {"module.sigmas": SIGMAS},
        "config": config,
    }
    for rescaled in (False, True):
        config["data"]["rescaled"] = rescaled
        torch.save(saved, tmp_path / "final_model.pt")
        _, network, about = import_published(tmp_path / "final_model.pt")
        assert (about["layout"], about["weights"]) == ("utcsilab/score-diffusion-training", "raw")
        assert about["trained_on"] == "knee" and network["depth"] == "medium"
        assert network["published_input"] is not rescaled
    read = read_checkpoint(tmp_path / "final_model.pt")
    assert type(read["config"]) is dict and type(read["config"]["model"]["sigma_rate"]) is Skipped


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"weights": {"a": torch.zeros(3, 4)}, "step": 7}, r"dict of 2: weights \(dict of 1: a \(3, 4\)\), step int"),
        ({"encoder.weight": torch.zeros(3, 4)}, r" has no known layout .* dict of 1: encoder.weight \(3, 4\)"),
        ([1, 2], "list of 2: 0 int, 1 int"),
        (torch.zeros(5), r"holds \(5\)"),
        ({"begin_conv.weight": torch.zeros(4, 2, 3, 3), "normalizer.alpha": torch.zeros(4), "sigmas": SIGMAS},
         "do not fit the network.*the network is larger than the file"),
        ({"normalizer.alpha": torch.zeros(4), "sigmas": SIGMAS}, "another one: 'begin_conv.weight'"),
    ],
)  # fmt: skip
def test_files_of_no_known_layout_say_what_they_hold(tmp_path, saved, message):
    torch.save(saved, tmp_path / "other.pth")
    with pytest.raises(InputError, match=rf"(?s)other.pth.*{message}"):
        import_published(tmp_path / "other.pth")


def test_files_that_torch_did_not_write_are_refused(tmp_path):
    with pytest.raises(InputError, match="absent.pth does not exist"):
        import_published(tmp_path / "absent.pth")
    torch.save({"a": torch.zeros(100)}, tmp_path / "whole.pth")
    for content in (b"", b"no checkpoint\n", bytes(range(256)), (tmp_path / "whole.pth").read_bytes()[:300]):
        (tmp_path / "broken.pth").write_bytes(content)
        with pytest.raises(InputError, match=r"cannot be read as a checkpoint of torch.save \(.+\); copy it") as caught:
            import_published(tmp_path / "broken.pth")
        assert "weights_only" not in str(caught.value)


def test_noise_levels_that_nothing_tells_are_asked_for(tmp_path):
    state = published_weights(NCSNv2("low", 4), "low")
    torch.save(state, tmp_path / "bare.pth")
    with pytest.raises(InputError, match="does not store its noise levels; give --sigma-max and --sigma-min"):
        import_published(tmp_path / "bare.pth")
    prior, _, _ = import_published(tmp_path / "bare.pth", sigma_max=9.0, sigma_min=0.1)
    assert (prior.sigma_max, prior.sigma_min) == (9.0, 0.1)
    torch.save({**state, "sigmas": torch.ones(5)}, tmp_path / "denoiser.pth")
    with pytest.raises(InputError, match="from 1 to 1 are not those of a score model"):
        import_published(tmp_path / "denoiser.pth")
    with pytest.raises(InputError, match="from 9 to 0 are not"):
        import_published(tmp_path / "bare.pth", sigma_max=9.0, sigma_min=0.0)


def test_variance_preserving_networks_get_the_levels_of_their_process(tmp_path, monkeypatch):
    """Their files store `sigmas` that nothing used; sub-VP is the same to the tensors."""
    network = {"name": "ddpm", "width": 4, "multipliers": [1], "blocks": 1, "attention": []}
    weights = build_prior(network).network.state_dict()
    arguments = {**network, "name": "ncsnpp", "block": "ddpm", "fir": [], "embedding": "positional", "levels": 0,
                 "progressive_input": "none", "skip_rescale": False}  # fmt: skip
    monkeypatch.setattr(ncsnpp_published, "from_published", lambda state: (dict(arguments), weights))
    torch.save({"all_modules.0.weight": torch.zeros(1), "sigmas": SIGMAS}, tmp_path / "state.pth")
    vp, sub_vp = (math.sqrt(math.expm1(1.0995e-4)), 2 * math.sinh(5.025)), (1.0995e-4, 2 * math.sinh(5.025))
    for row, precondition, ends in [("vp", "vp", vp), ("sub-vp", "sub-vp", sub_vp), ("ddpm", "ddpm", (0.01, 157.4))]:
        prior, _, _ = import_published(tmp_path / "state.pth", precondition=precondition)
        assert prior.precondition == row
        assert (prior.sigma_min, prior.sigma_max) == pytest.approx(ends, rel=1e-3)
    with pytest.raises(InputError, match="--precondition vp .* sub-vp, ddpm .* or ncsn"):
        import_published(tmp_path / "state.pth")


def test_what_no_tensor_shows_is_asked_for(tmp_path):
    """Skip pyramids and blocks that resample have no weights of their own: FIR or not, the tensors are the same."""
    from test_ncsnpp import release

    pyramids = {"progressive": "output_skip", "progressive_input": "input_skip", "blocks": 2}
    released = release(**pyramids, fir=[], published_input=True)
    torch.save({"model": released.state, "ema": {}}, tmp_path / "church.pth")
    arguments = {"sigma_max": 2.0, "sigma_min": 0.05}
    with pytest.raises(InputError, match="church.pth: .* --fir .* or --no-fir .* --config"):
        import_published(tmp_path / "church.pth", **arguments)
    x, sigma = torch.randn(1, 16, 16, dtype=torch.complex64), torch.tensor([0.4])
    channels = torch.view_as_real(x).movedim(-1, 1)
    expected = released(channels.double(), sigma.double()).float() / sigma
    found = [import_published(tmp_path / "church.pth", fir=fir, **arguments)[0] for fir in ([], [1, 3, 3, 1])]
    scores = [torch.view_as_real(prior.score(x, sigma)).movedim(-1, 1) for prior in found]
    torch.testing.assert_close(scores[0], expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert float((scores[1] - expected).abs().max()) > 1e-3 * float(expected.abs().max())  # the choice matters


def test_the_command_writes_a_prior_that_loads_and_denoises(tmp_path):
    ours = NCSNv2("low", 4, published_input=True)
    torch.save(ema_beside(published_weights(ours, "low")), tmp_path / "checkpoint.pth")
    arguments = ["import-checkpoint", str(tmp_path / "checkpoint.pth"), "--out", str(tmp_path / "priors/knee")]
    first, second = (CliRunner().invoke(main, arguments) for _ in range(2))
    assert first.exit_code == 0, first.output
    assert "layout of ermongroup/ncsnv2, averaged (EMA) weights" in first.output and "40 to 0.02" in first.output
    refusal = "exists already; choose another file with --out, or overwrite it with --again"
    assert second.exit_code == 2 and refusal in second.output
    path = tmp_path / "priors/knee.safetensors"
    average = path.read_bytes()
    assert CliRunner().invoke(main, [*arguments, "--again", "--raw"]).exit_code == 0
    assert path.read_bytes() != average
    assert CliRunner().invoke(main, [*arguments, "--again"]).exit_code == 0

    about = read_record(path)["about"]
    assert about["source"] == "checkpoint.pth" and about["source_sha256"] == sha256(tmp_path / "checkpoint.pth")
    prior, sigma = load_prior(path), torch.tensor([0.5])
    x = torch.randn(1, 17, 12, dtype=torch.complex64)
    channels = torch.view_as_real(x).movedim(-1, 1)
    denoised = torch.view_as_real(prior.denoise(x, sigma)).movedim(-1, 1)
    torch.testing.assert_close(denoised, channels + 0.5 * ours(channels, sigma.log()))


def test_a_config_beside_the_file_says_what_tensors_do_not(tmp_path):
    """Resampling without convolutions, the centring of the input, the ends of the noise levels, and the process."""
    from test_ncsnpp import release

    published = release(progressive_input="none", fir=[], published_input=False, skip_rescale=False)
    torch.save({"model": published.state, "ema": {}}, tmp_path / "epoch_9.pth")
    refused = CliRunner().invoke(main, ["import-checkpoint", str(tmp_path / "epoch_9.pth"), "-o", str(tmp_path / "a")])
    assert refused.exit_code == 2 and "--sigma-max" in refused.output
    (tmp_path / "config.yml").write_text(
        "model: {nf: 8, sigma_min: 0.02, sigma_max: 30, fir: false, skip_rescale: false, sde_type: vesde}\n"
        "data: {name: HEADS, centered: true}\n"
    )
    arguments = ["import-checkpoint", str(tmp_path / "epoch_9.pth"), "-o", str(tmp_path / "b")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "as in" in done.output and "not shown by the tensors" not in done.output
    prior = load_prior(tmp_path / "b.safetensors")
    assert (prior.sigma_min, prior.sigma_max) == pytest.approx((0.02, 30.0))
    network = read_record(tmp_path / "b.safetensors")["network"]
    assert (network["fir"], network["skip_rescale"], network["published_input"]) == ([], False, False)
    x, sigma = torch.randn(1, 16, 16, dtype=torch.complex64), torch.tensor([0.5])
    channels = torch.view_as_real(x).movedim(-1, 1)
    with torch.no_grad():
        assert relative(prior.score(x, sigma), published(channels.double(), sigma.double()) / 0.5) < 1e-5
    assert CliRunner().invoke(main, [*arguments, "--again", "--fir", "--skip-rescale"]).exit_code == 0
    network = read_record(tmp_path / "b.safetensors")["network"]
    assert (network["fir"], network["skip_rescale"]) == ([1, 3, 3, 1], True)
