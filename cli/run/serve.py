"""The work of mri-score serve and mri-score stream."""

from __future__ import annotations

import os
import signal
import socket
import sys
from functools import partial

from mri_score.errors import InputError
from mri_score.streaming.connection import bundled_names, converse, prepare
from mri_score.streaming.server import serve, stop
from mri_score.streaming.settings import StreamSettings, by_name

from ..exits import SOME_FAILED
from ..log import say


def serve_all(listener: socket.socket, connections: int, settings: StreamSettings) -> None:
    """Serve until SIGTERM. listener: listens already. connections: at a time. settings: of the command.

    Errors: InputError for an unknown prior.
    """
    serve(listener, partial(prepare, settings), connections)
    say("stopped")


def stream_one(config: str, given: StreamSettings) -> None:
    """Reconstruct one scan from standard input. config: its name. given: the settings of the command.

    Errors: InputError for an unknown config or prior; exit code 1 if an image could not be reconstructed.
    """
    settings, notes = by_name(given, config, [*bundled_names(), given.prior])
    if notes:
        raise InputError(f"--config: {notes[0]}".replace(", so the defaults are used", ""))
    sys.stdout.flush()
    with open(0, "rb", closefd=False) as incoming, open(os.dup(1), "wb") as outgoing:
        os.dup2(2, 1)  # whatever prints must not print into the stream
        signal.signal(signal.SIGTERM, stop)
        good = converse(incoming, outgoing, settings)
    if not good:
        sys.exit(SOME_FAILED)
