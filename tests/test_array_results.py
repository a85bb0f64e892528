"""A result in memory comes back from every format as it was, and its page holds the same images."""

from __future__ import annotations

import html
import json
import re

import h5py
import numpy as np
import pytest
import torch

from mri_score.errors import InputError
from mri_score.models.base import Work
from mri_score.readers.geometry import Geometry
from mri_score.reconstruction import Reconstruction
from mri_score.simulation.phantom import phantom

PLACES = [Geometry((16, 16), (1.0, 2.0, 5.0), (0.0, 0.0, 5.0 * number)) for number in range(2)]


@pytest.fixture(scope="module")
def result():
    scan = phantom(16, coils=2, slices=2)
    parts = torch.randn(3, 2, 16, 16, 2, generator=torch.Generator().manual_seed(0))
    weight = torch.linspace(1, 2, 16).expand(2, 16, 16)
    return Reconstruction(torch.view_as_complex(parts), weight, None, scan, Work(3, 0))


@pytest.fixture(scope="module")
def expected(result):
    weight = result.weight.numpy()
    return (result.samples.mean(0).numpy() * weight, result.std.numpy() * weight, result.samples.numpy() * weight)


def test_hdf5_has_what_fastmris_tools_read_and_the_draws(result, expected, tmp_path):
    image, std, draws = expected
    (path,) = result.save(tmp_path / "out.h5")
    with h5py.File(path) as file:
        np.testing.assert_allclose(file["reconstruction"], np.abs(image), rtol=1e-5)
        np.testing.assert_allclose(file["reconstruction_complex"], image, rtol=1e-5)
        np.testing.assert_allclose(file["std"], std, rtol=1e-5)
        np.testing.assert_allclose(file["samples"], draws, rtol=1e-5)


def test_nifti_dicom_and_cfl_hold_the_same_image(result, expected, tmp_path):
    nibabel, pydicom = pytest.importorskip("nibabel"), pytest.importorskip("pydicom")
    image = expected[0]
    paths = result.save(tmp_path / "head.nii.gz", geometries=PLACES)
    (magnitude,) = [path for path in paths if path.name == "head_part-mag.nii.gz"]
    np.testing.assert_allclose(nibabel.load(magnitude).get_fdata().transpose(2, 0, 1), np.abs(image), rtol=1e-5)
    paths = result.save(tmp_path / "series", format="dicom", geometries=PLACES)
    slices = [pydicom.dcmread(path) for path in paths if path.parent.name == "magnitude"]
    slices.sort(key=lambda one: float(one.ImagePositionPatient[2]))
    for found, wanted in zip(slices, np.abs(image), strict=True):
        shown = found.pixel_array * float(found.RescaleSlope) + float(found.RescaleIntercept)
        np.testing.assert_allclose(shown, wanted, atol=np.abs(image).max() / 1000)
    result.save(tmp_path / "bart.cfl", geometries=PLACES)
    sizes = [int(one) for one in (tmp_path / "bart.hdr").read_text().split()[2:]]
    stored = np.fromfile(tmp_path / "bart.cfl", "<c8").reshape(sizes, order="F").squeeze()
    np.testing.assert_allclose(stored.transpose(2, 0, 1), image, rtol=1e-5)


def test_the_page_of_a_notebook_is_the_viewer_in_a_closed_frame(result, expected, tmp_path):
    page = result.show(truth=np.abs(expected[0]), baselines={"CG-SENSE": np.abs(expected[0])})
    shown = re.fullmatch(r'<iframe srcdoc="([^"]+)" [^>]*sandbox="allow-scripts"[^>]*></iframe>', page._repr_html_())
    assert html.unescape(shown[1]) == page.html
    data = json.loads(re.search(r'id="viewer-data">(.*?)</script>', page.html)[1])
    assert [place["title"] for place in data["places"]] == ["Slice 0", "Slice 1"]
    assert {"draw 3", "std", "truth", "baseline CG-SENSE"} <= set(data["places"][0]["images"])
    assert result.save(tmp_path / "a.html")[0].read_text().startswith("<!DOCTYPE html>")


def test_xarray_has_named_axes(result, expected):
    pytest.importorskip("xarray")
    found = result.to_xarray()
    assert found["samples"].dims == ("draw", "slice", "row", "col") and found["std"].dims == ("slice", "row", "col")
    np.testing.assert_allclose(found["samples"].mean("draw"), found["image"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["std"], expected[1], rtol=1e-5)


def test_what_cannot_be_written_is_one_message_and_nothing_is_written(result, tmp_path):
    with pytest.raises(InputError, match="states no pixel sizes"):
        result.save(tmp_path / "head.nii.gz")
    with pytest.raises(InputError, match="no suffix of a known format"):
        result.save(tmp_path / "head.tiff")
    with pytest.raises(InputError, match="truth has shape"):
        result.show(truth=np.zeros((1, 16, 16)))
    assert not list(tmp_path.iterdir())
