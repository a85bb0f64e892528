"""EDM's networks: import of every variant and wrapper, against a rebuild of the published structure."""

from __future__ import annotations

import pickle
import sys
from collections import OrderedDict
from types import ModuleType

import numpy as np
import pytest
import torch
from published_networks import Weights, edm_network
from torch import nn

from mri_score.errors import InputError
from mri_score.networks import build_network
from mri_score.networks.edm import from_published
from mri_score.priors.published import import_published

PLAIN = {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention": []}
VARIANTS = {
    "ddpm++": {**PLAIN, "kind": "song", "multipliers": [1, 2, 2], "attention": [1], "blocks": 2},
    "ncsn++": {**PLAIN, "kind": "song", "embedding": "fourier", "noise_features": 2, "encoder": "residual",
               "fir": [1.0, 3.0, 3.0, 1.0], "multipliers": [1, 2, 1]},
    "skips": {**PLAIN, "kind": "song", "encoder": "skip", "decoder": "skip", "fir": [1.0, 3.0, 3.0, 1.0],
              "multipliers": [1, 1, 2]},
    "adm": {"kind": "dhariwal", "width": 64, "multipliers": [1, 1], "blocks": 1, "attention": [1], "features": 2},
    "adm, wider": {"kind": "dhariwal", "width": 8, "multipliers": [2, 1, 3], "blocks": 2, "attention": []},
}  # fmt: skip


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(5)


def drawn(variant, channels=2, prefix=""):
    """A random checkpoint of a variant: its tensors by their published names."""
    weights = Weights()
    with torch.no_grad():
        edm_network(weights, torch.zeros(1, channels, 16, 16), torch.zeros(1), prefix=prefix, **VARIANTS[variant])
    return weights.state


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_read_from_its_names_and_is_the_published_function(variant):
    state = drawn(variant)
    state["map_augment.weight"] = torch.zeros(len(state["map_layer0.weight"][0]), 9)  # used in training only
    network, weights = from_published(state)
    assert {key: network[key] for key in VARIANTS[variant]} == VARIANTS[variant]
    ours = build_network(network).eval()
    ours.load_state_dict(weights)
    x, c_noise = torch.randn(2, 2, 16, 24), torch.tensor([-1.2, 0.6])
    published = Weights({key: value for key, value in state.items() if key != "map_augment.weight"})
    with torch.no_grad():
        expected = edm_network(published, x, c_noise, side=16, **VARIANTS[variant])
        found = ours(x, c_noise)
    assert published.used == published.state.keys()
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))


WRAPPERS = {
    "bare": lambda state: state,
    "edm": lambda state: {"ema": {f"model.{key}": value for key, value in state.items()}, "step": 7},
    "inversebench": lambda state: {
        "net": {f"model.{key}": 2 * value for key, value in state.items()},
        "ema": {f"model.{key}": value for key, value in state.items()}, "optimizer": {"state": {}},
    },
    "parallel": lambda state: {f"module.model.{key}": value for key, value in state.items()},
    "compiled": lambda state: {"model": {f"_orig_mod.{key}": value for key, value in state.items()}},
    "lightning": lambda state: {
        "state_dict": {f"net._orig_mod.model.{key}": 2 * value for key, value in state.items()}
        | {f"net_ema.model.{key}": value for key, value in state.items()} | {"lpips.scale": torch.ones(3)},
        "hyper_parameters": {"lr": 1e-4}, "pytorch-lightning_version": "2.1", "callbacks": {},
    },
}  # fmt: skip


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapped_checkpoints_give_edms_denoiser(tmp_path, wrapper):
    state = drawn("ddpm++")
    torch.save(WRAPPERS[wrapper](state), tmp_path / "mri-knee.pt")
    prior, network, about = import_published(tmp_path / "mri-knee.pt")
    assert (network["name"], prior.precondition, prior.sd) == ("edm", "edm", 0.5)
    assert (prior.sigma_min, prior.sigma_max) == (0.002, 80.0)
    averaged = wrapper in ("inversebench", "lightning")  # of the others, all weights are those of one network
    assert about["weights"] == ("averaged (EMA)" if averaged else "raw")
    x, sigma = torch.randn(1, 16, 16, dtype=torch.complex64), torch.tensor([0.7])
    channels = torch.view_as_real(x).movedim(-1, 1)
    total = (sigma**2 + 0.25).sqrt()
    with torch.no_grad():
        f = edm_network(Weights(state), channels / total, sigma.log() / 4, **VARIANTS["ddpm++"])
        expected = 0.25 / total**2 * channels + sigma * 0.5 / total * f
        found = torch.view_as_real(prior.denoise(x, sigma)).movedim(-1, 1)
        if averaged:
            raw = import_published(tmp_path / "mri-knee.pt", raw=True)[0].network.map_layer0.weight
            assert torch.equal(raw, 2 * prior.network.map_layer0.weight)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_what_is_no_prior_of_images_is_refused(tmp_path):
    state = drawn("ddpm++")
    torch.save(state | {"map_label.weight": torch.zeros(8, 10)}, tmp_path / "classes.pt")
    with pytest.raises(InputError, match="class labels"):
        import_published(tmp_path / "classes.pt")
    torch.save({key: value for key, value in state.items() if "block0.conv0" not in key}, tmp_path / "part.pt")
    with pytest.raises(InputError, match=r"part.pt resembles a state dict, but its network is another one"):
        import_published(tmp_path / "part.pt")


class Setting:
    """An object of a config library beside the weights; its module is never imported."""


def test_objects_of_config_libraries_beside_the_weights_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "omegaconf", ModuleType("omegaconf"))
    sys.modules["omegaconf"].Setting = Setting
    monkeypatch.setattr(Setting, "__module__", "omegaconf")
    torch.save({"ema": drawn("ddpm++"), "config": {"model": Setting()}}, tmp_path / "run.ckpt")
    assert import_published(tmp_path / "run.ckpt")[1]["name"] == "edm"


def test_a_network_of_a_config_is_trained_by_its_gradient():
    network = build_network({"name": "edm", "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": []})
    loss = network(torch.randn(1, 2, 18, 20), torch.zeros(1)).square().sum()
    loss.backward()
    assert isinstance(network, nn.Module) and loss.detach() >= 0
    assert all(parameter.grad is not None for parameter in network.parameters())


# ---- The pickles of EDM: objects whose classes travel as source code.


class Persisted:
    """An object that pickles as EDM's persistent classes do: with source code, a class name and its attributes."""

    def __init__(self, name, state):
        self.name, self.state = name, state

    def __reduce__(self):
        source = f"open({str(TOUCHED)!r}, 'w')"
        about = {"type": "class", "version": 6, "module_src": source, "class_name": self.name, "state": self.state}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (about,)


TOUCHED = None


@pytest.fixture
def code(tmp_path, monkeypatch):
    """Modules of the names that EDM's pickles ask for; running what they ask for leaves a file."""

    def _reconstruct_persistent_obj(about):
        exec(about["module_src"])

    monkeypatch.setattr(sys.modules[__name__], "TOUCHED", tmp_path / "touched")
    module = ModuleType("torch_utils.persistence")
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    monkeypatch.setitem(sys.modules, "torch_utils", ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)
    return tmp_path / "touched"


def module_of(state, name="UNetBlock"):
    """Nested objects from tensors by their names; enc and dec are plain containers of torch."""
    inner = {}
    for key, value in state.items():
        head, _, rest = key.partition(".")
        inner.setdefault(head, {})[rest] = value
    leaves = {head: nn.Parameter(one[""]) for head, one in inner.items() if "" in one and "filter" not in head}
    buffers = {head: one[""] for head, one in inner.items() if "" in one and "filter" in head}
    modules = OrderedDict()
    for head, one in inner.items():
        if "" in one:
            continue
        child = module_of(one)
        if head in ("enc", "dec"):
            container = nn.ModuleDict()
            container.__dict__["_modules"] = child.state["_modules"]
            child = container
        modules[head] = child
    attributes = {"training": False, "_parameters": OrderedDict(leaves), "_buffers": OrderedDict(buffers),
                  "_modules": modules, "_non_persistent_buffers_set": set(), "skip_scale": np.sqrt(0.5)}  # fmt: skip
    return Persisted(name, attributes)


NUMBERS = {
    "EDMPrecond": ("edm", {"sigma_min": 0, "sigma_max": float("inf"), "sigma_data": 0.5}),
    "VPPrecond": ("vp", {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5}),
    "VEPrecond": ("ve", {"sigma_min": 0.02, "sigma_max": 100}),
}


def pickled(path, kind, channels=3):
    state = drawn("ncsn++" if kind == "VEPrecond" else "ddpm++", channels)
    net = module_of({f"model.{key}": value for key, value in state.items()}, kind)
    net.state |= NUMBERS[kind][1] if kind in NUMBERS else {}
    loss = Persisted("EDMLoss", {"P_mean": -1.2})
    path.write_bytes(pickle.dumps({"ema": net, "loss_fn": loss, "augment_pipe": None}))
    return state


@pytest.mark.parametrize("kind", NUMBERS)
def test_a_pickle_gives_the_denoiser_of_its_class_and_runs_nothing(tmp_path, code, kind):
    state = pickled(tmp_path / "cifar10.pkl", kind)
    prior, network, about = import_published(tmp_path / "cifar10.pkl")
    assert not code.exists() and prior.precondition == NUMBERS[kind][0]
    assert about["pixels"] == {"centred": True, "logit": False, "scale": "bits"}
    x, sigma = torch.randn(1, 3, 16, 16), torch.tensor([0.7])
    if kind == "EDMPrecond":
        total = (sigma**2 + 0.25).sqrt()
        skip, out, scale, label = 0.25 / total**2, sigma * 0.5 / total, 1 / total, sigma.log() / 4
    elif kind == "VPPrecond":
        t = ((0.1**2 + 2 * 19.9 * (1 + sigma**2).log()).sqrt() - 0.1) / 19.9
        skip, out, scale, label = 1, -sigma, 1 / (1 + sigma**2).sqrt(), 999 * t
    else:
        skip, out, scale, label = 1, sigma, 1, (sigma / 2).log()
        assert (prior.sigma_min, prior.sigma_max) == (0.02, 100)
    variant = VARIANTS["ncsn++" if kind == "VEPrecond" else "ddpm++"]
    with torch.no_grad():
        expected = skip * x + out * edm_network(Weights(state), scale * x, label, **variant)
        found = prior.denoise(x, sigma)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_other_pickles_are_refused_and_run_nothing(tmp_path, code):
    pickled(tmp_path / "imagenet.pkl", "iDDPMPrecond")
    with pytest.raises(InputError, match="class iDDPMPrecond; known are EDMPrecond, VPPrecond, VEPrecond"):
        import_published(tmp_path / "imagenet.pkl")
    (tmp_path / "other.pkl").write_bytes(pickle.dumps({"ema": Persisted("EDMPrecond", None)}))
    with pytest.raises(InputError, match="other.pkl is no pickle of an EDM network.*save the state dict"):
        import_published(tmp_path / "other.pkl")
    assert not code.exists()
