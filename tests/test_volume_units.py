"""The units of a volume: its noise level and its projected truth are those of the file, found here without its code."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
import torch

from mri_score.data.noncartesian import NonCartesianScan
from mri_score.data.scan import Scan, Undersampling
from mri_score.data.trajectories import TRAJECTORIES
from mri_score.evaluation.intervals import Factor, Intervals
from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense
from mri_score.pipeline import volume as volumes
from mri_score.pipeline.options import Options
from mri_score.pipeline.volume import reconstruct_volume
from mri_score.readers.fastmri import FastMRI, write_fastmri
from mri_score.readers.maps import write_maps
from mri_score.reconstruction import Reconstruction, Work
from mri_score.simulation.phantom import phantom
from mri_score.simulation.simulate import simulate

ACCELERATION = 3.0


class White(ScoreModel):
    sd = 0.3

    def denoise(self, x, sigma):
        return x / (1 + per_item(sigma, x) ** 2 / self.sd**2)


def intervals() -> Intervals:
    one = Factor(ACCELERATION, magnitude=1.5, component=2.5, units=60)
    return Intervals(
        level=0.9, unit="slice", factors=(one,), prior="white", prior_sha256="0" * 64, sampler="adaptive-draw", steps=4,
        samples=2, mask="variable-density", volumes=60, slices=60,
    )  # fmt: skip


def reconstructed(path, acceleration: float | None = ACCELERATION, **options):
    scan = Scan(FastMRI(path), Undersampling(acceleration))
    settings = {"steps": 4, "samples": 2, "baselines": (), "device": "cpu", **options}
    return scan, reconstruct_volume(scan, White(), Options(**settings))


def test_the_noise_of_a_volume_is_that_which_was_added_to_the_file(tmp_path):
    (path,) = simulate(tmp_path, volumes=1, slices=2, size=(96, 81), coils=4, noise=30.0)
    with h5py.File(path) as file:
        added = float(file.attrs["noise_std"])
    _, volume = reconstructed(path)
    assert volume.noise == pytest.approx([added] * 2, rel=0.1)


def test_what_is_written_has_the_files_own_crop_and_its_truth_is_the_files(tmp_path):
    (path,) = simulate(tmp_path, volumes=1, slices=1, size=(96, 81), coils=4, noise=30.0)
    with h5py.File(path) as file:
        target = torch.from_numpy(file["reconstruction_rss"][()])
    assert target.shape[-2] != target.shape[-1]
    scan, volume = reconstructed(path, baselines=("zero-filled",))
    images = {
        "image": volume.image,
        "std": volume.std,
        "rss": volume.rss,
        "zero-filled": volume.baselines["zero-filled"][0],
    }
    assert {name: image.shape[-2:] for name, image in images.items()} == dict.fromkeys(images, target.shape[-2:])
    assert float((volume.truth_rss[0] - target[0]).norm() / target.norm()) < 1e-5


def test_along_a_trajectory_it_is_that_of_the_file_too(tmp_path):
    """The operator is scaled to norm 1, and with it the noise that its posterior gets; the volume's is not."""
    (path,) = simulate(tmp_path, volumes=1, slices=1, size=(48, 48), coils=4, noise=30.0)
    with h5py.File(path) as file:
        added = float(file.attrs["noise_std"])
    reader = FastMRI(path)
    scan = NonCartesianScan(reader, TRAJECTORIES["radial"](reader.image_shape, 2.0))
    options = Options(steps=2, samples=1, baselines=(), device="cpu")
    assert reconstruct_volume(scan, White(), options).noise == pytest.approx([added], rel=0.15)


@pytest.mark.parametrize("unit", [1e-5, 1e4])
def test_noise_and_intervals_have_the_unit_of_the_images(tmp_path, unit):
    """The same scan in another unit: every figure is that many times as large."""
    (path,) = simulate(tmp_path, volumes=1, slices=1, size=(48, 45), coils=4, noise=30.0)
    (tmp_path / "other").mkdir()
    other = shutil.copy(path, tmp_path / "other" / path.name)
    with h5py.File(other, "r+") as file:
        file["kspace"][...] *= np.float32(unit)
    _, before = reconstructed(path, intervals=intervals())
    _, after = reconstructed(other, intervals=intervals())
    assert after.noise == pytest.approx([unit * level for level in before.noise], rel=1e-3)
    for target in ("magnitude", "component"):
        found, expected = after.interval(target), unit * before.interval(target)
        assert float((found - expected).norm() / expected.norm()) < 1e-2


def test_an_interval_is_never_narrower_than_the_noise_that_only_the_full_scan_has(tmp_path):
    """Half the width is at least factor * noise * sqrt(1 - 1 / R), and of its order where draws agree: no more."""
    (path,) = simulate(tmp_path, volumes=1, slices=1, size=(96, 81), coils=4, noise=30.0)
    with h5py.File(path) as file:
        added = float(file.attrs["noise_std"])
    _, volume = reconstructed(path, intervals=intervals())
    floor = 2.5 * added * (1 - 1 / volume.acceleration) ** 0.5
    least = float(volume.interval("component").min())
    assert 0.9 * floor < least < 3 * floor


def whitened_file(folder):
    """Coils of unequal, correlated noise, as files have them."""
    clean = phantom(160, coils=6, noise_snr=None)
    mixture = torch.diag(torch.linspace(0.5, 1.5, 6)).to(torch.complex64)
    mixture[0, 1] = 0.3j
    noise = torch.einsum("dc,bchw->bdhw", mixture, 0.02 * noise_like(clean.kspace, generators(5)))
    write_fastmri(folder / "head.h5", 3e-4 * (clean.kspace + noise))
    return folder / "head.h5"


def test_the_projected_truth_is_that_of_whitened_coil_images(tmp_path):
    """sum_c conj(S_c) (W x)_c by numpy, W = sqrt(tr(C) / 6) C^(-1/2) from the covariance C of the noise."""
    scan, volume = reconstructed(whitened_file(tmp_path))
    values, axes = np.linalg.eigh(scan.noise.covariance.numpy())
    whitening = axes @ np.diag(np.sqrt(values.mean() / values)) @ axes.conj().T

    with h5py.File(scan.file.path) as file:
        kspace = file["kspace"][0]
    shifted = np.fft.ifftshift(kspace, axes=(-2, -1))
    images = np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho"), axes=(-2, -1))
    mixed = np.einsum("dc,chw->dhw", whitening, images)
    maps = scan.acquisition(0).maps[0].numpy()
    expected = (maps.conj() * mixed).sum(0)

    found, inside = volume.projected[0].numpy(), volume.foreground[0]
    assert found.shape == expected.shape
    assert np.linalg.norm((found - expected)[inside]) < 1e-4 * np.linalg.norm(expected[inside])
    plain = (maps.conj() * images).sum(0)  # without whitening it would be this
    assert np.linalg.norm((found - plain)[inside]) > 0.15 * np.linalg.norm(expected[inside])


def test_a_full_scan_without_regularisation_gives_its_projected_truth(tmp_path):
    """What is compared with the projected truth is in its coils and units: CG-SENSE of all samples equals it."""
    scan, volume = reconstructed(whitened_file(tmp_path), acceleration=None, baselines=("cg-sense",))
    magnitude = volume.baselines["CG-SENSE"][0] / volume.weight[0]
    inside = torch.from_numpy(volume.foreground[0])
    difference = (magnitude - volume.projected[0].abs())[inside]
    assert float(difference.norm() / volume.projected[0].abs()[inside].norm()) < 0.02


def test_intervals_that_were_fitted_at_another_acceleration_are_noted(tmp_path):
    (path,) = simulate(tmp_path, volumes=1, slices=1, size=(48, 96), coils=4, noise=30.0)
    notes = [
        [note for note in reconstructed(path, acceleration, intervals=intervals())[1].notes if "were fitted" in note]
        for acceleration in (ACCELERATION, 6.0)
    ]
    assert notes[0] == [] and len(notes[1]) == 1 and f"{ACCELERATION:.2f}" in notes[1][0]


def test_left_out_lines_are_hidden_from_the_second_reconstruction_and_judge_it(tmp_path, monkeypatch):
    """A reconstruction that returns the true image misfits the left-out lines by their noise alone: by 1."""
    head = phantom(64, coils=4, noise_snr=None)
    full = Sense(head.maps, torch.ones(1, 1, 1, 1, dtype=torch.bool))(head.image)
    noisy = full + 0.02 * noise_like(full, generators(3))
    unit = 3e-4
    write_fastmri(tmp_path / "head.h5", unit * noisy)
    write_maps(tmp_path / "maps.h5", head.maps, torch.ones(1, 64, 64), {})
    given = []

    def sees_the_truth(acquisition, prior, options, **rest):
        given.append(acquisition)
        samples = unit * head.image.expand(options.samples, 1, 64, 64)
        return Reconstruction(samples, torch.ones(1, 64, 64), acquisition.maps, acquisition, Work())

    monkeypatch.setattr(volumes, "sample_posterior", sees_the_truth)
    scan = Scan(FastMRI(tmp_path / "head.h5"), Undersampling(ACCELERATION), maps=tmp_path / "maps.h5")
    options = Options(steps=2, samples=2, baselines=(), device="cpu", check_lines=3)
    volume = reconstruct_volume(scan, White(), options)

    whole, kept = given
    left_out = whole.mask & ~kept.mask
    assert int(left_out.sum()) == 3 and int((kept.mask & ~whole.mask).sum()) == 0
    assert not (kept.kspace * left_out).any() and (kept.kspace * kept.mask == whole.kspace * kept.mask).all()
    assert volume.held_out[options.estimate].count == 3 * 64 * 4
    assert volume.held_out[options.estimate].misfit == pytest.approx(1, abs=0.25)


def test_network_calls_are_counted_over_the_steps_of_a_level(tmp_path):
    (path,) = simulate(tmp_path, volumes=1, slices=1, size=(32, 30), coils=2, noise=30.0)
    _, volume = reconstructed(path, 2.0, method="langevin", steps=2, samples=2)
    assert volume.facts["Method"] == "langevin, 2 levels, 7 network calls per draw"
