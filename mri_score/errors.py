"""The one error that means: the input is at fault, and here is what to do about it."""

from __future__ import annotations

from collections.abc import Iterable


class InputError(ValueError):
    """Bad input: the message names the place, what came, what is known and the next step.

    The command line prints the message alone and exits with code 2.
    """


def unknown_name(place: str, name: object, known: Iterable[str]) -> InputError:
    """The error for a name that is not in a table, e.g. `loss.name is 'dsmm'; known names: ...`."""
    return InputError(f"{place} is {name!r}; known names: {', '.join(sorted(known))}")
