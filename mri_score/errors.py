"""The error for bad input."""

from __future__ import annotations

from collections.abc import Iterable


class InputError(ValueError):
    """Bad input. The message states the place, the value found, the allowed values and what to do next.

    The command line prints the message alone and exits with code 2.
    """


def unknown_name(place: str, name: object, known: Iterable[str]) -> InputError:
    """The error for a name that is not in a table, such as `loss.name is 'dsmm'; known names: ...`.

    place: where the name stands, such as "loss.name". name: what was found there. known: the allowed names.
    """
    return InputError(f"{place} is {name!r}; known names: {', '.join(sorted(known))}")
