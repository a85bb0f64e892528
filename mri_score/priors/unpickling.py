"""Reading checkpoints of strangers: tensors and plain values alone, nothing in the file is ever run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mri_score.errors import InputError
from mri_score.untrusted.process import read_apart


class Skipped:
    """Stands for an object of a known class that is not read."""


def read_checkpoint(path: Path, stand_ins: bool = True) -> Any:
    """What `torch.save` wrote: tensors on the CPU, numbers, text, and dicts, lists and tuples of these.

    Read in the reading process by torch's own restricted unpickler (see `unpickling_parsing.contents`).
    stand_ins: whether a DotMap becomes a dict and objects of known modules beside the weights become `Skipped`.
    Errors: InputError for a file that torch did not write, for one that holds anything else, for wrong checksums, and
    for tensors larger than what is stored of them.
    """
    return _apart("mri_score.priors.unpickling_parsing:contents", path, stand_ins=stand_ins)


def read_edm_pickle(path: Path) -> Any:
    """The network in a .pkl of EDM: {"class": its name, "numbers": its attributes, "weights": tensors by their names}.

    The source code that such a file carries is never run (see `edm_pickle_parsing.network`).
    Errors: InputError for a file without such a network, and as in `read_checkpoint`.
    """
    return _apart("mri_score.priors.edm_pickle_parsing:network", path)


def _apart(function: str, path: Path, **given: Any) -> Any:
    if not path.is_file():
        raise InputError(f"checkpoint {path} does not exist")
    size = path.stat().st_size
    return _restored(
        read_apart(
            function,
            path,
            memory=(1 << 30) + 6 * size,
            seconds=10 + size // (50 << 20),
            largest=(1 << 20) + 4 * size,
            **given,
        )
    )


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(one) for one in value]
    if not isinstance(value, tuple):
        return value
    kind, *content = value
    if kind == "tensor":
        name, array = content
        dtype, tensor = getattr(torch, name), torch.from_numpy(array)
        return tensor if tensor.dtype == dtype else tensor.view(dtype)
    if kind == "dict":
        return {_restored(key): _restored(one) for key, one in content[0]}
    return tuple(_restored(one) for one in content[0]) if kind == "tuple" else Skipped()
