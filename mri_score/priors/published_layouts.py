"""Priors as checkpoints of the published projects, the inverse of `priors.published`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mri_score.errors import InputError, unknown_name
from mri_score.files import whole_file
from mri_score.models.network import NetworkPrior
from mri_score.networks import ncsnpp_published, ncsnv2
from mri_score.networks.ncsnpp import NCSNpp
from mri_score.priors.record import find_prior, read_record
from mri_score.priors.store import load_prior

LAYOUTS = {
    "ncsn": ("ncsn",),
    "ncsnv2": ("ncsnv2",),
    "score-diffusion-training": ("ncsnv2",),
    "score-sde": ("ncsnpp", "ddpm"),
}
"""The networks of each layout."""
PRECONDITIONS = {
    "ncsn": ("score",),
    "ncsnv2": ("ncsn",),
    "ncsnpp": ("ddpm", "ncsn", "score", "vp", "sub-vp"),
    "ddpm": ("ddpm", "ncsn", "vp", "sub-vp"),
}
"""The preconditionings that each network has in the published code."""
PROCESSES = {"ddpm": "vpsde", "vp": "vpsde", "sub-vp": "subvpsde"}
"""Names of processes that are not variance-exploding in score_sde_pytorch."""
DDPM = {"block": "ddpm", "fir": (), "embedding": "positional"}
"""The arguments of `NCSNpp` that the network named ddpm stands for."""


def export_published(prior: str | Path, layout: str, out: Path, levels: int = 1000) -> dict[str, Any]:
    """Write a prior as a checkpoint that the code of `layout` loads; the keys of its config that belong to it.

    prior: as in `load_prior`. layout: a name of LAYOUTS. out: the file. levels: number of noise levels in the file,
    geometric between the prior's ends, for networks that have no ladder of their own. The weights stand for those of
    the last step and for their average; there is no state of an optimiser.
    Errors: InputError for an unknown layout, and for a prior whose network or preconditioning the code does not have.
    """
    if layout not in LAYOUTS:
        raise unknown_name("the layout", layout, LAYOUTS)
    record, loaded = read_record(find_prior(prior)), load_prior(prior)
    arguments = dict(record["network"])
    name = arguments.pop("name", None)
    if name not in LAYOUTS[layout]:
        raise InputError(f"{prior} has the network {name}; the code of {layout} has {' and '.join(LAYOUTS[layout])}")
    if loaded.precondition not in PRECONDITIONS[name]:
        raise InputError(
            f"{prior} has the preconditioning {loaded.precondition}; the code of {layout} has"
            f" {' and '.join(PRECONDITIONS[name])}, so that it would compute another score from these weights"
        )
    state, sigmas = _published(loaded, name, arguments, levels)
    if layout == "ncsn":
        saved: Any = [_parallel(state), {}]
    elif layout == "ncsnv2":
        saved = [_parallel({**state, "sigmas": sigmas}), {}, 0, 0, state]
    elif layout == "score-sde":
        shadow = [value for key, value in state.items() if not (key.endswith(".W") and value.ndim == 1)]
        average = {"decay": 0.999, "num_updates": 0, "shadow_params": shadow, "collected_params": None}
        saved = {"optimizer": {}, "model": _parallel({"sigmas": sigmas, **state}), "ema": average, "step": 0}
    else:
        saved = {
            "model_state": _parallel({**state, "sigmas": sigmas}),
            "ema_state": state,
            "optim_state": {},
            "config": _config(loaded, arguments, len(sigmas), str((record.get("about") or {}).get("dataset", "scans"))),
            "loss": [],
        }
    with whole_file(out) as part:
        torch.save(saved, part)
    return _facts(loaded, layout, name, arguments, sigmas)


def _published(
    prior: NetworkPrior, name: str, arguments: dict[str, Any], levels: int
) -> tuple[dict[str, Tensor], Tensor]:
    """The weights under their published names, and the noise levels, which they do not include."""
    own = {key: value.detach().cpu().contiguous() for key, value in prior.network.state_dict().items()}
    ladder = torch.linspace(math.log(prior.sigma_max), math.log(prior.sigma_min), levels, dtype=torch.float64).exp()
    if isinstance(prior.network, NCSNpp):
        if name == "ddpm":
            arguments |= DDPM
        state = ncsnpp_published.to_published(prior.network, arguments)
        return {key: value.detach() for key, value in state.items()}, own.get("embed.features.sigmas", ladder).float()
    sigmas = own.pop("sigmas", ladder).float()
    return ncsnv2.publish(own, arguments.get("depth", "large") if name == "ncsnv2" else "low"), sigmas


def _parallel(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{key}": value for key, value in state.items()}


def _config(prior: NetworkPrior, arguments: dict[str, Any], levels: int, file: str) -> dict[str, Any]:
    """What the sampling code of score-diffusion-training reads from a checkpoint."""
    ratio = (prior.sigma_min / prior.sigma_max) ** (1 / (levels - 1))
    channels = arguments.get("channels", 2)
    return {
        "model": {
            "depth": arguments.get("depth", "large"), "ngf": arguments.get("width", 128), "num_classes": levels,
            "sigma_begin": prior.sigma_max, "sigma_end": prior.sigma_min, "sigma_rate": ratio,
            "normalization": "InstanceNorm++", "nonlinearity": "elu", "sigma_dist": "geometric",
            "ema": True, "ema_rate": 0.999,
        },
        "data": {"channels": channels, "file": file, "rescaled": not arguments.get("published_input", False)},
        "optim": {"eps": 1e-3, "lr": 1e-4, "optimizer": "Adam"},
    }  # fmt: skip


def _facts(prior: NetworkPrior, layout: str, name: str, arguments: dict[str, Any], sigmas: Tensor) -> dict[str, Any]:
    """The keys of the config with which the code computes the score of this prior."""
    taken = "as it is" if not arguments.get("published_input", False) else "as 2 x - 1"
    centred = not arguments.get("published_input", False)
    ends = (float(sigmas[0]), float(sigmas[-1]))
    if layout == "score-sde":
        found: dict[str, Any] = {
            "model.nf": arguments.get("width", 128), "model.num_scales": len(sigmas), "model.sigma_max": ends[0],
            "model.sigma_min": ends[1], "model.scale_by_sigma": prior.precondition == "ncsn", "data.centered": centred,
            "training.sde": PROCESSES.get(str(prior.precondition), "vesde"),
            "training.continuous": prior.precondition != "ddpm" and not arguments.get("levels"),
        }  # fmt: skip
    else:
        found = {
            "model.ngf": arguments.get("width", 128), "model.num_classes": len(sigmas), "model.sigma_begin": ends[0],
            "model.sigma_end": ends[1], "data.rescaled": centred,
        }  # fmt: skip
    if name == "ncsnv2":
        found = {
            "network": {"low": "NCSNv2", "medium": "NCSNv2Deeper", "large": "NCSNv2Deepest"}[
                arguments.get("depth", "large")
            ],
            **found,
        }
    return {**found, "data.channels": arguments.get("channels", 2), "the network takes x": taken}
