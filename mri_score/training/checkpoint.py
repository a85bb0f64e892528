"""Training state on disk: plain dicts of tensors and numbers, whole or absent, read with weights_only."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from mri_score.errors import InputError
from mri_score.files import whole_file

KEPT = 2
"""Checkpoints that stay: the newest, and one before it in case the disk lost the newest."""


def save(folder: Path, state: dict[str, Any]) -> Path:
    """Write checkpoint-<step>.pt and remove all but the newest."""
    path = folder / f"checkpoint-{state['step']:08d}.pt"
    with whole_file(path) as part:
        torch.save(state, part)
    for old in found(folder)[:-KEPT]:
        old.unlink()
    return path


def found(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("checkpoint-*.pt"))


def kept_name(step: int) -> str:
    """Where in its folder a run keeps the averaged prior of a step, without the suffix."""
    return f"kept/prior-{step:08d}"


def kept(folder: Path) -> dict[int, Path]:
    """By step, the averaged priors that a run keeps beside its checkpoints (training.keep_every)."""
    paths = sorted(folder.glob("kept/prior-*.safetensors"))
    return {int(path.stem.removeprefix("prior-")): path for path in paths}


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint. Errors: InputError where the file is damaged or not one of ours."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch itself does not look at the checksums
        if damaged:
            raise zipfile.BadZipFile(f"{damaged} is damaged")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise InputError(f"{path} cannot be read ({error}); remove it to resume from the one before") from error
    missing = {"step", "model", "ema", "optimizer"} - set(state if isinstance(state, dict) else ())
    if missing:
        raise InputError(f"{path} is no checkpoint of a training run: it lacks {', '.join(sorted(missing))}")
    return state
