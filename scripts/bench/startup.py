"""Start-up: from the command to its first answer."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from harness import Row, Spread, compare

NAME = "startup"
LIMITS = {"--help": 0.5, "info": 1.0}
"""Seconds."""


def run(sizes: str, threads: int) -> list[Row]:
    from mri_score.data.simulate import simulate

    with tempfile.TemporaryDirectory() as folder:
        (scan,) = simulate(Path(folder), volumes=1, slices=1, size=64, coils=2)
        return [row(sizes, "--help"), row(sizes, "info", str(scan))]


def row(sizes: str, command: str, *arguments: str) -> Row:
    """One command against its limit; beside it what importing torch costs, which `info` cannot do without."""

    def start(*words: str) -> None:
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)

    found = compare(
        f"mri-score {command}",
        "the limit",
        lambda: start("-m", "mri_score", command, *arguments),
        sizes=sizes,
        floor=lambda: start("-c", "import torch" if arguments else "pass"),
        floor_of="import torch" if arguments else "Python alone",
    )
    return replace(found, theirs=Spread.exact(LIMITS[command]), wanted=1)
