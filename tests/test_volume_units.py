"""The units of a volume: its noise level and its projected truth are those of the file, found here without its code."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
import torch

from mri_score.data.scan import Scan, Undersampling
from mri_score.evaluation.intervals import Factor, Intervals
from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import generators, noise_like
from mri_score.pipeline.options import Options
from mri_score.pipeline.volume import reconstruct_volume
from mri_score.readers.fastmri import FastMRI, write_fastmri
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
