"""ISMRMRD files for tests, written with the `ismrmrd` package, which shares no code with the reader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NAMESPACE = "http://www.ismrm.org/ISMRMRD"


@dataclass
class Readout:
    """One readout: samples (coils, n), its flags by number, its counters and further header fields."""

    samples: np.ndarray
    line: int = 0
    line2: int = 0
    flags: Iterable[int] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    trajectory: np.ndarray | None = None


def header(
    encoded, recon=None, *, fov=None, recon_fov=None, limits=None, limits2=None, coils=4, more="", calibration="",
    trajectory="cartesian", second="",
):  # fmt: skip
    """The XML header. encoded, recon: (x, y, z). limits: (minimum, maximum, center) of each phase-encoding step."""

    def space(name, matrix, extent):
        size, length = (
            "".join(f"<{axis}>{value}</{axis}>" for axis, value in zip("xyz", values, strict=True))
            for values in (matrix, extent)
        )
        return f"<{name}><matrixSize>{size}</matrixSize><fieldOfView_mm>{length}</fieldOfView_mm></{name}>"

    def limit(step, values):
        if values is None:
            return ""
        names = zip(("minimum", "maximum", "center"), values, strict=True)
        inside = "".join(f"<{name}>{value}</{name}>" for name, value in names)
        return f"<kspace_encoding_step_{step}>{inside}</kspace_encoding_step_{step}>"

    recon = recon or encoded
    fov = fov or encoded
    recon_fov = recon_fov or tuple(f * n / m for f, n, m in zip(fov, recon, encoded, strict=True))
    if limits is None:
        limits = (0, encoded[1] - 1, encoded[1] // 2)
    mode = (
        "<parallelImaging><accelerationFactor><kspace_encoding_step_1>2</kspace_encoding_step_1>"
        "<kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor>"
        f"<calibrationMode>{calibration}</calibrationMode></parallelImaging>" if calibration else ""
    )  # fmt: skip
    return (
        f'<?xml version="1.0"?><ismrmrdHeader xmlns="{NAMESPACE}">'
        f"<acquisitionSystemInformation>{more}<receiverChannels>{coils}</receiverChannels>"
        "</acquisitionSystemInformation>"
        "<experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz></experimentalConditions>"
        f"<encoding>{space('encodedSpace', encoded, fov)}{space('reconSpace', recon, recon_fov)}"
        f"<encodingLimits>{limit(1, limits)}{limit(2, limits2)}</encodingLimits>"
        f"<trajectory>{trajectory}</trajectory>{mode}</encoding>{second}</ismrmrdHeader>"
    )


def write_mrd(path: Path, xml: str, readouts: Iterable[Readout]) -> Path:
    """Write a file with the `ismrmrd` package; skips the test without it."""
    ismrmrd = pytest.importorskip("ismrmrd", reason="the package ismrmrd is not installed: install the extra mrd")
    dataset = ismrmrd.Dataset(str(path), "dataset", create_if_needed=True)
    dataset.write_xml_header(xml.encode())
    for number, one in enumerate(readouts):
        samples = np.asarray(one.samples, np.complex64)
        acquisition = ismrmrd.Acquisition.from_array(samples, one.trajectory)
        acquisition.center_sample = samples.shape[1] // 2
        acquisition.scan_counter = number
        acquisition.sample_time_us = 5.0
        for flag in one.flags:
            acquisition.set_flag(flag)
        acquisition.idx.kspace_encode_step_1, acquisition.idx.kspace_encode_step_2 = one.line, one.line2
        for name, value in one.counters.items():
            setattr(acquisition.idx, name, value)
        for name, value in one.fields.items():
            if isinstance(value, tuple):
                getattr(acquisition, name)[:] = value
            else:
                setattr(acquisition, name, value)
        dataset.append_acquisition(acquisition)
    dataset.close()
    return path


def lines_of(kspace: np.ndarray, lines: Iterable[int] | None = None, **more: Any) -> list[Readout]:
    """The readouts of k-space (coils, rows, cols), a readout for each of the columns `lines`."""
    chosen = range(kspace.shape[-1]) if lines is None else lines
    return [Readout(kspace[:, :, line], line, **more) for line in chosen]
