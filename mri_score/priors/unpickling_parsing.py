"""Files of `torch.save` in the reading process, which loads torch for it. Called through `untrusted.read_apart` only.

Values travel as plain ones: ("tensor", dtype, array), ("dict", items), ("tuple", items), ("skipped",), lists, scalars.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mri_score.errors import InputError

DOTMAP = "dotmap.DotMap"
SKIPPED = (
    "numpy.", "ncsnv2.", "torch.nn.",
    "argparse.", "collections.defaultdict", "lightning.", "ml_collections.", "omegaconf.", "pathlib.",
    "pytorch_lightning.", "torch.optim.", "typing.",
)  # fmt: skip
"""Names whose objects stand beside the weights in checkpoints of score-diffusion-training, of Lightning and of Hydra's
configs. None of them is ever looked up."""
AS_INTEGERS = {torch.bfloat16: torch.int16}
"""Types that NumPy lacks, and the type of the same size that their bits travel as."""


class Skipped:
    """What is left of an object that is not read: it takes any arguments and any state, and keeps neither."""

    def __init__(self, *arguments: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...


def contents(path: Path, stand_ins: bool) -> Any:
    """What `torch.save` wrote, as plain values. stand_ins: whether known classes beside weights are left out.

    Read by torch's own restricted unpickler. With stand-ins, a DotMap becomes a dict and objects of the modules in
    `SKIPPED` become ("skipped",): neither is looked up, so that no code but torch's tensor building runs.
    Errors: InputError for a file that torch did not write, for one that holds anything else, for wrong checksums, and
    for tensors larger than what is stored of them.
    """
    try:
        _check_sums(path)
        known: list[Any] = [(OrderedDict, DOTMAP), *_skipped(path)] if stand_ins else []
        with torch.serialization.safe_globals(known):
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except (InputError, MemoryError):
        raise
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
    return plain(saved, path, [4 * path.stat().st_size + (1 << 20)])


def _check_sums(path: Path) -> None:
    """torch does not check the checksums of the parts. Files from before torch 1.6 have none."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for part in archive.infolist():
                if part.compress_type != zipfile.ZIP_STORED:
                    raise InputError(f"{path}: {part.filename} is compressed, which torch.save never does")
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"{damaged} is damaged")


def _skipped(path: Path) -> list[tuple[type, str]]:
    """A stand-in for each name in `SKIPPED` that the file mentions; files from before torch 1.6 get none."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError, pickle.UnpicklingError):
        return []
    return [(Skipped, name) for name in names if name.startswith(SKIPPED)]


def plain(value: Any, path: Path, left: list[int]) -> Any:
    """A value of a file in the form that travels. left: [bytes that further tensors may have]."""
    if isinstance(value, Tensor):
        return ("tensor", *_array(value, path, left))
    if isinstance(value, Mapping):
        return ("dict", [(plain(key, path, left), plain(one, path, left)) for key, one in value.items()])
    if isinstance(value, list):
        return [plain(one, path, left) for one in value]
    if isinstance(value, tuple):  # torch.Size too
        return ("tuple", [plain(one, path, left) for one in value])
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value)
    return ("skipped",)


def _array(value: Tensor, path: Path, left: list[int]) -> tuple[str, Any]:
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise InputError(f"{path} holds a tensor that is sparse, quantised or without values; save it as a plain one")
    size = value.numel() * value.element_size()
    if size > value.untyped_storage().nbytes():
        raise InputError(
            f"{path} holds a tensor of shape {tuple(value.shape)}, {size} bytes, of which"
            f" {value.untyped_storage().nbytes()} are stored; it is forged, or was saved expanded: save it contiguous"
        )
    left[0] -= size
    if left[0] < 0:
        raise InputError(f"{path} holds tensors that are together far larger than the file; it is forged")
    bits = value.detach().resolve_conj().resolve_neg().contiguous()
    if bits.dtype in AS_INTEGERS:
        bits = bits.view(AS_INTEGERS[bits.dtype])
    return str(value.dtype).removeprefix("torch."), bits.numpy()
