"""The JSON beside a prior's weights: read within bounds, checked by its own SHA-256, its numbers checked by kind."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from mri_score.errors import InputError
from mri_score.files import sha256, write_text
from mri_score.priors.installed import installed_priors
from mri_score.untrusted.text import read_json

FORMAT = "mri_score prior 1"
LARGEST = 4 << 20
"""Largest record, in bytes."""


def read_record(path: Path) -> dict[str, Any]:
    """The JSON beside a prior's weights in the file `path`, after a check that they belong together.

    Records of earlier versions have no SHA-256 of their own; their weights' is compared all the same.
    Errors: InputError where it is missing, is no description of a prior, has been changed, has values of another kind,
    or does not belong to the weights.
    """
    beside = path.with_suffix(".json")
    if not beside.is_file() or not path.is_file():
        raise InputError(f"{path} needs {beside.name} beside it, as mri-score writes it")
    record = read_json(beside, LARGEST)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{beside} is not a prior's description; it should say format: {FORMAT!r}")
    if missing := [key for key in ("sha256", "network", "prior") if key not in record]:
        raise InputError(f"{beside} lacks {', '.join(missing)}; copy it again, or save the prior again")
    if record.get("record_sha256", own := record_sha256(record)) != own:
        raise InputError(f"{beside} is damaged or was changed by hand: its own SHA-256 is another; copy it again")
    _check(beside, record)
    if sha256(path) != record["sha256"]:
        raise InputError(f"{path} is damaged: its SHA-256 is not the one in {beside.name}; copy both files again")
    return record


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record, with its own SHA-256, beside the weights in the file `path`."""
    record = {key: value for key, value in record.items() if key != "record_sha256"}
    record["record_sha256"] = record_sha256(record)
    write_text(path.with_suffix(".json"), json.dumps(record, indent=2) + "\n")


def add_to_record(path: Path, **facts: Any) -> None:
    """Write more into what the record beside `path` says about its prior; the weights and their SHA-256 stay."""
    record = read_record(path)
    write_record(path, {**record, "about": {**(record.get("about") or {}), **facts}})


def record_sha256(record: Mapping[str, Any]) -> str:
    """The SHA-256 of a record without this entry, independent of the order of its keys and of white space."""
    rest = {key: value for key, value in record.items() if key != "record_sha256"}
    rest = json.loads(json.dumps(rest))  # as it is read again: numbers as keys are text, sorted otherwise
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _check(place: Path, record: Mapping[str, Any]) -> None:
    """Check the kinds of the values that the program uses. Errors: InputError that names the first that is wrong."""
    about = record.get("about") or {}
    if not isinstance(record["network"], dict):
        raise _wrong(place, "network", record["network"], "the name and arguments of a network")
    if not isinstance(record["prior"], dict):
        raise _wrong(place, "prior", record["prior"], "sd, sigma_min, sigma_max and precondition")
    if not isinstance(about, dict):
        raise _wrong(place, "about", about, "facts by name")
    for key in ("sd", "sigma_min", "sigma_max"):
        if key in record["prior"] and not _positive(record["prior"][key]):
            raise _wrong(place, f"prior.{key}", record["prior"][key], "a positive number")
    for key in ("denoising_errors", "ood_thresholds"):
        numbers = about.get(key) or {}
        if not isinstance(numbers, dict) or not all(map(_positive, [*map(_number, numbers), *numbers.values()])):
            raise _wrong(place, f"about.{key}", numbers, "positive numbers by positive numbers")
    if not isinstance(about.get("any_orientation", False), bool):
        raise _wrong(place, "about.any_orientation", about["any_orientation"], "true or false")
    for key in ("base", "ood_basis", "high", "pixels"):
        if not isinstance(about.get(key) or {}, dict):
            raise _wrong(place, f"about.{key}", about[key], "facts by name")
    scans = about.get("scans")
    if scans is not None and not _masks(scans):
        raise _wrong(place, "about.scans", scans, "the laws and the accelerations of masks, at least one of each")
    for key in ("step", "images", "mean"):
        given = about.get(key, 0)
        numbers = given if key == "mean" and isinstance(given, list) and given else [given]
        if not all(isinstance(one, (int, float)) and math.isfinite(one) for one in numbers):
            raise _wrong(place, f"about.{key}", about[key], "a number" + ", or one a channel" * (key == "mean"))


def _wrong(place: Path, key: str, value: Any, wanted: str) -> InputError:
    return InputError(f"{place}: {key} is {str(value)[:80]!r}; it should be {wanted}; copy or save the prior again")


def _masks(scans: Any) -> bool:
    """Whether `scans` has the `laws` (texts) and the `accelerations` (positive numbers) of a training's masks."""
    if not isinstance(scans, dict):
        return False
    laws, accelerations = scans.get("laws"), scans.get("accelerations")
    if not isinstance(laws, list) or not isinstance(accelerations, list) or not laws or not accelerations:
        return False
    return all(isinstance(law, str) for law in laws) and all(map(_positive, accelerations))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


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
    if str(name) not in bundled and (beside := path.with_name(f"{path.name}.safetensors")).is_file():
        return beside  # as import-checkpoint --out names it
    if str(name) not in bundled:
        if str(name) in (installed := installed_priors()):
            return installed[str(name)]
        known = ", ".join([*bundled, *installed]) or "none is bundled"
        raise InputError(
            f"prior {str(name)!r} is no bundled or installed prior ({known}), run folder or .safetensors file"
        )
    return bundled[str(name)]


def bundled_priors() -> dict[str, Path]:
    """The priors that come with the package, by name."""
    folder = Path(str(files("mri_score.priors") / "weights"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"), key=lambda path: path.stem)}
