"""Saving and loading priors: weights as safetensors, everything else as JSON, tied by a SHA-256."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mri_score.errors import InputError
from mri_score.files import cannot_write, sha256, whole_file, write_text
from mri_score.models.network import NetworkPrior
from mri_score.networks import build_network
from mri_score.networks.experts import Experts

DEFAULT = "brain"
SUPERVISED = "regression"
"""The preconditioning of supervised networks, which are stored as priors are."""
_FORMAT = "mri_score prior 1"


def build_prior(network: dict[str, Any], **prior: Any) -> NetworkPrior:
    """A fresh prior: `network` holds the network's name and arguments, `prior` the arguments of NetworkPrior."""
    try:
        return NetworkPrior(build_network(network), **prior)
    except TypeError as error:
        raise InputError(f"network {network.get('name')} cannot be built: {error}") from error


def save_prior(
    path: Path, prior: NetworkPrior, network: dict[str, Any], about: dict[str, Any], half: bool = False
) -> None:
    """Write `path` (.safetensors) and the JSON beside it; `half` stores what was trained in float16.

    prior: whose network's weights are written. network: the name and the arguments that build the network.
    about: what a model card needs: data, licences, training, validation errors.
    Errors: InputError for a prior whose precondition has no name, and where the files cannot be written.
    """
    if not isinstance(prior.precondition, str):
        raise InputError(f"{path}: only priors whose precondition has a name can be saved; this one is a function")
    dtype = torch.float16 if half else torch.float32
    trained = dict(prior.network.named_parameters())  # buffers stay exact: float16 shifts the phase of high frequencies
    weights = {
        key: value.detach().to("cpu", dtype if key in trained else value.dtype).contiguous()
        for key, value in prior.network.state_dict().items()
    }
    with whole_file(path) as part:
        try:
            save_file(weights, part)
        except SafetensorError as error:
            raise cannot_write(path, error) from error
    record = {
        "format": _FORMAT,
        "sha256": sha256(path),
        "network": network,
        "prior": {
            "precondition": prior.precondition,
            "sd": prior.sd,
            "sigma_min": prior.sigma_min,
            "sigma_max": prior.sigma_max,
        },
        "about": about,
    }
    write_text(path.with_suffix(".json"), json.dumps(record, indent=2) + "\n")


def load_prior(name: str | Path = DEFAULT) -> NetworkPrior:
    """A prior by the name of a bundled one, by a run folder, or by its .safetensors file; in eval mode, on the CPU.

    Errors: InputError for a name that is neither, for damaged files, and for a supervised network.
    """
    prior = _load(find_prior(name))
    if prior.precondition == SUPERVISED:
        raise InputError(f"{name} is a supervised network, which knows no score: give a prior, e.g. {DEFAULT}")
    return prior


def load_supervised(name: str | Path) -> NetworkPrior:
    """A supervised network by its `name`, a run folder or .safetensors file, for `baselines.supervised`.

    Errors: InputError as `load_prior`, and for a prior.
    """
    network = _load(find_prior(name))
    if network.precondition != SUPERVISED:
        raise InputError(
            f"{name} is a prior, not a supervised network; train one: mri-score train -c brain_supervised.yml"
        )
    return network


def _load(path: Path) -> NetworkPrior:
    record = read_record(path)
    prior = build_prior(record["network"], **record["prior"])
    try:
        weights = load_file(path)
        prior.network.load_state_dict({key: value.float() for key, value in weights.items()})
    except (SafetensorError, RuntimeError, OSError) as error:
        raise InputError(f"{path} does not fit its {path.with_suffix('.json').name}: {error}") from error
    prior.about = record.get("about") or {}
    return prior.eval().requires_grad_(False)


def join_experts(low: str | Path, high: str | Path, border: float) -> tuple[NetworkPrior, dict[str, Any]]:
    """Two priors as one: the network of `high` above the noise level `border`, that of `low` below; and its arguments.

    Errors: InputError for priors that see their images otherwise, and for a border outside of what both learned.
    """
    priors = [load_prior(name) for name in (low, high)]
    for what in ("precondition", "sd"):
        values = [getattr(prior, what) for prior in priors]
        if values[0] != values[1]:
            raise InputError(
                f"{low} has {what} {values[0]} and {high} {values[1]}; experts share it: train both with one `prior`"
                " section and one `dataset`"
            )
    one, other = priors
    if one.sigma_min > other.sigma_min or one.sigma_max > other.sigma_max:
        raise InputError(
            f"{low} learned sigma {one.sigma_min:g} to {one.sigma_max:g} and {high} {other.sigma_min:g} to"
            f" {other.sigma_max:g}: the second is for higher noise levels, so give them the other way round"
        )
    if not other.sigma_min <= border <= one.sigma_max:
        raise InputError(
            f"the border {border:g} is outside of the noise levels that both learned:"
            f" {other.sigma_min:g} to {one.sigma_max:g}"
        )
    c_noise = float(one.coefficients(torch.tensor(border))[3])
    experts = Experts(one.network, other.network, c_noise)
    joined = NetworkPrior(experts, one.precondition, one.sd, one.sigma_min, other.sigma_max)
    sections = {side: read_record(find_prior(name))["network"] for side, name in (("low", low), ("high", high))}
    return joined.eval(), {"name": "experts", **sections, "border": c_noise}


def image_channels(network: Mapping[str, Any]) -> int:
    """Of the images of a network, by its arguments in a record: 2 for complex ones."""
    return image_channels(network["low"]) if network["name"] == "experts" else int(network.get("channels", 2))


def read_record(path: Path) -> dict[str, Any]:
    """The JSON beside a prior's weights in the file `path`, after a check that they belong together.

    Errors: InputError where it is missing, is no description of a prior, or does not belong to the weights.
    """
    beside = path.with_suffix(".json")
    try:
        record = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} needs {beside.name} beside it, as mri-score writes it ({error})") from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise InputError(f"{beside} is not a prior's description; it should say format: {_FORMAT!r}")
    if missing := [key for key in ("sha256", "network", "prior") if key not in record]:
        raise InputError(f"{beside} lacks {', '.join(missing)}; copy it again, or save the prior again")
    if sha256(path) != record["sha256"]:
        raise InputError(f"{path} is damaged: its SHA-256 is not the one in {beside.name}; copy both files again")
    return record


def add_to_record(path: Path, **facts: Any) -> None:
    """Write more into what a prior's record says about it; the weights and their SHA-256 stay."""
    record = read_record(path)
    record["about"] = {**(record.get("about") or {}), **facts}
    write_text(path.with_suffix(".json"), json.dumps(record, indent=2) + "\n")


def find_prior(name: str | Path) -> Path:
    """The .safetensors file that a name, run folder or file stands for.

    Errors: InputError where there is none.
    """
    path = Path(name)
    if path.is_dir():
        path = path / "prior.safetensors"
        if not path.exists():
            raise InputError(f"{name} holds no prior.safetensors; has its training saved once? (training.save_every)")
        return path
    if path.suffix == ".safetensors":
        if not path.exists():
            raise InputError(f"prior {name} does not exist")
        return path
    bundled = bundled_priors()
    if str(name) not in bundled:
        known = ", ".join(bundled) or "none is bundled"
        raise InputError(f"prior {str(name)!r} is no bundled prior ({known}), run folder or .safetensors file")
    return bundled[str(name)]


def bundled_priors() -> dict[str, Path]:
    """The priors that come with the package, by name."""
    folder = Path(str(files("mri_score.priors") / "weights"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"), key=lambda path: path.stem)}
