"""The input of every writer: the images of one volume, their place in the patient, and how they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mri_score.errors import InputError
from mri_score.readers.geometry import Geometry

UNEVEN = 0.01
"""Largest deviation of a slice from even spacing, as a fraction of the spacing, for formats with one affine."""


@dataclass(frozen=True)
class OutputVolume:
    """The result of one volume for writers.

    Errors: InputError for arrays of other shapes, and where there is not one geometry a slice.
    """

    name: str
    """Name of the scan, without a suffix."""
    image: np.ndarray
    """(S, h, w) complex: the reconstruction; its magnitude is the root-sum-of-squares image in the file's units."""
    maps: Mapping[str, np.ndarray]
    """Real images (S, h, w) in the same units by name, such as std and interval; may be empty."""
    geometries: Sequence[Geometry]
    """The place of each slice in the patient; empty if the scan does not state pixel sizes."""
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    """How the volume was made, such as method, prior_sha256, acceleration and draws."""
    slices: Sequence[int] = ()
    """Number of each image in the scan; by default 0, 1, ..."""
    frames: Sequence[int] = ()
    """Number of the frame that each image belongs to, from 0: of its contrast, repetition and so on; by default 0."""

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or len(self.geometries) not in (0, len(self.image)):
            raise InputError(
                f"{self.name}: {len(self.geometries)} geometries for images of shape {self.image.shape};"
                " it needs (slices, rows, columns) and one geometry a slice"
            )
        shapes = {array.shape for array in self.maps.values()}
        shapes |= {(len(self.image), *place.matrix) for place in self.geometries}
        if shapes - {self.image.shape}:
            raise InputError(f"{self.name}: images have shape {self.image.shape}, maps and geometries {sorted(shapes)}")

    def by_frame(self) -> np.ndarray:
        """Numbers of the images, (frames, slices of a frame).

        Errors: InputError where frames have unequal numbers of slices, or the same slice lies in two places.
        """
        frames = np.array(self.frames or [0] * len(self.image))
        numbers = [np.flatnonzero(frames == frame) for frame in np.unique(frames)]
        if len({len(one) for one in numbers}) > 1:
            counts = ", ".join(str(len(one)) for one in numbers)
            raise InputError(f"{self.name}: its frames have unequal numbers of slices ({counts}); choose --slices")
        for name in ("position", "row_direction", "column_direction") if self.geometries else ():
            values = np.array([getattr(place, name) for place in self.geometries])[np.array(numbers)]
            if float(np.ptp(values, axis=0).max()) > 1e-3:
                raise InputError(f"{self.name}: its frames do not lie in the same place; choose slices with --slices")
        return np.array(numbers)

    @property
    def magnitude(self) -> np.ndarray:
        """(S, h, w) float32."""
        return np.abs(self.image).astype(np.float32)

    @property
    def phase(self) -> np.ndarray:
        """(S, h, w) float32, in radians from -pi to pi."""
        return np.angle(self.image).astype(np.float32)

    @property
    def places(self) -> Sequence[Geometry]:
        """The place of each slice. Errors: InputError if the scan does not state pixel sizes."""
        if not self.geometries:
            raise InputError(
                f"{self.name} states no pixel sizes (field of view and matrix in its header), which NIfTI and DICOM"
                " need; leave them out of --write, or convert the scan with its header"
            )
        return self.geometries

    @property
    def oriented(self) -> bool:
        """Whether the directions come from the file; else they are assumed."""
        return all(one.oriented for one in self.places)

    def affine(self) -> np.ndarray:
        """Matrix (4, 4) from (row, column, slice, 1) of a frame to millimetres in LPS.

        Slices that all have the same position, as in files without positions, are stacked at their thickness.
        Errors: InputError for slices that are not parallel and evenly spaced, and as in `by_frame`.
        """
        places = [self.places[number] for number in self.by_frame()[0]]
        first, affine = places[0], places[0].affine
        positions = np.array([one.position for one in places])
        steps = np.diff(positions, axis=0)
        if np.abs(steps).max(initial=0) < 1e-6:
            return affine
        spacing = float(np.linalg.norm(steps.mean(0)))
        turned = max(float(np.abs(one.affine[:3, :2] - first.affine[:3, :2]).max()) for one in places)
        if float(np.abs(steps - steps.mean(0)).max()) > UNEVEN * spacing or turned > 1e-3:
            raise InputError(
                f"{self.name}: its slices are not parallel and evenly spaced, which one NIfTI file needs; write DICOM,"
                " or choose slices with --slices"
            )
        affine[:3, 2] = steps.mean(0)
        return affine
