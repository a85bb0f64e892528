"""--write: other formats are made from result files, are repaired by a rerun, and hold the same images."""

from __future__ import annotations

import shutil
import subprocess

import asymmetric
import h5py
import mrd
import numpy as np
import pytest
from command import mri_score, refused

from mri_score.pipeline.exports import read_result
from mri_score.pipeline.placement import header_of
from mri_score.readers import open_scan
from mri_score.readers.array_scan import open_cfl
from mri_score.readers.fastmri import write_fastmri
from mri_score.simulation.simulate import simulate

IDENTITY = b"<subjectInformation><patientName>Anna</patientName></subjectInformation>"


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A simulated volume of two slices whose header names a patient."""
    (path,) = simulate(tmp_path_factory.mktemp("scan"), volumes=1, slices=2, size=48, coils=2)
    with h5py.File(path, "r+") as file:
        header = file["ismrmrd_header"][()]
        del file["ismrmrd_header"]
        file["ismrmrd_header"] = header.replace(b"</ismrmrdHeader>", IDENTITY + b"</ismrmrdHeader>")
    return path


def reconstruct(scan, out, *options):
    few = ["--accel", "2", "--prior", "brain-fast", "--steps", "2", "--samples", "2", "--baselines", "none"]
    return mri_score("reconstruct", scan, "--out", out, "--method", "exact-draw", *few, *options)


def test_formats_are_made_from_the_result_and_repaired(scan, tmp_path):
    nibabel = pytest.importorskip("nibabel", reason="needs the extra nifti")
    pydicom = pytest.importorskip("pydicom", reason="needs the extra dicom")
    reconstruct(scan, tmp_path, "--write", "nifti,dicom,cfl")
    result = tmp_path / "reconstructions" / scan.name
    with h5py.File(result) as file:
        rss, std = file["reconstruction"][()], file["std"][()]
        assert list(file.attrs["voxel_size_mm"]) == [*open_scan(scan).geometry(0).voxel_size]
        assert "axes" in file.attrs and "units" in file.attrs
        assert b"Anna" not in file["ismrmrd_header"][()] and b"encodedSpace" in file["ismrmrd_header"][()]
    mag = tmp_path / "nifti" / f"{scan.stem}_part-mag.nii.gz"
    np.testing.assert_allclose(np.moveaxis(nibabel.load(mag).get_fdata(), 2, 0), rss, rtol=1e-6)
    one = pydicom.dcmread(tmp_path / "dicom" / scan.stem / "std" / "0002.dcm")
    np.testing.assert_allclose(one.pixel_array * float(one.RescaleSlope), std[1], atol=0.51 * float(one.RescaleSlope))
    if shutil.which("bart"):
        cfl, second = tmp_path / "cfl" / scan.stem, tmp_path / "second"
        subprocess.run(["bart", "extract", "13", "1", "2", cfl, second], check=True)
        subprocess.run(["bart", "cabs", second, second], check=True)
        values = np.fromfile(tmp_path / "second.cfl", np.complex64).reshape(48, 48, order="F")
        np.testing.assert_allclose(values, rss[1], rtol=1e-5)
    inode = mag.stat().st_ino
    (tmp_path / "dicom" / scan.stem / "std" / "0001.dcm").unlink()
    said = reconstruct(scan, tmp_path, "--write", "nifti,dicom,cfl")
    assert "made from its result: dicom" in said
    assert mag.stat().st_ino == inode, "what is there is not written again"
    reconstruct(scan, tmp_path, "--write", "dicom", "--slices", "1")
    assert [path.name for path in (tmp_path / "dicom" / scan.stem / "std").iterdir()] == ["0001.dcm"]


@pytest.mark.parametrize("orientation", ["sagittal", "coronal"])
def test_from_raw_data_to_its_place_in_the_patient(orientation, tmp_path):
    """An object without symmetry, from ISMRMRD readouts by the signal equation to NIfTI and DICOM."""
    nibabel = pytest.importorskip("nibabel", reason="needs the extra nifti")
    pydicom = pytest.importorskip("pydicom", reason="needs the extra dicom")
    centre, random = np.array(max(asymmetric.BLOBS, key=asymmetric.BLOBS.get)), np.random.default_rng(0)
    stack = asymmetric.places(asymmetric.ORIENTATIONS[orientation])
    middle = min(
        range(1, len(stack) - 1), key=lambda n: abs(np.dot(centre - stack[n].centre, stack[n].slice_direction))
    )
    readouts = []
    for number, place in enumerate(stack[middle - 1 : middle + 2]):
        noise = 0.01 * random.standard_normal((2, 1, *place.matrix))
        fields = {"position": place.centre, "read_dir": place.row_direction, "phase_dir": place.column_direction,
                  "slice_dir": place.slice_direction}  # fmt: skip
        y = asymmetric.kspace(place)[None] + noise[0] + 1j * noise[1]
        readouts += mrd.lines_of(y, counters={"slice": number}, fields=fields)
    rows, cols = stack[0].matrix
    xml = mrd.header((rows, cols, 1), fov=stack[0].field_of_view, coils=1)
    mrd.write_mrd(tmp_path / "ball.h5", xml, readouts)
    reconstruct(tmp_path / "ball.h5", tmp_path, "--write", "nifti,dicom,cfl", "--steps", "5")
    image = open_cfl(tmp_path / "cfl" / "ball")[()]
    row, col, number = np.unravel_index(np.abs(image.reshape(rows, cols, -1)).argmax(), (rows, cols, 3))
    np.testing.assert_allclose(stack[middle - 1 + number].at(row, col), centre, atol=1e-3)
    mag = nibabel.load(tmp_path / "nifti" / "ball_part-mag.nii.gz")
    brightest = np.unravel_index(mag.get_fdata().argmax(), mag.shape)
    np.testing.assert_allclose(mag.affine @ [*brightest, 1], [-centre[0], -centre[1], centre[2], 1], atol=1e-3)
    one = pydicom.dcmread(tmp_path / "dicom" / "ball" / "magnitude" / "0002.dcm")
    row, col = np.unravel_index(one.pixel_array.argmax(), one.pixel_array.shape)
    across, down = np.split(np.array(one.ImageOrientationPatient, float), 2)
    at = np.array(one.ImagePositionPatient, float) + 3.0 * (across * col + down * row)
    np.testing.assert_allclose(at, centre, atol=1e-3)


def test_a_header_without_who_was_scanned(scan):
    kept = header_of(open_scan(scan))
    assert b"Anna" not in kept and b"subject" not in kept and b"<encoding" in kept and b"receiverChannels" in kept


def test_what_cannot_be_written_is_refused_before_the_walk(scan, tmp_path):
    assert "known names" in refused("reconstruct", scan, "--accel", "2", "--write", "nifty", "--out", tmp_path)
    assert "--write dicom" in refused("reconstruct", scan, "--accel", "2", "--dicom-like", scan, "--out", tmp_path)
    if pytest.importorskip("highdicom", reason="needs the extra dicom"):
        said = refused("reconstruct", scan, "--accel", "2", "--write", "dicom", "--dicom-like", scan, "--out", tmp_path)
        assert "cannot be read as DICOM" in said
    plain = tmp_path / "plain.h5"
    with h5py.File(scan) as file:
        write_fastmri(plain, file["kspace"][()])
    with h5py.File(plain, "r+") as file:
        del file["ismrmrd_header"]
    said = refused("reconstruct", plain, "--accel", "2", "--write", "nifti", "--out", tmp_path / "out")
    assert "no pixel sizes" in said and not (tmp_path / "out" / "reconstructions").exists()


def test_a_result_without_geometry_is_written_for_bart(tmp_path):
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["reconstruction"], file["reconstruction_complex"] = np.full((1, 4, 6), 2.0), np.full((1, 4, 6), -1.0 + 0j)
        file["std"], file["slices"] = np.zeros((1, 4, 6)), np.array([3])
    volume = read_result(tmp_path / "one.h5")
    assert volume.geometries == [] and volume.maps == {} and volume.slices == [3]
    np.testing.assert_allclose(volume.image, np.full((1, 4, 6), -2.0), atol=1e-6)
