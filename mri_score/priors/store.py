"""Saving and loading priors: weights as safetensors, everything else as JSON, tied by a SHA-256."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from mri_score.errors import InputError
from mri_score.files import cannot_write, sha256, whole_file
from mri_score.models.generator import GENERATOR, Generator
from mri_score.models.network import NetworkPrior
from mri_score.networks import build_network
from mri_score.networks.experts import Experts
from mri_score.priors.record import FORMAT, find_prior, read_record, write_record
from mri_score.priors.shapes import require_shapes

DEFAULT = "brain"
SUPERVISED = "regression"
"""The preconditioning of supervised networks, which are stored as priors are."""


def build_prior(network: dict[str, Any], **prior: Any) -> NetworkPrior:
    """A fresh prior: `network` holds the network's name and arguments, `prior` the arguments of NetworkPrior."""
    try:
        kind = Generator if prior.get("precondition") == GENERATOR else NetworkPrior
        return kind(build_network(network), **prior)
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
        "format": FORMAT,
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
    write_record(path, record)


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
    beside = path.with_suffix(".json").name
    try:
        with safe_open(path, "pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no mapping
        require_shapes(f"{path} does not fit its {beside}", record["network"], shapes)
        prior = build_prior(record["network"], **record["prior"])
        weights = {key: value.float() for key, value in load_file(path).items()}
        prior.network.load_state_dict(weights)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise InputError(f"{path} does not fit its {beside}: {error}") from error
    require_finite(path, weights)
    prior.about = record.get("about") or {}
    prior.any_orientation = prior.about.get("any_orientation", False)
    return prior.eval().requires_grad_(False)


def require_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Check that the weights from the file `path` are numbers. Errors: InputError that names one with NaN or infinity.
    """
    for key, value in weights.items():
        if not torch.isfinite(value).all():
            raise InputError(f"{path} has NaN or infinity in its weights ({key}); train or export the prior again")


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
