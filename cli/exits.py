"""How commands end: exit codes, signals, and one message for every error."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from mri_score.errors import InputError

from .log import fail

SOME_FAILED, NOTHING_DONE = 1, 2
"""Exit codes: some of several files failed, the others are done; bad usage, or nothing was done. 0: all is done."""
SIGNALS = ("SIGTERM", "SIGHUP")
"""Signals that end a command as Ctrl-C does; the exit code is 128 + their number."""


class SomeFailed(InputError):
    """Some of several files failed, and at least one is done."""


class Stopped(BaseException):
    """The process was told to end, by one of `SIGNALS`."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Failure(click.ClickException):
    """A message that ends the command with an exit code."""

    def __init__(self, message: str, code: int, error: BaseException | None = None) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]
        self.error = error

    def show(self, file: Any = None) -> None:
        fail(self.format_message(), self.error, exit_code=self.exit_code)


@contextmanager
def ended() -> Iterator[None]:
    """Convert what ends a command to a message and an exit code, without a traceback."""
    try:
        with _signals_raise():
            yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except (KeyboardInterrupt, Stopped) as stop:
        number = stop.number if isinstance(stop, Stopped) else int(signal.SIGINT)
        name = signal.Signals(number).name
        raise Failure(f"stopped by {name}; finished files stay, the same command does the rest", 128 + number) from stop
    except Exception as error:
        code = SOME_FAILED if isinstance(error, SomeFailed) else NOTHING_DONE
        raise Failure(explained(error), code, error) from error


def explained(error: Exception) -> str:
    """The message for an error: its own for bad input; else what kind it is, and what to do."""
    kind = type(error).__name__
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in str(error):
        return f"the memory is full ({error or kind}); lower --batch-size, or use a machine with more"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or error}"
    return f"{kind}: {error}; this is not expected: -v shows where it comes from, please report it"


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Let the signals that end a process raise `Stopped`, so that half-written files are removed.

    Signals that are ignored, as by nohup, stay ignored.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    old: dict[int, Any] = {}
    try:
        for name in SIGNALS:
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                old[number] = signal.signal(number, stop)
    except ValueError:  # not in the main thread, which alone may set handlers
        pass
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
