"""Geometry: pixels, positions and directions in the patient."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from mri_score.readers import open_scan
from mri_score.readers.geometry import Geometry

TILTED = ((0.0, 0.6, 0.8), (1.0, 0.0, 0.0), (0.0, -0.8, 0.6))


@pytest.mark.parametrize("matrix", [(8, 6), (7, 5), (8, 5)])
def test_the_origin_of_the_transform_lies_at_the_centre(matrix):
    place = Geometry.centred(matrix, (2.0, 3.0, 5.0), centre=(10.0, -20.0, 30.0), directions=TILTED)
    assert place.centre == pytest.approx((10.0, -20.0, 30.0))
    assert place.field_of_view == (matrix[0] * 2.0, matrix[1] * 3.0, 5.0)
    steps = np.subtract(place.at(3, 2), place.at(2, 1))
    np.testing.assert_allclose(steps, np.multiply(2, TILTED[0]) + np.multiply(3, TILTED[1]))
    np.testing.assert_allclose(place.affine[:3, 2], np.multiply(5, TILTED[2]))


def test_a_crop_moves_no_pixel():
    place = Geometry.centred((9, 12), (2.0, 3.0, 5.0), directions=TILTED)
    part = place.cropped((2, 3), (4, 5))
    assert part.matrix == (4, 5) and part.at(1, 2) == pytest.approx(place.at(3, 5))
    assert part.oriented and not Geometry.centred((4, 4), (1.0, 1.0, 1.0)).oriented


def test_a_fastmri_file_states_its_pixel_sizes(shared):
    """The header's encoded field of view over its matrix: 460.8 mm over 512 rows, 230.4 mm over 256 columns."""
    place = open_scan(shared / "data/kspace/brain_t2_4ch.h5").geometry(0)
    assert place.matrix == (256, 256) and not place.oriented
    assert place.voxel_size == pytest.approx((0.9, 0.9, 5.0))
    assert place.centre == pytest.approx((0.0, 0.0, 0.0))


def test_a_file_without_a_header_has_no_geometry(tmp_path):
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        file["kspace"] = np.ones((1, 2, 8, 6), np.complex64)
    assert open_scan(tmp_path / "bare.h5").geometry(0) is None
