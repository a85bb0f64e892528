"""The reading process: answers requests from its standard input until that ends. Started by `process`, never imported.

It imports nothing but the standard library and the module that holds the requested function.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program, which may still want to save its work
    from mri_score.untrusted.messages import receive, send

    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what a library prints
    limit = _Limits()
    send(answers, "ready")
    while True:
        try:
            request = receive(requests, 0)
        except EOFError:
            return
        try:
            answer: dict[str, Any] = {"result": _call(request, limit)}
        except BaseException as error:  # the program turns each into its error for bad input
            answer = {"error": type(error).__name__, "message": str(error)[:2000]}
        try:
            send(answers, answer)
        except (ValueError, RecursionError) as error:  # nothing has been written yet
            send(answers, {"error": type(error).__name__, "message": str(error)})
        del answer
        limit.lift()


def _call(request: dict[str, Any], limit: _Limits) -> Any:
    module, _, name = request["function"].partition(":")
    function = getattr(import_module(module), name)  # imported before the limits, as it belongs to the program
    os.chdir(request["folder"])  # a relative path is the one of the messages, too
    limit.set(request["memory"], request["seconds"])
    return function(Path(os.fsdecode(request["path"])), **request["arguments"])


class _Limits:
    """Limits of this process on memory and processor time, where the system has them."""

    def __init__(self) -> None:
        try:
            import resource
        except ImportError:  # Windows
            self.resource: Any = None
            return
        self.resource = resource
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # a process that only reads

    def set(self, memory: int, seconds: int) -> None:
        """From now on: `memory` more bytes of address space, `seconds` more of processor time."""
        if self.resource is None:
            return
        used = self.resource.getrusage(self.resource.RUSAGE_SELF)
        self._limit("RLIMIT_CPU", int(used.ru_utime + used.ru_stime) + 1 + seconds)
        if (size := _address_space()) is not None:
            self._limit("RLIMIT_AS", size + memory)

    def lift(self) -> None:
        if self.resource is not None:
            for name in ("RLIMIT_CPU", "RLIMIT_AS"):
                self._limit(name, None)

    def _limit(self, name: str, value: int | None) -> None:
        kind = getattr(self.resource, name)
        most = self.resource.getrlimit(kind)[1]
        infinite = self.resource.RLIM_INFINITY
        value = most if value is None else value if most == infinite else min(value, most)
        self.resource.setrlimit(kind, (value, most))


def _address_space() -> int | None:
    """The size of this process, in bytes; None where the system does not say it as Linux does."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    import json

    # The program's own search path: this process starts isolated from PYTHON* variables and the working folder.
    sys.path.extend(path for path in json.loads(sys.stdin.buffer.readline()) if path not in sys.path)
    main()
