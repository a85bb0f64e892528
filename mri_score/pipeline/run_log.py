"""The state of each scan of an output folder, from the logs of all processes that worked on it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mri_score.errors import InputError
from mri_score.files import cannot_write, make_folder, no_link
from mri_score.readers.base import result_name
from mri_score.untrusted.text import read_text

FOLDER = "log"
"""The folder of the logs, within an output folder."""
LARGEST_LOG = 64 << 20
"""Largest log of one process, in bytes."""
RECENT = 50
"""Number of scans, of those finished last, from which the rate is computed."""
_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


class RunLog:
    """The log of this process: <out>/log/<start>-<host>-<process>.jsonl, one JSON object a line.

    Each process appends to a file of its own, so that folders which many machines share need no lock. A process that is
    killed leaves at most one line that is cut off.
    out: the output folder. scans: the paths of all scans of the run, those of other shards included.
    Errors: InputError where the folder cannot be written.
    """

    def __init__(self, out: Path, scans: Sequence[Path]) -> None:
        make_folder(out / FOLDER)
        self.path = out / FOLDER / f"{time.time_ns()}-{_HOST}-{os.getpid()}.jsonl"
        self._begun: set[Path] = set()
        self._append("run", scans=[result_name(scan) for scan in scans], host=_HOST, process=os.getpid())

    def begin(self, scan: Path) -> None:
        """The work on a scan begins. scan: its path. Errors: InputError where the log cannot be written."""
        self._begun.add(scan)
        self._append("begun", scan)

    def keep(self, scan: Path) -> None:
        """The scan was finished before, and its time does not count for the rate. scan, errors: as for `begin`."""
        self._begun.discard(scan)
        self._append("kept", scan)

    def finish(self, scan: Path) -> None:
        """The results of a scan are written, unless they were kept. scan, errors: as for `begin`."""
        if scan in self._begun:
            self._begun.discard(scan)
            self._append("done", scan)

    def fail(self, scan: Path, why: str) -> None:
        """The work on a scan ended with an error, which counts even where the log cannot be written, as on a full disk.

        scan: its path. why: the error message.
        """
        self._begun.discard(scan)
        with suppress(InputError):
            self._append("failed", scan, why=why)

    def _append(self, event: str, scan: Path | None = None, **more: Any) -> None:
        line = {"time": round(time.time(), 3), "event": event}
        line |= more if scan is None else {"scan": result_name(scan), **more}
        try:
            with open(self.path, "a", encoding="utf-8", opener=no_link) as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise cannot_write(self.path, error) from error


@dataclass(frozen=True)
class Study:
    """The state of the scans of an output folder, by the names of their results."""

    done: Sequence[str]
    failed: Mapping[str, str]
    """Name -> error message of each scan whose last try failed."""
    working: Mapping[str, float]
    """Name -> seconds since its work began, if its process is running or on another machine."""
    left: Sequence[str]
    """Scans that were never begun, or whose process was killed."""
    scan_seconds: float | None = None
    """Median time of a scan."""
    per_hour: float | None = None
    """Scans finished in an hour by all processes together, from the last RECENT of them; None before the first."""
    ends: float | None = None
    """When the rest will be done, at this rate, as seconds since 1970; None without a rate or a rest."""

    @property
    def count(self) -> int:
        """Number of scans."""
        return len(self.done) + len(self.failed) + len(self.working) + len(self.left)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"scans": self.count, **asdict(self)}


@dataclass
class _Scan:
    """The last event of a scan."""

    time: float = 0.0
    event: str = ""
    why: str = ""
    lives: bool = False
    was_done: bool = False
    """Whether it was done before: a process that meets it again begins it, and finds that."""


@dataclass
class _Found:
    """What the logs say."""

    scans: dict[str, _Scan] = field(default_factory=dict)
    ended: list[float] = field(default_factory=list)
    """Times at which scans were finished."""
    seconds: list[float] = field(default_factory=list)
    started: float = float("inf")
    """When the first process began."""


def read_study(out: Path, now: float | None = None) -> Study:
    """The state of an output folder of `reconstruct`. Lines that are cut off are skipped.

    A scan with a result but without a log, as earlier releases left it, counts as done. A scan that was done and whose
    result was removed counts as left.
    out: the folder. now: seconds since 1970, the present by default.
    Errors: InputError for a folder without logs and results, and for a log that cannot be read.
    """
    now = time.time() if now is None else now
    results = {path.name for path in (out / "reconstructions").glob("*.h5")}
    logs = sorted((out / FOLDER).glob("*.jsonl"))
    if not logs and not results:
        raise InputError(f"{out} has no results of mri-score reconstruct; give the folder that its --out named")
    found = _Found()
    for path in logs:
        _follow(path, found)
    states: dict[str, list[str]] = {"done": [], "failed": [], "working": [], "left": []}
    for name in sorted({*found.scans, *results}):
        states[_state(found.scans.get(name), name in results)].append(name)
    left = len(states["left"]) + len(states["working"])
    rate = _rate(found, now if left else max(found.ended, default=now))
    return Study(
        states["done"],
        {name: found.scans[name].why for name in states["failed"]},
        {name: round(now - found.scans[name].time, 1) for name in states["working"]},
        states["left"],
        round(statistics.median(found.seconds), 2) if found.seconds else None,
        None if rate is None else round(3600 * rate, 2),
        round(now + left / rate, 1) if left and rate else None,
    )


def _state(scan: _Scan | None, has_result: bool) -> str:
    """done, failed, working or left."""
    if scan is not None and scan.event == "failed":
        return "failed"
    if has_result and (scan is None or scan.was_done or not scan.event):
        return "done"
    return "working" if scan is not None and scan.event == "begun" and scan.lives else "left"


def _rate(found: _Found, until: float) -> float | None:
    """Scans finished per second up to the time `until`, over the last RECENT scans, or over all if there are fewer."""
    ended = sorted(found.ended)
    if not ended:
        return None
    first = ended[-RECENT - 1] if len(ended) > RECENT else found.started
    return min(len(ended), RECENT) / max(until - first, 1e-3)


def _follow(path: Path, found: _Found) -> None:
    """Add the events in the log of one process to `found`."""
    lives, begun = False, {}
    for line in _lines(path):
        moment, event, name = line["time"], line["event"], line.get("scan")
        if event == "run":
            lives = _lives(line.get("host"), line.get("process"))
            found.started = min(found.started, moment)
            for one in line.get("scans", []):
                found.scans.setdefault(str(one), _Scan())
        elif isinstance(name, str):
            if event == "begun":
                begun[name] = moment
            elif event == "done":
                found.ended.append(moment)
                found.seconds += [moment - begun[name]] if name in begun else []
            before = found.scans.setdefault(name, _Scan())
            before.was_done = before.was_done or event in ("done", "kept")
            if moment >= before.time:
                found.scans[name] = _Scan(moment, event, str(line.get("why", "")), lives, before.was_done)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log that are whole."""
    for text in read_text(path, LARGEST_LOG).splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        known = isinstance(line, dict) and isinstance(line.get("event"), str)
        if known and isinstance(line.get("time"), (int, float)):
            yield line


def _lives(host: object, process: object) -> bool:
    """Whether a process may still be working: it is running, or it is on another machine, which cannot be checked."""
    if host != _HOST or os.name == "nt":  # there, signal 0 ends a process
        return True
    try:
        os.kill(int(str(process)), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except OSError:  # of another user
        pass
    return True
