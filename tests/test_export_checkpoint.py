"""Export to the layouts of other projects: the published networks load it, and import gives the prior back."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner
from published_networks import Weights, refinenet
from test_ncsnpp import DEFAULTS, LADDER, Published

from mri_score.cli import main
from mri_score.errors import InputError
from mri_score.priors.published import import_published
from mri_score.priors.published_layouts import export_published
from mri_score.priors.store import build_prior, load_prior, save_prior

CASES = {
    "ncsn": ("ncsn", {"name": "ncsn", "levels": 5, "width": 4, "sigma_max": 2.0, "sigma_min": 0.05}, "score"),
    "ncsnv2 low": ("ncsnv2", {"name": "ncsnv2", "depth": "low", "width": 4, "channels": 1}, "ncsn"),
    "ncsnv2 large": ("ncsnv2", {"name": "ncsnv2", "depth": "large", "width": 4, "published_input": True}, "ncsn"),
    "medium": ("score-diffusion-training", {"name": "ncsnv2", "depth": "medium", "width": 4}, "ncsn"),
    "ncsnpp": ("score-sde", {"name": "ncsnpp", "width": 8, "multipliers": [1, 2], "blocks": 1, "progressive":
               "output_skip", "progressive_input": "input_skip"}, "ncsn"),
    "ladder": ("score-sde", {"name": "ncsnpp", "width": 8, "multipliers": [1, 2], "blocks": 1, **LADDER}, "ncsn"),
    "ddpm": ("score-sde", {"name": "ddpm", "width": 8, "multipliers": [1, 2], "blocks": 1}, "vp"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(5)


def prior_file(folder, network, precondition):
    """A prior with every weight away from its start."""
    prior = build_prior(dict(network), precondition=precondition, sd=0.3, sigma_min=0.05, sigma_max=2.0).eval()
    with torch.no_grad():
        for parameter in prior.network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_prior(folder / "ours.safetensors", prior, dict(network), {"dataset": "heads"})
    return load_prior(folder / "ours.safetensors")


def published_score(layout, saved, network, x, sigma, label):
    """What the published code computes from the checkpoint."""
    if layout == "score-sde":
        arguments = {key: value for key, value in network.items() if key != "name"}
        if network["name"] == "ddpm":
            arguments |= {"block": "ddpm", "fir": [], "embedding": "positional", "progressive_input": "none"}
            arguments |= {"skip_rescale": False, "levels": 0}
        code = Published(**DEFAULTS | {"published_input": False, "attention": [1]} | arguments, numbered=False)
        state = {key.removeprefix("module."): value.double() for key, value in saved["model"].items()}
        assert (
            saved["ema"]["shadow_params"][0].shape
            == next(iter(state[k] for k in state if "all_modules" in k and ".W" not in k)).shape
        )
        names = set(state) - {"sigmas"}
        code.state = {key: value for key, value in state.items() if key != "sigmas"}
        if network["name"] == "ddpm":
            noisy = x.double() / (1 + sigma.double() ** 2).sqrt()[:, None, None, None]
            t = (torch.sqrt(0.01 + 2 * 19.9 * torch.log1p(sigma.double() ** 2)) - 0.1) / 19.9
            score = -code(noisy, (999 * t).exp()) / sigma[:, None, None, None]
        else:
            code.state |= {"sigmas": state["sigmas"]} if network.get("levels") else {}
            score = code(x.double(), sigma.double()) / sigma[:, None, None, None]
        assert set(code.state) - {"sigmas"} == names
        return score.float()
    if layout == "score-diffusion-training":
        assert saved["config"]["model"]["num_classes"] == len(saved["model_state"]["module.sigmas"])
    state = saved["model_state"] if isinstance(saved, dict) else saved[0]
    state = {key.removeprefix("module."): value for key, value in state.items()}
    sigmas = state.pop("sigmas", None)
    averages = saved["ema_state"] if isinstance(saved, dict) else saved[4] if len(saved) > 4 else state
    assert averages.keys() == state.keys()
    weights = Weights(state)
    f = refinenet(
        weights, x, label, depth=network.get("depth", "low"), width=network["width"],
        levels=network.get("levels", 0), published_input=network.get("published_input", False),
    )  # fmt: skip
    assert weights.used == state.keys()
    return f if layout == "ncsn" else f / sigmas[label][:, None, None, None]


@pytest.mark.parametrize("case", CASES)
def test_the_published_network_computes_the_same_score_and_import_gives_it_back(tmp_path, case):
    layout, network, precondition = CASES[case]
    ours = prior_file(tmp_path, network, precondition)
    export_published(tmp_path / "ours.safetensors", layout, tmp_path / "checkpoint.pth", levels=7)
    saved = torch.load(tmp_path / "checkpoint.pth", weights_only=True)
    channels = network.get("channels", 2)
    x = 0.5 * torch.randn(2, channels, 16, 16)
    label = torch.tensor([0, 3])
    count = network.get("levels", 7)
    ladder = torch.linspace(torch.tensor(2.0).log(), torch.tensor(0.05).log(), count).exp()
    if network.get("embedding") == "positional":
        ladder = ours.network.embed.features.sigmas
    sigma = ladder[label]
    ours_x = torch.complex(x[:, 0], x[:, 1]) if channels == 2 else x[:, 0]
    with torch.no_grad():
        score = ours.score(ours_x, sigma)
        expected = published_score(layout, saved, network, x, sigma, label)
        back, _, about = import_published(
            tmp_path / "checkpoint.pth",
            sigma_max=2.0,
            sigma_min=0.05,
            centred=not network.get("published_input", False),
            precondition=precondition,
            **({"fir": [1, 3, 3, 1]} if network["name"] == "ncsnpp" else {}),
        )
        again = back.score(ours_x, sigma)
    found = torch.view_as_real(score).movedim(-1, 1) if channels == 2 else score[:, None]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    torch.testing.assert_close(again, score, rtol=0, atol=1e-5 * float(score.abs().max()))
    assert layout.replace("score-sde", "score_sde") in about["layout"].replace("ncsnv2", "ncsnv2")


def test_what_the_published_code_cannot_compute_is_refused(tmp_path):
    prior_file(tmp_path, {"name": "ncsnv2", "depth": "low", "width": 4}, "edm")
    with pytest.raises(InputError, match="preconditioning edm; the code of ncsnv2 has ncsn"):
        export_published(tmp_path / "ours.safetensors", "ncsnv2", tmp_path / "x.pth")
    with pytest.raises(InputError, match="network ncsnv2; the code of score-sde has ncsnpp and ddpm"):
        export_published(tmp_path / "ours.safetensors", "score-sde", tmp_path / "x.pth")
    assert not (tmp_path / "x.pth").exists()


def test_the_command_says_what_the_config_must_have(tmp_path):
    prior_file(tmp_path, {"name": "ncsnv2", "depth": "large", "width": 4}, "ncsn")
    arguments = ["export-checkpoint", str(tmp_path / "ours.safetensors"), "--layout", "ncsnv2", "--levels", "9"]
    arguments += ["--out", str(tmp_path / "checkpoint.pth")]
    first, second = (CliRunner().invoke(main, arguments) for _ in range(2))
    assert first.exit_code == 0, first.output
    for line in ("NCSNv2Deepest", "model.num_classes        9", "model.sigma_begin        2", "data.rescaled"):
        assert line in first.output
    assert second.exit_code == 2 and "exists already" in second.output
