"""The error for bad input."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, marks that change the direction of text, line separators, and bytes that are not UTF-8."""


def visible(text: str, keep: str = "") -> str:
    r"""The text with every control character written out, such as \x1b, so that it cannot steer a terminal.

    Letters of all languages stay. Lone surrogates, which stand for bytes that are not UTF-8, are written out too.
    keep: characters that stay as they are, such as line ends in a text of several lines.
    """
    return _INVISIBLE.sub(lambda found: found[0] if found[0] in keep else _written(found[0]), text)


def _written(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class InputError(ValueError):
    """Bad input. The message states the place, the value found, the allowed values and what to do next.

    The command line prints the message alone and exits with code 2. It is one line; control characters are written out.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(visible(re.sub(r"\s*\n\s*", " ", message.strip())))


@contextmanager
def parsing(failure: str, advice: str) -> Iterator[None]:
    """A block in which a library parses a file that may be damaged: whatever it raises becomes an InputError.

    The message is `failure (what the library said); advice`. A MemoryError stays what it is: the reading process says
    how much memory there is.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # libraries raise many kinds for a broken file
        raise InputError(f"{failure} ({str(error) or type(error).__name__}); {advice}") from error


def unknown_name(place: str, name: object, known: Iterable[str]) -> InputError:
    """The error for a name that is not in a table, such as `loss.name is 'dsmm'; known names: ...`.

    place: where the name stands, such as "loss.name". name: what was found there. known: the allowed names.
    """
    return InputError(f"{place} is {name!r}; known names: {', '.join(sorted(known))}")
