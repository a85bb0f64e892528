"""Config files of training runs: YAML read safely, with changes of single keys. Without torch."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from types import NoneType
from typing import Any

import yaml

from mri_score.errors import InputError
from mri_score.untrusted.bounded_yaml import BoundedLoader
from mri_score.untrusted.text import read_text

SECTIONS = ("seed", "dataset", "data", "validation", "network", "prior", "calibration", "schedule", "loss", "training")
_LARGEST_CONFIG = 1 << 16


class _Loader(BoundedLoader):
    """A bounded loader that refuses duplicate keys too."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise InputError(f"line {key_node.start_mark.line + 1}: a key is {key!r}; keys are names")
            if key in seen:
                raise InputError(f"line {key_node.start_mark.line + 1}: the key {key!r} appears twice; remove one")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_config(name: str | Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Read a config and apply changes.

    name: a path, the name of a file in the folder configs/ here, or of a bundled config. changes: texts
    `section.key=value`. Errors: InputError for a missing file, invalid YAML, and unknown sections.
    """
    path = find_config(name)
    text = read_text(path, _LARGEST_CONFIG)
    try:
        config = yaml.load(text, Loader=_Loader)
        if not isinstance(config, dict):
            raise InputError(f"it must have sections ({', '.join(SECTIONS)}), but is {type(config).__name__}")
        for change in changes:
            _apply(config, change)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # YAML's own errors, and those of its conversions to dates and numbers
        raise InputError(f"{path} is not valid YAML: {error}") from error
    for section, values in config.items():
        if section not in SECTIONS:
            raise InputError(f"{path} has the unknown section {section!r}; known: {', '.join(SECTIONS)}")
        if section not in ("seed", "dataset") and not isinstance(values, (dict, NoneType)):
            raise InputError(f"{path}: the section {section} is {values!r}; it needs keys and values")
    seed = config.get("seed", 0)
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise InputError(f"{path}: seed is {seed!r}; it must be a whole number, 0 or more")
    return config


def find_config(name: str | Path) -> Path:
    """The path of the config `name`: as given, in configs/ here, or bundled. Errors: InputError if there is none."""
    bundled = Path(str(files("mri_score.configs")))
    for candidate in (Path(name), Path("configs") / name, bundled / name):
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(path.name for path in bundled.glob("*.yml")))
    raise InputError(f"there is no config {str(name)!r} here, in configs/ or bundled; bundled: {known}")


def _apply(config: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise InputError(f"--set {change!r} must read section.key=value, such as training.steps=2000")
    *sections, last = key.split(".")
    for section in sections:
        config = config.setdefault(section, {})
        if not isinstance(config, dict):
            raise InputError(f"--set {change!r}: {section} is not a section")
    config[last] = yaml.load(text, Loader=_Loader)
