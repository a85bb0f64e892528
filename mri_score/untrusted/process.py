"""Calling a function in a separate process, so that a hostile file can cost no more than that process."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from mri_score.errors import InputError
from mri_score.untrusted.messages import receive, send
from mri_score.untrusted.names import require_plain_name

MEMORY = 1 << 30
"""Default limit on the memory of one call, in bytes, beyond what the process has anyway."""
SECONDS = 10
"""Default limit on the processor time of one call, in seconds."""
LARGEST_RESULT = 2 << 30
"""Default limit on the total size of the arrays of one result, in bytes."""
PATIENCE = 300
"""Seconds of real time after which a call is ended in any case: a file system that does not answer, no CPU limit."""
TRUST = "MRI_SCORE_TRUST"
"""Environment variable: 1 means that all files are trusted and read in the program's own process."""


def read_apart(
    function: str,
    path: str | Path,
    *,
    memory: int = MEMORY,
    seconds: int = SECONDS,
    largest: int = LARGEST_RESULT,
    **arguments: Any,
) -> Any:
    """function(path, **arguments), called in the reading process.

    function: `module:name`, such as "mri_score.readers.hdf5_parsing:contents"; it opens the file by itself and returns
    plain values and numpy arrays, as listed in `messages`. path: the file that it reads, for it and for error messages.
    memory: bytes that the call may take. seconds: processor time that it may take. largest: total size of the arrays
    in its result, in bytes. arguments: plain values.
    The process is started at the first call, serves all later calls of this process, and is replaced when it
    has died. Where it cannot be started, and for trusted files, the function is called here, without limits.
    Errors: InputError that names the file: the function's own, and for any other exception, the death of the process,
    and a limit that was reached.
    """
    path = Path(path)
    require_plain_name(path)
    if trusted() or (worker := _worker()) is None:
        return _call_here(function, path, arguments)
    request = {
        "function": function,
        "path": os.fsencode(path),
        "folder": os.getcwd(),
        "memory": memory,
        "seconds": seconds,
        "arguments": arguments,
    }
    try:
        answer = worker.ask(request, largest)
    except EOFError as error:
        raise InputError(f"{path} cannot be read: {worker.death(seconds)}; it is damaged or hostile") from error
    if "result" in answer:
        return answer["result"]
    raise _as_input_error(path, answer["error"], answer["message"], memory)


def trusted() -> bool:
    """Whether files are trusted: read without a separate process and its limits."""
    return os.environ.get(TRUST) == "1"


@contextmanager
def trust(yes: bool = True) -> Iterator[None]:
    """Trust all files that are read within the `with` block, in this process and in those that it starts.

    yes: False has them read in the reading process, also where the environment says otherwise.
    """
    before = os.environ.get(TRUST)
    os.environ[TRUST] = "1" if yes else "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[TRUST]
        else:
            os.environ[TRUST] = before


def _call_here(function: str, path: Path, arguments: dict[str, Any]) -> Any:
    module, _, name = function.partition(":")
    found = getattr(import_module(module), name)
    try:
        return found(path, **arguments)
    except InputError:
        raise
    except Exception as error:
        raise _as_input_error(path, type(error).__name__, str(error), None) from error


def _as_input_error(path: Path, kind: str, message: str, memory: int | None) -> InputError:
    if kind == "InputError":
        return InputError(message)
    if kind == "MemoryError":
        limit = "there is" if memory is None else f"{memory / 2**20:.0f} MiB"
        return InputError(
            f"{path} cannot be read: that needs more memory than {limit}; it is damaged or hostile, or, if you know"
            " where it comes from, read it with --trust"
        )
    return InputError(f"{path} cannot be read: it is damaged ({kind}: {message}); fetch or export it again")


class _Worker:
    """The reading process. One call at a time: threads wait for each other."""

    def __init__(self) -> None:
        program = str(Path(__file__).with_name("worker.py"))
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "HDF5_PLUGIN_PRELOAD": "::",  # no filter is loaded from a folder of plugins
        }
        self.process = subprocess.Popen(
            [sys.executable, "-I", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C in the terminal is for the program
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.requests, self.answers = self.process.stdin, self.process.stdout
        self.owner, self.lock, self.late = os.getpid(), threading.Lock(), False
        _enlarge(self.answers.fileno())
        try:
            self.requests.write(json.dumps([path for path in sys.path if path]).encode() + b"\n")
            self.requests.flush()
            if receive(self.answers, 0) != "ready":
                raise EOFError
        except (OSError, EOFError):
            self.end()
            raise

    def ask(self, request: dict[str, Any], largest: int) -> Any:
        """The answer to a request, with arrays of at most `largest` bytes.

        Errors: EOFError if the process ended; it cannot be used again.
        """
        with self.lock:
            timer = threading.Timer(PATIENCE, self._too_late)
            timer.daemon = True
            timer.start()
            try:
                send(self.requests, request)
                return receive(self.answers, largest)
            except OSError as error:  # it is gone already
                self.end()
                raise EOFError from error
            except BaseException:  # half an answer may be left, for example after Ctrl-C
                self.end()
                raise
            finally:
                timer.cancel()

    def _too_late(self) -> None:
        self.late = True
        self.process.kill()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.requests, self.answers):
            with suppress(OSError):
                stream.close()

    def death(self, seconds: int) -> str:
        """What ended the process, in words."""
        import signal

        code = self.process.returncode
        if self.late:
            return f"it took longer than {PATIENCE} s"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            return f"the process that read it ended with code {code}"
        if name == "SIGXCPU":
            return f"it took more than {seconds} s of processor time"
        return f"the process that read it crashed ({name})"


def _enlarge(pipe: int) -> None:
    """A buffer of 1 MiB for a pipe, where the system has that: fewer switches between the two processes."""
    try:
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)
    except (ImportError, AttributeError, OSError):
        pass


_current: _Worker | None = None
_starting = threading.Lock()


def _worker() -> _Worker | None:
    """The reading process of this process; None where none can be started."""
    global _current
    with _starting:
        if _current is not None and (_current.owner != os.getpid() or _current.process.poll() is not None):
            _current = None  # a fork has its own, and a dead one is replaced
        if _current is None and sys.executable and not getattr(sys, "frozen", False):
            try:
                _current = _Worker()
            except (OSError, EOFError):
                return None
        return _current


def end_worker() -> None:
    """End the reading process; the next call starts another."""
    global _current
    with _starting:
        if _current is not None and _current.owner == os.getpid():
            _current.end()
        _current = None


def _after_fork() -> None:
    global _current, _starting
    _current, _starting = None, threading.Lock()


atexit.register(end_worker)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
