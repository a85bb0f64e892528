"""Scans from format to format: the same samples to the bit, the same masks, items and places."""

from __future__ import annotations

import io
import itertools
import shutil
import subprocess

import h5py
import numpy as np
import pytest
import torch
from command import mri_score, refused
from mrd import Readout, header, lines_of, write_mrd
from scipy.io import savemat

from mri_score.data.scan import Scan, Undersampling
from mri_score.numerics.fourier import ifft
from mri_score.pipeline.convert import convert
from mri_score.readers import open_scan
from mri_score.readers.fastmri import write_fastmri
from mri_score.readers.received import Received, open_received
from mri_score.streaming import wire
from mri_score.writers.cfl import write_cfl

REAL = ("brain_t2_4ch", "phantom_oversampled_2ch", "brain_flash_16ch")
OUT = {"fastmri": "h5", "ismrmrd": "mrd", "cfl": "cfl"}


def white(*shape, seed=0):
    random = np.random.default_rng(seed)
    return (random.standard_normal(shape) + 1j * random.standard_normal(shape)).astype(np.complex64)


def chain(file, folder, *kinds):
    """Convert from format to format; the last file."""
    for number, kind in enumerate(kinds):
        path = folder / str(number) / f"{file.path.stem}.{OUT[kind]}"
        convert(file, path, kind)
        file = open_scan(path)
    return file


def same_place(one, other):
    if one is None or other is None:
        return one is other
    return one.matrix == other.matrix and one.oriented == other.oriented and all(
        np.allclose(getattr(one, name), getattr(other, name), atol=1e-3)
        for name in ("voxel_size", "position", "row_direction", "column_direction", "slice_direction")
    )  # fmt: skip


def masks_of(file):
    return file.sampled.expand(file.slices, -1, *file.image_shape)


def assert_same(one, other, place=True):
    assert (one.slices, one.coils, one.image_shape) == (other.slices, other.coils, other.image_shape)
    assert (one.mask is None) == (other.mask is None)
    assert (masks_of(one) == masks_of(other)).all()
    for number in range(one.slices):
        np.testing.assert_array_equal(one.stored(number)[0], other.stored(number)[0])
        assert one.item(number) == other.item(number)
        assert not place or same_place(one.geometry(number), other.geometry(number))


@pytest.mark.parametrize("name", REAL)
def test_real_scans_come_back_to_the_bit_through_every_format(shared, tmp_path, name):
    file = open_scan(shared / f"data/kspace/{name}.h5")
    through = chain(file, tmp_path / "array", "cfl")
    np.testing.assert_array_equal(through.stored(0)[0], file.stored(0)[0])
    again = chain(file, tmp_path / "again", "ismrmrd", "fastmri")
    assert_same(file, again)
    assert torch.equal(again.kspace(0), file.kspace(0)) and again.crop == file.crop


def series(tmp_path):
    """Two oblique slices, two contrasts and two frames; partial Fourier, partial readouts, each frame its own lines."""
    axes = {"read_dir": (0.0, 0.6, 0.8), "phase_dir": (1.0, 0.0, 0.0), "slice_dir": (0.0, 0.8, -0.6)}
    readouts = []
    for number, key in enumerate(itertools.product((0, 1), repeat=3)):
        counters = dict(zip(("slice", "contrast", "repetition"), key, strict=True))
        fields = {**axes, "position": (5.0, 6.0 * counters["slice"], 1.0), "center_sample": 6}
        steps = range(counters["repetition"], 14, 2)  # of 16 lines with the centre at step 6
        for step in steps:
            readouts.append(Readout(white(3, 18, seed=99 * number + step), step, counters=counters, fields=fields))
    readouts.append(Readout(white(3, 40), flags=(19,)))
    xml = header((24, 16, 1), (12, 14, 1), fov=(48, 32, 4), recon_fov=(24, 28, 4), limits=(0, 13, 6), coils=3,
                 more="<systemVendor>A vendor</systemVendor>")  # fmt: skip
    return open_scan(write_mrd(tmp_path / "series.h5", xml, readouts))


def test_a_series_keeps_lines_items_and_places_through_fastmri_and_back(tmp_path):
    file = series(tmp_path)
    fastmri = chain(file, tmp_path, "fastmri")
    assert_same(file, chain(fastmri, tmp_path / "back", "ismrmrd"))
    for number in (0, 7):
        assert fastmri.item(number) == file.item(number) and same_place(fastmri.geometry(number), file.geometry(number))
        np.testing.assert_array_equal(fastmri.stored(number)[0], file.stored(number)[0])
    assert b"A vendor" in fastmri.header_xml
    cfl = chain(file, tmp_path / "cfl", "cfl")
    assert [cfl.item(number) for number in range(8)] == [file.item(number) for number in range(8)]
    np.testing.assert_array_equal(cfl.stored(5)[0], file.stored(5)[0])
    assert torch.equal(cfl.sampled[5].any(1), file.sampled[5].any(1))


def test_points_with_two_phase_encodes_become_lines_of_one_sample(tmp_path):
    points = np.random.default_rng(3).random((12, 10)) < 0.5
    write_fastmri(tmp_path / "points.h5", white(2, 3, 12, 10) * points, mask=points)
    file = open_scan(tmp_path / "points.h5")
    other = chain(file, tmp_path / "a", "ismrmrd")
    assert other.three_dimensional and torch.equal(other.mask, file.mask)
    assert_same(file, other)
    assert_same(file, chain(other, tmp_path / "b", "fastmri"))


def test_identity_stays_behind(tmp_path):
    subject = "<subjectInformation><patientName>Jane</patientName></subjectInformation>"
    xml = header((8, 6, 1)).replace("<acq", f"{subject}<acq", 1)
    write_mrd(tmp_path / "scan.h5", xml, lines_of(white(2, 8, 6)))
    for out in ("out.mrd", "new.h5", "pair.cfl"):
        mri_score("convert", tmp_path / "scan.h5", tmp_path / out)
        assert b"Jane" not in (tmp_path / out).read_bytes()


def test_the_command_says_what_the_new_format_has_no_place_for(tmp_path):
    file = series(tmp_path)
    assert "the noise scan is left out" in mri_score("convert", file.path, tmp_path / "a.cfl")
    assert "pixel sizes, position and directions are left out" in mri_score("convert", file.path, tmp_path / "b.cfl")
    write_fastmri(tmp_path / "named.h5", white(1, 2, 8, 6), acquisition="AXFLASH")
    assert "1 image as ismrmrd\n" in (said := mri_score("convert", tmp_path / "named.h5", tmp_path / "named.mrd"))
    assert "AXFLASH, is left out" in said
    assert "is the scan itself" in refused("convert", file.path, file.path)
    assert "Name it with --to" in refused("convert", file.path, tmp_path / "a.raw")
    assert not (tmp_path / "a.raw").exists()


def test_the_libraries_of_ismrmrd_read_what_is_written(tmp_path):
    ismrmrd = pytest.importorskip("ismrmrd", reason="the package ismrmrd is not installed: install the extra mrd")
    kspace = white(1, 3, 16, 12)
    write_fastmri(tmp_path / "scan.h5", kspace)
    convert(open_scan(tmp_path / "scan.h5"), tmp_path / "scan.mrd", "ismrmrd")
    dataset = ismrmrd.Dataset(str(tmp_path / "scan.mrd"), "dataset", create_if_needed=False)
    found = ismrmrd.xsd.CreateFromDocument(dataset.read_xml_header())
    assert found.encoding[0].encodedSpace.matrixSize.y == 12 and dataset.number_of_acquisitions() == 12
    one = dataset.read_acquisition(5)
    assert (one.idx.slice, one.idx.kspace_encode_step_1, one.center_sample) == (0, 5, 8)
    np.testing.assert_array_equal(one.data, kspace[0, :, :, 5])
    dataset.close()
    if shutil.which("ismrmrd_recon_cartesian_2d") is None:
        pytest.skip("ismrmrd-tools is not installed: apt-get install ismrmrd-tools")
    subprocess.run(["ismrmrd_recon_cartesian_2d", tmp_path / "scan.mrd"], check=True, capture_output=True)
    with h5py.File(tmp_path / "scan.mrd") as file:
        theirs = np.asarray(file["dataset/cpp/data"]).squeeze()
    ours = ifft(open_scan(tmp_path / "scan.mrd").kspace(0)).abs().square().sum(0).sqrt().numpy().T
    scale = np.vdot(ours, theirs) / np.vdot(ours, ours)
    assert theirs.shape == (12, 16) and np.linalg.norm(theirs - scale * ours) < 1e-4 * np.linalg.norm(theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_scans_give_the_same_undersampled_image_through_every_format(shared, tmp_path, name):
    """Same mask, noise level, whitening, maps and CG-SENSE image. Arrays hold k-space without readout oversampling."""
    file = open_scan(shared / f"data/kspace/{name}.h5")
    others = [chain(file, tmp_path, "ismrmrd"), chain(file, tmp_path / "b", "ismrmrd", "fastmri")]
    others.append(streamed(others[0].path))
    array, axes = file.kspace(0).numpy(), ("coils", "rows", "cols")
    np.save(tmp_path / f"{name}.npy", array)
    savemat(tmp_path / f"{name}.mat", {"kspace": array})
    (tmp_path / "new").mkdir()
    with h5py.File(tmp_path / "new" / f"{name}.mat", "w", userblock_size=512) as stored:  # as MATLAB's v7.3
        parts = np.empty(array.T.shape, [("real", "f4"), ("imag", "f4")])
        parts["real"], parts["imag"] = array.T.real, array.T.imag
        stored["kspace"] = parts
    write_cfl(tmp_path / name, array.transpose(1, 2, 0)[:, :, None])
    others += [open_scan(tmp_path / one, axes=axes) for one in (f"{name}.npy", f"{name}.mat", f"new/{name}.mat")]
    others.append(open_scan(tmp_path / f"{name}.cfl"))
    sampling = Undersampling(4.0)  # its mask depends on the name
    expected = Scan(file, sampling).acquisition(0)
    image = expected.operator().cg_sense(expected.kspace) * expected.scale
    for other in others:
        found = Scan(other, sampling).acquisition(0)
        assert torch.equal(found.mask, expected.mask)
        theirs = found.operator().cg_sense(found.kspace) * found.scale
        assert float((theirs - image).norm() / image.norm()) < 1e-5, other.path
        assert float(found.noise_std) == pytest.approx(float(expected.noise_std), rel=1e-5)


def streamed(path):
    """The scan of an ISMRMRD file as it comes over a connection, sent by `ismrmrd`."""
    ismrmrd = pytest.importorskip("ismrmrd", reason="the package ismrmrd is not installed: install the extra mrd")
    import mrd_client

    with ismrmrd.Dataset(str(path), "dataset", create_if_needed=False) as given:
        xml = given.read_xml_header().decode()
        sent = [mrd_client.acquisition(given.read_acquisition(n)) for n in range(given.number_of_acquisitions())]
    came = [wire.read_message(io.BytesIO(one)) for one in sent]
    parts = ([getattr(one, part) for one in came] for part in ("header", "samples", "trajectory"))
    headers, samples, positions = parts
    scan = open_received(Received(xml, np.array(headers), samples, positions))
    scan.path, scan.name = path, path.stem
    return scan


@pytest.mark.slow
def test_a_full_ismrmrd_scan_is_undersampled_here_and_scored(shared, tmp_path):
    file = open_scan(shared / "data/kspace/brain_flash_16ch.h5")
    chain(file, tmp_path, "ismrmrd")
    options = ("--prior", "brain-fast", "--steps", "2", "--samples", "1", "--coils", "4", "--baselines", "cg-sense")
    path, out = tmp_path / "0" / f"{file.name}.mrd", ("--out", tmp_path / "out")
    text = mri_score("reconstruct", path, "--accel", "4", *options, *out)
    assert "CG-SENSE" in text and (tmp_path / "out" / "metrics.csv").exists()
    assert (tmp_path / "out" / "reconstructions" / f"{file.name}.h5").exists()
