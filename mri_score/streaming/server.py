"""The server: it listens before it loads torch and the prior, and serves every connection in a process of its own."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from mri_score.errors import InputError

log = logging.getLogger(__name__)

WAITING = 16
"""Connections that the system accepts while the server loads or is full."""
HELLO_SECONDS, IDLE_SECONDS = 60.0, 1800.0
"""A connection is closed if nothing arrives for this long: before its first byte, and after it."""
GRACE_SECONDS = 5.0
"""Time for the processes of the connections to end when the server is stopped."""

Handle = Callable[[socket.socket], bool]
"""Serves one connection to its end; returns whether every image was reconstructed."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. host, port: where; port 0 takes a free one. Errors: InputError if it is not available."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=WAITING)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}; choose another"
            " --host or --port, or stop the program that uses this port"
        ) from error


def serve(listener: socket.socket, prepare: Callable[[], Handle], most: int) -> None:
    """Serve connections until SIGTERM or SIGINT.

    listener: from `listen`. prepare: loads what connections need and returns what serves one; it runs once, before the
    processes of the connections are made, which share what it loaded. It must start no threads and use no GPU. most:
    connections at a time; more wait.
    """
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: stopping.append(number))
    wake, alarm = socket.socketpair()
    for end in (wake, alarm):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # with it, the end of a child ends the wait below
    signal.set_wakeup_fd(alarm.fileno(), warn_on_full_buffer=False)
    handle = prepare()
    children: set[int] = set()
    with selectors.DefaultSelector() as ready:
        ready.register(wake, selectors.EVENT_READ)
        accepting = False
        while not stopping:
            _reap(children)
            if accepting != (len(children) < most):
                accepting = not accepting
                if accepting:
                    ready.register(listener, selectors.EVENT_READ)
                else:
                    ready.unregister(listener)
            for key, _ in ready.select():
                if key.fileobj is wake:
                    wake.recv(4096)
                else:
                    connection, address = listener.accept()
                    children.add(_spawn(connection, handle, listener, wake, alarm))
                    log.info("connection from %s", address[0])
    listener.close()
    _end(children)


def _spawn(connection: socket.socket, handle: Handle, *inherited: socket.socket) -> int:
    """Serve a connection in a new process; returns its number."""
    sys.stdout.flush()
    sys.stderr.flush()
    if child := os.fork():
        connection.close()
        return child
    _serve_one(connection, handle, inherited)


def _serve_one(connection: socket.socket, handle: Handle, inherited: tuple[socket.socket, ...]) -> NoReturn:
    """Serve one connection in this process, and end the process."""
    code = 1
    logging.setLogRecordFactory(_numbered)
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then sends SIGTERM
        signal.signal(signal.SIGTERM, stop)
        for one in inherited:
            one.close()
        connection.settimeout(HELLO_SECONDS)
        connection.recv(1, socket.MSG_PEEK)
        connection.settimeout(IDLE_SECONDS)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = 0 if handle(connection) else 1
    except OSError as error:
        log.info("the client closed the connection: %s", error)
    except BaseException:
        log.exception("a connection failed")
    finally:
        connection.close()
        logging.shutdown()
        os._exit(code)


def _numbered(*arguments: Any, **options: Any) -> logging.LogRecord:
    """A record of the log that begins with the number of the process."""
    record = logging.LogRecord(*arguments, **options)
    record.msg = f"{os.getpid()}: {record.msg}"
    return record


class Stopped(BaseException):
    """The process that serves a client was told to stop."""


def stop(number: int, frame: Any) -> NoReturn:
    """A signal handler that ends the session with a client. number, frame: as Python gives them."""
    raise Stopped


def _reap(children: set[int]) -> None:
    for child in list(children):
        if os.waitpid(child, os.WNOHANG)[0]:
            children.discard(child)


def _end(children: set[int]) -> None:
    """Stop the processes of all connections: by SIGTERM, then by SIGKILL."""
    for number, patience in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
        for child in children:
            os.kill(child, number)
        until = time.monotonic() + patience
        while children and time.monotonic() < until:
            _reap(children)
            time.sleep(0.02)
