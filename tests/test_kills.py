"""Commands that are killed again and again end with everything there; scripts/kills.py says how."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "kills.py"
BROKEN = {
    "reconstruct": "from mri_score.cli.run import finished; finished.restore = lambda *_: []",
    "train": "from mri_score.training import loop; loop._forget_after = lambda *_: None",
}
"""Faults that kills would show: nothing is made from a result again; the log keeps what is done a second time."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux" or not SCRIPT.exists(), reason="needs Linux, and a checkout"),
]


def kills(*options, before="pass"):
    code = f"import runpy, sys; {before}; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(SCRIPT), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True)


def test_ten_kills_cost_nothing():
    done = kills("--kills", 10, "--seed", 1)
    assert done.returncode == 0 and done.stdout.count(": 10 kills") == 2, done.stdout + done.stderr


@pytest.mark.parametrize("name", BROKEN)
def test_the_driver_finds_what_is_lost(name):
    done = kills("--kills", 4, "--at", "renames", "--only", name, before=BROKEN[name])
    assert done.returncode == 1 and (" is missing" in done.stdout or " is different" in done.stdout), done.stderr
