"""Settings that a client may change: its config name and parameters replace settings of the server."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from mri_score.errors import unknown_name
from mri_score.methods import DEFAULT_METHOD, METHODS, ONE_CHANNEL_USES

OWN_NAMES = ("mri_score", "mri-score", "default")
"""Config names that stand for the settings of the server."""


@dataclass(frozen=True)
class StreamSettings:
    """Settings for the slices of a stream.

    method: a name of `METHODS`. prior: name, run folder or file. one_channel: the use of a prior of one channel; None:
    parts. samples: draws of each slice. steps: noise levels; None: the method's own. seed: of the draws. device: auto,
    cpu, cuda, ... threads: of torch; None leaves its default. batch_size: walks at a time.
    Errors: InputError for an unknown method.
    """

    method: str = DEFAULT_METHOD
    prior: str = "brain"
    one_channel: str | None = None
    samples: int = 4
    steps: int | None = None
    seed: int = 0
    coils: int | None = None
    """Number of virtual coils; None keeps the scan's."""
    pixels: str = "int16"
    """int16, of 12 bits with a rescale slope, or float32."""
    device: str = "auto"
    threads: int | None = None
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise unknown_name("the method", self.method, METHODS)


def _whole(value: Any) -> int:
    number = int(value)
    if number != float(value) or not 1 <= number <= 10_000:
        raise ValueError
    return number


def _seed(value: Any) -> int:
    number = int(value)
    if not 0 <= number < 1 << 63:
        raise ValueError
    return number


def _one_of(*names: str) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        if value not in names:
            raise ValueError
        return str(value)

    return convert


def _parameters(priors: Sequence[str]) -> dict[str, tuple[Callable[[Any], Any], str]]:
    """Name -> converter of the value, and the allowed values in words."""
    return {
        "method": (_one_of(*METHODS), ", ".join(METHODS)),
        "prior": (_one_of(*priors), ", ".join(priors)),
        "one_channel": (_one_of(*ONE_CHANNEL_USES), ", ".join(ONE_CHANNEL_USES)),
        "samples": (_whole, "a whole number from 1"),
        "steps": (_whole, "a whole number from 1"),
        "coils": (_whole, "a whole number from 1"),
        "seed": (_seed, "a whole number from 0"),
        "pixels": (_one_of("int16", "float32"), "int16, float32"),
    }


def by_name(settings: StreamSettings, config: str, priors: Sequence[str]) -> tuple[StreamSettings, list[str]]:
    """The settings for a config name: a method, a prior, or both as `method+prior`.

    settings: those of the server. config: the name. priors: the names that a client may ask for.
    Returns the settings, and notes for the client: an unknown name gives the settings of the server.
    """
    if config in OWN_NAMES or not config:
        return settings, []
    parts = config.split("+")
    named = {"method" if part in METHODS else "prior": part for part in parts}
    if not all(part in METHODS or part in priors for part in parts) or len(named) < len(parts):
        known = f"{', '.join(OWN_NAMES)}, METHOD, PRIOR or METHOD+PRIOR; methods: {', '.join(METHODS)}; priors:"
        known = f"{known} {', '.join(priors)}"
        return settings, [f"config {config[:64]!r} is unknown, so the defaults are used; known: {known}"]
    return _changed(settings, named), []


def by_parameters(settings: StreamSettings, text: str, priors: Sequence[str]) -> tuple[StreamSettings, list[str]]:
    """The settings for a JSON text `{"parameters": {...}}` or `{...}`.

    settings: so far. text: of the client. priors: the names that a client may ask for. Returns the settings, and notes
    for the client: what is unknown or invalid is left out.
    """
    try:
        given = json.loads(text)
        given = given.get("parameters", given)
        items = dict(given.items())
    except (ValueError, AttributeError, RecursionError):
        return settings, ["the parameters are not a JSON object, so the defaults are used"]
    notes: list[str] = []
    if isinstance(config := items.pop("config", None), str):
        settings, notes = by_name(settings, config, priors)
    known, changes, unknown = _parameters(priors), {}, []
    for name, value in items.items():
        if name not in known:
            unknown.append(str(name)[:32])
            continue
        convert, allowed = known[name]
        try:
            changes[name] = convert(value)
        except (TypeError, ValueError, OverflowError):
            notes.append(f"parameter {name} is {str(value)[:64]!r} and is left out; allowed: {allowed}")
    if unknown:
        notes.append(f"parameters without a meaning here: {', '.join(unknown[:20])}; known: {', '.join(known)}")
    return _changed(settings, changes), notes


def _changed(settings: StreamSettings, changes: Mapping[str, Any]) -> StreamSettings:
    """The settings with changes; another prior has the default use of one channel, unless that is given too."""
    other = changes.get("prior", settings.prior) != settings.prior
    return replace(settings, **({"one_channel": None} if other else {}) | dict(changes))


def describe(settings: StreamSettings) -> str:
    """The settings that decide on images, in one line."""
    shown = [field.name for field in fields(settings) if field.name not in ("device", "threads", "batch_size")]
    return ", ".join(f"{name} {value}" for name in shown if (value := getattr(settings, name)) is not None)
