"""The measured noise against the simulated one, clause by clause, and the whitening of coils."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import sigpy
import sigpy.mri
import torch

from mri_score.data.noise_rings import measure_noise, whiten, whitening_matrix, with_noise_scan
from mri_score.data.scan import Scan
from mri_score.errors import InputError
from mri_score.numerics.fourier import fft, ifft, resize_image, resize_kspace
from mri_score.numerics.noise import generators, noise_like
from mri_score.readers.fastmri import FastMRI, write_fastmri
from mri_score.simulation.phantom import phantom
from mri_score.sources.combined_images import Combined

STD = 0.02


def head(shape, coils=4, part=1.0):
    """Noise-free k-space (C, H, W) of a phantom that fills `part` of the field of view."""
    inner = [int(part * side) for side in shape]
    image = resize_image(torch.from_numpy(sigpy.shepp_logan(inner).astype(np.complex64)), shape)
    maps = torch.from_numpy(sigpy.mri.birdcage_maps((coils, *shape), r=1.3).astype(np.complex64))
    return resize_kspace(_smooth(fft(maps * image)), shape)


def _smooth(kspace):
    """Blur as tissue borders and relaxation do, so that the corners of k-space hold noise alone."""
    rows, cols = (torch.linspace(-1, 1, side) for side in kspace.shape[-2:])
    return kspace * torch.exp(-6 * (rows[:, None].square() + cols.square()))


def noise(kspace, seed=0, mix=None):
    """Noise of standard deviation STD in each real component, its coils mixed by a matrix if given."""
    white = STD * noise_like(kspace[None], generators(seed, "noise"))[0]
    return white if mix is None else whiten(white, mix)


def columns(width, step=4, centre=10):
    mask = torch.zeros(1, 1, 1, width, dtype=torch.bool)
    mask[..., 1::step] = True
    mask[..., width // 2 - centre // 2 : width // 2 + centre // 2] = True
    return mask


def mixing(coils, seed=3):
    """A matrix that makes coils unequal and correlated, with a mean noise power of 1."""
    mix = torch.eye(coils) + 0.4 * noise_like(torch.empty(1, coils, coils, dtype=torch.complex64), generators(seed))[0]
    mix = torch.linspace(0.5, 2, coils)[:, None] * mix
    return mix / (mix.abs().square().sum() / coils).sqrt()


@pytest.mark.parametrize("part", [0.4, 0.9])
@pytest.mark.parametrize("shape", [(128, 128), (145, 121)])
def test_level_of_a_head_small_or_large(shape, part):
    kspace = head(shape, part=part)
    level = measure_noise([kspace + noise(kspace)])
    assert level.noise_std == pytest.approx(STD, rel=0.03)
    assert level.notes == ()


def test_level_survives_the_removal_of_readout_oversampling():
    kspace = head((256, 120))
    wide = ifft(kspace + noise(kspace), axes=(-2,))
    darkened = torch.ones(256, 1)
    darkened[:56] = darkened[-56:] = 0.35
    cropped = fft(resize_image(wide * darkened, (128, 120)), axes=(-2,))
    assert measure_noise([cropped]).noise_std == pytest.approx(STD, rel=0.03)


@pytest.mark.parametrize("snr", [26, 14])
@pytest.mark.parametrize("oversampled", [False, True])
def test_level_of_a_file_with_a_small_head_in_a_large_field_of_view(oversampled, snr, tmp_path):
    """From file to noise_std, edges of tissue and all: the head fills a fifth of the image, white noise all of it."""
    scan, shape = phantom((64, 48), coils=6, noise_snr=None), (131, 110)
    rows = 2 * shape[0] if oversampled else shape[0]
    kspace = fft(resize_image(scan.maps * scan.image[:, None], (rows, shape[1])))[0]
    std = 10 ** (-snr / 20) / 2**0.5
    kspace = kspace + std * noise_like(kspace[None], generators(snr))[0]
    write_fastmri(tmp_path / "small.h5", kspace[None], recon=shape)
    file = FastMRI(tmp_path / "small.h5")
    assert file.oversampled == oversampled and file.image_shape == shape
    assert Scan(file).noise_std == pytest.approx(std, rel=0.03)
    assert Combined(tmp_path / "small.h5").noise_std == pytest.approx(std, rel=0.03)


def test_level_from_few_sampled_lines_only():
    kspace = head((160, 150))
    mask = columns(150, step=8)
    level = measure_noise([(kspace + noise(kspace)) * mask[0]], mask)
    assert level.noise_std == pytest.approx(STD, rel=0.03)
    junk = torch.where(mask[0], kspace + noise(kspace), 7.0)
    assert measure_noise([junk], mask).noise_std == level.noise_std


def test_level_under_a_two_dimensional_mask():
    kspace = head((150, 160))
    mask = torch.rand(150, 160, generator=torch.Generator().manual_seed(1)) < 0.15
    level = measure_noise([(kspace + noise(kspace)) * mask], mask[None, None])
    assert level.noise_std == pytest.approx(STD, rel=0.03)


def test_padding_is_never_counted():
    kspace = head((140, 100))
    measured = kspace + noise(kspace)
    padded = torch.nn.functional.pad(measured, (14, 10))
    mask = torch.ones(1, 1, 1, 124, dtype=torch.bool)
    for given in (None, mask):
        level = measure_noise([padded], given)
        assert level.noise_std == pytest.approx(STD, rel=0.03)
        assert level.notes == ("zero-padded: 24 of 124 columns at the edges of k-space are not measured",)
    dust = padded + 1e-4 * noise(padded, seed=9)
    assert measure_noise([dust], mask).noise_std == pytest.approx(STD, rel=0.03)
    assert "24 of 124 columns" in measure_noise([dust]).notes[0]


def test_columns_that_the_mask_leaves_out_are_no_padding():
    kspace = head((140, 124))
    mask = columns(124, step=2)
    mask[..., :14] = mask[..., -10:] = False
    level = measure_noise([(kspace + noise(kspace)) * mask[0]], mask)
    assert level.notes == () and level.noise_std == pytest.approx(STD, rel=0.03)


def test_a_few_spikes_do_not_count():
    kspace = head((128, 128))
    measured = kspace + noise(kspace)
    measured[:, ::16, ::16] += 50
    assert measure_noise([measured]).noise_std == pytest.approx(STD, rel=0.03)


def test_unequal_and_correlated_coils_are_whitened():
    kspace, mix = head((160, 160), coils=6), mixing(6)
    level = measure_noise([kspace + noise(kspace, mix=mix)])
    true = (STD**2 * mix @ mix.mH).to(level.covariance)
    assert level.noise_std == pytest.approx(STD, rel=0.03)
    assert torch.allclose(level.coil_std.double(), true.diagonal().real.sqrt(), rtol=0.1)
    assert torch.linalg.norm(level.covariance - true) < 0.1 * torch.linalg.norm(true)
    fresh = whiten(noise(kspace, seed=8, mix=mix), level.whitening).flatten(1)
    covariance = fresh @ fresh.mH / (2 * fresh.shape[1])
    assert (torch.linalg.eigvalsh(covariance) / STD**2 - 1).abs().max() < 0.25
    assert covariance.diagonal().real.mean() == pytest.approx(STD**2, rel=0.06)
    assert measure_noise([whiten(kspace + noise(kspace, mix=mix), level.whitening)]).noise_std == pytest.approx(
        level.noise_std, rel=0.03
    )


def test_whitening_is_exact_and_has_an_inverse():
    mix = mixing(5).to(torch.complex128)
    covariance = mix @ mix.mH
    matrix = whitening_matrix(covariance)
    white = matrix @ covariance @ matrix.mH
    assert torch.allclose(white, torch.eye(5, dtype=white.dtype) * covariance.diagonal().mean())
    assert torch.allclose(whitening_matrix(7 * white), torch.eye(5, dtype=white.dtype))
    kspace = head((96, 96), coils=5)
    measured = kspace + noise(kspace, mix=mix)
    level = measure_noise([measured])
    back = whiten(whiten(measured, level.whitening), torch.linalg.inv(level.whitening))
    assert torch.allclose(back, measured, atol=1e-4)


def test_a_noise_scan_gives_the_covariance_and_outer_kspace_the_level():
    kspace, mix = head((128, 100), coils=6), mixing(6)
    calibration = 30 * noise(torch.empty(6, 40, 500, dtype=torch.complex64), seed=4, mix=mix)
    level = measure_noise([kspace + noise(kspace, mix=mix)])
    level = with_noise_scan(level, calibration.flatten(1), calibrated=False)
    assert level.noise_std == pytest.approx(STD, rel=0.03)
    white = level.whitening @ mix @ mix.mH @ level.whitening.mH
    assert (torch.linalg.eigvalsh(white) - 1).abs().max() < 0.1


def test_a_calibrated_noise_scan_gives_the_level_unless_kspace_is_quieter():
    """Signal in outer k-space makes it louder; what is quieter contradicts the noise scan."""
    level = measure_noise([head((128, 100), coils=6) + noise(head((128, 100), coils=6), mix=mixing(6))])
    scan = noise(torch.empty(6, 40, 500, dtype=torch.complex64), seed=4, mix=mixing(6)).flatten(1)
    for factor, expected, words in ((1.0, STD, ""), (0.5, STD / 2, "the level of the noise scan"), (2.0, STD, "only")):
        found = with_noise_scan(level, factor * scan, calibrated=True)
        assert found.noise_std == pytest.approx(expected, rel=0.03)
        assert found.coil_std.square().mean().sqrt() == pytest.approx(expected, rel=0.03)
        assert any(words in note for note in found.notes) if words else not found.notes
    few = with_noise_scan(level, scan[:, :50], calibrated=True)
    assert few.noise_std == level.noise_std and "too few" in few.notes[-1]


def test_too_few_samples_do_not_whiten():
    kspace, mix = head((64, 48), coils=16), mixing(16)
    mask = (torch.arange(48) < 8).reshape(1, 1, 1, 48)
    level = measure_noise([(kspace + noise(kspace, mix=mix)) * mask[0]], mask)
    assert level.whitening is None and level.covariance is None
    assert "a ring has 191 samples, 16 coils need 320" in level.notes[0]
    many = measure_noise([(kspace + noise(kspace, i, mix)) * mask[0] for i in range(8)], mask)
    assert many.whitening is not None


def test_signal_in_outer_kspace_is_seen_and_not_whitened():
    sharp = resize_kspace(head((256, 256), coils=8, part=0.7), (40, 40))
    level = measure_noise([sharp + 1e-3 * noise(sharp)])
    assert level.whitening is None and "outer k-space has signal" in level.notes[0]


def test_a_filter_is_told_from_signal():
    kspace = head((128, 128), part=0.5)
    rows, cols = (torch.linspace(-1, 1, 128) for _ in range(2))
    taper = 1 - 0.45 * (rows[:, None].square() + cols.square())
    level = measure_noise([(kspace + noise(kspace)) * taper])
    assert level.whitening is None and "filtered" in level.notes[0]


def test_at_most_eight_evenly_spaced_slices_are_read():
    kspace = head((64, 64))

    class Volume:
        read: list[int] = []

        def __len__(self):
            return 29

        def __getitem__(self, index):
            self.read.append(index)
            return kspace + noise(kspace, index)

    level = measure_noise(Volume())
    assert Volume.read == [0, 4, 8, 12, 16, 20, 24, 28]
    assert level.noise_std == pytest.approx(STD, rel=0.03)


def test_a_volume_tensor_counts_all_slices():
    kspace = head((64, 64))
    loud = torch.stack([kspace + noise(kspace, 1), kspace + noise(kspace, 2)])
    level = measure_noise(loud)
    assert level.noise_std == measure_noise([loud[0], loud[1]]).noise_std
    assert measure_noise(3 * loud).noise_std == pytest.approx(3 * level.noise_std, rel=1e-5)


def test_an_empty_or_copied_coil_is_no_reason_to_fail():
    kspace = head((96, 96))
    measured = kspace + noise(kspace)
    empty = measured * (torch.arange(4) != 1)[:, None, None]
    level = measure_noise([empty])
    assert level.whitening is None and "coils [1] are empty" in level.notes[0]
    assert level.noise_std == pytest.approx(STD, rel=0.04)
    copied = measure_noise([torch.cat([measured, measured[:1]])])
    assert copied.whitening is None and "singular" in copied.notes[0]


def test_bad_kspace_is_named():
    with pytest.raises(InputError, match="file_1: .* zero at every sampled point"):
        measure_noise(torch.zeros(1, 2, 8, 9, dtype=torch.complex64), name="file_1")
    with pytest.raises(InputError, match="file_1: .*NaN"):
        measure_noise(torch.full((1, 2, 8, 9), torch.nan, dtype=torch.complex64), name="file_1")


@pytest.mark.parametrize(("name", "whitened"), [("brain_flash_16ch", True), ("phantom_32ch", False)])
def test_real_scans(shared, name, whitened):
    """The phantom's outer k-space is the phantom; a head in air tells the level of its noise from above."""
    with h5py.File(shared / f"data/kspace/{name}.h5") as file:
        kspace = torch.from_numpy(file["kspace"][()])
    level = measure_noise(kspace)
    assert (level.whitening is not None) == whitened
    assert ("outer k-space has signal" in "".join(level.notes)) != whitened
