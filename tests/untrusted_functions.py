"""What test_untrusted.py has called in the reading process: functions that crash, hang, or take memory."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path

import numpy as np


def ordinary(path: Path, factor: float = 1.0) -> dict:
    numbers = np.arange(6, dtype=np.complex64).reshape(2, 3) * factor
    return {"name": path.name, "numbers": numbers, 3: (1, None, b"\xff", [True, 2.5]), "empty": np.zeros((0, 4))}


def process(path: Path) -> tuple[int, bool]:
    return os.getpid(), "torch" in sys.modules


def segfault(path: Path) -> None:
    ctypes.string_at(0)


def abort(path: Path) -> None:
    os.abort()


def spin(path: Path) -> None:
    while True:
        pass


def swallow(path: Path) -> int:
    return len(bytearray(512 << 20))


def large(path: Path) -> np.ndarray:
    return np.zeros(1 << 20)


def fail(path: Path) -> None:
    raise KeyError("no\x1b[31m such\nthing")


def surprising(path: Path) -> object:
    return object()


def write(path: Path) -> None:
    path.write_text("x" * 100_000)


def wait(path: Path) -> None:
    time.sleep(60)
