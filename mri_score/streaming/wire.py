"""Messages of the MRD stream, version 1: a little-endian number, then a body whose size the number or a count gives."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol
from xml.sax.saxutils import escape

import numpy as np

from mri_score.errors import InputError

CONFIG_FILE, CONFIG_TEXT, HEADER, CLOSE, TEXT = 1, 2, 3, 4, 5
ACQUISITION, IMAGE, WAVEFORM = 1008, 1022, 1026
CONFIG_FILE_BYTES = 1024
LARGEST_TEXT = 1 << 20
"""Bytes of the longest text to accept."""
LARGEST_ITEM = 1 << 28
"""Bytes of the largest readout, waveform or image to accept."""

COUNTERS = [
    (name, "<u2")
    for name in ("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast", "phase", "repetition",
                 "set", "segment")
] + [("user", "<u2", 8)]  # fmt: skip
PLACE = [(name, "<f4", 3) for name in ("position", "read_dir", "phase_dir", "slice_dir", "patient_table_position")]
READOUT_HEADER = np.dtype([
    ("version", "<u2"), ("flags", "<u8"), ("measurement_uid", "<u4"), ("scan_counter", "<u4"),
    ("acquisition_time_stamp", "<u4"), ("physiology_time_stamp", "<u4", 3), ("number_of_samples", "<u2"),
    ("available_channels", "<u2"), ("active_channels", "<u2"), ("channel_mask", "<u8", 16), ("discard_pre", "<u2"),
    ("discard_post", "<u2"), ("center_sample", "<u2"), ("encoding_space_ref", "<u2"),
    ("trajectory_dimensions", "<u2"), ("sample_time_us", "<f4"), *PLACE, ("idx", COUNTERS), ("user_int", "<i4", 8),
    ("user_float", "<f4", 8),
])  # fmt: skip
"""Header of a readout: 340 bytes."""
IMAGE_HEADER = np.dtype([
    ("version", "<u2"), ("data_type", "<u2"), ("flags", "<u8"), ("measurement_uid", "<u4"), ("matrix_size", "<u2", 3),
    ("field_of_view", "<f4", 3), ("channels", "<u2"), *PLACE, ("average", "<u2"), ("slice", "<u2"), ("contrast", "<u2"),
    ("phase", "<u2"), ("repetition", "<u2"), ("set", "<u2"), ("acquisition_time_stamp", "<u4"),
    ("physiology_time_stamp", "<u4", 3), ("image_type", "<u2"), ("image_index", "<u2"), ("image_series_index", "<u2"),
    ("user_int", "<i4", 8), ("user_float", "<f4", 8), ("attribute_string_len", "<u4"),
])  # fmt: skip
"""Header of an image: 198 bytes."""
WAVEFORM_HEADER = np.dtype([
    ("version", "<u2"), ("pad", "V6"), ("flags", "<u8"), ("measurement_uid", "<u4"), ("scan_counter", "<u4"),
    ("time_stamp", "<u4"), ("number_of_samples", "<u2"), ("channels", "<u2"), ("sample_time_us", "<f4"),
    ("waveform_id", "<u2"), ("end", "V2"),
])  # fmt: skip
"""Header of a waveform: 40 bytes."""
PIXELS = dict(enumerate(("<u2", "<i2", "<u4", "<i4", "<f4", "<f8", "<c8", "<c16"), start=1))
"""Number of a pixel type -> type."""


@dataclass(frozen=True)
class Readout:
    """One readout."""

    header: np.void
    """A record of READOUT_HEADER."""
    samples: np.ndarray
    """(channels, samples) complex64."""
    trajectory: np.ndarray
    """(samples, dimensions) float32; no dimensions for Cartesian readouts."""

    @property
    def nbytes(self) -> int:
        """Bytes of its samples and positions."""
        return self.samples.nbytes + self.trajectory.nbytes


@dataclass(frozen=True)
class Message:
    """A message that is no readout: its number, and the text of CONFIG_FILE, CONFIG_TEXT, HEADER and TEXT."""

    kind: int
    text: str = ""


class StreamEnded(Exception):
    """The other side closed the connection in the middle of a message, or without CLOSE."""


def read_message(stream: BinaryIO) -> Message | Readout:
    """Read the next message; the contents of waveforms and images are skipped.

    stream: blocking. Errors: StreamEnded, and InputError for an unknown number and for sizes above the limits.
    """
    kind = _number(stream, "<H")
    if kind == CONFIG_FILE:
        return Message(kind, _text(_exactly(stream, CONFIG_FILE_BYTES)))
    if kind in (CONFIG_TEXT, HEADER, TEXT):
        size = _checked(_number(stream, "<I"), LARGEST_TEXT, f"a text (message {kind})")
        return Message(kind, _text(_exactly(stream, size)))
    if kind == ACQUISITION:
        return _read_readout(stream)
    if kind == WAVEFORM:
        header = _record(stream, WAVEFORM_HEADER)
        _skip(stream, 4 * int(header["channels"]) * int(header["number_of_samples"]), "a waveform")
    elif kind == IMAGE:
        header = _record(stream, IMAGE_HEADER)
        if int(header["data_type"]) not in PIXELS:
            raise InputError(f"an image of the stream has pixel type {header['data_type']}; known types: 1 to 8")
        _skip(stream, _number(stream, "<Q"), "the attributes of an image")
        pixel = np.dtype(PIXELS[int(header["data_type"])]).itemsize
        size = int(header["channels"]) * pixel * int(np.prod(header["matrix_size"].astype(object)))
        _skip(stream, size, "an image")
    elif kind != CLOSE:
        raise InputError(f"the stream has a message {kind}, which is not in MRD version 1 (1 to 5, 1008, 1022, 1026)")
    return Message(kind)


class Client(Protocol):
    """The other end of a connection, for what is sent to it."""

    def text(self, text: str) -> None:
        """Send a line of text."""
        ...

    def image(self, pixels: np.ndarray, fields: Mapping[str, Any], attributes: Mapping[str, str | list[str]]) -> None:
        """Send an image: pixels (channels, z, y, x), fields of IMAGE_HEADER, attributes by name."""
        ...

    def close(self) -> None:
        """Send the message that ends the stream."""
        ...


@dataclass(frozen=True)
class WireClient(Client):
    """A client that reads messages of version 1. stream: where they go."""

    stream: BinaryIO

    def text(self, text: str) -> None:
        encoded = text.encode()[: LARGEST_TEXT - 1] + b"\0"
        self._send(struct.pack("<HI", TEXT, len(encoded)), encoded)

    def image(self, pixels: np.ndarray, fields: Mapping[str, Any], attributes: Mapping[str, str | list[str]]) -> None:
        header, encoded = np.zeros((), IMAGE_HEADER), attribute_xml(attributes).encode()
        kind = next(number for number, name in PIXELS.items() if np.dtype(name) == pixels.dtype)
        channels, *matrix = pixels.shape
        own = {"version": 1, "data_type": kind, "channels": channels, "matrix_size": matrix[::-1]}
        for name, value in {**fields, **own, "attribute_string_len": len(encoded)}.items():
            header[name] = value
        start = struct.pack("<H", IMAGE) + header.tobytes() + struct.pack("<Q", len(encoded))
        self._send(start, encoded, np.ascontiguousarray(pixels).tobytes())

    def close(self) -> None:
        self._send(struct.pack("<H", CLOSE))

    def _send(self, *parts: bytes) -> None:
        self.stream.write(b"".join(parts))
        self.stream.flush()


def attribute_xml(attributes: Mapping[str, str | Sequence[str]]) -> str:
    """Names and values, one or several a name, as XML of ISMRMRD's meta attributes."""
    lines = ['<?xml version="1.0"?>', "<ismrmrdMeta>"]
    for name, given in attributes.items():
        values = [given] if isinstance(given, str) else given
        inner = "".join(f"<value>{escape(value)}</value>" for value in values)
        lines.append(f"<meta><name>{escape(name)}</name>{inner}</meta>")
    return "\n".join([*lines, "</ismrmrdMeta>"])


def _read_readout(stream: BinaryIO) -> Readout:
    header = _record(stream, READOUT_HEADER)
    samples, channels = int(header["number_of_samples"]), int(header["active_channels"])
    dimensions = int(header["trajectory_dimensions"])
    _checked(4 * samples * (dimensions + 2 * channels), LARGEST_ITEM, "a readout")
    trajectory = np.frombuffer(_exactly(stream, 4 * samples * dimensions), "<f4").reshape(samples, dimensions)
    data = np.frombuffer(_exactly(stream, 8 * samples * channels), "<c8").reshape(channels, samples)
    return Readout(header, data, trajectory)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size) if size else b""
    if len(data) < size:
        raise StreamEnded
    return data


def _number(stream: BinaryIO, kind: str) -> int:
    return struct.unpack(kind, _exactly(stream, struct.calcsize(kind)))[0]


def _record(stream: BinaryIO, kind: np.dtype) -> np.void:
    return np.frombuffer(_exactly(stream, kind.itemsize), kind)[0]


def _checked(size: int, largest: int, what: str) -> int:
    if size > largest:
        raise InputError(f"{what} of the stream claims {size} bytes; at most {largest} are accepted")
    return size


def _skip(stream: BinaryIO, size: int, what: str) -> None:
    left = _checked(size, LARGEST_ITEM, what)
    while left:
        left -= len(_exactly(stream, min(left, 1 << 20)))


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", errors="replace")
