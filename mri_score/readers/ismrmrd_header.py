"""The ISMRMRD header of a fastMRI file: matrix sizes and padding, read from untrusted XML, and written."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from xml.etree import ElementTree

from mri_score.errors import InputError

LARGEST_HEADER = 1 << 20
LARGEST_NUMBER = 1 << 20
NAMESPACE = "http://www.ismrm.org/ISMRMRD"
ENCODINGS = {"ISO-8859-1": "latin-1", "LATIN1": "latin-1", "LATIN-1": "latin-1", "ISO-8859-15": "iso-8859-15",
             "WINDOWS-1252": "cp1252"}  # fmt: skip
"""Declared encodings besides UTF-8, and how Python decodes them."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Header:
    """The parts of the header that a reconstruction uses, each None if the header does not state it.

    Sizes are (rows, cols): readout x, phase encode y.
    padding: range (left, right) of acquired columns, left = encoded // 2 - center, right = left + maximum + 1.
    coils: number of receivers. notes: what could not be read.
    """

    encoded: tuple[int, int] | None = None
    recon: tuple[int, int] | None = None
    padding: tuple[int, int] | None = None
    coils: int | None = None
    notes: tuple[str, ...] = ()


def parse_header(xml: bytes | str, place: str) -> Header:
    """Parse the XML of `ismrmrd_header`; what is missing or no valid value is None. place: file name, for messages.

    Errors: InputError for more than 1 MiB, DOCTYPE or ENTITY declarations, and broken XML.
    """
    root = header_root(xml, place)
    notes: list[str] = []

    def read(find: Callable[..., Value], *arguments: object) -> Value | None:
        try:
            return find(root, *arguments)
        except LookupError as error:
            notes.append(f"ismrmrd_header: {error.args[0]}; not used")
            return None

    encoded, recon = (read(_matrix, f"encoding/{space}/matrixSize") for space in ("encodedSpace", "reconSpace"))
    coils = read(_number, "acquisitionSystemInformation/receiverChannels")
    padding = None if encoded is None else read(_padding, encoded[1])
    return Header(encoded, recon, padding, coils if coils is not None and coils > 0 else None, tuple(notes))


def header_root(xml: bytes | str, place: str) -> ElementTree.Element:
    """The root of an untrusted ISMRMRD header. place: name of the file, for error messages.

    UTF-8, Latin-1 and similar encodings are read; blanks around the document are ignored.
    Errors: InputError for more than 1 MiB, DOCTYPE or ENTITY declarations, and broken XML.
    """
    if len(xml) > LARGEST_HEADER:
        raise InputError(
            f"{place}: ismrmrd_header has {len(xml)} bytes; at most {LARGEST_HEADER} are allowed; shorten it"
        )
    try:
        text = (xml if isinstance(xml, str) else _decoded(xml)).strip(" \t\r\n\0\ufeff")
        if "<!DOCTYPE" in text.upper() or "<!ENTITY" in text.upper():
            raise ForbiddenHeader(
                f"{place}: ismrmrd_header has a DOCTYPE or ENTITY declaration, which no scanner writes: do not use this"
                " file"
            )
        return ElementTree.fromstring(text)
    except InputError:
        raise
    except (ElementTree.ParseError, UnicodeError, ValueError) as error:
        raise InputError(
            f"{place}: ismrmrd_header is not a readable ISMRMRD header ({error}); delete or repair it"
        ) from error


class ForbiddenHeader(InputError):
    """A header that could harm: the file is refused, although a header is not needed."""


def _decoded(xml: bytes) -> str:
    """The text, decoded here so that no encoding can hide a declaration from the check."""
    if xml[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return xml.decode("utf-16")
    declared = re.match(rb"\s*<\?xml[^>]*encoding\s*=\s*[\"']([\w.-]+)", xml)
    name = declared.group(1).decode().upper() if declared else "UTF-8"
    try:
        return xml.decode(ENCODINGS.get(name, "utf-8"))
    except UnicodeDecodeError:
        return xml.decode("latin-1")  # every byte has a meaning; the names and numbers that are read are ASCII


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


def _matrix(root: ElementTree.Element, path: str) -> tuple[int, int] | None:
    x, y = (_number(root, f"{path}/{axis}") for axis in "xy")
    if x is None or y is None:
        return None
    if x < 1 or y < 1:
        raise LookupError(f"{path} is {x} x {y}, no matrix")
    return x, y


def _padding(root: ElementTree.Element, encoded_cols: int) -> tuple[int, int] | None:
    step = "encoding/encodingLimits/kspace_encoding_step_1"
    center, maximum = _number(root, f"{step}/center"), _number(root, f"{step}/maximum")
    if center is None or maximum is None:
        return None
    left = encoded_cols // 2 - center
    return left, left + maximum + 1


def _number(root: ElementTree.Element, path: str) -> int | None:
    """The whole number at a path, in any namespace; None where there is no such element, or it is empty."""
    text = (root.findtext("/".join(f"{{*}}{tag}" for tag in path.split("/"))) or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) <= LARGEST_NUMBER or value != int(value):
        raise LookupError(f"{path} is {text[:40]!r}, not a whole number up to {LARGEST_NUMBER}")
    return int(value)
