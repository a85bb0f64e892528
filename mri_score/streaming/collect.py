"""Readouts of a stream, sorted into images that are reconstructed as soon as they are complete."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mri_score.streaming.wire import Readout

LAST_IN_SLICE, NOISE, CALIBRATION, CALIBRATION_AND_IMAGING, PHASE_CORRECTION = 8, 19, 20, 21, 24
OTHER = (23, PHASE_CORRECTION, 26, 27, 28, 29, 30, 31)
"""Flags of readouts that belong to no image: navigation, phase correction, dummy and the like; counted from 1."""
LARGEST_SIDE = 4096
"""Rows and columns of the largest zero-filled image: a larger one comes from impossible counters."""
COUNTERS = ("slice", "contrast", "phase", "repetition", "set")
"""Counters whose combinations are images of their own."""


def flagged(header: np.void, *flags: int) -> bool:
    """Whether a readout's header has one of the flags, counted from 1."""
    return any(int(header["flags"]) >> (flag - 1) & 1 for flag in flags)


@dataclass
class Group:
    """The readouts of one image, or of one slab of a 3-D scan."""

    key: dict[str, int]
    """Counter -> number."""
    readouts: list[Readout]

    @property
    def title(self) -> str:
        """The counters for messages: the slice, and the others where they are not 0."""
        return ", ".join(f"{name} {number}" for name, number in self.key.items() if number or name == "slice")


@dataclass
class Collector:
    """Sorts readouts.

    whole: whether images are complete at the end of the scan only, as in 3-D scans. last_average: number of the last
    average, with which an image is complete.
    """

    whole: bool = False
    last_average: int = 0
    noise: list[Readout] = field(default_factory=list)
    calibration: dict[int, list[Readout]] = field(default_factory=dict)
    """Slice -> readouts that serve coil maps only."""
    navigators: dict[int, list[Readout]] = field(default_factory=dict)
    """Slice -> readouts for the phase correction of echo trains."""
    images: dict[tuple[int, ...], Group] = field(default_factory=dict)
    done: set[tuple[int, ...]] = field(default_factory=set)
    late: int = 0
    """Number of readouts that came after their image was complete; they are left out."""
    size: int = 0
    """Bytes of the readouts that are kept."""

    def add(self, readout: Readout) -> Group | None:
        """Keep a readout; returns the image that it completes, with noise and calibration readouts before its own."""
        header, slice_ = readout.header, int(readout.header["idx"]["slice"])
        if flagged(header, NOISE):
            self._keep(readout, self.noise)
        elif flagged(header, CALIBRATION) and not flagged(header, CALIBRATION_AND_IMAGING):
            self._keep(readout, self.calibration.setdefault(slice_, []))
        elif flagged(header, PHASE_CORRECTION):
            self._keep(readout, self.navigators.setdefault(slice_, []))
        elif not flagged(header, *OTHER):
            return self._add_imaging(readout)
        return None

    def _add_imaging(self, readout: Readout) -> Group | None:
        header = readout.header
        key = {name: int(header["idx"][name]) for name in COUNTERS}
        place = tuple(key.values())
        if place in self.done:
            self.late += 1
            return None
        self._keep(readout, self.images.setdefault(place, Group(key, [])).readouts)
        last = flagged(header, LAST_IN_SLICE) and int(header["idx"]["average"]) >= self.last_average
        return self._complete(place) if last and not self.whole else None

    def _keep(self, readout: Readout, among: list[Readout]) -> None:
        among.append(readout)
        self.size += readout.nbytes

    def rest(self) -> Iterator[Group]:
        """The images that no flag completed, at the end of the scan."""
        for place in list(self.images):
            yield self._complete(place)

    def _complete(self, place: tuple[int, ...]) -> Group:
        group = self.images.pop(place)
        self.done.add(place)
        self.size -= sum(one.nbytes for one in group.readouts)
        kept = [one for of in (self.calibration, self.navigators) for one in of.get(group.key["slice"], [])]
        return Group(group.key, [*self.noise, *kept, *group.readouts])


def imaging(group: Group) -> list[Readout]:
    """The readouts of a group that belong to its image."""
    return [one for one in group.readouts if not flagged(one.header, NOISE, CALIBRATION, *OTHER)
            or flagged(one.header, CALIBRATION_AND_IMAGING)]  # fmt: skip


def zero_filled(group: Group, columns: int = 0) -> np.ndarray:
    """A magnitude image (rows, cols) straight from the readouts, whatever the header says; zero if there are none.

    Lines are placed by their counter, readouts of the most frequent length only; lines outside of the matrix, and
    beyond LARGEST_SIDE, are left out. Coils are combined by the root of the sum of squares. It is what is sent for a
    scan that cannot be reconstructed. columns: the least number of them.
    """
    readouts = imaging(group)
    if not readouts:
        return np.zeros((1, 1), np.float32)
    shapes = [one.samples.shape for one in readouts]
    shape = max(set(shapes), key=shapes.count)
    if not 0 < shape[1] <= LARGEST_SIDE or not shape[0]:
        return np.zeros((1, 1), np.float32)
    lines: dict[int, Any] = {
        int(one.header["idx"]["kspace_encode_step_1"]): one.samples for one in readouts if one.samples.shape == shape
    }
    most = columns if 0 < columns <= LARGEST_SIDE else LARGEST_SIDE
    lines = {line: samples for line, samples in lines.items() if line < most}
    rows, cols = shape[1], max([columns if columns == most else 1, *(line + 1 for line in lines)])
    total = np.zeros((rows, cols))
    for coil in range(shape[0]):
        kspace = np.zeros((rows, cols), np.complex64)
        for line, samples in lines.items():
            kspace[:, line] = np.nan_to_num(samples[coil], nan=0, posinf=0, neginf=0)
        image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace), norm="ortho"))
        total += np.abs(image).astype(np.float64) ** 2
    return np.sqrt(total).astype(np.float32)
