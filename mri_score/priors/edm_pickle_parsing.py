"""The .pkl files that EDM releases, in the reading process. Called through `untrusted.read_apart` only.

Such a pickle carries the source code of its classes, and asks to run it. Here its opcodes are parsed and never run
(`untrusted.pickle_values`): only the tensors, the name of the outer class and its numbers are taken.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.priors.unpickling_parsing import plain
from mri_score.untrusted.pickle_values import Call, Name, pickle_values

LARGEST = 8 << 30
"""Largest file, in bytes; the published ones have 0.2 to 1.2 GB."""
PERSISTENT = Name("torch_utils.persistence", "_reconstruct_persistent_obj")


def network(path: Path) -> Any:
    """The averaged network of a file: ("dict", ...) of its class, its numbers and its tensors by name.

    Errors: InputError for a file without one.
    """
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path} has {path.stat().st_size} bytes; the files of EDM have at most 1.2 GB")
    try:
        saved = pickle_values(path.read_bytes())
        outer = next(found for name in ("ema", "net", "G_ema") if (found := _object(saved.get(name))) is not None)
        name, state = outer
        tensors = dict(_tensors(state, ""))
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged or hostile file may fail in any way
        raise InputError(
            f"{path} is no pickle of an EDM network ({type(error).__name__}: {error}); nothing of it was run. Load it"
            " where its code is at hand, and save the state dict: torch.save(net.state_dict(), 'weights.pt')"
        ) from error
    numbers = {key: value for key, value in state.items() if isinstance(value, (bool, int, float, str))}
    return plain({"class": name, "numbers": numbers, "weights": tensors}, path, [4 * path.stat().st_size + (1 << 20)])


def _object(value: Any) -> tuple[str, dict[str, Any]] | None:
    """The class and the attributes of an object, persistent or plain; None for anything else."""
    if not isinstance(value, Call):
        return None
    if value.function == PERSISTENT:
        about = value.arguments[0]
        return str(about["class_name"]), about["state"]
    return (value.function.name, value.state) if isinstance(value.state, dict) else None


def _tensors(state: dict[str, Any], start: str, depth: int = 20) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module and of those inside it, by their names."""
    if not depth:
        raise ValueError("its modules lie too deep")
    for kind in ("_parameters", "_buffers"):
        for name, value in (state.get(kind) or {}).items():
            if value is not None:
                yield f"{start}{name}", _tensor(value)
    for name, value in (state.get("_modules") or {}).items():
        inner = _object(value)
        if inner is not None:
            yield from _tensors(inner[1], f"{start}{name}.", depth - 1)


def _tensor(value: Any) -> Tensor:
    """A tensor from the call that would build it. The bytes of its storage go to torch's restricted unpickler."""
    if value.function.name == "_rebuild_parameter":
        value = value.arguments[0]
    storage, offset, size, stride = value.arguments[:4]
    if value.function != ("torch._utils", "_rebuild_tensor_v2"):
        raise ValueError(f"it holds a tensor of another kind, {value.function.name}")
    if storage.function != ("torch.storage", "_load_from_bytes"):
        raise ValueError(f"it holds a storage of another kind, {storage.function.name}")
    stored = torch.load(io.BytesIO(storage.arguments[0]), map_location="cpu", weights_only=True)
    flat = torch.empty(0, dtype=stored.dtype).set_(stored.untyped(), 0, (len(stored),), (1,))
    return flat.as_strided(tuple(size), tuple(stride), int(offset))
