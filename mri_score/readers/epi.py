"""Echo-planar readouts: samples on the ramps of the gradient, and the phase between the two directions of reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mri_score.errors import InputError

WEIGHT = 1e-3
"""Tikhonov weight of the fit, as in `oversampling.py`."""
COHERENT = 0.7
"""Share of the navigators' signal that has the phase of the fitted line; below it ghosts are likely to remain."""


@dataclass(frozen=True)
class Trapezoid:
    """The readout gradient of an echo train and the samples under it, times in microseconds.

    The names are those of the ISMRMRD header's `trajectoryDescription`, as siemens_to_ismrmrd writes it. Samples count
    at the middle of their dwell time; the gradient is symmetric about the centre of k-space, which is reached when half
    of its area is played out.
    """

    ramp_up: float
    flat_top: float
    ramp_down: float
    delay: float
    """From the beginning of the ramp to the first sample."""
    dwell: float
    samples: int

    @classmethod
    def of(cls, description: Mapping[str, float], place: str) -> Trapezoid | None:
        """From the parameters of a header; None without them. place: for messages. Errors: InputError for odd ones."""
        names = ("rampUpTime", "flatTopTime", "rampDownTime", "acqDelayTime", "dwellTime", "numSamples")
        if not set(names) & set(description):
            return None
        missing = [name for name in names if name not in description]
        values = [description.get(name, 0.0) for name in names]
        up, flat, down, delay, dwell, count = values
        late = delay + dwell * count > (up + flat + down) * (1 + 1e-6)
        if missing or min(values) < 0 or not 1 < count <= 1 << 15 or dwell <= 0 or flat <= 0 or late:
            stated = ", ".join(f"{name} {description[name]:g}" for name in names if name in description)
            raise InputError(
                f"{place}: its EPI readout is described by {stated}"
                + (f" without {', '.join(missing)}" if missing else "; they are no samples under a trapezoid")
                + "; export the scan again"
            )
        return cls(up, flat, down, delay, dwell, int(count))

    def positions(self, size: int) -> np.ndarray:
        """Position of each sample in cycles per field of view, (samples,), increasing.

        size: samples of the encoded matrix along the readout; the area under the samples covers it.
        """
        begin, end = self.delay, self.delay + self.samples * self.dwell
        area = self._area(np.array([begin, end]))
        middle = self.delay + (np.arange(self.samples) + 0.5) * self.dwell
        half = self._area(np.array([self.ramp_up + self.flat_top + self.ramp_down])) / 2
        return size / (area[1] - area[0]) * (self._area(middle) - half)

    def _area(self, time: np.ndarray) -> np.ndarray:
        """Area under the gradient up to a time, for a flat top of height 1."""
        up, flat, down = self.ramp_up, self.flat_top, self.ramp_down
        left = np.clip(up + flat + down - time, 0, down)  # until the ramp down ends
        rising = np.square(np.clip(time, 0, up)) / (2 * up) if up else 0.0
        falling = down / 2 - np.square(left) / (2 * down) if down else 0.0
        return rising + np.clip(time - up, 0, flat) + falling


def readout_fit(positions: np.ndarray, size: int, rows: int, place: str) -> np.ndarray:
    """Matrix (rows, samples) from the samples of a readout to the image along it: a least-squares fit.

    positions: of the samples, in cycles per field of view of `size` pixels. rows: pixels of the field of view to
    reconstruct, in its middle, outside of which the object is taken to be zero. place: for messages. Errors: InputError
    for samples that are too far apart for these rows.
    """
    gap = float(np.abs(np.diff(positions)).max())
    if gap * rows > size * 1.01:
        raise InputError(
            f"{place}: samples of its EPI readouts are up to {gap:.3g} cycles per field of view apart, too far for"
            f" {rows} of {size} pixels; the header contradicts the samples, export the scan again"
        )
    pixels = np.arange(rows) - rows // 2
    encode = np.exp(-2j * np.pi * np.outer(positions, pixels) / size) / np.sqrt(size)
    return np.linalg.solve(encode.conj().T @ encode + WEIGHT * np.eye(rows), encode.conj().T)


def direction_phase(forward: np.ndarray, backward: np.ndarray) -> tuple[np.ndarray, float]:
    """Phase (rows,) of images along the readout that were read forward against those read backward: a straight line.

    forward, backward: (C, rows), means of navigators without phase encoding. Slope by the phase between neighbouring
    pixels, offset by the mean, both weighted by the signal. Also returns the share of the signal that has this phase.
    Reference: Ahn and Cho, IEEE Trans. Med. Imaging 1987.
    """
    both = (forward * backward.conj()).sum(0)
    pixels = np.arange(both.size) - both.size // 2
    slope = np.angle((both[1:] * both[:-1].conj()).sum())
    rest = (both * np.exp(-1j * slope * pixels)).sum()
    return np.angle(rest) + slope * pixels, float(np.abs(rest) / max(np.abs(both).sum(), np.finfo(float).tiny))
