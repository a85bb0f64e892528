"""From a YAML file to objects: the only room that knows names as strings.

Every key of a section is a keyword argument of the class that the section's `name` stands for; a file says only what
differs from the defaults.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pydantic
import yaml

from mri_score.errors import InputError, unknown_name

SECTIONS = ("seed", "dataset", "data", "validation", "network", "prior", "schedule", "loss", "training")
_LARGEST_CONFIG = 1 << 20


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys and aliases, and reads 1e-4 as a number."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()
            raise InputError(f"line {event.start_mark.line + 1}: YAML aliases (*name) are not read; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise InputError(f"line {key_node.start_mark.line + 1}: the key {key!r} stands twice; remove one")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_config(name: str | Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """The config `name` with `section.key=value` changes applied, checked for unknown sections.

    Looked up as a path, then in the folder configs/ here, then among the bundled ones.
    """
    path = find_config(name)
    if path.stat().st_size > _LARGEST_CONFIG:
        raise InputError(f"{path} has {path.stat().st_size} bytes; a config is a short YAML file")
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        for change in changes:
            _apply(config, change)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} should hold sections ({', '.join(SECTIONS)}); it holds {type(config).__name__}")
    for section in config:
        if section not in SECTIONS:
            raise InputError(f"{path} has the unknown section {section!r}; known: {', '.join(SECTIONS)}")
    return config


def find_config(name: str | Path) -> Path:
    """The file that a config's name stands for."""
    bundled = Path(str(files("mri_score.configs")))
    for candidate in (Path(name), Path("configs") / name, bundled / name):
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(path.name for path in bundled.glob("*.yml")))
    raise InputError(f"config {str(name)!r} is no file here, in configs/ or bundled; bundled: {known}")


def _apply(config: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise InputError(f"--set {change!r} should read section.key=value, e.g. --set training.steps=2000")
    *sections, last = key.split(".")
    for section in sections:
        config = config.setdefault(section, {})
        if not isinstance(config, dict):
            raise InputError(f"--set {change!r}: {section} is no section")
    config[last] = yaml.load(text, Loader=_Loader)


def build(section: str, values: Mapping[str, Any] | None, known: Mapping[str, Callable], **given: Any) -> Any:
    """Call what `values["name"]` stands for in the table `known`, with the section's other keys as arguments.

    `given` are arguments that the program supplies where the class takes them and the section does not say otherwise.
    """
    values = dict(values or {})
    name = values.pop("name", next(iter(known)) if len(known) == 1 else None)
    if name not in known:
        raise unknown_name(f"{section}.name", name, known)
    return call(section, known[name], values, **given)


def call(section: str, target: Callable, values: Mapping[str, Any] | None, **given: Any) -> Any:
    """target(**values), each value coerced to the type that the signature states; unknown keys are refused."""
    signature = inspect.signature(target)
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    supplied = {key: value for key, value in given.items() if key in signature.parameters}
    fields: dict[str, Any] = {}
    for key, parameter in signature.parameters.items():
        if key in given and key not in (values or {}):
            continue
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[key] = (hints.get(key, Any), default)
    model = pydantic.create_model(
        section, __config__=pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields
    )
    try:
        checked = model(**dict(values or {}))
    except pydantic.ValidationError as error:
        raise InputError(_message(section, error, fields)) from error
    return target(**{key: getattr(checked, key) for key in checked.model_fields_set} | supplied)


def _message(section: str, error: pydantic.ValidationError, fields: Mapping[str, Any]) -> str:
    problem = error.errors()[0]
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{section} has the unknown key {key!r}; known keys: {', '.join(sorted(fields))}"
    if problem["type"] == "missing":
        return f"{section}.{key} is missing; set it in the config or with --set {section}.{key}=..."
    return f"{section}.{key} is {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
