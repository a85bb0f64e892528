"""Writing files so that they appear complete or not at all, locks, and hashes."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mri_score.errors import InputError

try:
    import fcntl
except ImportError:  # Windows, where processes that write one folder are not kept apart
    fcntl = None  # type: ignore[assignment]

ABANDONED = 86400
"""Seconds after which a temporary file of another machine belongs to a process that was killed."""
_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_PART = re.compile(r"^\..*\.([0-9a-f]{8})-(\d+)\.part$", re.DOTALL)
_writing: set[Path] = set()
"""Temporary files that this process writes now."""
_cleaned: set[Path] = set()
"""Folders that this process has removed abandoned temporary files from."""
_claimed: set[Path] = set()
"""Folders that this process has claimed."""


class DiskFull(InputError):
    """A file cannot be written because the disk, or the user's share of it, is full."""


def cannot_write(path: str | Path, error: Exception) -> InputError:
    """The error for a file or folder that cannot be written. path: its path. error: what the system or HDF5 raised."""
    number = getattr(error, "errno", None)
    found = re.search(r"os error (\d+)", str(error))  # in the texts of safetensors
    if {number, int(found[1]) if found else None} & {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(f"cannot write {path}: the disk is full; make room, or choose another folder with --out")
    reason = getattr(error, "strerror", None) or error
    return InputError(f"cannot write {path}: {reason}; choose another folder with --out")


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. On success it is synced to disk and renamed to `path`, else it is removed.

    The temporary file is `.<name>.<random>.<machine>-<process>.part`. Those of processes that were killed are removed
    by the next process that writes into the folder.
    Errors: InputError where the folder cannot be made or written, DiskFull where the disk is full.
    """
    path = Path(path)
    make_folder(path.parent)
    _remove_abandoned(path.parent)
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=f".{_HOST}-{os.getpid()}.part", dir=path.parent
        )  # fmt: skip
    except OSError as error:
        raise cannot_write(path, error) from error
    os.close(handle)
    part = Path(name)
    _writing.add(part)
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)  # mkstemp makes files readable by their owner only
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        part.unlink(missing_ok=True)
        _writing.discard(part)


@contextmanager
def sink(part: Path) -> Iterator[IO[bytes]]:
    """Yield an open binary file for a library that writes, and that breaks where a write fails.

    After a write that fails, everything is dropped; the error is raised when the library is done. HDF5 that gets such
    an error itself cannot close its file, and the process may crash; torch.save hides why it failed.
    part: the path, from `whole_file`. Errors: OSError.
    """
    with _Sink(part) as file:
        try:
            yield file
        except RuntimeError:
            if file.error is None:
                raise
        if file.error is not None:
            raise file.error


class _Sink(io.FileIO):
    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while self.error is None and len(left):
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files in a folder whose processes have ended, once in the life of this process."""
    if folder in _cleaned:
        return
    _cleaned.add(folder)
    try:
        for part in list(folder.glob(".*.part")):
            found = _PART.match(part.name)
            if found is not None and part not in _writing and _has_ended(part, found[1], int(found[2])):
                part.unlink(missing_ok=True)
    except OSError:  # a folder that cannot be listed is no reason not to write
        pass


def _has_ended(part: Path, host: str, process: int) -> bool:
    """Whether the process that wrote a temporary file is no more, as far as can be told."""
    if time.time() - part.stat().st_mtime > ABANDONED:
        return True
    if host != _HOST or os.name == "nt":  # there, signal 0 ends a process
        return False
    if process == os.getpid():  # of an earlier process with this number
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def no_link(path: str, flags: int) -> int:
    """For open(..., opener=no_link): open a file that is changed in place, or make it, but follow no symbolic link.

    path, flags: as open gives them. Whoever may write into a folder could otherwise have any file changed through it.
    Errors: OSError where there is a link.
    """
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


@contextmanager
def alone(path: str | Path) -> Iterator[None]:
    """Hold an exclusive lock for a file that is read, changed and written again; waits for other processes.

    The lock is on `.<name>.lock` beside the file. The system releases it when the process ends, even after a crash.
    Errors: InputError where the lock file cannot be written.
    """
    path = Path(path)
    make_folder(path.parent)
    try:
        with open(path.with_name(f".{path.name}.lock"), "a+", opener=no_link) as lock:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def claimed(folder: str | Path) -> Iterator[None]:
    """Keep other processes out of a folder that one process writes for long, such as that of a training run.

    folder: made if there is none. Within the process that has it, a folder may be claimed again. The claim is a lock on
    `.lock` in the folder, which the system releases when the process ends, even after a crash.
    Errors: InputError where another process has the folder, or where it cannot be written.
    """
    folder = Path(folder).resolve()
    if folder in _claimed:
        yield
        return
    make_folder(folder)
    try:
        lock = open(folder / ".lock", "a+", encoding="utf-8", opener=no_link)  # noqa: SIM115 - it is closed below
    except OSError as error:
        raise cannot_write(folder, error) from error
    with lock:
        _lock_now(lock, folder)
        _claimed.add(folder)
        try:
            yield
        finally:
            _claimed.discard(folder)


def _lock_now(lock: IO[str], folder: Path) -> None:
    """Lock a file and write who has it. Errors: InputError where another process has it."""
    if fcntl is None:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        owner = lock.read(200).strip() or "another process"
        raise InputError(
            f"{folder} is in use by {owner}; wait until it ends, stop it, or give another folder with --out"
        ) from error
    except OSError:  # a file system without locks
        return
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    lock.flush()


def make_folder(path: Path) -> None:
    """Make a folder and its parents. Errors: InputError where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def _sync_folder(folder: Path) -> None:
    """Sync a folder to disk, so that a rename in it survives a power failure."""
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file, complete or not at all. Errors: as in `whole_file`."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def sha256(path: str | Path) -> str:
    """The SHA-256 hash of a file, as a hexadecimal string."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
