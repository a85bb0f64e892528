"""Start-up: from the command to its first output, in processor seconds, which do not depend on the load of the machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import LEAST, Row, Spread

NAME = "startup"
REPEATS = {"quick": LEAST, "full": 15}
HELP, INFO = 0.5, 1.0
"""Allowed seconds."""


def run(sizes: str, threads: int) -> list[Row]:
    from mri_score.simulation.simulate import simulate

    with tempfile.TemporaryDirectory() as folder:
        (scan,) = simulate(Path(folder), volumes=1, slices=1, size=64, coils=2)
        commands = {
            "--help": ["-m", "mri_score", "--help"],
            "info": ["-m", "mri_score", "info", str(scan)],
            "python": ["-c", "print()"],
            "torch": ["-c", "import torch; print()"],
        }
        wanted = [(name, whole) for name in commands for whole in ((False, True) if name == "info" else (True,))]
        times: dict[tuple[str, bool], list[tuple[float, float]]] = {one: [] for one in wanted}
        for repeat in range(-1, REPEATS[sizes]):
            for name, whole in wanted:
                found = seconds(commands[name], whole)
                if repeat >= 0:  # the first round fills the file cache
                    times[name, whole].append(found)
    return [
        row("mri-score --help", times["--help", True], HELP, times["python", True], "Python alone"),
        row("mri-score info, first answer", times["info", False], INFO, times["python", True], "Python alone"),
        row("mri-score info, with the measured noise", times["info", True], INFO, times["torch", True], "import torch"),
    ]


def seconds(words: list[str], whole: bool) -> tuple[float, float]:
    """Processor and wall seconds of a fresh Python, to its end or to its first line."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE)
    assert process.stdout is not None
    first = process.stdout.readline()
    if whole:
        process.stdout.read()
    else:
        process.kill()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    process.stdout.close()
    if not first or (whole and process.returncode):
        raise RuntimeError(f"{' '.join(words)} ended with status {process.returncode}")
    return usage.ru_utime + usage.ru_stime, wall


def row(
    what: str, times: list[tuple[float, float]], limit: float, floor: list[tuple[float, float]], floor_of: str
) -> Row:
    """One command against its limit, with the time of imports that it needs in any case."""
    (ours, wall), (least, _) = ([Spread.of(list(kind)) for kind in zip(*each, strict=True)] for each in (times, floor))
    note = f"processor time; on the wall {wall}, which is more where the machine is busy"
    return Row(what, "the limit", ours, Spread.exact(limit), wanted=1, floor=least, floor_of=floor_of, note=note)
