"""The readouts of an ISMRMRD file, Cartesian or not: headers, kinds, samples, noise; treated as untrusted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mri_score.errors import InputError
from mri_score.readers.base import NoiseScan, Shape
from mri_score.readers.encodings import Encoding, parse_encodings
from mri_score.readers.geometry import Geometry, Vector
from mri_score.readers.hdf5 import StoredFile, open_hdf5, plain_dataset
from mri_score.untrusted.process import read_apart

FLAGS = {
    "noise": 19,
    "calibration": 20,
    "calibration and imaging": 21,
    "reverse": 22,
    "navigation": 23,
    "phase correction": 24,
    "feedback": 26,
    "dummy": 27,
    "real-time feedback": 28,
    "surface coil correction": 29,
    "phase stabilisation reference": 30,
    "phase stabilisation": 31,
}
"""Flag of a readout -> its number, counted from 1."""
_PARSING = "mri_score.readers.ismrmrd_parsing"
COMPRESSION = (53, 54, 55, 56)
"""Flags of readouts whose samples are stored compressed."""
LEFT_OUT = (
    "navigation", "phase correction", "feedback", "dummy", "real-time feedback", "surface coil correction",
    "phase stabilisation reference", "phase stabilisation",
)  # fmt: skip
"""Flags of readouts that are neither image, calibration nor noise."""
COUNTERS = ("contrast", "set", "phase", "repetition", "slice")
"""Counters of a readout's header that separate images, in the order in which images are numbered."""
LARGEST_IMAGE = 4 << 30
"""Bytes of the largest k-space of one image: a matrix beyond that is no slice, whatever the header states."""
PART = 128 << 20
"""Bytes of samples that are read at once."""
COUNTER = {"kspace_encoding_step_1": "kspace_encode_step_1", "kspace_encoding_step_2": "kspace_encode_step_2"}
"""Phase-encoding step in the file's header -> counter in a readout's header."""
FIELDS = (
    "flags", "number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample",
    "encoding_space_ref", "trajectory_dimensions", "sample_time_us", "position", "read_dir", "phase_dir", "slice_dir",
    *(f"idx/{name}" for name in (*COUNTER.values(), *COUNTERS)),
)  # fmt: skip
"""Fields of a readout's header that are read."""


def find_group(file: StoredFile) -> str | None:
    """Name of the group of an ISMRMRD dataset in an HDF5 file (`dataset` in most files); None if there is none."""
    for name in sorted(file, key=lambda name: (name != "dataset", name)):
        if "group" in file.members[name] and {f"{name}/xml", f"{name}/data"} <= set(file.members):
            return name
    return None


class Readouts:
    """All readouts of a file, sorted into noise, calibration and images, and into items.

    Every combination of slice, contrast, phase, repetition and set is one item, in the order of `COUNTERS`.
    path: of the file. Errors: InputError with the name of the file.
    """

    axes: tuple[str, ...] = ()

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.stem
        self.notes: list[str] = []
        self._cached: tuple[tuple[int, ...], Any] | None = None
        self.header_xml, self._headers = self._open()
        self.header = parse_encodings(self.header_xml, str(self.path))
        self._check_readouts()
        flags = self._headers["flags"]
        noise, dropped = has_flag(flags, "noise"), has_flag(flags, *LEFT_OUT)
        both, calibration = has_flag(flags, "calibration and imaging"), has_flag(flags, "calibration")
        if self.encoding.calibration == "embedded":  # the calibration lines belong to the image as well
            both, calibration = both | calibration, calibration & False
        calibration &= ~both
        self._noise = np.flatnonzero(noise)
        self._imaging = np.flatnonzero(~noise & ~dropped & ~calibration)
        self._calibrating = np.flatnonzero(~noise & ~dropped & (calibration | both))
        self._separate = bool((calibration & ~noise & ~dropped).any())
        self._note_left_out(flags[~noise & dropped])
        if not len(self._imaging):
            raise InputError(f"{self.path}: none of the {len(flags)} readouts is part of an image; export it again")
        self._keys = np.stack([self._headers[name] for name in COUNTERS], 1).astype(int)
        self._items = [tuple(key) for key in np.unique(self._keys[self._imaging], axis=0).tolist()]

    @property
    def encoding(self) -> Encoding:
        """The encoding of the images."""
        return self.header.encodings[0]

    @property
    def attributes(self) -> dict[str, Any]:
        """Protocol, times of the sequence and field strength; nothing that identifies the patient."""
        stated = {"protocol": self.header.protocol, "field_strength_T": self.header.field_strength}
        return {name: value for name, value in (stated | dict(self.header.sequence)).items() if value}

    @property
    def acquisition(self) -> str:
        return self.header.protocol or "unknown"

    @property
    def coils(self) -> int:
        return int(self._headers["active_channels"][self._imaging[0]])

    @property
    def noise_scan(self) -> NoiseScan | None:
        """The noise readouts, scaled to the noise of the lines; None if there are none.

        The variance goes with the bandwidth: it is multiplied by the ratio of dwell times, divided by the share of the
        bandwidth that the receive filter passed, if the header states it, and by the number of averages.
        """
        if not len(self._noise):
            return None
        import torch

        samples = np.concatenate(list(self._read(self._noise)), 1)
        noise, image = (float(self._headers["sample_time_us"][numbers[0]]) for numbers in (self._noise, self._imaging))
        known = 0 < noise < np.inf and 0 < image < np.inf
        ratio = noise / image if known else 1.0
        share = self.header.noise_bandwidth
        if share is not None and not 0.1 <= share <= 1:  # .79 on Siemens scanners
            known, share = False, None
        variance = ratio / (share or 1.0) / self._averages
        return NoiseScan(torch.from_numpy(samples * np.float32(variance**0.5)), known)

    def close(self) -> None:
        """Nothing is open between reads; forgets the lines that were read last."""
        self._cached = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cached": None}

    @property
    def _averages(self) -> float:
        """Mean number of readouts that are averaged."""
        return 1.0

    def _readouts(self, among: np.ndarray, key: Sequence[int]) -> np.ndarray:
        """The readouts of an item among others, which are increasing numbers."""
        mine = self._by_key.get(tuple(key), np.zeros(0, int))
        if not len(among) or not len(mine):
            return mine[:0]
        return mine[among[np.searchsorted(among, mine).clip(max=len(among) - 1)] == mine]

    @cached_property
    def _by_key(self) -> dict[tuple[int, ...], np.ndarray]:
        """Numbers of the readouts of every item: a search among all of them for each item would take hours for series
        of many thousand images.
        """
        keys, which = np.unique(self._keys, axis=0, return_inverse=True)
        order, counts = np.argsort(which.reshape(-1), kind="stable"), np.bincount(which.reshape(-1))
        return dict(zip(map(tuple, keys.tolist()), np.split(order, np.cumsum(counts)[:-1]), strict=True))

    @property
    def _kept(self) -> np.ndarray:
        head = self._headers
        return head["number_of_samples"].astype(int) - head["discard_pre"] - head["discard_post"]

    def _open(self) -> tuple[bytes, np.ndarray]:
        """The header of the scan, and the fields FIELDS of all readouts' headers."""
        file = open_hdf5(self.path)
        group = find_group(file)
        if group is None:
            held = ", ".join(file)
            raise InputError(f"{self.path} has no ISMRMRD dataset, a group with xml and data; it holds: {held}")
        self._group = group
        return self._read_xml(file), self._read_headers()

    def _read_xml(self, file: StoredFile) -> bytes:
        dataset = plain_dataset(file, self.path, f"{self._group}/xml")
        if dataset is None or dataset.size != 1 or dataset.dtype.kind not in "SO":
            raise InputError(f"{self.path}: its ISMRMRD header xml is not one text; export the scan again")
        return bytes(np.asarray(dataset[()]).reshape(-1)[0])

    def _read_headers(self) -> np.ndarray:
        """The fields of all readouts' headers."""
        parts = read_apart(f"{_PARSING}:headers", self.path, group=self._group, fields=list(FIELDS))
        kinds = [(name.rpartition("/")[2], parts[name].dtype, parts[name].shape[1:]) for name in FIELDS]
        heads = np.empty(len(parts["flags"]), kinds)
        for name in FIELDS:
            heads[name.rpartition("/")[2]] = parts[name]
        claimed = int((heads["number_of_samples"].astype(int) * heads["active_channels"].astype(int)).sum()) * 8
        if claimed > self.path.stat().st_size:
            raise InputError(
                f"{self.path}: its readouts have {claimed} bytes by their headers, the file has fewer; it is truncated"
            )
        return heads

    def _check_readouts(self) -> None:
        head = self._headers
        if (head["flags"] & _bits(COMPRESSION)).any():
            raise InputError(f"{self.path}: its samples are compressed; write it again without compression")
        if head["encoding_space_ref"].max() >= len(self.header.encodings):
            raise InputError(
                f"{self.path}: readouts name encoding {head['encoding_space_ref'].max()}, which the header lacks;"
                " export the scan again"
            )
        if (self._kept < 1).any():
            raise InputError(f"{self.path}: readout {int(self._kept.argmin())} has no samples; export the scan again")
        used = head["active_channels"][~has_flag(head["flags"], *LEFT_OUT)]
        counts = np.unique(used).tolist()
        if len(counts) != 1 or counts[0] < 1:
            raise InputError(f"{self.path}: its readouts have {counts} coils; all need the same number")

    def _check_size(self, shape: Shape) -> None:
        """Errors: InputError for an image that is too large to be one."""
        if 8 * self.coils * shape[0] * shape[1] > LARGEST_IMAGE:
            raise InputError(
                f"{self.path}: an image of {shape[0]} x {shape[1]} points and {self.coils} coils, as its header states,"
                f" has more than {LARGEST_IMAGE} bytes; export the scan again"
            )

    def _read(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """The samples (coils, n) of readouts, in the order of their numbers."""
        for number, values in self._read_field(numbers, "data"):
            yield self._samples(number, values)

    def _read_field(self, numbers: np.ndarray, name: str) -> Iterator[tuple[int, np.ndarray]]:
        """Numbers of readouts, and what a field of their records holds, float32."""
        sizes = 8 * self._headers["number_of_samples"][numbers].astype(int) * self._headers["active_channels"][numbers]
        for part in np.split(numbers, np.flatnonzero(np.diff(np.cumsum(sizes) // PART)) + 1):
            runs = np.split(part, np.flatnonzero(np.diff(part) != 1) + 1)
            found = read_apart(
                f"{_PARSING}:readouts",
                self.path,
                memory=(256 << 20) + 8 * PART,
                seconds=60,
                group=self._group,
                runs=[(int(run[0]), int(run[-1]) + 1) for run in runs],
                field=name,
            )
            ends = np.cumsum(found["lengths"])[:-1]
            for number, values in zip(part, np.split(found["values"], ends), strict=True):
                yield int(number), values

    def _samples(self, number: int, values: np.ndarray) -> np.ndarray:
        head = self._headers[number]
        shape = int(head["active_channels"]), int(head["number_of_samples"])
        if values.size != 2 * shape[0] * shape[1]:
            raise InputError(
                f"{self.path}: readout {number} has {values.size} numbers, its header {shape[0]} coils of {shape[1]}"
                " complex samples; the file is damaged"
            )
        samples = np.ascontiguousarray(values, np.float32).view(np.complex64).reshape(shape)
        if not np.isfinite(samples).all():
            raise InputError(f"{self.path}: readout {number} holds NaN or infinity; export the scan again")
        return samples

    def _note_left_out(self, flags: np.ndarray) -> None:
        for name in LEFT_OUT:
            if name == "phase correction" and self.encoding.trajectory == "epi":
                continue  # they are used
            if count := int(has_flag(flags, name).sum()):
                ghosts = ""
                if name == "phase correction":
                    ghosts = "; images of an echo-planar scan have ghosts unless its header states the trajectory epi"
                self.notes.append(f"{count} readouts of {name} are left out{ghosts}")


def _bits(numbers: Iterable[int]) -> np.uint64:
    return np.uint64(sum(1 << (number - 1) for number in numbers))


def has_flag(flags: np.ndarray, *names: str) -> np.ndarray:
    """Whether readouts have one of the flags."""
    return (flags & _bits(FLAGS[name] for name in names)) != 0


def geometry_of(
    head: np.ndarray, matrix: Shape, size: tuple[float, float, float], along_read: float | None = None
) -> Geometry:
    """The place of an image from the header of one of its readouts; without directions there, they are assumed.

    matrix: (rows, cols). size: in mm, of pixels along read, phase and slice direction. along_read: position in mm of an
    image of phase and slice direction along the readout, relative to the centre; None for images of read and phase.
    """
    centre, *axes = (_vector(head[name]) for name in ("position", "read_dir", "phase_dir", "slice_dir"))
    if not np.isfinite([centre, *axes]).all():
        centre, axes = (0.0, 0.0, 0.0), [(0.0, 0.0, 0.0)] * 3
    known = bool(np.allclose(np.array(axes) @ np.array(axes).T, np.eye(3), atol=0.01))
    order = (0, 1, 2) if along_read is None else (1, 2, 0)
    directions = (axes[order[0]], axes[order[1]], axes[order[2]]) if known else None
    voxel = (size[order[0]], size[order[1]], size[order[2]])
    start = Geometry.centred(matrix, voxel, centre, directions)
    if along_read is None:
        return start
    moved = np.array(centre) + along_read * np.array(start.slice_direction)
    return Geometry.centred(matrix, voxel, _vector(moved), directions)


def _vector(values: Sequence[float] | np.ndarray) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z
