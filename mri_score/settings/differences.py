"""The settings of two runs beside each other. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mri_score.config_file import read_config
from mri_score.errors import InputError
from mri_score.migration.keys import flat
from mri_score.untrusted.text import read_json, read_text

LARGEST = 4 << 20
MEASURED = ("complete", "misfit_ratio", "held_out_misfit", "held_out_ratio", "left_out", "complex_nrmse")
"""Attributes of a result that are no settings."""


def settings_of(path: str | Path) -> dict[str, str]:
    """Name -> text of the settings of a run, a config or a result.

    path: a run folder of `mri-score train` (its config.yaml, parameters.txt and prior.json), a config, or a result file
    of `mri-score reconstruct`, whose settings are its attributes.
    Errors: InputError for anything else, and for files that cannot be read.
    """
    path = Path(path)
    if path.suffix == ".h5":
        from mri_score.readers.hdf5 import open_hdf5

        attributes = open_hdf5(path).attrs
        return {name: str(value) for name, value in sorted(attributes.items()) if name not in MEASURED}
    if not path.is_dir():
        return _config_settings(path)
    if not (path / "config.yaml").is_file():
        raise InputError(f"{path} has no config.yaml; give a run folder of mri-score train, a config or a result file")
    found = _config_settings(path / "config.yaml")
    if (path / "parameters.txt").is_file():
        lines = read_text(path / "parameters.txt", LARGEST).splitlines()
        pairs = [line.partition("#")[0].split(maxsplit=1) for line in lines]
        found |= {f"parameters.{pair[0]}": pair[1].strip() for pair in pairs if len(pair) == 2}
    if (path / "prior.json").is_file():
        record = read_json(path / "prior.json", LARGEST)
        if isinstance(record, dict) and isinstance(record.get("sha256"), str):
            found["prior.sha256"] = record["sha256"]
    return found


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """The settings that differ between the runs `one` and `other`, by name, each with its two values; None where a run
    does not state it.
    """
    names = sorted({*one, *other})
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}


def _config_settings(path: Path) -> dict[str, str]:
    return {name: str(value) for name, value in flat(read_config(path))}
