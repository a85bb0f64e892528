"""NIfTI and DICOM: values, orientation, identity, and what other programs say of the files."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request

import numpy as np
import pytest
from asymmetric import BLOBS, ORIENTATIONS, images

from mri_score.errors import InputError
from mri_score.readers.geometry import Geometry
from mri_score.writers.base import OutputVolume
from mri_score.writers.cfl import write_cfl_volume
from mri_score.writers.dicom import read_template, write_dicom
from mri_score.writers.nifti import write_nifti

FACTS = {"method": "exact-draw", "prior_sha256": "ab12", "acceleration": 4.0, "draws": 8}


def volume(orientation="axial", **changed):
    image, places = images(ORIENTATIONS[orientation])
    values = {"name": "scan", "image": image * np.exp(0.5j), "geometries": places, "facts": FACTS} | changed
    values.setdefault("maps", {"std": 0.1 * np.abs(image) + 0.01})
    return OutputVolume(**values)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_nifti_has_every_ball_where_it_is_in_the_patient(orientation, tmp_path):
    nibabel = pytest.importorskip("nibabel", reason="needs the extra nifti")
    mag, phase, std = (nibabel.load(path) for path in write_nifti(tmp_path, volume(orientation)))
    found = nibabel.as_closest_canonical(mag)
    values = found.get_fdata()
    for (left, back, head), height in BLOBS.items():
        at = np.linalg.solve(found.affine, [-left, -back, head, 1])[:3]
        assert np.abs(at - np.round(at)).max() < 1e-6, "the balls lie on voxels, so that no interpolation is needed"
        assert values[tuple(np.round(at).astype(int))] == pytest.approx(height, rel=0.03)
    assert [image.header["sform_code"] for image in (mag, phase, std)] == [1, 1, 1]
    np.testing.assert_allclose(mag.header.get_qform(), mag.affine, atol=1e-5)
    inside = mag.get_fdata() > 0.5
    np.testing.assert_allclose(phase.get_fdata()[inside], 0.5, atol=0.05)
    np.testing.assert_allclose(std.get_fdata(), 0.1 * mag.get_fdata() + 0.01, rtol=1e-5)
    sidecar = json.loads((tmp_path / "scan_part-phase.json").read_text())
    assert sidecar["Units"] == "rad" and sidecar["prior_sha256"] == "ab12" and sidecar["draws"] == 8


def test_one_slice_without_orientation_says_so(tmp_path):
    nibabel = pytest.importorskip("nibabel", reason="needs the extra nifti")
    place = Geometry.centred((4, 6), (2.0, 3.0, 5.0))
    one = OutputVolume("scan", np.ones((1, 4, 6), np.complex64), {}, [place])
    mag = nibabel.load(write_nifti(tmp_path, one)[0])
    assert mag.header["sform_code"] == 2 and mag.shape == (4, 6, 1)
    assert mag.header.get_zooms() == (2.0, 3.0, 5.0)
    assert json.loads((tmp_path / "scan_part-mag.json").read_text())["OrientationAssumed"]


def test_uneven_slices_are_refused_and_equal_positions_stacked():
    places = [Geometry.centred((4, 6), (2.0, 3.0, 5.0), (0.0, 0.0, z)) for z in (0.0, 6.0, 13.0)]
    image = np.ones((3, 4, 6), np.complex64)
    with pytest.raises(InputError, match="evenly spaced"):
        OutputVolume("scan", image, {}, places).affine()
    assert OutputVolume("scan", image[:2], {}, places[:2]).affine()[2, 2] == pytest.approx(6)
    assert OutputVolume("scan", image, {}, places[:1] * 3).affine()[2, 2] == pytest.approx(5)
    with pytest.raises(InputError, match="geometr"):
        OutputVolume("scan", image, {}, places[:2])


def test_frames_are_an_axis_of_their_own(tmp_path):
    """Two repetitions of three slices, which come slice by slice, are no six slices."""
    nibabel = pytest.importorskip("nibabel", reason="needs the extra nifti")
    random = np.random.default_rng(0)
    image = random.random((6, 4, 5)).astype(np.complex64)
    places = [
        Geometry.centred((4, 5), (1.0, 1.0, 2.0), (0.0, 0.0, 3.0 * (n // 2)), ORIENTATIONS["axial"]) for n in range(6)
    ]
    made = OutputVolume("scan", image, {"std": np.abs(image)}, places, frames=[0, 1] * 3)
    mag = nibabel.load(write_nifti(tmp_path, made)[0])
    assert mag.affine[2, 2] == pytest.approx(3)
    np.testing.assert_allclose(mag.get_fdata()[..., 1].transpose(2, 0, 1), image.real[1::2])
    write_cfl_volume(tmp_path, made)
    cfl = np.fromfile(tmp_path / "scan.cfl", np.complex64).reshape(4, 5, 2, 3, order="F")
    np.testing.assert_array_equal(cfl[:, :, 1, 2], image[5])
    assert (tmp_path / "scan.hdr").read_text().split("\n")[1] == "4 5 1 1 1 1 1 1 1 1 2 1 1 3 1 1"
    with pytest.raises(InputError, match="same place"):
        OutputVolume("scan", image, {}, places, frames=[0] * 3 + [1] * 3).affine()
    with pytest.raises(InputError, match=r"slices \(4, 2\)"):
        OutputVolume("scan", image, {}, places, frames=[0] * 4 + [1] * 2).affine()
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    found = series(write_dicom(tmp_path, made))
    assert [one.TemporalPositionIdentifier for one in found["magnitude"]] == [1, 2] * 3
    assert len(found["std_map"]) == 2 and found["std_map"][1].NumberOfFrames == 3


def series(paths):
    """The datasets of paths by the name of their folder."""
    import pydicom

    found = {}
    for path in paths:
        found.setdefault(path.parent.name, []).append(pydicom.dcmread(path))
    return found


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_dicom_has_every_ball_where_it_is_in_the_patient(orientation, tmp_path):
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    found = series(write_dicom(tmp_path, volume(orientation)))
    at = []
    for one in found["magnitude"]:  # the standard's equation C.7.6.2.1-1
        across, down = np.split(np.array(one.ImageOrientationPatient, float), 2)
        row, col = np.unravel_index(one.pixel_array.argmax(), one.pixel_array.shape)
        at.append(
            np.array(one.ImagePositionPatient, float)
            + across * col * float(one.PixelSpacing[1])
            + down * row * float(one.PixelSpacing[0])
        )
    brightest = max(range(len(at)), key=lambda place: found["magnitude"][place].pixel_array.max())
    np.testing.assert_allclose(at[brightest], max(BLOBS, key=BLOBS.get), atol=1e-4)


def test_dicom_states_the_distance_of_rows_before_that_of_columns(tmp_path):
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    place = Geometry.centred((4, 6), (2.0, 3.0, 5.0))
    found = series(write_dicom(tmp_path, OutputVolume("scan", np.ones((1, 4, 6), np.complex64), {}, [place])))
    (one,) = found["magnitude"]
    assert [float(value) for value in one.PixelSpacing] == [2.0, 3.0] and float(one.SliceThickness) == 5.0


def test_dicom_values_survive_as_numbers(tmp_path):
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    written = volume()
    found = series(write_dicom(tmp_path, written))
    for name, wanted in {"magnitude": written.magnitude, "std": written.maps["std"]}.items():
        slope = float(found[name][0].RescaleSlope)
        pixels = np.stack([one.pixel_array for one in found[name]])
        assert pixels.max() == 4095
        np.testing.assert_allclose(pixels * slope, wanted, atol=0.51 * slope)
    made = found["std_map"][0]
    floats = np.frombuffer(made.FloatPixelData, "<f4").reshape(written.image.shape)
    groups = made.PerFrameFunctionalGroupsSequence  # frames have their own order, and say where they lie
    at = [[float(value) for value in one.PlanePositionSequence[0].ImagePositionPatient] for one in groups]
    order = [
        min(range(len(at)), key=lambda frame: np.linalg.norm(np.subtract(at[frame], place.position)))
        for place in written.geometries
    ]
    np.testing.assert_array_equal(floats[order], written.maps["std"].astype(np.float32))
    assert list(found["std_map"][0].ImageType)[:2] == ["DERIVED", "PRIMARY"]
    assert "prior_sha256 ab12" in found["magnitude"][0].DerivationDescription
    uids = [one.SOPInstanceUID for group in found.values() for one in group]
    assert len(set(uids)) == len(uids)
    assert len({one.SeriesInstanceUID for group in found.values() for one in group}) == 3
    assert len({one.StudyInstanceUID for group in found.values() for one in group}) == 1
    again = series(write_dicom(tmp_path / "again", written))
    assert [one.SOPInstanceUID for group in again.values() for one in group] == uids


def test_identity_comes_from_a_template_only(tmp_path):
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    plain = series(write_dicom(tmp_path / "plain", volume()))["magnitude"][0]
    assert not (plain.PatientName or plain.PatientID or plain.PatientBirthDate or plain.StudyDate)
    plain.PatientName, plain.PatientID, plain.StudyDate = "Test^Anna", "4711", "20260102"
    plain.StudyInstanceUID, plain.FrameOfReferenceUID = "1.2.3.4", "1.2.3.5"
    plain.save_as(tmp_path / "template.dcm")
    like = read_template(tmp_path / "template.dcm")
    for group in series(write_dicom(tmp_path / "like", volume(), like)).values():
        for one in group:
            assert (str(one.PatientName), one.PatientID, one.StudyDate) == ("Test^Anna", "4711", "20260102")
            assert (one.StudyInstanceUID, one.FrameOfReferenceUID) == ("1.2.3.4", "1.2.3.5")
            assert one.SeriesInstanceUID != plain.SeriesInstanceUID
    places = [Geometry.centred((4, 6), (2.0, 3.0, 5.0))]
    assumed = OutputVolume("scan", np.ones((1, 4, 6), np.complex64), {}, places)
    one = series(write_dicom(tmp_path / "assumed", assumed, like))["magnitude"][0]
    assert one.FrameOfReferenceUID != "1.2.3.5", "an assumed orientation has no place in the frame of the exam"
    assert "orientation assumed" in one.DerivationDescription


@pytest.mark.parametrize("content", [b"", b"no DICOM", b"\0" * 128 + b"DICM"])
def test_a_template_that_is_no_dicom_file_is_refused(content, tmp_path):
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    (tmp_path / "bad.dcm").write_bytes(content)
    with pytest.raises(InputError, match="--dicom-like .*bad.dcm"):
        read_template(tmp_path / "bad.dcm")


def test_dcmtk_accepts_the_files(tmp_path):
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    if shutil.which("dcmftest") is None:
        pytest.skip("dcmtk is not installed (Debian package dcmtk)")
    paths = write_dicom(tmp_path, volume())
    said = subprocess.run(["dcmftest", *paths], capture_output=True, text=True)
    assert said.returncode == 0 and said.stdout.count("yes:") == len(paths)
    firsts = list({path.parent: path for path in paths}.values())
    said = subprocess.run(["dcmdump", *firsts], capture_output=True, text=True)
    assert said.returncode == 0 and not said.stderr
    assert said.stdout.count("(0020,0037) DS [1\\0\\0\\0\\1\\0]") == 3  # in the map's functional group too


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def orthanc(tmp_path):
    """A real archive on loopback: its HTTP and DICOM ports."""
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    plugin = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
    program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin")
    if program is None or shutil.which("storescu") is None:
        pytest.skip("Orthanc or dcmtk is not installed (Debian packages orthanc, orthanc-dicomweb, dcmtk)")
    web, port = free_port(), free_port()
    settings = {
        "HttpPort": web, "DicomPort": port, "StorageDirectory": str(tmp_path / "archive"), "Plugins": [plugin],
        "IndexDirectory": str(tmp_path / "archive"), "AuthenticationEnabled": False, "RemoteAccessAllowed": False,
    }  # fmt: skip
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    with open(tmp_path / "orthanc.log", "w") as log:
        process = subprocess.Popen([program, str(tmp_path / "orthanc.json")], stdout=log, stderr=log)
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{web}/system", timeout=1).read()
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail((tmp_path / "orthanc.log").read_text())
        yield web, port
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.slow
def test_an_archive_stores_and_returns_the_files(orthanc, tmp_path):
    import pydicom
    from pydicom.filebase import DicomBytesIO

    web, port = orthanc
    written = volume()
    paths = write_dicom(tmp_path / "out", written)
    by_storescu, by_web = [path for path in paths if "std" not in path.parent.name], paths[len(written.image) :]
    subprocess.run(["storescu", "127.0.0.1", str(port), *by_storescu], check=True, capture_output=True)
    boundary = "part"
    body = (
        b"".join(
            f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + path.read_bytes() + b"\r\n"
            for path in by_web
        )
        + f"--{boundary}--\r\n".encode()
    )
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    request = urllib.request.Request(
        f"http://127.0.0.1:{web}/dicom-web/studies", data=body,
        headers={"Content-Type": kind, "Accept": "application/dicom+json"},
    )  # fmt: skip
    answer = json.load(urllib.request.urlopen(request, timeout=30))
    assert not answer.get("00081198", {}).get("Value"), answer

    def get(path):
        return urllib.request.urlopen(f"http://127.0.0.1:{web}{path}", timeout=30).read()

    instances = json.loads(get("/instances"))
    assert len(instances) == len(paths)
    sent = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, paths)}
    for instance in instances:
        back = pydicom.dcmread(DicomBytesIO(get(f"/instances/{instance}/file")))
        assert back == sent[back.SOPInstanceUID]
    study = next(iter(sent.values())).StudyInstanceUID
    listed = json.loads(get(f"/dicom-web/studies/{study}/series"))
    assert sorted(one["0020000E"]["Value"][0] for one in listed) == sorted(
        {one.SeriesInstanceUID for one in sent.values()}
    )
