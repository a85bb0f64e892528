"""Progress of long work: a bar on a terminal, elsewhere a line in the log every so often."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOG = logging.getLogger("mri_score")
"""The log of the package. The command line shows it; a program that imports the package decides itself."""
EVERY = 30.0
"""Seconds between two lines of progress."""


class Progress:
    """Counts the work that is done, and shows it."""

    def __init__(self, total: float | None, unit: str, title: str, initial: float = 0, bar: bool = False) -> None:
        self.total, self.unit, self.title, self.done = total, unit, title, initial
        self._first, self._started = initial, time.monotonic()
        self._said = self._started
        self._bar = None
        if bar:
            from tqdm import tqdm

            shape = {"leave": False, "dynamic_ncols": True, "smoothing": 0.05}
            self._bar = tqdm(total=total, initial=initial, unit=unit, desc=title or None, **shape)

    def update(self, count: float = 1, **facts: float) -> None:
        """Count work. count: how much more is done. facts: numbers to show beside it, such as the loss."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
            if facts:
                self._bar.set_postfix({name: f"{value:.4g}" for name, value in facts.items()})
        elif time.monotonic() - self._said >= EVERY:
            self._said = time.monotonic()
            self._say(facts)

    def _say(self, facts: dict[str, float]) -> None:
        spent = time.monotonic() - self._started
        title = f"{self.title}: " if self.title else ""
        shown = "".join(f", {name} {value:.4g}" for name, value in facts.items())
        data = {"done": self.done, "unit": self.unit, "seconds": round(spent, 1), **facts}
        if not self.total:
            LOG.info("%s%g %ss%s", title, self.done, self.unit, shown, extra={"data": data})
            return
        left = spent * (self.total - self.done) / max(self.done - self._first, 1e-9)
        data |= {"total": self.total, "seconds_left": round(left, 1)}
        text = f"{title}{self.done:,.0f} of {self.total:,.0f} {self.unit}s, {duration(left)} left{shown}"
        LOG.info("%s", text, extra={"data": data})

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


@contextmanager
def progress(
    total: float | None, unit: str, title: str = "", *, initial: float = 0, quiet: bool = False
) -> Iterator[Progress]:
    """Show progress until the block ends.

    total: the amount of work; None if it is not known. unit: what is counted, in the singular, such as "call". title:
    what is worked on, such as the name of a scan. initial: work that was done before. quiet: show no bar.
    A bar is shown where standard error is a terminal and the log is a text for people that is not restricted to
    warnings; else a line of level INFO is logged every `EVERY` seconds.
    """
    people = all(getattr(handler, "bars", True) for handler in LOG.handlers)
    bar = not quiet and people and LOG.level <= logging.INFO and on_terminal()
    shown = Progress(total, unit, title, initial, bar)
    try:
        yield shown
    finally:
        shown.close()


def on_terminal() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def duration(seconds: float) -> str:
    """A time in words, such as "35 s", "12 min" or "3.4 h". seconds: the time."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
