"""The encodings of an ISMRMRD header: matrices, fields of view, limits, trajectory, parallel imaging, sequence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree

from mri_score.errors import InputError
from mri_score.readers.ismrmrd_header import header_root

STEPS = ("kspace_encoding_step_1", "kspace_encoding_step_2")
LARGEST_MATRIX = 1 << 15
"""Largest number of samples along an axis of k-space."""
LARGEST_COUNTER = (1 << 16) - 1
"""Largest number that a counter of a readout can hold."""


@dataclass(frozen=True)
class Space:
    """A matrix (x, y, z), x along the readout, and its field of view in mm; None if the header has none."""

    matrix: tuple[int, int, int]
    field_of_view: tuple[float, float, float] | None

    @property
    def voxel_size(self) -> tuple[float, float, float] | None:
        """Field of view divided by matrix, in mm."""
        if self.field_of_view is None:
            return None
        x, y, z = (extent / size for extent, size in zip(self.field_of_view, self.matrix, strict=True))
        return x, y, z


@dataclass(frozen=True)
class Limits:
    """Lowest and highest number of a counter, and the number at the centre of k-space."""

    minimum: int
    maximum: int
    center: int


@dataclass(frozen=True)
class Encoding:
    """One encoding of a scan. Scans have one, and sometimes a second one for calibration lines."""

    encoded: Space
    recon: Space
    limits: Mapping[str, Limits] = field(default_factory=dict)
    """Counter, such as `kspace_encoding_step_1`, -> limits; counters without limits are left out."""
    trajectory: str = "cartesian"
    calibration: str = ""
    """`calibrationMode`: embedded, interleaved, separate, external, other, or nothing."""
    description: Mapping[str, float] = field(default_factory=dict)
    """Numbers of `trajectoryDescription` by name."""


@dataclass(frozen=True)
class Encodings:
    """The parts of an ISMRMRD header that place lines and images. It holds no identity of the patient."""

    encodings: tuple[Encoding, ...]
    coils: int | None = None
    noise_bandwidth: float | None = None
    """`relativeReceiverNoiseBandwidth`: share of a noise scan's bandwidth that its receive filter lets through."""
    protocol: str = ""
    sequence: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Echo, repetition and inversion times in ms and the flip angle in degrees: TR, TE, TI, flipAngle_deg."""
    field_strength: float | None = None
    """In tesla."""


def parse_encodings(xml: bytes | str, place: str) -> Encodings:
    """Parse all encodings of an ISMRMRD header. place: name of the file, for error messages.

    Errors: InputError for untrusted XML (see `header_root`), without an encoding, and for sizes that are no matrix.
    """
    root = header_root(xml, place)
    nodes = root.findall("{*}encoding")
    if not nodes:
        raise InputError(f"{place}: the ISMRMRD header has no encoding, so the matrix is unknown; export it again")
    system = root.find("{*}acquisitionSystemInformation")
    coils = _number(system, "receiverChannels")
    sequence = {
        name: tuple(value for value in map(_float, found) if value is not None)
        for name in ("TR", "TE", "TI", "flipAngle_deg")
        if (found := [node.text for node in root.findall(f"{{*}}sequenceParameters/{{*}}{name}")])
    }
    return Encodings(
        tuple(_encoding(node, place) for node in nodes),
        None if coils is None else int(coils),
        _number(system, "relativeReceiverNoiseBandwidth"),
        (root.findtext("{*}measurementInformation/{*}protocolName") or "").strip(),
        sequence,
        _number(system, "systemFieldStrength_T"),
    )


def _encoding(node: ElementTree.Element, place: str) -> Encoding:
    encoded = _space(node.find("{*}encodedSpace"), place, "encodedSpace")
    if encoded is None:
        raise InputError(f"{place}: the ISMRMRD header has no encodedSpace, so the matrix is unknown; export it again")
    limits = {}
    for step in node.findall("{*}encodingLimits/*"):
        low, high, center = (_number(step, name) for name in ("minimum", "maximum", "center"))
        if low is None or high is None:
            continue
        name, found = step.tag.rpartition("}")[2], Limits(int(low), int(high), int(low if center is None else center))
        if not all(0 <= number <= LARGEST_COUNTER for number in (found.minimum, found.maximum, found.center)):
            raise InputError(
                f"{place}: the ISMRMRD header's limits of {name} are {found.minimum} to {found.maximum} around"
                f" {found.center}; counters are 0 to {LARGEST_COUNTER}: export the scan again"
            )
        limits[name] = found
    return Encoding(
        encoded,
        _space(node.find("{*}reconSpace"), place, "reconSpace") or encoded,
        limits,
        (node.findtext("{*}trajectory") or "cartesian").strip().lower(),
        (node.findtext("{*}parallelImaging/{*}calibrationMode") or "").strip().lower(),
        _description(node.find("{*}trajectoryDescription")),
    )


def _description(node: ElementTree.Element | None) -> dict[str, float]:
    found = {}
    for kind in ("Long", "Double"):
        for one in [] if node is None else node.findall(f"{{*}}userParameter{kind}"):
            if (value := _number(one, "value")) is not None:
                found[(one.findtext("{*}name") or "").strip()] = value
    return found


def _space(node: ElementTree.Element | None, place: str, name: str) -> Space | None:
    if node is None:
        return None
    matrix = [_number(node.find("{*}matrixSize"), axis) for axis in "xyz"]
    x, y, z = (1 if size is None else int(size) for size in matrix)
    if matrix[0] is None or matrix[1] is None or not all(1 <= size <= LARGEST_MATRIX for size in (x, y, z)):
        raise InputError(
            f"{place}: {name} of the ISMRMRD header has the matrix {matrix}; sizes must be 1 to {LARGEST_MATRIX}"
        )
    extent = [_number(node.find("{*}fieldOfView_mm"), axis) for axis in "xyz"]
    known = [size for size in extent if size is not None and size > 0]
    return Space((x, y, z), (known[0], known[1], known[2]) if len(known) == 3 else None)


def _number(node: ElementTree.Element | None, name: str) -> float | None:
    return None if node is None else _float(node.findtext(f"{{*}}{name}"))


def _float(text: str | None) -> float | None:
    """A finite number; None for an empty element and for other text."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
