"""The python files of CIFAR-10 and CIFAR-100 in the reading process. Called through `untrusted.read_apart` only.

The files are pickles. Their opcodes are parsed, never run (`untrusted.pickle_values`), and the state of a NumPy array
is read as numbers. Anything else is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mri_score.errors import InputError, parsing
from mri_score.untrusted.pickle_values import Call, pickle_values

SIDE, CHANNELS = 32, 3
LARGEST = 1 << 30
"""Largest file, in bytes; those of CIFAR have 30 and 150 MB."""


def images(path: Path) -> np.ndarray:
    """The images of a batch: (N, 32, 32, 3), uint8. Errors: InputError for any other file."""
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path} has {path.stat().st_size} bytes; the files of CIFAR have 30 or 150 MB")
    advice = "give files such as data_batch_1 of cifar-10-batches-py, as they were published"
    with parsing(f"{path} is no python file of CIFAR-10 or CIFAR-100", advice):
        found = pickle_values(path.read_bytes())
        data = {key if isinstance(key, str) else key.decode(): one for key, one in found.items()}["data"]
        return _array(data).reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1).copy()


def _array(value: Any) -> np.ndarray:
    """A uint8 array (N, 3072) from the state that NumPy pickles: version, shape, type, order and bytes."""
    if not isinstance(value, Call) or value.function.name != "_reconstruct" or not isinstance(value.state, tuple):
        raise ValueError("its data are no array")
    _, shape, kind, fortran, content = value.state
    if not isinstance(kind, Call) or kind.function.name != "dtype" or kind.arguments[0] not in ("u1", b"u1"):
        raise ValueError("its data are not of 8 bits")
    content = content.encode("latin1") if isinstance(content, str) else content
    array = np.frombuffer(content, np.uint8)
    return array.reshape(shape, order="F" if fortran else "C").reshape(-1, CHANNELS * SIDE * SIDE)
