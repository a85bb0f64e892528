"""Reading checkpoints of strangers: tensors and plain values alone, nothing in the file is ever run."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from mri_score.errors import InputError

DOTMAP = "dotmap.DotMap"
SKIPPED = ("numpy.", "ncsnv2.", "torch.nn.")
"""Modules whose objects stand beside the weights in checkpoints of score-diffusion-training."""


class Skipped:
    """What is left of an object that is not read: it takes any arguments and any state, and keeps neither."""

    def __init__(self, *arguments: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def read_checkpoint(path: Path) -> Any:
    """What `torch.save` wrote: tensors on the CPU, numbers, text, and dicts and lists of these.

    Read by torch's own restricted unpickler. A DotMap becomes an ordered dict and objects of the modules in `SKIPPED`
    become `Skipped`: neither is looked up, so that no code but torch's tensor building runs.
    Errors: InputError for a file that torch did not write, and for one that holds anything else.
    """
    if not path.is_file():
        raise InputError(f"checkpoint {path} does not exist")
    try:
        with torch.serialization.safe_globals([(OrderedDict, DOTMAP), *_skipped(path)]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file may fail in any way
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise InputError(
                f"{path} holds {found[1]}, which is not tensors and plain values; nothing of it was run."
                " If you trust the file, save its weights again as a dict of tensors where it was made"
            ) from error
        reason = str(error).rpartition("WeightsUnpickler error: ")[2].partition("\n")[0]  # without torch's advice
        raise InputError(
            f"{path} cannot be read as a checkpoint of torch.save ({reason or type(error).__name__}); copy it again"
        ) from error


def _skipped(path: Path) -> list[tuple[type, str]]:
    """A stand-in for each name in `SKIPPED` that the file mentions; files from before torch 1.6 get none."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError, pickle.UnpicklingError):
        return []
    return [(Skipped, name) for name in names if name.startswith(SKIPPED)]
