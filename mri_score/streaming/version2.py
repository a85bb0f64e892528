"""MRD streams of version 2, by the package mrd-python: read as messages of version 1, and written back as version 2."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO
from xml.sax.saxutils import escape

import numpy as np

from mri_score.errors import InputError
from mri_score.readers.ismrmrd_header import NAMESPACE
from mri_score.streaming.wire import CLOSE, HEADER, READOUT_HEADER, WAVEFORM, Client, Message, Readout

log = logging.getLogger(__name__)

MAGIC = b"yardl"
"""First bytes of a stream of version 2."""
SAME = (
    "measurement_uid", "scan_counter", "acquisition_time_stamp", "discard_pre", "discard_post", "center_sample",
    "encoding_space_ref", "sample_time_us", "position", "read_dir", "phase_dir", "slice_dir", "patient_table_position",
)  # fmt: skip
"""Fields of a readout's header that have one name in both versions."""
COUNTERS = (
    "kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast", "phase", "repetition", "set",
    "segment",
)  # fmt: skip
LIMITS = ("kspace_encoding_step_1", "kspace_encoding_step_2", *COUNTERS[2:])


def load_mrd() -> Any:
    """The module of the package. Errors: InputError where it is not installed."""
    try:
        import mrd
    except ImportError as error:
        raise InputError("a stream of MRD version 2 needs mrd-python: pip install mrd-python") from error
    return mrd


class Version2(Client):
    """Both ends of a stream of version 2.

    incoming, outgoing: binary streams. Errors: InputError without the package.
    """

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._mrd = load_mrd()
        self._incoming, self._outgoing = incoming, outgoing
        self._writer: Any = None
        self._header: Any = None
        self._messages = self._read()

    def receive(self) -> Message | Readout:
        """The next message, as of version 1. Errors: InputError for a stream that is damaged or ends too early."""
        try:
            return next(self._messages)
        except InputError:
            raise
        except Exception as error:  # the package raises many kinds for a damaged stream
            raise InputError(f"the stream of MRD version 2 is damaged or cut off: {error or type(error)}") from error

    def text(self, text: str) -> None:
        """Version 2 has no text messages; texts are written to the log only."""

    def image(self, pixels: np.ndarray, fields: Mapping[str, Any], attributes: Mapping[str, str | list[str]]) -> None:
        mrd = self._mrd
        head = mrd.ImageHeader(image_type=mrd.ImageType(int(fields["image_type"])))
        for name in ("field_of_view", "position", "slice_dir", "patient_table_position"):
            setattr(head, name, np.asarray(fields[name], np.float32))
        head.col_dir, head.line_dir = (np.asarray(fields[name], np.float32) for name in ("read_dir", "phase_dir"))
        for name in ("measurement_uid", "slice", "contrast", "phase", "repetition", "set", "acquisition_time_stamp",
                     "image_index", "image_series_index"):  # fmt: skip
            setattr(head, name, int(fields[name]))
        meta = {
            name: [mrd.ImageMetaValue.String(value) for value in ([given] if isinstance(given, str) else given)]
            for name, given in attributes.items()
        }
        image = mrd.Image(head=head, data=np.ascontiguousarray(pixels), meta=meta)
        kind = mrd.StreamItem.ImageInt16 if pixels.dtype == np.int16 else mrd.StreamItem.ImageFloat
        self._begin()
        self._writer.write_data([kind(image)])
        self._flush()

    def close(self) -> None:
        self._begin()
        self._writer.close()
        self._outgoing.flush()

    def _begin(self) -> None:
        if self._writer is None:
            self._writer = self._mrd.BinaryMrdWriter(self._outgoing)
            self._writer.write_header(self._header)
            self._writer.write_data([])

    def _flush(self) -> None:
        self._writer._stream.flush()
        self._outgoing.flush()

    def _read(self) -> Iterator[Message | Readout]:
        reader = self._mrd.BinaryMrdReader(self._incoming)
        header = reader.read_header()
        if header is not None:
            self._header = header
            yield Message(HEADER, header_xml(header))
        for item in reader.read_data():
            if isinstance(item, self._mrd.StreamItem.Acquisition):
                yield readout_of(item.value)
            else:
                yield Message(WAVEFORM)
        yield Message(CLOSE)


def readout_of(acquisition: Any) -> Readout:
    """A readout of version 2 as one of version 1. acquisition: `mrd.Acquisition`. Errors: InputError where numbers do
    not fit.
    """
    head, header = acquisition.head, np.zeros(1, READOUT_HEADER)[0]
    try:
        header["version"], header["flags"] = 1, int(head.flags.value)
        for name in SAME:
            if (value := getattr(head, name)) is not None:
                header[name] = value
        if head.center_sample is None:
            header["center_sample"] = acquisition.data.shape[1] // 2
        for name in COUNTERS:
            header["idx"][name] = getattr(head.idx, name) or 0
        for name in ("physiology_time_stamp", "user_int", "user_float"):
            values = getattr(head, name)[: header[name].size]
            header[name][: len(values)] = values
        header["active_channels"], header["number_of_samples"] = acquisition.data.shape
        trajectory = (
            acquisition.trajectory.T if acquisition.trajectory.size else np.zeros((header["number_of_samples"], 0))
        )
        header["trajectory_dimensions"] = trajectory.shape[1]
    except (OverflowError, ValueError, TypeError) as error:
        raise InputError(f"a readout of the stream has a header that version 1 cannot hold: {error}") from error
    samples = np.ascontiguousarray(acquisition.data, np.complex64)
    return Readout(header, samples, np.ascontiguousarray(trajectory, np.float32))


def header_xml(header: Any) -> str:
    """The parts of a header of version 2 that place lines and images, as XML of version 1. header: `mrd.Header`."""
    system = header.acquisition_system_information
    parts = []
    if system is not None:
        parts.append(_node("acquisitionSystemInformation", {
            "systemFieldStrength_T": system.system_field_strength_t,
            "relativeReceiverNoiseBandwidth": system.relative_receiver_noise_bandwidth,
            "receiverChannels": system.receiver_channels,
        }))  # fmt: skip
    parts += [_encoding(one) for one in header.encoding]
    return f'<?xml version="1.0"?><ismrmrdHeader xmlns="{NAMESPACE}">{"".join(parts)}</ismrmrdHeader>'


def _encoding(one: Any) -> str:
    spaces = []
    for name in ("encoded_space", "recon_space"):
        space = getattr(one, name)
        inner = "".join(
            _node(kind, {axis: getattr(values, axis) for axis in "xyz"})
            for kind, values in (("matrixSize", space.matrix_size), ("fieldOfView_mm", space.field_of_view_mm))
        )
        title = name.split("_")[0] + "Space"
        spaces.append(f"<{title}>{inner}</{title}>")
    limits = "".join(
        _node(name, {key: getattr(limit, key) for key in ("minimum", "maximum", "center")})
        for name in LIMITS
        if (limit := getattr(one.encoding_limits, name, None)) is not None
    )
    mode = one.parallel_imaging.calibration_mode if one.parallel_imaging is not None else None
    calibration = "" if mode is None else f"<calibrationMode>{mode.name.lower()}</calibrationMode>"
    return (
        f"<encoding>{''.join(spaces)}<encodingLimits>{limits}</encodingLimits>"
        f"<trajectory>{one.trajectory.name.lower()}</trajectory>"
        f"<parallelImaging>{calibration}</parallelImaging></encoding>"
    )


def _node(name: str, values: Mapping[str, object]) -> str:
    inner = "".join(f"<{key}>{escape(str(value))}</{key}>" for key, value in values.items() if value is not None)
    return f"<{name}>{inner}</{name}>"
