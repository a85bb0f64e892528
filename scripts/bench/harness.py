"""Code shared by the benchmarks: interleaved timing, the row of a comparison, the table.

A subject is a file here with `NAME = "..."` and `run(sizes, threads) -> list[Row]`, sizes being `quick` or `full`;
`all` finds it and runs it in its own process, with the number of threads set for all libraries. Typical use:

    row = compare("what", "against", ours, theirs, sizes=sizes, wanted=4, bound=1e-5, floor=transforms, floor_of="FFTs")

Smaller is better for every figure: use seconds per slice rather than slices per second. For a limit instead of a rival
use `theirs=Spread.exact(0.5)` and `wanted=1`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

SECONDS = {"quick": 5.0, "full": 40.0}
"""Time limit for the repeats of one row, unless `least` repeats take longer."""
LEAST, MOST = 3, 31
"""Number of timings of each contestant."""
LONG = 2.0
"""A contestant that takes at least this many seconds needs no warm-up: its first call counts."""
HEADER = "| subject | what | against | ours | theirs | ratio | wanted | floor | relative error | note |"


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a measured figure, in `unit`."""

    median: float
    low: float
    high: float
    unit: str = "s"

    @classmethod
    def of(cls, values: list[float], unit: str = "s") -> Spread:
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        return cls(median, low, high, unit)

    @classmethod
    def exact(cls, value: float, unit: str = "s") -> Spread:
        return cls(value, value, value, unit)

    def __str__(self) -> str:
        scale, unit = (1e3, "ms") if self.unit == "s" and self.median < 1 else (1.0, self.unit)
        middle, low, high = (f"{value * scale:#.3g}".rstrip(".") for value in (self.median, self.low, self.high))
        return f"{middle} {unit}" if self.low == self.high else f"{middle} {unit} ({low} to {high})"


@dataclass(frozen=True)
class Row:
    """One comparison: our figure, theirs, the ratio, the wanted ratio, and a lower bound.

    floor: a lower bound for the same work, measured in the same run, e.g. its Fourier transforms only. error: relative,
    between both results; above `bound` the whole run fails. `subject` is the NAME of the module.
    """

    what: str
    against: str = ""
    ours: Spread | None = None
    theirs: Spread | None = None
    wanted: float | None = None
    floor: Spread | None = None
    floor_of: str = ""
    error: float | None = None
    bound: float | None = None
    note: str = ""
    subject: str = ""
    failed: bool = False

    @property
    def ratio(self) -> float | None:
        return self.theirs.median / self.ours.median if self.ours and self.theirs else None

    @property
    def reached(self) -> bool | None:
        return self.ratio >= self.wanted if self.ratio is not None and self.wanted is not None else None

    @property
    def sound(self) -> bool:
        """False if the subject failed or the results disagree; NaN counts as disagreement."""
        return not self.failed and (self.error is None or self.bound is None or self.error <= self.bound)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio, "reached": self.reached, "sound": self.sound}

    def __str__(self) -> str:
        goal = "" if self.wanted is None else f"{self.wanted:g}"
        goal += {True: " reached", False: " MISSED", None: ""}[self.reached]
        floor = f"{self.floor}, {self.floor_of}" if self.floor else ""
        if self.floor and self.ours and self.floor.unit == self.ours.unit:
            floor += f": {self.floor.median / self.ours.median:.0%} of ours"
        error = "" if self.error is None else f"{self.error:.1e}"
        error += "" if self.bound is None else f" of {self.bound:.0e}" + ("" if self.sound else " WRONG")
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        cells = [self.subject, self.what, self.against, self.ours, self.theirs, ratio, goal, floor, error, self.note]
        return "| " + " | ".join("" if cell is None else str(cell).replace("|", "/") for cell in cells) + " |"


def compare(
    what: str,
    against: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any] | None = None,
    *,
    sizes: str,
    floor: Callable[[], Any] | None = None,
    floor_of: str = "",
    wanted: float | None = None,
    error: Callable[[Any, Any], float] | None = None,
    bound: float | None = None,
    note: str = "",
) -> Row:
    """Time ours, theirs and the floor, interleaved; compare the results of the first calls.

    `error(ours, theirs)` is `relative_error` by default if a `bound` is given.
    """
    contestants = {"ours": ours, "theirs": theirs, "floor": floor}
    functions = {name: function for name, function in contestants.items() if function is not None}
    spreads, results = interleave(functions, SECONDS[sizes])
    error = error or (relative_error if bound is not None and theirs is not None else None)
    found = None if error is None else error(results["ours"], results.get("theirs"))
    times = [spreads["ours"], spreads.get("theirs")]
    return Row(what, against, *times, wanted, spreads.get("floor"), floor_of, found, bound, note)


def interleave(
    functions: Mapping[str, Callable[[], Any]], seconds: float, least: int = LEAST, most: int = MOST
) -> tuple[dict[str, Spread], dict[str, Any]]:
    """Seconds of each function, interleaved as A B A B ..., so that load affects all; and the results of the first
    calls.
    """
    results, times = {}, {}
    for name, function in functions.items():
        first, results[name] = timed(function)
        times[name] = [first]
    round_time = sum(one[0] for one in times.values())
    for one in times.values():
        if one[0] < LONG:
            one.clear()
    repeats = min(most, max(least, int(seconds / round_time)))
    for number in range(repeats):
        for name, function in functions.items():
            if number > 0 or not times[name]:
                times[name].append(timed(function)[0])
    return {name: Spread.of(one) for name, one in times.items()}, results


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Wall seconds of one call, including its work on a GPU; and its result."""
    start = time.perf_counter()
    result = function()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def relative_error(a: Any, b: Any) -> float:
    """|a - b| / |b| of two arrays or tensors, in double precision."""
    a, b = (_array(x).astype(np.complex128).ravel() for x in (a, b))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def _array(x: Any) -> np.ndarray:
    return x.detach().cpu().resolve_conj().numpy() if hasattr(x, "detach") else np.asarray(x)


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    return "\n".join([HEADER, rule(), *map(str, rows)])


def rule() -> str:
    return "|---" * (HEADER.count("|") - 1) + "|"
