"""The ISMRMRD header of a fastMRI file: matrix sizes and padding, read from untrusted XML, and written."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

from mri_score.errors import InputError

LARGEST_HEADER = 1 << 20
NAMESPACE = "http://www.ismrm.org/ISMRMRD"


@dataclass(frozen=True)
class Header:
    """The parts of the header that a reconstruction needs. Sizes are (rows, cols): readout x, phase encode y.

    padding: range (left, right) of acquired columns, left = encoded // 2 - center, right = left + maximum + 1; None if
    the header has no encoding limits.
    """

    encoded: tuple[int, int]
    recon: tuple[int, int]
    padding: tuple[int, int] | None


def parse_header(xml: bytes | str, place: str) -> Header:
    """Parse the XML of `ismrmrd_header`. place: name of the file, for error messages.

    Errors: InputError for more than 1 MiB, DOCTYPE or ENTITY declarations, broken XML, and missing or invalid sizes.
    """
    root = header_root(xml, place)
    try:
        encoded, recon = (_matrix(root, space) for space in ("encodedSpace", "reconSpace"))
        return Header(encoded, recon, _padding(root, encoded[1]))
    except LookupError as error:
        raise _unreadable(place, error) from error


def header_root(xml: bytes | str, place: str) -> ElementTree.Element:
    """The root of an untrusted ISMRMRD header. place: name of the file, for error messages.

    Errors: InputError for more than 1 MiB, DOCTYPE or ENTITY declarations, and broken XML.
    """
    if len(xml) > LARGEST_HEADER:
        raise InputError(
            f"{place}: ismrmrd_header has {len(xml)} bytes; at most {LARGEST_HEADER} are allowed; shorten it"
        )
    try:
        text = xml if isinstance(xml, str) else xml.decode("utf-8")  # decoded first: UTF-16 could hide a DOCTYPE
        if "<!DOCTYPE" in text.upper() or "<!ENTITY" in text.upper():
            raise InputError(
                f"{place}: ismrmrd_header has a DOCTYPE or ENTITY declaration, which no scanner writes: do not use this"
                " file"
            )
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise _unreadable(place, error) from error


def _unreadable(place: str, error: Exception) -> InputError:
    return InputError(
        f"{place}: ismrmrd_header is not a readable ISMRMRD header ({error}); delete or repair it"
    )


def build_header(encoded: tuple[int, int], recon: tuple[int, int], padding: tuple[int, int], coils: int) -> bytes:
    """The minimal header for fastMRI's reader and this one, as XML bytes. Arguments as in `Header`."""
    left, right = padding
    return f"""<?xml version="1.0" encoding="utf-8"?>
<ismrmrdHeader xmlns="{NAMESPACE}">
<acquisitionSystemInformation><receiverChannels>{coils}</receiverChannels></acquisitionSystemInformation>
<experimentalConditions><H1resonanceFrequency_Hz>0</H1resonanceFrequency_Hz></experimentalConditions>
<encoding>{_space("encodedSpace", encoded)}
{_space("reconSpace", recon)}
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{right - left - 1}</maximum>\
<center>{encoded[1] // 2 - left}</center></kspace_encoding_step_1></encodingLimits>
<trajectory>cartesian</trajectory></encoding></ismrmrdHeader>""".encode()


def _space(name: str, matrix: tuple[int, int]) -> str:
    x, y = matrix
    return (
        f"<{name}><matrixSize><x>{x}</x><y>{y}</y><z>1</z></matrixSize>"
        f"<fieldOfView_mm><x>{x}</x><y>{y}</y><z>1</z></fieldOfView_mm></{name}>"
    )


def _matrix(root: ElementTree.Element, space: str) -> tuple[int, int]:
    x, y = (_number(root, f"{space}/matrixSize/{axis}") for axis in "xy")
    if x is None or y is None or x < 1 or y < 1:
        raise LookupError(f"{space} has no matrixSize of at least 1 x 1")
    return x, y


def _padding(root: ElementTree.Element, encoded_cols: int) -> tuple[int, int] | None:
    step = "encodingLimits/kspace_encoding_step_1"
    center, maximum = _number(root, f"{step}/center"), _number(root, f"{step}/maximum")
    if center is None or maximum is None:
        return None
    left = encoded_cols // 2 - center
    return left, left + maximum + 1


def _number(root: ElementTree.Element, path: str) -> int | None:
    """The whole number at encoding/<path>, in any namespace; None where there is no such element."""
    text = root.findtext("/".join(f"{{*}}{tag}" for tag in f"encoding/{path}".split("/")))
    if text is None:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise LookupError(f"{path} is {text[:40]!r}, not a whole number") from error
