"""An object without symmetry in the patient, scanned in any orientation: the witness of orientation for all formats."""

from __future__ import annotations

import numpy as np

from mri_score.readers.geometry import Geometry

BLOBS = {(24.0, -12.0, 6.0): 3.0, (-18.0, 21.0, -9.0): 2.0, (-9.0, -15.0, 15.0): 1.0}
"""Centres of three balls in LPS, in mm, and their values: the brightest is left, in front and above."""
WIDTH = 3.0
AXIAL = ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
SAGITTAL = ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
CORONAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))
ORIENTATIONS = {"axial": AXIAL, "sagittal": SAGITTAL, "coronal": CORONAL}
"""Directions of increasing row, column and slice number. The coronal readout runs left to right: rows and columns are
swapped against what a viewer shows."""


def value(points: np.ndarray) -> np.ndarray:
    """The object at points (..., 3) in LPS."""
    return sum(
        height * np.exp(-np.square(points - centre).sum(-1) / (2 * WIDTH**2)) for centre, height in BLOBS.items()
    )


def places(directions, matrix=(28, 30), voxel=(3.0, 3.0, 3.0), slices=25) -> list[Geometry]:
    """The geometry of each slice of a stack around the isocentre."""
    normal = np.array(directions[2])
    return [
        Geometry.centred(matrix, voxel, tuple(normal * voxel[2] * (number - slices // 2)), directions)
        for number in range(slices)
    ]


def kspace(place: Geometry) -> np.ndarray:
    """K-space (rows, cols) of one slice by the signal equation, exp(-2 pi i k r), r from the centre of the slice."""
    (down, across, _), (rows, cols) = place.voxel_size, place.matrix
    step = np.linalg.norm(np.subtract(place.at(1, 1), place.at(0, 0)))
    assert step > 0
    grid = np.stack(np.meshgrid(np.arange(-60, 61, 1.0), np.arange(-60, 61, 1.0), indexing="ij"), -1)
    points = np.array(place.centre) + grid @ np.array([place.row_direction, place.column_direction])
    object_ = value(points)
    u = (np.arange(rows) - rows // 2) / (rows * down)
    v = (np.arange(cols) - cols // 2) / (cols * across)
    along, beside = (np.exp(-2j * np.pi * np.outer(k, grid[:, 0, 0])) for k in (u, v))
    return (along @ object_ @ beside.T / (down * across) / np.sqrt(rows * cols)).astype(np.complex64)


def images(directions) -> tuple[np.ndarray, list[Geometry]]:
    """Complex images (slices, rows, cols) by the project's own transform, and their places."""
    import torch

    from mri_score.numerics.fourier import ifft

    stack = places(directions)
    return ifft(torch.from_numpy(np.stack([kspace(place) for place in stack]))).numpy(), stack
