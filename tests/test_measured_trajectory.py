"""Scans acquired along a trajectory: ISMRMRD and BART files, against the image that the samples were made from."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from command import mri_score, refused
from mrd import Readout, header, write_mrd
from test_array_scan import bart

from mri_score.data.noncartesian import MeasuredScan, gridding, samples
from mri_score.data.scan import Scan
from mri_score.data.trajectories import measured, radial, spiral
from mri_score.errors import InputError
from mri_score.readers import open_scan
from mri_score.readers.array_scan import open_cfl
from mri_score.simulation.phantom import phantom
from mri_score.writers.cfl import write_cfl

SHAPE, COILS, NOISE_STD = (48, 40), 4, 0.02
UNITS = {"cycles per field of view": 1.0, "cycles per pixel": 1 / np.array(SHAPE), "1/m": 1 / np.array([0.24, 0.2])}


@cache
def head():
    """Coil images (1, coils, H, W) without noise."""
    scan = phantom(SHAPE, coils=COILS, noise_snr=None)
    return scan.maps * scan.image[:, None]


def acquired(trajectory, noise=NOISE_STD):
    """Samples (coils, M) of a head, and its coil images."""
    coils = head()
    y = samples(coils, trajectory)[0].numpy()
    random = np.random.default_rng(0)
    return y + noise * (random.standard_normal(y.shape) + 1j * random.standard_normal(y.shape)), coils[0].numpy()


def written(path, trajectory, unit=1.0, spokes=4, noise=None, dimensions=2, name="radial"):
    """An ISMRMRD file of the samples in `spokes` readouts; fields of view of 240 and 200 mm."""
    y, coils = acquired(trajectory)
    positions = trajectory.coordinates.numpy() * unit
    if dimensions > 2:
        positions = np.concatenate([positions, np.ones((len(positions), dimensions - 2))], 1)
    readouts = [] if noise is None else [Readout(noise, flags=(19,))]
    for part in np.array_split(np.arange(y.shape[1]), spokes):
        readouts.append(Readout(y[:, part], trajectory=positions[part].astype(np.float32)))
    xml = header((2 * SHAPE[0], spokes, 1), (*SHAPE, 1), fov=(480, 200, 5), recon_fov=(240, 200, 5), trajectory=name)
    return write_mrd(path, xml, readouts), coils


def nrmse(scan, coils):
    """Error of the coil images of the CG-SENSE image, inside the object."""
    one = scan.acquisition(0)
    image = one.operator().solve(one.operator().adjoint(one.kspace), weight=1e-3, max_iterations=60) * one.scale
    found = (one.maps * image[:, None])[0].numpy()
    if one.whitening is not None:
        found = np.einsum("dc,chw->dhw", np.linalg.inv(one.whitening.numpy()), found)
    inside = np.abs(coils).sum(0) > 0.1 * np.abs(coils).sum(0).max()
    return np.linalg.norm((found - coils)[:, inside]) / np.linalg.norm(coils[:, inside])


@pytest.mark.parametrize("unit", UNITS)
def test_samples_and_positions_come_back_in_any_unit(tmp_path, unit):
    trajectory = radial(SHAPE, 1.0)
    path, _ = written(tmp_path / "scan.h5", trajectory, UNITS[unit])
    file = open_scan(path)
    assert (file.slices, file.coils, file.image_shape, file.crop, file.mask) == (1, COILS, SHAPE, SHAPE, None)
    np.testing.assert_allclose(file.coordinates(0).numpy(), trajectory.coordinates.numpy(), atol=1e-4)
    np.testing.assert_allclose(file.kspace(0).numpy(), acquired(trajectory)[0], rtol=1e-6)
    assert file.geometry(0).voxel_size == pytest.approx((5.0, 5.0, 5.0))


@pytest.mark.parametrize(("make", "name"), [(radial, "radial"), (spiral, "spiral")])
def test_the_image_is_that_of_the_object_and_the_noise_that_of_the_noise_scan(tmp_path, make, name):
    random = np.random.default_rng(1)
    noise = NOISE_STD * (random.standard_normal((COILS, 2000)) + 1j * random.standard_normal((COILS, 2000)))
    path, coils = written(tmp_path / "scan.h5", make(SHAPE, 1.0), noise=noise, dimensions=3, name=name)
    scan = MeasuredScan(open_scan(path))
    assert scan.noise_std == pytest.approx(NOISE_STD, rel=0.05)
    assert scan.acceleration == pytest.approx(1.0, rel=0.05) and not scan.has_truth
    assert nrmse(scan, coils) < 0.15


def test_frames_have_their_own_trajectories(tmp_path):
    trajectory = radial(SHAPE, 1.0)
    y, _ = acquired(trajectory)
    positions = trajectory.coordinates.numpy().astype(np.float32)
    half = 20 * max(SHAPE)
    readouts = [
        Readout(y[:, part], trajectory=positions[part], counters={"repetition": number})
        for number, part in enumerate((slice(half), slice(half, None)))
    ]
    xml = header((2 * SHAPE[0], 2, 1), (*SHAPE, 1), trajectory="radial")
    scan = MeasuredScan(open_scan(write_mrd(tmp_path / "scan.h5", xml, readouts)))
    assert scan.file.slices == 2 and not scan.one_trajectory
    for number, count in enumerate((half, y.shape[1] - half)):
        assert scan.acquisition(number).trajectory.shape == (count, 2)
        assert scan.file.item(number).repetition == number


@pytest.mark.parametrize("make", [radial, spiral])
def test_areas_and_the_dense_centre_are_found_from_the_positions(make):
    """The areas of the formulas, within a few per cent, and gridding as good as with them."""
    exact = make((64, 64), 1.0)
    found = measured("acquired", (64, 64), exact.coordinates)
    radius = exact.coordinates.norm(dim=1)
    middle = (radius > 4) & (radius < 28)
    ratio = found.area[middle] / exact.area[middle]
    assert float(ratio.median()) == pytest.approx(1, abs=0.1) and float(ratio.std()) < 0.35
    assert found.centre == pytest.approx(exact.centre, abs=4) or found.centre > exact.centre


def test_gridding_with_found_areas_is_close_to_the_object(tmp_path):
    path, coils = written(tmp_path / "scan.h5", radial(SHAPE, 0.7))
    scan = MeasuredScan(open_scan(path))
    one = scan.acquisition(0)
    image = (gridding(one, scan.trajectory) * one.scale)[0].abs().numpy()
    truth = np.sqrt((np.abs(coils) ** 2).sum(0))
    scale = (image * truth).sum() / (image**2).sum()
    assert scale == pytest.approx(1, abs=0.15) and np.linalg.norm(scale * image - truth) < 0.3 * np.linalg.norm(truth)


@pytest.mark.slow
def test_reconstruct_takes_trajectories_of_files(tmp_path):
    path, _ = written(tmp_path / "scan.h5", radial(SHAPE, 1.5))
    options = ("--steps", "2", "--samples", "1", "--out", tmp_path / "out", "--baselines", "zero-filled,cg-sense")
    text = mri_score("reconstruct", path, *options)
    assert "acquired undersampled: no ground truth" in text
    assert "undersampled, R = 1.48" in mri_score("info", path)
    assert "leave out --accel" in refused("reconstruct", path, *options, "--accel", "2")
    with pytest.raises(InputError, match="only info and reconstruct"):
        Scan(open_scan(path))


FAULTS = {
    "unit": (lambda k: k * 1e6, "which fits no known unit for a matrix of"),
    "nan": (lambda k: k * np.nan, "positions for .* samples"),
    "a line": (lambda k: k * np.float32([1, 0]), "covers one axis of k-space only"),
    "none": (lambda k: None, "has no positions beside its samples"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_absurd_trajectories_get_one_clear_error(tmp_path, name):
    change, message = FAULTS[name]
    trajectory = radial(SHAPE, 2.0)
    y, _ = acquired(trajectory)
    positions = change(trajectory.coordinates.numpy().astype(np.float32))
    xml = header((96, 1, 1), (*SHAPE, 1), trajectory="radial")
    path = write_mrd(tmp_path / "scan.h5", xml, [Readout(y, trajectory=positions)])
    with pytest.raises(InputError, match=message) as error:
        open_scan(path).coordinates(0)
    assert str(path) in str(error.value)


@pytest.mark.slow
def test_barts_trajectory_and_samples_give_barts_image(tmp_path):
    """`bart traj` and `bart phantom -k -t`; `bart nufft -i` inverts them, and so does ours, up to BART's scale."""
    bart("traj", "-r", "-x", "48", "-y", "76", "trajectory", folder=tmp_path)
    bart("phantom", "-k", "-s", "4", "-t", "trajectory", "samples", folder=tmp_path)
    bart("nufft", "-i", "-d", "48:48:1", "trajectory", "samples", "image", folder=tmp_path)
    file = open_scan(tmp_path / "samples.cfl", trajectory=tmp_path / "trajectory.cfl")
    assert (file.coils, file.image_shape, file.slices) == (4, (48, 48), 1)
    theirs = open_cfl(tmp_path / "image.cfl")[()].reshape(48, 48, 4).transpose(2, 0, 1)
    one = MeasuredScan(file).acquisition(0)
    image = one.operator().solve(one.operator().adjoint(one.kspace), weight=1e-4, max_iterations=50) * one.scale
    ours = (one.maps * image[:, None])[0].numpy()
    scale = np.vdot(ours, theirs) / np.vdot(ours, ours)
    inside = np.abs(theirs).sum(0) > 0.2 * np.abs(theirs).sum(0).max()
    difference = np.linalg.norm((scale * ours - theirs)[:, inside]) / np.linalg.norm(theirs[:, inside])
    assert difference < 0.08 and abs(scale) == pytest.approx(1, abs=0.05)


def test_barts_files_that_do_not_fit_each_other_get_one_error(tmp_path):
    write_cfl(tmp_path / "trajectory", np.ones((3, 8, 5)))
    write_cfl(tmp_path / "samples", np.ones((1, 8, 4, 2)))
    with pytest.raises(InputError, match="they need"):
        open_scan(tmp_path / "samples.cfl", trajectory=tmp_path / "trajectory.cfl")
    write_cfl(tmp_path / "samples", np.ones((1, 8, 5, 2)))
    with pytest.raises(InputError, match="third component"):
        open_scan(tmp_path / "samples.cfl", trajectory=tmp_path / "trajectory.cfl")
