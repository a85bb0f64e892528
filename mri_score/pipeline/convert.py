"""Conversion of scans between formats: fastMRI, ISMRMRD, BART's cfl. Samples are copied as they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from mri_score.errors import InputError, unknown_name
from mri_score.pipeline.placement import frames_of, geometries_of, header_of, write_placement
from mri_score.readers.base import Item, Reader
from mri_score.readers.hdf5 import new_hdf5
from mri_score.readers.ismrmrd_header import NAMESPACE
from mri_score.writers.cfl import write_cfl
from mri_score.writers.ismrmrd import LAST_IN_SLICE, Readout, write_ismrmrd

BART_SERIES = {"contrast": 5, "repetition": 10, "phase": 11, "slice": 13, "set": 15}
"""Counter of an `Item` -> BART's dimension."""
LARGEST_ARRAY = 8 << 30
"""Largest array of a cfl file, in bytes, which is put together in memory."""


def convert(file: Reader, out: Path, kind: str) -> list[str]:
    """Write a scan in another format; it appears complete or not at all.

    Samples are copied bit for bit, with readout oversampling; unsampled points become zeros with a mask, or missing
    lines.
    Three-dimensional ISMRMRD scans are written as the stack of images whose k-space `kspace` gives.
    file: the scan. out: path of the new file; of a cfl pair, with or without suffix. kind: fastmri, ismrmrd or cfl.
    Returns one sentence on each thing that the new format has no place for. Errors: InputError.
    """
    if kind not in WRITERS:
        raise unknown_name("the format", kind, WRITERS)
    if out.resolve() in (file.path.resolve(), file.path.with_suffix("").resolve()):
        raise InputError(f"{out} is the scan itself; name another file")
    WRITERS[kind](file, out)
    return _lost(file, kind)


def _lost(file: Reader, kind: str) -> list[str]:
    lost = []
    if getattr(file, "three_dimensional", False):
        lost.append(
            "the scan is three-dimensional: the new file holds the stack of its images, transformed along the readout,"
            " without readout oversampling"
        )
    if file.noise_scan is not None:
        lost.append("the noise scan is left out")
    if file.calibration(0) is not None:
        lost.append("separate calibration lines are left out: make coil maps from the original with mri-score maps")
    if kind != "fastmri" and file.acquisition != "unknown":
        lost.append(f"the name of the acquisition, {file.acquisition}, is left out")
    if kind == "cfl" and file.geometry(0) is not None:
        lost.append("pixel sizes, position and directions are left out")
    return lost


def _write_fastmri(file: Reader, out: Path) -> None:
    shape = (file.slices, file.coils, file.rows, file.cols)
    masks: np.ndarray = np.zeros((file.slices, file.rows, file.cols), bool)
    with new_hdf5(out) as stored:
        kspace = stored.create_dataset("kspace", shape, np.complex64)
        for number in range(file.slices):
            kspace[number], masks[number] = file.stored(number)
        if file.mask is not None:
            masks = masks[:1] if (masks == masks[:1]).all() else masks
            masks = masks[:, :1] if (masks == masks[:, :1]).all() else masks
            stored["mask"] = masks[0, 0] if masks.shape[:2] == (1, 1) else masks[0] if len(masks) == 1 else masks
        numbers = range(file.slices)
        header = scan_header(file, plane=True)
        write_placement(stored, geometries_of(file, numbers), header, frames_of(file, numbers))
        items = [list(vars(file.item(number)).values()) for number in range(file.slices)]
        if any(Item(*values) != Item(number) for number, values in enumerate(items)):
            stored["items"] = np.array(items, np.int32)
            stored["items"].attrs["columns"] = list(Item.__dataclass_fields__)
        stored.attrs["acquisition"] = file.acquisition
        stored.attrs["patient_id"] = file.path.stem


def _write_ismrmrd(file: Reader, out: Path) -> None:
    write_ismrmrd(out, scan_header(file), _readouts(file))


def _write_cfl(file: Reader, out: Path) -> None:
    items = [file.item(number) for number in range(file.slices)]
    numbers = {name: sorted({getattr(item, name) for item in items}) for name in BART_SERIES}
    sizes = [file.rows, file.cols, 1, file.coils, *[1] * 12]
    for name, dimension in BART_SERIES.items():
        sizes[dimension] = len(numbers[name])
    if 8 * int(np.prod(sizes)) > LARGEST_ARRAY:
        raise InputError(
            f"{file.path}: as a cfl array of {sizes} it has more than {LARGEST_ARRAY} bytes; split the scan first"
        )
    array = np.zeros(sizes, np.complex64)
    for number, item in enumerate(items):
        index: list[int | slice] = [slice(None), slice(None), 0, slice(None), *[0] * 12]
        for name, dimension in BART_SERIES.items():
            index[dimension] = numbers[name].index(getattr(item, name))
        array[tuple(index)] = file.stored(number)[0].transpose(1, 2, 0)
    write_cfl(out.with_suffix("") if out.suffix in (".cfl", ".hdr") else out, array)


WRITERS: dict[str, Callable[[Reader, Path], None]] = {
    "fastmri": _write_fastmri,
    "ismrmrd": _write_ismrmrd,
    "cfl": _write_cfl,
}
"""Name of a format -> function that writes a scan in it."""


def _readouts(file: Reader) -> Iterator[Readout]:
    """The measured lines of all images, in order. Where rows are phase encodes, a readout has one sample."""
    low, high = _limits(file)
    points_alone = _points_alone(file)
    for number in range(file.slices):
        samples, measured = file.stored(number)
        item, fields = file.item(number), _place(file, number)
        counters = {"slice": item.slice, "contrast": item.contrast, "phase": item.phase, "set": item.set}
        counters["repetition"] = item.repetition
        lines = np.flatnonzero(measured.any(0))
        for line in lines.tolist():
            counters["kspace_encode_step_1"] = line - low
            last = (LAST_IN_SLICE,) if line == lines[-1] else ()
            rows = np.flatnonzero(measured[:, line])
            if not points_alone:
                first, count = int(rows[0]), len(rows)
                centre = {"center_sample": file.rows // 2 - first}
                yield Readout(samples[:, first : first + count, line], fields | centre, dict(counters), last)
                continue
            for row in rows.tolist():
                steps = {"kspace_encode_step_1": row, "kspace_encode_step_2": line}
                yield Readout(samples[:, row : row + 1, line], fields, counters | steps, last)


def _points_alone(file: Reader) -> bool:
    """Whether rows are phase encodes: a mask has columns whose sampled rows have gaps."""
    if file.mask is None:
        return False
    masks = file.sampled.numpy().astype(np.int8)
    edges = np.diff(np.pad(masks, ((0, 0), (0, 0), (1, 1), (0, 0))), axis=2)
    return bool((np.abs(edges).sum(2) > 2).any())


def _limits(file: Reader) -> tuple[int, int]:
    """First and last of the acquired columns + 1, DC among them."""
    low, high = (0, file.cols) if _points_alone(file) else file.padding
    return min(low, file.cols // 2), max(high, file.cols // 2 + 1)


def _place(file: Reader, number: int) -> dict[str, tuple[float, ...]]:
    """Position and directions of an image, as a readout's header states them; zeros for unknown directions."""
    place = file.geometry(number)
    if place is None:
        return {}
    # the pixel at the origin of the transform, counted in the written image
    origin = [n // 2 - ((n - inner) // 2 + (inner - wanted) // 2) for n, inner, wanted in
              zip((file.rows, file.cols), file.image_shape, file.crop, strict=True)]  # fmt: skip
    fields: dict[str, tuple[float, ...]] = {"position": place.at(origin[0], origin[1])}
    if place.oriented:
        directions = [place.row_direction, place.column_direction, place.slice_direction]
        order = (2, 0, 1) if _points_alone(file) else (0, 1, 2)
        names = ("read_dir", "phase_dir", "slice_dir")
        fields |= {name: directions[axis] for name, axis in zip(names, order, strict=True)}
    return fields


def scan_header(file: Reader, plane: bool = False) -> bytes:
    """An ISMRMRD header whose encoding describes the stored samples, with what else the scan's own header states.

    Without identity, see `header_of`. Unknown fields of view are 0. file: the scan. plane: describe rows as a readout
    even where they are phase encodes, as fastMRI files do.
    """
    points_alone, (low, high) = _points_alone(file), _limits(file)
    place = file.geometry(0)
    down, across, thickness = (0.0, 0.0, 0.0) if place is None else place.voxel_size
    rows, cols, inner = file.rows, file.cols, file.image_shape[0]
    if points_alone and not plane:
        matrices = {"encodedSpace": (1, rows, cols), "reconSpace": (1, file.crop[0], file.crop[1])}
        sizes, limits = (thickness, down, across), [(rows, 0, rows), (cols, 0, cols)]
    else:
        matrices = {"encodedSpace": (rows, cols, 1), "reconSpace": (inner, file.crop[1], 1)}
        sizes, limits = (down, across, thickness), [(cols, low, high)]
    root = ElementTree.Element(f"{{{NAMESPACE}}}ismrmrdHeader")
    own = header_of(file)
    sections = {} if own is None else {_tag(one): one for one in ElementTree.fromstring(own)}
    if (system := sections.get("acquisitionSystemInformation")) is None:
        system = ElementTree.Element(f"{{{NAMESPACE}}}acquisitionSystemInformation")
    if not any(_tag(entry) == "receiverChannels" for entry in system):
        _add(system, "receiverChannels", file.coils)
    root.append(system)
    conditions = sections.get("experimentalConditions")
    if conditions is None:
        conditions = ElementTree.Element(f"{{{NAMESPACE}}}experimentalConditions")
        _add(conditions, "H1resonanceFrequency_Hz", 0)
    root.append(conditions)
    encoding = ElementTree.SubElement(root, f"{{{NAMESPACE}}}encoding")
    for name, matrix in matrices.items():
        space = _add(encoding, name)
        for part, values in (("matrixSize", matrix), ("fieldOfView_mm", np.multiply(matrix, sizes).tolist())):
            inside = _add(space, part)
            for axis, value in zip("xyz", values, strict=True):
                _add(inside, axis, value)
    bounds = _add(encoding, "encodingLimits")
    for step, (size, first, last) in enumerate(limits, start=1):
        inside = _add(bounds, f"kspace_encoding_step_{step}")
        for name, value in (("minimum", 0), ("maximum", last - first - 1), ("center", size // 2 - first)):
            _add(inside, name, value)
    _add(encoding, "trajectory", "cartesian")
    if (sequence := sections.get("sequenceParameters")) is not None:
        root.append(sequence)
    ElementTree.register_namespace("", NAMESPACE)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _add(parent: ElementTree.Element, name: str, value: object = None) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, f"{{{NAMESPACE}}}{name}")
    if value is not None:
        element.text = str(value)
    return element
