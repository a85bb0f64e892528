"""What the program and its reading process send each other: one line of JSON, then the bytes of the arrays.

Plain values only: None, bool, int, float, str, bytes, list, tuple, dict and numpy arrays of numbers or fixed-length
bytes. Nothing that a receiver reads can name a class or a function.
"""

from __future__ import annotations

import json
import math
from typing import IO, Any

from mri_score.errors import InputError

LONGEST_LINE = 64 << 20
"""Largest message without its arrays, in bytes."""
MOST_VALUES = 1_000_000
"""Largest number of values in a message; an array counts as one."""
ARRAY_KINDS = "biufcSV"


def send(stream: IO[bytes], value: Any) -> None:
    """Write a message and flush. Errors: InputError for more than `LONGEST_LINE` or `MOST_VALUES`, or another type."""
    arrays: list[Any] = []
    tree = _packed(value, arrays, [MOST_VALUES])
    heads = [[array.dtype.str, list(array.shape)] for array in arrays]
    line = json.dumps([tree, heads]).encode()
    if len(line) >= LONGEST_LINE:
        raise InputError("too much text and too many values for one message")
    stream.write(line + b"\n")
    for array in arrays:
        if array.nbytes:
            stream.write(array.reshape(-1).view("u1").data)
    stream.flush()


def receive(stream: IO[bytes], most: int) -> Any:
    """Read a message. most: largest total size of its arrays, in bytes.

    Errors: EOFError if the other side has ended or the message is no message, so that the process cannot be used again.
    """
    line = stream.readline(LONGEST_LINE)
    if not line.endswith(b"\n"):
        raise EOFError
    try:
        tree, heads = json.loads(line)
        return _unpacked(tree, [_array(stream, *head) for head in _checked(heads, most)])
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise EOFError from error


def _checked(heads: list[Any], most: int) -> list[tuple[Any, tuple[int, ...]]]:
    if not heads:
        return []
    import numpy as np  # a message without arrays needs no numpy

    found = [(np.dtype(str(dtype)), tuple(int(side) for side in shape)) for dtype, shape in heads]
    total = sum(dtype.itemsize * math.prod(shape) for dtype, shape in found)
    if total > most or any(dtype.kind not in ARRAY_KINDS or min(shape, default=0) < 0 for dtype, shape in found):
        raise ValueError
    return found


def _array(stream: IO[bytes], dtype: Any, shape: tuple[int, ...]) -> Any:
    import numpy as np

    array = np.empty(shape, dtype)
    if array.nbytes:
        left = array.reshape(-1).view("u1").data
        while left:
            count = stream.readinto(left)  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            left = left[count:]
    return array


def _packed(value: Any, arrays: list[Any], budget: list[int]) -> Any:
    """The value as JSON; arrays are put into the list `arrays`. budget: [number of values that may follow]."""
    budget[0] -= 1
    if budget[0] < 0:
        raise InputError(f"more than {MOST_VALUES} values")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [_packed(one, arrays, budget) for one in value]
    if isinstance(value, tuple):
        return {"tuple": [_packed(one, arrays, budget) for one in value]}
    if isinstance(value, dict):
        return {"dict": [[_packed(key, arrays, budget), _packed(one, arrays, budget)] for key, one in value.items()]}
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if type(value).__module__ == "numpy" and value.dtype.kind in ARRAY_KINDS and value.dtype.fields is None:
        import numpy as np

        arrays.append(np.ascontiguousarray(value).reshape(value.shape))
        return {"array": len(arrays) - 1}
    raise InputError(f"a value of the type {type(value).__name__}, which is no plain value")


def _unpacked(tree: Any, arrays: list[Any]) -> Any:
    if isinstance(tree, list):
        return [_unpacked(one, arrays) for one in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tuple":
        return tuple(_unpacked(one, arrays) for one in content)
    if kind == "dict":
        return {_unpacked(key, arrays): _unpacked(one, arrays) for key, one in content}
    if kind == "bytes":
        return content.encode("latin-1")
    return arrays[content]
