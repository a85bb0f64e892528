"""Where results lie in the patient, as result files state it: geometry, header without identity, axes and units."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

import h5py
import numpy as np

from mri_score.readers.base import Reader
from mri_score.readers.geometry import Geometry
from mri_score.readers.ismrmrd_header import NAMESPACE, header_root

VECTORS = ("voxel_size", "position", "row_direction", "column_direction", "slice_direction")
KEPT = {
    "acquisitionSystemInformation": (
        "systemVendor", "systemModel", "systemFieldStrength_T", "relativeReceiverNoiseBandwidth", "receiverChannels",
    ),
    "experimentalConditions": None,
    "encoding": None,
    "sequenceParameters": None,
}  # fmt: skip
"""The sections of an ISMRMRD header that results carry on, and of one section the entries. Subject, study, measurement
and free entries may state who was scanned, and are left out.
"""


def geometries_of(file: Reader, slices: Sequence[int]) -> list[Geometry]:
    """The place of each slice; empty if the file does not state pixel sizes."""
    places = [file.geometry(number) for number in slices]
    return [place for place in places if place is not None] if None not in places else []


def frames_of(file: Reader, slices: Sequence[int]) -> list[int]:
    """Number of the frame of each image: images of one contrast, set, phase and repetition are one frame."""
    items = [file.item(number) for number in slices]
    keys = [(one.contrast, one.set, one.phase, one.repetition) for one in items]
    order = sorted(set(keys))
    return [order.index(key) for key in keys]


def header_of(file: Reader) -> bytes | None:
    """The ISMRMRD header of a file without entries that may identify the patient; None if the file has no header."""
    xml = getattr(file, "header_xml", None)
    if xml is None:
        return None
    root = header_root(xml, str(file.path))
    for section in list(root):
        name = section.tag.rpartition("}")[2]
        if name not in KEPT:
            root.remove(section)
        elif (entries := KEPT[name]) is not None:
            for entry in list(section):
                if entry.tag.rpartition("}")[2] not in entries:
                    section.remove(entry)
    ElementTree.register_namespace("", NAMESPACE)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def write_placement(
    file: h5py.File, geometries: Sequence[Geometry], header: bytes | None, frames: Sequence[int] = ()
) -> None:
    """Write the group geometry, the datasets ismrmrd_header and frame, and attributes that name axes and units.

    file: to write to. geometries: of each slice, or none. header: from `header_of`. frames: from `frames_of`, or none.
    """
    if len(frames):
        file["frame"] = np.array(frames)
    file.attrs["axes"] = "slice, row (readout), column (phase encoding)"
    file.attrs["units"] = "those of the scan's k-space, orthonormal Fourier transform"
    if header is not None:
        file["ismrmrd_header"] = np.bytes_(header)
    if not geometries:
        return
    group = file.create_group("geometry")
    for name in VECTORS:
        group[name] = np.array([getattr(place, name) for place in geometries])
    group["matrix"] = np.array([place.matrix for place in geometries])
    group["oriented"] = np.array([place.oriented for place in geometries])
    group.attrs["coordinates"] = "LPS in mm; position: centre of the first pixel; voxel_size: row, column, slice"
    file.attrs["voxel_size_mm"] = np.array(geometries[0].voxel_size)


def read_placement(file: h5py.File) -> list[Geometry]:
    """The geometry of each slice in a result file; empty for a scan that stated no pixel sizes."""
    if "geometry" not in file:
        return []
    group = {key: dataset[()].tolist() for key, dataset in file["geometry"].items()}
    return [
        Geometry(
            matrix=tuple(group["matrix"][place]),
            oriented=group["oriented"][place],
            **{key: tuple(group[key][place]) for key in VECTORS},
        )
        for place in range(len(group["matrix"]))
    ]
