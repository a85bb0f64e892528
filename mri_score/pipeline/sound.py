"""Slices that cannot be used: found before any work, then refused or left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mri_score.data.scan import Scan
from mri_score.errors import InputError


def sound_slices(scan: Scan, slices: Iterable[int], refuse: bool) -> tuple[list[int], dict[int, InputError]]:
    """Those of the slices that have no fault, and number -> fault of the others; each slice is read once for this.

    scan: the prepared file. slices: their numbers. refuse: raise the first fault.
    Errors: InputError for a fault if `refuse`, and if no slice is left.
    """
    chosen, left_out = [], {}
    for number in slices:
        fault = scan.fault(number)
        if fault is None:
            chosen.append(number)
        elif refuse:
            raise fault
        else:
            left_out[number] = fault
    if not chosen:
        raise none_left(left_out)
    return chosen, left_out


def none_left(left_out: Mapping[int, InputError]) -> InputError:
    """The error for a file without a slice that can be used. left_out: number -> fault, of all slices."""
    fault = next(iter(left_out.values()))
    return InputError(f"{fault}; none of {len(left_out)} slices can be used") if len(left_out) > 1 else fault


def left_out_notes(left_out: Mapping[int, InputError]) -> list[str]:
    """A note for each slice that is left out. left_out: number -> fault."""
    return [f"slice {number} is left out: {fault}" for number, fault in sorted(left_out.items())]
