"""Sessions over a socket or over two streams; the reconstruction is loaded once."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from functools import partial
from io import BufferedReader
from typing import BinaryIO

from mri_score.streaming.server import Stopped
from mri_score.streaming.session import Reconstruct, Session
from mri_score.streaming.settings import StreamSettings
from mri_score.streaming.version2 import MAGIC, Version2
from mri_score.streaming.wire import Client, Message, Readout, WireClient, read_message

log = logging.getLogger(__name__)


def prepare(settings: StreamSettings) -> Callable[[socket.socket], bool]:
    """Load torch and the prior, and return what serves a connection. Errors: InputError for an unknown prior.

    settings: of the server.
    """
    reconstruct, priors = _load(settings)

    def handle(connection: socket.socket) -> bool:
        with connection.makefile("rb") as incoming, connection.makefile("wb") as outgoing:
            return talk(Session(partial(read_message, incoming), WireClient(outgoing), settings, priors, reconstruct))

    return handle


def converse(incoming: BufferedReader, outgoing: BinaryIO, settings: StreamSettings) -> bool:
    """Serve one scan over two streams; its first bytes decide between versions 1 and 2 of the protocol.

    incoming, outgoing: binary streams, such as standard input and output. settings: how to reconstruct.
    Returns whether every image was reconstructed.
    Errors: InputError for an unknown prior, and for version 2 without its package.
    """
    reconstruct, priors = _load(settings)
    receive: Callable[[], Message | Readout] = partial(read_message, incoming)
    client: Client = WireClient(outgoing)
    if incoming.peek(len(MAGIC)).startswith(MAGIC):
        client = version2 = Version2(incoming, outgoing)
        receive = version2.receive
    return talk(Session(receive, client, settings, priors, reconstruct))


def talk(session: Session) -> bool:
    """Run a session, and send the reason to the client if it fails; returns whether every image was reconstructed."""
    try:
        return session.run()
    except Stopped:
        session.stop("mri_score error: the server was stopped")
    except (OSError, MemoryError) as error:
        log.error("%s", error)
        raise
    except Exception as error:
        log.exception("a fault of mri_score")
        session.stop(f"mri_score error: a fault of mri_score, {type(error).__name__}; see the log of the server")
    return False


def bundled_names() -> list[str]:
    """The names of the bundled priors."""
    from mri_score.priors.record import bundled_priors

    return list(bundled_priors())


def _load(settings: StreamSettings) -> tuple[Reconstruct, list[str]]:
    """The reconstruction with the prior loaded, and the priors that a client may ask for."""
    from mri_score.streaming.slices import Slices

    return Slices(settings.prior, settings.one_channel), [*bundled_names(), settings.prior]
