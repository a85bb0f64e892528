"""Published checkpoints as priors: what a file holds is told from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from torch import Tensor

from mri_score.data.pixel_values import PixelValues, pixel_record
from mri_score.errors import InputError
from mri_score.files import sha256
from mri_score.models.network import NetworkPrior
from mri_score.networks import edm, ncsn, ncsnpp_published, ncsnv2
from mri_score.noise.schedules import VP, LinearBetas, SubVP
from mri_score.priors.shapes import require_shapes
from mri_score.priors.store import build_prior, require_finite
from mri_score.priors.unpickling import read_checkpoint, read_edm_pickle

Weights = dict[str, Tensor]


class Checkpoint(NamedTuple):
    """The weights of a checkpoint, averaged (EMA) ones where it has them, and what its config says of the data."""

    layout: str
    raw: Weights
    averaged: Weights | None = None
    data: Mapping[str, Any] = {}


EDM_CLASSES = {"EDMPrecond": "edm", "VPPrecond": "vp", "VEPrecond": "ve"}
"""Our preconditionings of the classes in EDM's pickles."""
FAMILIES = {
    "normalizer.embed.weight": ncsn,
    "normalizer.alpha": ncsnv2,
    "all_modules.0.": ncsnpp_published,
    "map_layer0.weight": edm,
}
"""What reads the weights of a network that has a tensor of this name."""


def import_published(
    path: Path,
    *,
    raw: bool = False,
    sd: float | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    precondition: str | None = None,
    centred: bool | None = None,
    settings: Mapping[str, Any] | None = None,
    **shown: Any,
) -> tuple[NetworkPrior, dict[str, Any], dict[str, Any]]:
    """The prior in a published checkpoint, its network's name and arguments, and what is known about it.

    path: the file. raw: take the weights of the last step, not their average. sd: of each real component of the images
    that it was trained on; default 0.3, and EDM's 0.5 for its networks, whose function it is a part of.
    sigma_min, sigma_max: in place of the ends of the file's noise levels. precondition: where the tensors do not show
    it: ddpm or sub-vp for DDPM's networks, ncsn for those trained variance-exploding, score for an NCSN++ without
    scale_by_sigma, vp for EDM's networks. centred: the network takes x as it is, not 2 x - 1; by default what the
    file's config says, or what its release did. settings: sections and keys of the config that it was trained with,
    which fill in what nothing else gives. shown: fir and skip_rescale of an NCSN++, which its tensors may not show.
    Errors: InputError for files of no known layout, with what they hold; for noise levels, a resampling or a process
    that neither the tensors nor the settings nor an argument show.
    """
    if path.suffix == ".pkl":
        checkpoint, stated = _of_edm(path)
    else:
        checkpoint, stated = _recognised(path, read_checkpoint(path)), _stated(settings or {})
    averaged = None if raw else checkpoint.averaged
    state = {**checkpoint.raw, **(averaged or {})}
    family = _family(path, state)
    precondition = precondition or stated.get("precondition")
    shown = {key: value for key, value in {**stated, **shown}.items() if key in ("fir", "skip_rescale")}
    try:
        if family is ncsnpp_published:
            if precondition in ("ncsn", "score") and "sigmas" in state and "all_modules.0.W" not in state:
                shown |= {"levels": len(state["sigmas"]), "published_input": True}  # DDPM's network, with a ladder
            network, weights = family.from_published(state, **shown)
        else:
            network, weights = family.from_published(state)
    except (KeyError, InputError) as error:
        raise InputError(f"{path} resembles {checkpoint.layout}, but its network is another one: {error}") from error
    if centred is None and any(checkpoint.data.get(key) is True for key in ("rescaled", "logit_transform")):
        centred = True
    centred = stated.get("centred") if centred is None else centred
    if centred is not None and network["name"] != "edm":
        network["published_input"] = not centred
    precondition = precondition or _precondition(path, network)
    if "sigmas" not in state:
        sigma_max = stated.get("sigma_max") if sigma_max is None else sigma_max
        sigma_min = stated.get("sigma_min") if sigma_min is None else sigma_min
    highest, lowest = _noise_levels(path, state, precondition, sigma_min, sigma_max)
    if network["name"] == "ncsnpp" and "fir" in ncsnpp_published.unseen(network) and "fir" not in shown:
        raise InputError(
            f"{path}: no tensor of this network shows whether it resamples by FIR filters. Give --fir (as the published"
            " NCSN++ of FFHQ, CelebA-HQ and LSUN) or --no-fir (as DDPM++), or its config by --config"
        )
    sd = stated.get("sd", 0.5 if network["name"] == "edm" else 0.3) if sd is None else sd
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
    about: dict[str, Any] = {
        "summary": f"{network['name']} imported from {path.name}",
        "source": path.name,
        "source_sha256": sha256(path),
        "layout": checkpoint.layout,
        "weights": "raw" if averaged is None else "averaged (EMA)",
        "trained_on": str(checkpoint.data.get("file") or stated.get("trained_on") or "not said in the file"),
        "licence": "weights and training data are under the terms of their source",
    }
    if network.get("channels", 2) != 2:
        logit = checkpoint.data.get("logit_transform") is True or stated.get("logit", False)
        shifted = network["name"] == "edm" or not network.get("published_input", False)
        about["pixels"] = pixel_record(PixelValues(shifted and not logit, logit)) | {"scale": "bits"}
    if network["name"] == "ncsnpp":
        assumed = {key: network.get(key, False) for key in ncsnpp_published.unseen(network) if key not in shown}
        if centred is not None:
            assumed.pop("published_input", None)
        about["not_in_tensors"] = ", ".join(f"{key} {value}" for key, value in assumed.items())
    return prior.eval().requires_grad_(False), network, about


def _of_edm(path: Path) -> tuple[Checkpoint, dict[str, Any]]:
    """The network of a .pkl of EDM, and what its class and numbers say: the preconditioning and the noise levels.

    Errors: InputError for the class of improved DDPM, whose network also predicts a variance, and for others.
    """
    found = read_edm_pickle(path)
    name, numbers = found["class"], found["numbers"]
    stated: dict[str, Any] = {"precondition": EDM_CLASSES.get(name), "trained_on": f"images of {path.stem}"}
    if stated["precondition"] is None:
        raise InputError(
            f"{path} holds a network of the class {name}; known are {', '.join(EDM_CLASSES)}. Networks of improved DDPM"
            " predict a variance too, which no method here takes: use one of EDM's own releases"
        )
    if name == "VPPrecond" and (numbers.get("beta_d"), numbers.get("beta_min"), numbers.get("M")) != (19.9, 0.1, 1000):
        raise InputError(f"{path} has another process than beta from 0.1 to 20 in 1,000 steps, which vp stands for")
    if name == "EDMPrecond":
        stated["sd"] = float(numbers.get("sigma_data", 0.5))
    elif name == "VEPrecond":
        stated |= {"sigma_min": float(numbers["sigma_min"]), "sigma_max": float(numbers["sigma_max"])}
    weights = {key.removeprefix("model."): value for key, value in _floats(found["weights"]).items()}
    return Checkpoint("NVlabs/edm", weights), stated


def _recognised(path: Path, saved: Any) -> Checkpoint:
    if isinstance(saved, (list, tuple)) and saved and (raw := _weights(saved[0])):
        layout = "ermongroup/ncsn" if len(saved) == 2 else "ermongroup/ncsnv2"
        return Checkpoint(layout, raw, _weights(saved[4]) if len(saved) > 4 else None)
    if raw := _weights(_inside(saved, "model_state")):
        averaged, data = _weights(_inside(saved, "ema_state")), _inside(saved, "config", "data")
        return Checkpoint("utcsilab/score-diffusion-training", raw, averaged, data if isinstance(data, Mapping) else {})
    if (raw := _weights(_inside(saved, "model"))) and "ema" in saved:
        shadow = _inside(saved, "ema", "shadow_params")
        return Checkpoint("yang-song/score_sde_pytorch", raw, _named(path, shadow, raw) if shadow else None)
    found = _networks(saved)
    averages = {place: state for place, state in found.items() if "ema" in place.lower() or "average" in place.lower()}
    plain = {place: state for place, state in found.items() if place not in averages}
    if found:
        first = next(iter((plain or averages).values()))
        return Checkpoint(_wrapping(found), first, next(iter(averages.values()), None) if plain else None)
    raise _unknown(path, saved)


def _networks(saved: Any, place: str = "", depth: int = 3) -> dict[str, Weights]:
    """The networks of `FAMILIES` in a file, by where they are: keys of dicts, and the common start of their names.

    Wrappers write the names of a network's tensors behind a start: module. (DataParallel), _orig_mod. (torch.compile),
    model. (EDM's preconditioning), and any name of an attribute (Lightning).
    """
    if not isinstance(saved, Mapping) or not depth:
        return {}
    tensors = {str(key): value for key, value in saved.items() if isinstance(value, Tensor)}
    found: dict[str, Weights] = {}
    for key in tensors:
        for mark in FAMILIES:
            start, between, _ = key.partition(mark)
            if between and (not start or start.endswith(".")) and f"{place}{start}" not in found:
                inside = {name.removeprefix(start): one for name, one in tensors.items() if name.startswith(start)}
                found[f"{place}{start}"] = _floats(inside)
    for key, value in saved.items():
        found |= _networks(value, f"{place}{key}.", depth - 1)
    return found


def _wrapping(found: Mapping[str, Weights]) -> str:
    places = [place.rstrip(".") for place in found if place]
    return f"a state dict at {' and '.join(places)}" if places else "a state dict"


def _inside(saved: Any, *keys: str) -> Any:
    """saved[key][key]..., None where that is not there."""
    for key in keys:
        saved = saved.get(key) if isinstance(saved, Mapping) else None
    return saved


def _weights(state: Any) -> Weights | None:
    """The tensors of a state dict by their names without "module."; None for anything else."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        return None
    return _floats({str(key).removeprefix("module."): value for key, value in state.items()})


def _floats(state: Mapping[str, Tensor]) -> Weights:
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


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


def _stated(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the sections of a published config say that tensors do not show, by our names."""
    sections = {name: value for name, value in settings.items() if isinstance(value, Mapping)}
    model, data, training = (sections.get(name, {}) for name in ("model", "data", "training"))
    found: dict[str, Any] = {}
    for ours, names in (("sigma_max", ("sigma_max", "sigma_begin")), ("sigma_min", ("sigma_min", "sigma_end"))):
        value = next((model[name] for name in names if isinstance(model.get(name), (int, float))), None)
        found |= {} if value is None else {ours: float(value)}
    if isinstance(model.get("fir"), bool):
        taps = model.get("fir_kernel", ncsnpp_published.FIR)
        if not isinstance(taps, (list, tuple)) or not all(isinstance(tap, (int, float)) for tap in taps):
            raise InputError(f"the config's model.fir_kernel is {taps!r}; it must be a list of numbers")
        found["fir"] = [float(tap) for tap in taps] if model["fir"] else []
    if isinstance(model.get("skip_rescale"), bool):
        found["skip_rescale"] = model["skip_rescale"]
    sde = str(training.get("sde", model.get("sde_type", ""))).lower()
    if sde in ("vpsde", "subvpsde"):
        discrete = training.get("continuous", model.get("continuous")) is False
        found["precondition"] = "sub-vp" if sde == "subvpsde" else "ddpm" if discrete else "vp"
    elif sde == "vesde":
        found["precondition"] = "score" if model.get("scale_by_sigma") is False else "ncsn"
    if any(data.get(key) is True for key in ("centered", "rescaled", "logit_transform")):
        found["centred"], found["logit"] = True, data.get("logit_transform") is True
    elif any(data.get(key) is False for key in ("centered", "rescaled")):
        found["centred"] = False
    if name := data.get("dataset") or data.get("name") or data.get("file"):
        found["trained_on"] = str(name)
    return found


def _precondition(path: Path, network: Mapping[str, Any]) -> str:
    """The one of its layout. Errors: InputError for a network with labels of a process that no tensor shows."""
    if network["name"] in ("ncsn", "edm"):
        return "score" if network["name"] == "ncsn" else "edm"
    by_label = network["name"] == "ncsnpp" and network["embedding"] == "positional" and not network["levels"]
    if by_label:
        raise InputError(
            f"{path}: this is a network of DDPM, and no tensor shows what its labels stand for. Give --precondition vp"
            " (the continuous process of Score SDE), sub-vp, ddpm (1,000 discrete steps) or ncsn (variance-exploding),"
            " or its config by --config"
        )
    return "ncsn"


def _noise_levels(
    path: Path, state: Weights, precondition: str, sigma_min: float | None, sigma_max: float | None
) -> tuple[float, float]:
    """The highest and the lowest: as given, else as stored, else those of the release."""
    told: tuple[float | None, float | None] = (None, None)
    if precondition in ("vp", "sub-vp"):  # their files store levels that nothing used
        schedule = (VP if precondition == "vp" else SubVP)(t_min=1e-3)
        told = schedule.sigma_max, schedule.sigma_min
    elif precondition == "ddpm":
        steps = LinearBetas()
        told = steps.sigma_max, steps.sigma_min
    elif "sigmas" in state:
        told = float(state["sigmas"].max()), float(state["sigmas"].min())
    elif precondition == "score":
        told = 1.0, 0.01
    elif precondition == "edm":  # the ends of EDM's walks
        told = 80.0, 0.002
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
    known = (
        "ermongroup/ncsn, ermongroup/ncsnv2, utcsilab/score-diffusion-training, yang-song/score_sde_pytorch and EDM's"
        " networks"
    )
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
