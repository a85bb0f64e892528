"""Where an image lies in the patient: pixel sizes, directions and position, as formats for viewers need them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Geometry:
    """Place of one image (rows, cols) in the patient.

    Positions and directions are in DICOM's patient coordinates LPS, in mm: x to the left, y to the back, z to the head.
    Pixel (i, j) has its centre at position + i voxel_size[0] row_direction + j voxel_size[1] column_direction.
    """

    matrix: tuple[int, int]
    """Rows and columns of the image."""
    voxel_size: Vector
    """Distance in mm of neighbouring rows, of neighbouring columns, and the slice thickness."""
    position: Vector = (0.0, 0.0, 0.0)
    """Centre of pixel (0, 0)."""
    row_direction: Vector = (0.0, 1.0, 0.0)
    """Unit vector in which the row number increases."""
    column_direction: Vector = (1.0, 0.0, 0.0)
    """Unit vector in which the column number increases."""
    slice_direction: Vector = (0.0, 0.0, 1.0)
    """Unit vector in which the slice number increases; orthogonal to both others, of either handedness."""
    oriented: bool = True
    """False if the file states no directions: the directions are then assumed, and left and right are unknown."""

    @property
    def field_of_view(self) -> Vector:
        """Extent in mm along rows' numbers, columns' numbers and slices: matrix times voxel size; slice thickness."""
        (rows, cols), (down, across, thickness) = self.matrix, self.voxel_size
        return rows * down, cols * across, thickness

    @property
    def centre(self) -> Vector:
        """Position in mm of pixel (rows // 2, cols // 2), where the Fourier transform has its origin."""
        return self.at(self.matrix[0] // 2, self.matrix[1] // 2)

    def at(self, row: float, col: float) -> Vector:
        """Position in mm of the pixel (row, col)."""
        x, y, z = (self.affine @ [row, col, 0, 1])[:3].tolist()
        return x, y, z

    @property
    def edges(self) -> str:
        """Letters of the patient's side at the left, right, top and bottom of the image, such as RLAP.

        L and R are the patient's left and right, A front, P back, H head, F feet: the largest part of each direction.
        """
        across, down = (np.array(one) for one in (self.column_direction, self.row_direction))
        return _side(-across) + _side(across) + _side(-down) + _side(down)

    @property
    def affine(self) -> np.ndarray:
        """Matrix (4, 4) from (row, column, slice, 1), the slice counted from this image, to (x, y, z, 1) in mm, LPS."""
        affine = np.eye(4)
        directions = np.stack([self.row_direction, self.column_direction, self.slice_direction], 1)
        affine[:3, :3] = directions * self.voxel_size
        affine[:3, 3] = self.position
        return affine

    def cropped(self, first: tuple[int, int], matrix: tuple[int, int]) -> Geometry:
        """The geometry of the part of the image that has `matrix` rows and columns and begins at the pixel `first`."""
        return replace(self, matrix=matrix, position=self.at(*first))

    @classmethod
    def centred(
        cls,
        matrix: tuple[int, int],
        voxel_size: Vector,
        centre: Vector = (0.0, 0.0, 0.0),
        directions: tuple[Vector, Vector, Vector] | None = None,
    ) -> Geometry:
        """The geometry with pixel (rows // 2, cols // 2) at `centre`, in mm.

        directions: of increasing row, column and slice number; None if unknown, then they are assumed and `oriented`
        is False.
        """
        known = directions is not None
        axes = directions or (cls.row_direction, cls.column_direction, cls.slice_direction)
        start = cls(matrix, voxel_size, centre, *axes, oriented=known)
        return replace(start, position=start.at(-(matrix[0] // 2), -(matrix[1] // 2)))


def _side(direction: np.ndarray) -> str:
    """The letter of the patient's side that a direction in LPS points to."""
    axis = int(np.abs(direction).argmax())
    return ("RL", "AP", "FH")[axis][int(direction[axis] > 0)]
