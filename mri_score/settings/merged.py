"""A training config with every default filled in, and where each value comes from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mri_score.config_file import SECTIONS, find_config, read_config
from mri_score.errors import unknown_name
from mri_score.experiment import FORMER_SOURCES, SCHEDULES, SOURCES, Calibration, bind
from mri_score.losses import LOSSES
from mri_score.models.network import NetworkPrior
from mri_score.networks import NETWORKS
from mri_score.training.loop import TrainingOptions

NAMED: dict[str, Mapping[str, Callable]] = {
    "data": SOURCES, "validation": SOURCES, "network": NETWORKS, "schedule": SCHEDULES, "loss": LOSSES,
}  # fmt: skip
"""Sections whose key `name` selects a class."""
SINGLE: dict[str, Callable] = {"prior": NetworkPrior, "calibration": Calibration, "training": TrainingOptions}
"""Sections of one class."""
DEFAULT_NAMES = {"schedule": "geometric", "loss": "denoising"}
"""The `name` of a section that a config leaves out."""
SUPPLIED = {"prior": {"network"}, "loss": {"schedule"}, "training": {"device", "seed", "quiet"}}
"""Arguments that the program supplies, and that are no keys of a config."""
MEASURED = {
    "prior": {"sd", "sigma_min", "sigma_max"}, "schedule": {"sigma_min", "sigma_max", "noise_std", "dimension"},
}  # fmt: skip
"""Keys whose values come from the dataset's parameters where a config has none."""

AUTOMATIC = ("count", "automatic")
"""The key and the value of a schedule whose number of levels comes from the dataset's parameters."""


@dataclass(frozen=True)
class Setting:
    """One value of a config.

    section, key: where it stands; the section is empty for keys at the top. value: as YAML reads it; None where it is
    measured. source: "config", "--set", "default" or "parameters/<dataset>.txt".
    """

    section: str
    key: str
    value: Any
    source: str


def target_of(section: str, values: Mapping[str, Any]) -> Callable | None:
    """The class or function of a section; None for a name that is not known, and for sections without a class."""
    if section in SINGLE:
        return SINGLE[section]
    name = values.get("name", DEFAULT_NAMES.get(section))
    return NAMED.get(section, {}).get(FORMER_SOURCES.get(name, name) if isinstance(name, str) else "")


def keys_of(section: str, target: Callable) -> dict[str, inspect.Parameter]:
    """The keys that a config may have in a section of this class, with their defaults."""
    parameters = inspect.signature(target).parameters
    return {key: one for key, one in parameters.items() if key not in SUPPLIED.get(section, set())}


def merged_settings(name: str | Path, changes: Sequence[str] = ()) -> list[Setting]:
    """All values of a config: its own, those of `--set`, and the defaults of every class that it names.

    name: as in `read_config`, or a run folder. changes: as in `read_config`.
    Errors: InputError as in `read_config`, and for names, keys and values that `mri-score train` would refuse.
    """
    path = Path(name) / "config.yaml" if (Path(name) / "config.yaml").is_file() else find_config(name)
    stated, config = read_config(path), read_config(path, changes)
    measured = f"parameters/{config.get('dataset', '<dataset>')}.txt"
    found = [Setting("", key, config.get(key), _source(stated, config, key)) for key in SECTIONS[:2]]
    found[0] = Setting("", "seed", config.get("seed", 0), found[0].source)
    for section in SECTIONS[2:]:
        values = dict(config.get(section) or {})
        if section == "validation" and not values:
            continue  # nothing is validated
        if ":" in str(values.get("name")):  # a class of the user's, of which nothing is known here
            before = stated.get(section) or {}
            found.extend(Setting(section, key, value, _source(before, values, key)) for key, value in values.items())
            continue
        if section in DEFAULT_NAMES:
            values.setdefault("name", DEFAULT_NAMES[section])
        target = target_of(section, values)
        if target is None:
            raise unknown_name(f"{section}.name", values.get("name"), NAMED[section])
        own = {key: value for key, value in values.items() if key != "name" and (key, value) != AUTOMATIC}
        given = dict.fromkeys(SUPPLIED.get(section, set()) | MEASURED.get(section, set()))
        bind(section, target, own, **given)
        before = stated.get(section) or {}
        if "name" in values:
            found.append(Setting(section, "name", values["name"], _source(before, config.get(section) or {}, "name")))
        for key, parameter in keys_of(section, target).items():
            if key in values:
                found.append(Setting(section, key, values[key], _source(before, values, key)))
            elif key in MEASURED.get(section, set()):
                found.append(Setting(section, key, None, measured))
            else:
                found.append(Setting(section, key, _plain(parameter.default), "default"))
    return found


def _source(before: Mapping[str, Any], after: Mapping[str, Any], key: str) -> str:
    if key not in after:
        return "default"
    return "config" if key in before and before[key] == after[key] else "--set"


def _plain(value: Any) -> Any:
    """A default as YAML has it: tuples as lists."""
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def as_yaml(settings: Sequence[Setting]) -> str:
    """The settings as a config file, each with its source in a comment; measured values as comments alone."""
    lines, section = [], ""
    for one in settings:
        if one.section != section:
            section = one.section
            lines += ["", f"{section}:"]
        indent = "  " if one.section else ""
        if one.source.startswith("parameters/"):
            lines.append(f"{indent}# {one.key}: from {one.source}, measured if there is none")
            continue
        value = yaml.safe_dump(one.value, default_flow_style=True, width=10**6).removesuffix("\n...\n").strip()
        lines.append(f"{indent + one.key + ': ' + value:<48} # {one.source}")
    return "\n".join(lines) + "\n"
