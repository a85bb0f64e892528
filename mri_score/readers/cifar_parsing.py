"""The python files of CIFAR-10 and CIFAR-100 in the reading process. Called through `untrusted.read_apart` only.

The files are pickles. Their opcodes are parsed, never run: the code below builds plain values, names of functions stay
names, and the state of a NumPy array is read as numbers. Anything else is refused.
"""

from __future__ import annotations

import pickletools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mri_score.errors import InputError

SIDE, CHANNELS = 32, 3
LARGEST = 1 << 30
"""Largest file, in bytes; those of CIFAR have 30 and 150 MB."""
PLAIN = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
"""Opcodes that put their own argument on the stack."""
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class Name(NamedTuple):
    """The name of a function or class in a pickle; it is never looked up."""

    module: str
    name: str


class Call:
    """A call that a pickle asks for, and the state that it sets afterwards; neither happens."""

    def __init__(self, function: Name, arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments, self.state = function, arguments, None


def images(path: Path) -> np.ndarray:
    """The images of a batch: (N, 32, 32, 3), uint8. Errors: InputError for any other file."""
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path} has {path.stat().st_size} bytes; the files of CIFAR have 30 or 150 MB")
    try:
        found = _value(path.read_bytes())
        data = {key if isinstance(key, str) else key.decode(): one for key, one in found.items()}["data"]
        return _array(data).reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1).copy()
    except MemoryError:
        raise
    except Exception as error:  # a damaged or hostile file may fail in any way
        raise InputError(
            f"{path} is no python file of CIFAR-10 or CIFAR-100 ({type(error).__name__}: {error}); give files such as"
            " data_batch_1 of cifar-10-batches-py, as they were published"
        ) from error


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


def _value(content: bytes) -> Any:
    """What a pickle describes, in plain values, names and calls that do not happen."""
    stack: list[Any] = []
    memory: dict[int, Any] = {}

    def above_mark() -> list[Any]:
        place = len(stack) - 1 - stack[::-1].index(_MARK)
        found = stack[place + 1 :]
        del stack[place:]
        return found

    argument: Any
    for opcode, argument, _ in pickletools.genops(content):
        code = opcode.name
        if code in ("PROTO", "FRAME"):
            continue
        if code == "STOP":
            return stack.pop()
        if code in PLAIN:
            stack.append(argument)
        elif code in CONSTANTS:
            stack.append(CONSTANTS[code])
        elif code in EMPTY:
            stack.append(EMPTY[code]())
        elif code == "MARK":
            stack.append(_MARK)
        elif code == "TUPLE":
            stack.append(tuple(above_mark()))
        elif code in TUPLES:
            count = TUPLES[code]
            stack[-count:] = [tuple(stack[-count:])]
        elif code in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memory[len(memory) if argument is None else argument] = stack[-1]
        elif code in ("BINGET", "LONG_BINGET"):
            stack.append(memory[argument])
        elif code in ("APPEND", "APPENDS"):
            items = [stack.pop()] if code == "APPEND" else above_mark()
            stack[-1].extend(items)
        elif code in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if code == "SETITEM" else above_mark()
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif code == "GLOBAL":
            stack.append(Name(*argument.split(" ")))
        elif code == "STACK_GLOBAL":
            stack[-2:] = [Name(*stack[-2:])]
        elif code == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_called(function, arguments))
        elif code == "BUILD":
            state = stack.pop()
            stack[-1].state = state
        else:
            raise ValueError(f"it has the opcode {code}")
    raise ValueError("it has no end")


def _called(function: Any, arguments: Any) -> Any:
    """The bytes of a text, which is how Python 3 writes bytes for Python 2; of every other function only its name."""
    if not isinstance(function, Name):
        raise ValueError("it calls what is no function")
    if function == ("_codecs", "encode") and arguments[1:] == ("latin1",):
        return arguments[0].encode("latin1")
    return Call(function, arguments)
