"""Measurement of peak memory."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from pathlib import Path

import torch

STATM = Path("/proc/self/statm")
INTERVAL = 0.01
"""Seconds between measurements of the resident memory."""


class PeakMemory:
    """Measures the peak memory of a `with` block, relative to its start; the result is `mib`, in MiB.

    On a GPU, memory allocated by torch. On a CPU, the increase of the resident memory of the process, read every 10 ms
    after freed memory was returned to the system; `mib` is None without /proc.
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
    """Resident memory of this process in bytes; 0 if the system does not report it."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if STATM.exists() else 0


def _give_back() -> None:
    """Return freed memory to the system, where the C library can."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
