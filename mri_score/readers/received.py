"""ISMRMRD readouts that arrive over a connection, read like those of a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mri_score.readers.base import Reader
from mri_score.readers.encodings import parse_encodings
from mri_score.readers.ismrmrd import CARTESIAN, ISMRMRD
from mri_score.readers.ismrmrd_readouts import FIELDS, Readouts
from mri_score.readers.trajectory import ISMRMRDTrajectory

NAME = "stream"
"""Name of scans that have no file, in messages."""


@dataclass(frozen=True)
class Received:
    """Readouts of one or several images, such as those of a slice with its noise and calibration lines."""

    header: str
    """ISMRMRD header, XML."""
    headers: np.ndarray
    """Records of the readouts' headers, with the names of the format."""
    samples: Sequence[np.ndarray]
    """(coils, n) complex64 of each readout."""
    positions: Sequence[np.ndarray]
    """(n, dimensions) float32 of each readout; no dimensions for Cartesian ones."""


def open_received(received: Received) -> Reader:
    """The scan of received readouts. Errors: InputError as for files, under the name `stream`."""
    if parse_encodings(received.header, NAME).encodings[0].trajectory in CARTESIAN:
        return _CartesianScan(received)
    return _TrajectoryScan(received)


class _InMemory(Readouts):
    """Readouts that are received instead of read."""

    def __init__(self, received: Received) -> None:
        self._received = received
        super().__init__(NAME)

    def _open(self) -> tuple[bytes, np.ndarray]:
        stored = self._received.headers
        found = {name: stored["idx"][name[4:]] if name.startswith("idx/") else stored[name] for name in FIELDS}
        kinds = [(name.removeprefix("idx/"), value.dtype, value.shape[1:]) for name, value in found.items()]
        headers = np.empty(len(stored), kinds)
        for name, values in found.items():
            headers[name.removeprefix("idx/")] = values
        return self._received.header.encode(), headers

    def _read_field(self, numbers: np.ndarray, name: str) -> Iterator[tuple[int, np.ndarray]]:
        fields = self._received.samples if name == "data" else self._received.positions
        for number in numbers.tolist():
            yield number, np.ascontiguousarray(fields[number]).view(np.float32).reshape(-1)


class _CartesianScan(_InMemory, ISMRMRD):
    pass


class _TrajectoryScan(_InMemory, ISMRMRDTrajectory):
    pass
