"""A client of the MRD stream for tests: messages by the table of the format, headers by the structures of `ismrmrd`.

It shares no code with the server.
"""

from __future__ import annotations

import ctypes
import re
import socket
import struct
from dataclasses import dataclass, field

import ismrmrd
import numpy as np

TYPES = {1: np.uint16, 2: np.int16, 3: np.uint32, 4: np.int32, 5: np.float32, 6: np.float64, 7: np.complex64,
         8: np.complex128}  # fmt: skip


def config_file(name):
    return struct.pack("<H1024s", 1, name.encode())


def text_message(kind, text):
    data = text.encode() + b"\0"
    return struct.pack("<HI", kind, len(data)) + data


def acquisition(one):
    """The message of an `ismrmrd.Acquisition`."""
    head = bytes(one.getHead())
    assert len(head) == 340
    return struct.pack("<H", 1008) + head + one.traj.tobytes() + one.data.tobytes()


def waveform(channels=2, samples=5):
    head = ismrmrd.WaveformHeader(version=1, channels=channels, number_of_samples=samples)
    assert ctypes.sizeof(head) == 40
    return struct.pack("<H", 1026) + bytes(head) + bytes(4 * channels * samples)


CLOSE = struct.pack("<H", 4)


@dataclass
class Image:
    header: ismrmrd.ImageHeader
    meta: dict
    pixels: np.ndarray
    """(channels, z, y, x)"""

    @property
    def values(self):
        """(x, y) in the units of k-space: rows along the readout."""
        return self.pixels[0, 0].T * float(self.meta.get("RescaleSlope", 1))


@dataclass
class Answer:
    """Everything that came back."""

    images: list = field(default_factory=list)
    texts: list = field(default_factory=list)
    closed: bool = False
    """Whether CLOSE came."""

    def series(self, number):
        return [one for one in self.images if one.header.image_series_index == number]


def read_answer(stream):
    """Read messages up to CLOSE or the end."""
    answer = Answer()
    while data := stream.read(2):
        (kind,) = struct.unpack("<H", data)
        if kind == 4:
            answer.closed = True
            assert not stream.read(1), "something came after CLOSE"
            break
        if kind == 5:
            (size,) = struct.unpack("<I", stream.read(4))
            text = stream.read(size)
            assert text.endswith(b"\0")
            answer.texts.append(text[:-1].decode())
        else:
            assert kind == 1022, kind
            header = ismrmrd.ImageHeader.from_buffer_copy(stream.read(198))
            (size,) = struct.unpack("<Q", stream.read(8))
            assert size == header.attribute_string_len
            meta = ismrmrd.Meta.deserialize(stream.read(size).decode())
            x, y, z = header.matrix_size
            pixels = np.dtype(TYPES[header.data_type])
            data = stream.read(header.channels * x * y * z * pixels.itemsize)
            answer.images.append(Image(header, meta, np.frombuffer(data, pixels).reshape(header.channels, z, y, x)))
    return answer


def exchange(port, *messages, timeout=120):
    """Send everything, then read everything."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        for message in messages:
            connection.sendall(message)
        with connection.makefile("rb") as stream:
            return read_answer(stream)


def listening_port(process):
    """The port that `mri-score serve` says it listens on."""
    for line in process.stdout:
        if found := re.search(r"port (\d+)", line):
            return int(found.group(1))
    raise AssertionError("the server ended without listening")
