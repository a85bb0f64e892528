"""What a pickle describes, without running it: its opcodes are parsed, and functions and classes stay names.

Used in the reading process, by the parsers of the python files of CIFAR and of the pickles of EDM.
"""

from __future__ import annotations

import pickletools
from typing import Any, NamedTuple

PLAIN = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
"""Opcodes that put their own argument on the stack."""
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": list}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
DICTS = {("collections", "OrderedDict"), ("dnnlib.util", "EasyDict")}
"""Classes that are read as a dict."""
_MARK = object()


class Name(NamedTuple):
    """The name of a function or class in a pickle; it is never looked up."""

    module: str
    name: str


class Call:
    """A call that a pickle asks for, and the state and items that it sets afterwards; none of it happens."""

    def __init__(self, function: Name, arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments, self.state = function, arguments, None
        self.items: dict[Any, Any] = {}


def pickle_values(content: bytes) -> Any:
    """The plain values, names and calls of a pickle.

    Errors: ValueError for opcodes that neither CIFAR's files nor pickles of networks need; others for a damaged file.
    """
    stack: list[Any] = []
    memory: dict[int, Any] = {}

    def above_mark() -> list[Any]:
        place = len(stack) - 1 - next(number for number, one in enumerate(reversed(stack)) if one is _MARK)
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
        elif code in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if code == "APPEND" else above_mark()
            stack[-1].extend(items)
        elif code in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if code == "SETITEM" else above_mark()
            target = stack[-1].items if isinstance(stack[-1], Call) else stack[-1]
            target.update(zip(items[::2], items[1::2], strict=True))
        elif code == "GLOBAL":
            stack.append(Name(*argument.split(" ")))
        elif code == "STACK_GLOBAL":
            stack[-2:] = [Name(*stack[-2:])]
        elif code in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            stack.append(_called(function, arguments))
        elif code == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Call):
                stack[-1].state = state
        else:
            raise ValueError(f"it has the opcode {code}")
    raise ValueError("it has no end")


def _called(function: Any, arguments: Any) -> Any:
    """The bytes of a text, as Python 3 writes them for Python 2; an empty dict or a list of a set; else the name."""
    if not isinstance(function, Name):
        raise ValueError("it calls what is no function")
    if function == ("_codecs", "encode") and arguments[1:] == ("latin1",):
        return arguments[0].encode("latin1")
    if function in DICTS and not arguments:
        return {}
    if function == ("builtins", "set"):
        return list(*arguments)
    return Call(function, arguments)
