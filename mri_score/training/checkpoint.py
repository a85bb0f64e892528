"""Checkpoints: dicts of tensors and numbers, written complete or not at all, read with weights_only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mri_score.errors import InputError
from mri_score.files import DiskFull, sink, whole_file
from mri_score.priors.store import require_finite
from mri_score.priors.unpickling import read_checkpoint

KEPT = 2
"""Number of checkpoints to keep: the newest, and the one before it in case the newest is damaged."""
KINDS: dict[str, type] = {
    "step": int, "images": int, "model": dict, "ema": dict, "averages": dict, "optimizer": dict, "losses": list,
}  # fmt: skip
"""Parts of a checkpoint and their types."""


def save(folder: Path, state: dict[str, Any]) -> Path:
    """Write checkpoint-<step>.pt and remove all but the newest; return its path. state: with `step`.

    If the disk is full, the older of the checkpoints before makes room. Errors: DiskFull, where that is not enough.
    """
    path = folder / f"checkpoint-{state['step']:08d}.pt"
    try:
        _write(path, state)
    except DiskFull:
        if len(older := [one for one in found(folder) if one != path]) < KEPT:
            raise
        for old in older[: 1 - KEPT]:
            old.unlink()
        _write(path, state)
    for old in found(folder)[:-KEPT]:
        old.unlink()
    return path


def _write(path: Path, state: dict[str, Any]) -> None:
    with whole_file(path) as part, sink(part) as file:
        torch.save(state, file)


def found(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("checkpoint-*.pt"))


def kept_name(step: int) -> str:
    """File name, within the run folder and without suffix, of the averaged prior kept at a step."""
    return f"kept/prior-{step:08d}"


def kept(folder: Path) -> dict[int, Path]:
    """Step -> path of the averaged priors that a run has kept (training.keep_every)."""
    paths = sorted(folder.glob("kept/prior-*.safetensors"))
    return {int(path.stem.removeprefix("prior-")): path for path in paths}


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint, in the reading process.

    Errors: InputError if the file is damaged, is not a checkpoint, or has NaN or infinity in its weights.
    """
    try:
        state = read_checkpoint(path, stand_ins=False)
    except InputError as error:
        raise InputError(f"{path} cannot be read ({error}); remove it to resume from the checkpoint before") from error
    missing = {"step", "model", "ema", "optimizer"} - set(state if isinstance(state, dict) else ())
    if missing:
        raise InputError(f"{path} is not a checkpoint of a training run: it lacks {', '.join(sorted(missing))}")
    known = {key: kind for key, kind in KINDS.items() if key in state}
    if other := [key for key, kind in known.items() if type(state[key]) is not kind]:
        raise InputError(
            f"{path} is not a checkpoint of a training run: {other[0]} is {type(state[other[0]]).__name__}, not"
            f" {KINDS[other[0]].__name__}; remove it to resume from the checkpoint before"
        )
    if state["step"] < 0 or not all(isinstance(loss, float) for loss in state.get("losses", [])):
        raise InputError(f"{path} is not a checkpoint of a training run: its step or its losses are no such numbers")
    for weights in (state["model"], state["ema"], *state.get("averages", {}).values()):
        if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
            raise InputError(f"{path} is not a checkpoint of a training run: its weights are not tensors by name")
        require_finite(path, weights)
    return state
