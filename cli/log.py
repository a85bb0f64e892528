"""What a command prints: text for people, or one JSON object a line. Options -v, -q and --log of every command."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from mri_score.errors import visible
from mri_score.progress import LOG

STYLES: dict[int, dict[str, Any]] = {logging.WARNING: {"fg": "yellow"}, logging.ERROR: {"fg": "red", "err": True}}
"""Colour and stream of the lines of each level; others are plain, on standard output."""


class Text(logging.Handler):
    """Prints each record as text: results and notes on standard output, errors on standard error."""

    bars = True

    def emit(self, record: logging.LogRecord) -> None:
        style = dict(STYLES.get(record.levelno, {}))
        text = record.getMessage()
        if record.levelno == logging.WARNING:
            text = f"{' ' * getattr(record, 'indent', 0)}note: {text}"
        if "exit_code" in getattr(record, "data", {}):
            text = f"Error: {text}"
        if getattr(record, "bold", False):
            style["bold"] = True
        if record.exc_info:
            text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
        show(text, **style)


class Json(logging.Handler):
    """Prints each record as one JSON object a line, on standard error: time, level, message and its data."""

    bars = False

    def emit(self, record: logging.LogRecord) -> None:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {"time": f"{moment}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        line |= {"message": record.getMessage().strip(), **getattr(record, "data", {})}
        if record.exc_info:
            line["traceback"] = logging.Formatter().formatException(record.exc_info)
        show(json.dumps(line, default=str), err=True)


HANDLERS = {"text": Text, "json": Json}


def show(text: str, err: bool = False, **style: Any) -> None:
    """Print a text, above a progress bar if there is one; bytes that the terminal cannot show are written out."""
    stream = sys.stderr if err else sys.stdout
    text = visible(text, keep="\n\t")  # names and attributes of files could steer the terminal
    text = text.encode(stream.encoding or "utf-8", "backslashreplace").decode(stream.encoding or "utf-8")
    if "tqdm" in sys.modules:
        with sys.modules["tqdm"].tqdm.external_write_mode():
            click.secho(text, err=err, **style)
    else:
        click.secho(text, err=err, **style)


def say(text: object, bold: bool = False, **data: Any) -> None:
    """Print what was done. data: the same as names and values, for --log json."""
    LOG.info("%s", text, extra={"bold": bold, "data": data})


def note(text: str, indent: int = 0, **data: Any) -> None:
    """Print a warning. indent: blanks before it. data: as in `say`."""
    LOG.warning("%s", visible(text), extra={"indent": indent, "data": data})


def fail(text: str, error: BaseException | None = None, **data: Any) -> None:
    """Print an error, and with -v where `error` was raised. data: as in `say`."""
    LOG.error("%s", text, extra={"data": data}, exc_info=error if LOG.isEnabledFor(logging.DEBUG) else None)


@contextmanager
def printed() -> Iterator[None]:
    """Print the log as text while a command runs."""
    before = LOG.handlers, LOG.level, LOG.propagate
    LOG.handlers, LOG.propagate = [Text()], False
    LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOG.handlers, level, LOG.propagate = before
        LOG.setLevel(level)


def _level(level: int) -> Any:
    def choose(context: click.Context, parameter: click.Parameter, given: bool) -> None:
        if given:
            LOG.setLevel(level)

    return choose


def _kind(context: click.Context, parameter: click.Parameter, given: str) -> None:
    LOG.handlers = [HANDLERS[given]()]


def with_log_options(command: click.Command) -> click.Command:
    """The command with the options -v, -q and --log."""
    if not any(one.name == "log_kind" for one in command.params):
        command.params += [
            click.Option(
                ["-v", "--verbose"], is_flag=True, expose_value=False, is_eager=True, callback=_level(logging.DEBUG),
                help="Print more: what is read and made, how long it takes, where errors come from.",
            ),
            click.Option(
                ["-q", "--quiet"], is_flag=True, expose_value=False, is_eager=True, callback=_level(logging.WARNING),
                help="Print warnings and errors only.",
            ),
            click.Option(
                ["--log", "log_kind"], type=click.Choice(list(HANDLERS)), default="text", show_default=True,
                expose_value=False, is_eager=True, callback=_kind,
                help="How to print: text, or json for one JSON object a line on standard error.",
            ),
        ]  # fmt: skip
    return command
