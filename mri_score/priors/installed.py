"""Priors of installed packages, found by their entry points; nothing of these packages is imported."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

GROUP = "mri_score.priors"
"""The group of entry points whose names are those of installed priors."""


@cache
def installed_priors() -> dict[str, Path]:
    """The priors of installed packages: name -> .safetensors file. Those whose files are missing are left out."""
    found: dict[str, Path] = {}
    for one in entry_points(group=GROUP):
        spec = find_spec(one.value.partition(".")[0])  # of a top-level module: nothing is imported
        for folder in (spec.submodule_search_locations or []) if spec is not None else []:
            path = Path(folder) / f"{one.name}.safetensors"
            if path.is_file():
                found[one.name] = path
    return found
