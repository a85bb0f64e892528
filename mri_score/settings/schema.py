"""Training configs as a JSON Schema, for editors that complete and check YAML."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pydantic

from mri_score.config_file import SECTIONS
from mri_score.experiment import FORMER_SOURCES, argument_types
from mri_score.ranges import RANGES
from mri_score.settings.merged import AUTOMATIC, DEFAULT_NAMES, MEASURED, NAMED, SINGLE, keys_of

DRAFT = "https://json-schema.org/draft/2020-12/schema"
TYPES = {"integer", "number"}


def config_schema() -> dict[str, Any]:
    """The JSON Schema of a training config: sections, names, keys, types, ranges, defaults.

    What depends on several keys together is checked by `mri-score train` alone.
    """
    definitions: dict[str, Any] = {}
    sections: dict[str, Any] = {
        "seed": {"type": "integer", "minimum": 0, "default": 0, "description": "Seed of weights, batches and noise."},
        "dataset": {"type": "string", "description": "Name of the training data, for parameters/<name>.txt."},
    }
    for section in SECTIONS[2:]:
        one = _section(section, SINGLE[section], definitions) if section in SINGLE else _choice(section, definitions)
        sections[section] = {**one, "type": ["object", "null"]}
    return {
        "$schema": DRAFT,
        "title": "Training config of mri_score",
        "type": "object",
        "properties": sections,
        "additionalProperties": False,
        "$defs": definitions,
    }


def _choice(section: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """A section whose `name` selects the keys."""
    names = list(NAMED[section]) + (list(FORMER_SOURCES) if section in ("data", "validation") else [])
    branches = []
    for name in names:
        target = NAMED[section][FORMER_SOURCES.get(name, name)]
        keys = _section(section, target, definitions)
        keys["properties"]["name"] = {"const": name}
        branches.append({"if": {"properties": {"name": {"const": name}}, "required": ["name"]}, "then": keys})
    described = "; ".join(f"{one}: {_caption(to)}" for one, to in NAMED[section].items())
    chosen: dict[str, Any] = {"enum": names, "description": described}
    if section in DEFAULT_NAMES:
        chosen["default"] = DEFAULT_NAMES[section]
    return {"properties": {"name": chosen}, "required": ["name"], "allOf": branches}


def _section(section: str, target: Callable, definitions: dict[str, Any]) -> dict[str, Any]:
    """The keys of a class."""
    types = argument_types(target)
    keys, required = {}, []
    for key, parameter in keys_of(section, target).items():
        keys[key] = _key(section, key, types.get(key, Any), parameter, definitions)
        if parameter.default is inspect.Parameter.empty and key not in MEASURED.get(section, set()):
            required.append(key)
    return {"description": _caption(target), "properties": keys, "required": required, "additionalProperties": False}


def _key(
    section: str, key: str, kind: Any, parameter: inspect.Parameter, definitions: dict[str, Any]
) -> dict[str, Any]:
    try:
        schema = pydantic.TypeAdapter(kind, config=_config(kind)).json_schema()
    except (pydantic.PydanticUserError, pydantic.errors.PydanticInvalidForJsonSchema):
        return {}  # a type that YAML cannot write
    definitions.update(schema.pop("$defs", {}))
    if key in RANGES.get(section, {}):
        _bound(schema, *RANGES[section][key])
    if (section, key) == ("schedule", AUTOMATIC[0]):
        schema = {"anyOf": [schema, {"const": AUTOMATIC[1]}]}
    if isinstance(parameter.default, (bool, int, float, str)):
        schema["default"] = parameter.default
    return schema


def _config(kind: Any) -> pydantic.ConfigDict | None:
    if isinstance(kind, type) and (hasattr(kind, "__dataclass_fields__") or issubclass(kind, pydantic.BaseModel)):
        return None  # pydantic refuses a config beside that of a class
    return pydantic.ConfigDict(arbitrary_types_allowed=True)


def _bound(schema: Any, least: float, most: float) -> None:
    """Add the range to every number in a schema: to the value, its alternatives, and the items of a list."""
    if isinstance(schema, list):
        for one in schema:
            _bound(one, least, most)
        return
    if not isinstance(schema, dict):
        return
    if schema.get("type") in TYPES:
        schema |= {"minimum": least, "maximum": most}
    for inner in ("anyOf", "oneOf", "items", "prefixItems"):
        _bound(schema.get(inner), least, most)


def _caption(target: Callable) -> str:
    """The first sentence of a docstring."""
    text = " ".join((inspect.getdoc(target) or "").split("\n\n")[0].split())
    return text.split(": ")[0].split(". ")[0].rstrip(".") + "."
