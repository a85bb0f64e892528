"""ISMRMRD readouts in memory, as they come over a connection, read as those of a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mri_score.readers.ismrmrd import ISMRMRD
from mri_score.readers.ismrmrd_readouts import FIELDS


class ReceivedScan(ISMRMRD):
    """Readouts of one or several images, such as those of a slice with its noise and calibration lines.

    header: ISMRMRD header, XML. headers: records of the readouts' headers, with the names of the format. samples:
    (coils, n) complex64 of each readout. Errors: InputError as for files, under the name `stream`.
    """

    def __init__(self, header: str, headers: np.ndarray, samples: Sequence[np.ndarray]) -> None:
        self._received = header, headers, samples
        super().__init__("stream")

    def _open(self) -> tuple[bytes, np.ndarray]:
        header, stored, _ = self._received
        found = {name: stored["idx"][name[4:]] if name.startswith("idx/") else stored[name] for name in FIELDS}
        headers = np.empty(
            len(stored), [(name.removeprefix("idx/"), value.dtype, value.shape[1:]) for name, value in found.items()]
        )
        for name, values in found.items():
            headers[name.removeprefix("idx/")] = values
        return header.encode(), headers

    def _read(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        for number in numbers.tolist():
            yield self._samples(number, self._received[2][number].view(np.float32))
