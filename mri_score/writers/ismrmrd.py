"""Scans as ISMRMRD (MRD) files: a header and one record a readout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mri_score.readers.hdf5 import new_hdf5

_COUNTERS = ("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast", "phase", "repetition",
             "set", "segment")  # fmt: skip
HEAD = np.dtype(
    [
        ("version", "<u2"), ("flags", "<u8"), ("measurement_uid", "<u4"), ("scan_counter", "<u4"),
        ("acquisition_time_stamp", "<u4"), ("physiology_time_stamp", "<u4", (3,)), ("number_of_samples", "<u2"),
        ("available_channels", "<u2"), ("active_channels", "<u2"), ("channel_mask", "<u8", (16,)),
        ("discard_pre", "<u2"), ("discard_post", "<u2"), ("center_sample", "<u2"), ("encoding_space_ref", "<u2"),
        ("trajectory_dimensions", "<u2"), ("sample_time_us", "<f4"), ("position", "<f4", (3,)),
        ("read_dir", "<f4", (3,)), ("phase_dir", "<f4", (3,)), ("slice_dir", "<f4", (3,)),
        ("patient_table_position", "<f4", (3,)),
        ("idx", [*((name, "<u2") for name in _COUNTERS), ("user", "<u2", (8,))]),
        ("user_int", "<i4", (8,)), ("user_float", "<f4", (8,)),
    ]
)  # fmt: skip
"""The header of a readout, 340 bytes, in the order of the standard."""
assert HEAD.itemsize == 340
_NUMBERS = h5py.vlen_dtype(np.dtype("<f4"))
READOUT = np.dtype([("head", HEAD), ("traj", _NUMBERS), ("data", _NUMBERS)])
LAST_IN_SLICE = 8
PART = 1024
"""Readouts that are written at once."""


@dataclass(frozen=True)
class Readout:
    """One readout to write: samples (coils, n) complex, fields of its header, counters, and flags counted from 1."""

    samples: np.ndarray
    fields: dict[str, Any] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    flags: tuple[int, ...] = ()


def write_ismrmrd(path: Path, xml: bytes, readouts: Iterable[Readout]) -> Path:
    """Write a header and readouts, in the group `dataset`; return the path. It appears complete or not at all.

    path: of the file. xml: the ISMRMRD header. Errors: InputError where the file cannot be written.
    """
    with new_hdf5(path) as file:
        group = file.create_group("dataset")
        text = group.create_dataset("xml", (1,), h5py.string_dtype("ascii"))  # the C library reads no other
        text[0] = xml
        data = group.create_dataset("data", (0,), READOUT, maxshape=(None,), chunks=(64,))
        for part in _parts(readouts):
            first = len(data)
            data.resize((first + len(part),))
            data[first:] = np.array([_record(one, first + number) for number, one in enumerate(part)], READOUT)
    return path


def _parts(readouts: Iterable[Readout]) -> Iterator[list[Readout]]:
    part: list[Readout] = []
    for one in readouts:
        part.append(one)
        if len(part) == PART:
            yield part
            part = []
    if part:
        yield part


def _record(one: Readout, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    head = np.zeros((), HEAD)
    coils, count = one.samples.shape
    head["version"], head["scan_counter"], head["number_of_samples"] = 1, number, count
    head["available_channels"] = head["active_channels"] = coils
    head["center_sample"] = count // 2
    head["flags"] = sum(1 << (flag - 1) for flag in one.flags)
    for name, value in one.fields.items():
        head[name] = value
    for name, value in one.counters.items():
        head["idx"][name] = value
    values = np.ascontiguousarray(one.samples, np.complex64).view(np.float32).reshape(-1)
    return head, np.zeros(0, np.float32), values
