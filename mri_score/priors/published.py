"""Published checkpoints as priors: what a file holds is told from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from torch import Tensor

from mri_score.errors import InputError
from mri_score.files import sha256
from mri_score.models.network import NetworkPrior
from mri_score.networks import ncsn, ncsnpp_published, ncsnv2
from mri_score.noise.schedules import VP, SubVP
from mri_score.priors.shapes import require_shapes
from mri_score.priors.store import build_prior, require_finite
from mri_score.priors.unpickling import read_checkpoint

Weights = dict[str, Tensor]


class Checkpoint(NamedTuple):
    """The weights of a checkpoint, averaged (EMA) ones where it has them, and what its config says of the data."""

    layout: str
    raw: Weights
    averaged: Weights | None = None
    data: Mapping[str, Any] = {}


FAMILIES = {"normalizer.embed.weight": ncsn, "normalizer.alpha": ncsnv2, "all_modules.0.": ncsnpp_published}
"""What reads the weights of a network that has a tensor of this name."""


def import_published(
    path: Path,
    *,
    raw: bool = False,
    sd: float = 0.3,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    precondition: str | None = None,
    centred: bool | None = None,
) -> tuple[NetworkPrior, dict[str, Any], dict[str, Any]]:
    """The prior in a published checkpoint, its network's name and arguments, and what is known about it.

    raw: take the weights of the last step, not their average. sd: of each real component of the images that it was
    trained on. sigma_min, sigma_max: in place of the ends of the file's noise levels. precondition: where the tensors
    do not tell, which is sub-vp alone. centred: the network takes x as it is, not 2 x - 1; by default what the file's
    config says, or what its release did.
    Errors: InputError for files of no known layout, with what they hold, and for noise levels that nothing tells.
    """
    checkpoint = _recognised(path, read_checkpoint(path))
    averaged = None if raw else checkpoint.averaged
    state = {**checkpoint.raw, **(averaged or {})}
    family = _family(path, state)
    try:
        network, weights = family.from_published(state)
    except (KeyError, InputError) as error:
        raise InputError(f"{path} resembles {checkpoint.layout}, but its network is another one: {error}") from error
    if centred is None and any(checkpoint.data.get(key) is True for key in ("rescaled", "logit_transform")):
        centred = True
    if centred is not None:
        network["published_input"] = not centred
    precondition = precondition or _precondition(network)
    highest, lowest = _noise_levels(path, state, precondition, sigma_min, sigma_max)
    if network["name"] == "ncsn":
        network |= {"sigma_max": highest, "sigma_min": lowest}

    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    if network["name"] == "ncsn":  # most files store no ladder
        shapes.setdefault("sigmas", (int(network["levels"]),))
    require_shapes(f"{path}: the weights do not fit the network {network}", network, shapes)
    prior = build_prior(network, precondition=precondition, sd=sd, sigma_min=lowest, sigma_max=highest)
    if network["name"] == "ncsn":
        weights.setdefault("sigmas", prior.network.state_dict()["sigmas"])
    prior.network.load_state_dict(weights)
    require_finite(path, weights)
    about = {
        "summary": f"{network['name']} imported from {path.name}",
        "source": path.name,
        "source_sha256": sha256(path),
        "layout": checkpoint.layout,
        "weights": "raw" if averaged is None else "averaged (EMA)",
        "trained_on": str(checkpoint.data.get("file", "not said in the file")),
        "licence": "weights and training data are under the terms of their source",
    }
    return prior.eval().requires_grad_(False), network, about


def _recognised(path: Path, saved: Any) -> Checkpoint:
    if isinstance(saved, (list, tuple)) and saved and (raw := _weights(saved[0])):
        layout = "ermongroup/ncsn" if len(saved) == 2 else "ermongroup/ncsnv2"
        return Checkpoint(layout, raw, _weights(saved[4]) if len(saved) > 4 else None)
    if raw := _weights(_inside(saved, "model_state")):
        averaged, data = _weights(_inside(saved, "ema_state")), _inside(saved, "config", "data")
        return Checkpoint("utcsilab/score-diffusion-training", raw, averaged, data if isinstance(data, Mapping) else {})
    if raw := _weights(_inside(saved, "model")):
        shadow = _inside(saved, "ema", "shadow_params")
        return Checkpoint("yang-song/score_sde_pytorch", raw, _named(path, shadow, raw) if shadow else None)
    if raw := _weights(saved):
        return Checkpoint("a state dict", raw)
    raise _unknown(path, saved)


def _inside(saved: Any, *keys: str) -> Any:
    """saved[key][key]..., None where that is not there."""
    for key in keys:
        saved = saved.get(key) if isinstance(saved, Mapping) else None
    return saved


def _weights(state: Any) -> Weights | None:
    """The tensors of a state dict by their names without "module."; None for anything else."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        return None
    return {
        str(key).removeprefix("module."): value.float() if value.is_floating_point() else value
        for key, value in state.items()
    }


def _named(path: Path, shadow: Sequence[Tensor], state: Weights) -> Weights:
    """The names of an average that is a list in the order of the parameters, with or without frozen ones."""
    parameters = [name for name in state if name != "sigmas"]
    trained = [name for name in parameters if not re.fullmatch(r"all_modules\.\d+\.W", name)]
    for names in (parameters, trained):
        if [state[name].shape for name in names] == [value.shape for value in shadow]:
            return dict(zip(names, (value.float() for value in shadow), strict=True))
    raise InputError(
        f"{path} has {len(shadow)} averaged tensors for {len(parameters)} parameters, of other shapes;"
        " take the raw weights: --raw"
    )


def _family(path: Path, state: Weights) -> ModuleType:
    for mark, family in FAMILIES.items():
        if any(name.startswith(mark) for name in state):
            return family
    raise _unknown(path, state)


def _precondition(network: Mapping[str, Any]) -> str:
    if network["name"] == "ncsn":
        return "score"
    by_label = network["name"] == "ncsnpp" and network["embedding"] == "positional" and not network["levels"]
    return "vp" if by_label else "ncsn"


def _noise_levels(
    path: Path, state: Weights, precondition: str, sigma_min: float | None, sigma_max: float | None
) -> tuple[float, float]:
    """The highest and the lowest: as given, else as stored, else those of the release."""
    told: tuple[float | None, float | None] = (None, None)
    if precondition in ("vp", "sub-vp"):  # their files store levels that nothing used
        schedule = (VP if precondition == "vp" else SubVP)(t_min=1e-3)
        told = schedule.sigma_max, schedule.sigma_min
    elif "sigmas" in state:
        told = float(state["sigmas"].max()), float(state["sigmas"].min())
    elif precondition == "score":
        told = 1.0, 0.01
    highest, lowest = told[0] if sigma_max is None else sigma_max, told[1] if sigma_min is None else sigma_min
    if highest is None or lowest is None:
        raise InputError(f"{path} does not store its noise levels; give --sigma-max and --sigma-min of its training")
    if not 0 < lowest < highest:
        raise InputError(
            f"{path}: noise levels from {highest:g} to {lowest:g} are not those of a score model;"
            " give --sigma-max and --sigma-min of its training"
        )
    return highest, lowest


def _unknown(path: Path, saved: Any) -> InputError:
    known = "ermongroup/ncsn, ermongroup/ncsnv2, utcsilab/score-diffusion-training and yang-song/score_sde_pytorch"
    return InputError(f"{path} has no known layout ({known}): it holds {_contents(saved)}")


def _contents(saved: Any, most: int = 8) -> str:
    """`dict of 2: model (dict of 9: a (3, 4), b (3)), step int`: the first items, and the first two of each of them."""
    if isinstance(saved, Tensor):
        return f"({', '.join(map(str, saved.shape))})"
    if not isinstance(saved, (Mapping, list, tuple)):
        return type(saved).__name__
    items = list(saved.items() if isinstance(saved, Mapping) else enumerate(saved))[:most]
    inside = []
    for key, value in items:
        told = _contents(value, most // 4)
        inside.append(f"{key} ({told})" if ":" in told else f"{key} {told}")
    return f"{type(saved).__name__} of {len(saved)}" + (f": {', '.join(inside)}" if inside else "")
