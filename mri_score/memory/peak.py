"""How much memory a piece of work needs on top of what was there."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from pathlib import Path

import torch

STATM = Path("/proc/self/statm")
INTERVAL = 0.01
"""Seconds between two looks at the resident memory."""


class PeakMemory:
    """The most memory of a `with` block above its start, in MiB, as `mib` after it.

    On a GPU what torch has allocated there. On a CPU the growth of this process's resident memory, read every 10 ms,
    after memory that earlier work freed has gone back to the system; None where there is no /proc.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.mib: float | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._start = torch.cuda.memory_allocated(self.device)
            return self
        _give_back()
        self._start = self._peak = resident()
        self._end = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            self.mib = (torch.cuda.max_memory_allocated(self.device) - self._start) / 2**20
            return
        self._end.set()
        self._watch.join()
        if STATM.exists():
            self.mib = (max(self._peak, resident()) - self._start) / 2**20

    def _look(self) -> None:
        while not self._end.wait(INTERVAL):
            self._peak = max(self._peak, resident())


def resident() -> int:
    """Bytes of this process in memory; 0 where the system does not say."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if STATM.exists() else 0


def _give_back() -> None:
    """Return freed memory to the system, where the C library can."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
