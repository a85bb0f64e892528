"""The work of mri-score serve and mri-score stream."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from mri_score.errors import InputError
from mri_score.methods import METHODS
from mri_score.streaming.connection import bundled_names, converse, prepare
from mri_score.streaming.server import serve, stop
from mri_score.streaming.settings import StreamSettings, by_name

from ..exits import SOME_FAILED
from ..log import say


def serve_all(listener: socket.socket, connections: int, options: Mapping[str, Any]) -> None:
    """Serve until SIGTERM. listener: listens already. connections: at a time. options: of the command."""
    settings = _settings(options)
    serve(listener, partial(prepare, settings), connections)
    say("stopped")


def stream_one(config: str, options: Mapping[str, Any]) -> None:
    """Reconstruct one scan from standard input. config: its name. options: of the command.

    Errors: InputError for an unknown config; exit code 1 if an image could not be reconstructed.
    """
    settings, notes = by_name(_settings(options), config, [*bundled_names(), options["prior"]])
    if notes:
        raise InputError(f"--config: {notes[0]}")
    sys.stdout.flush()
    with open(0, "rb", closefd=False) as incoming, open(os.dup(1), "wb") as outgoing:
        os.dup2(2, 1)  # whatever prints must not print into the stream
        signal.signal(signal.SIGTERM, stop)
        good = converse(incoming, outgoing, settings)
    if not good:
        sys.exit(SOME_FAILED)


def _settings(options: Mapping[str, Any]) -> StreamSettings:
    """The settings of the options. Errors: InputError for an unknown method."""
    settings = replace(StreamSettings(), **options)
    if settings.method not in METHODS:
        raise InputError(f"--method {settings.method!r} is unknown; known: {', '.join(METHODS)}")
    return settings
