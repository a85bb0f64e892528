"""The noise that coil maps leave unexplained, against the simulated noise and the coil null space of real scans."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from mri_score.data.coils import coil_maps
from mri_score.data.masks import make_mask, undersample
from mri_score.data.noise_level import noise_level, unexplained_noise
from mri_score.data.noise_rings import measure_noise, whiten
from mri_score.data.scan import from_arrays
from mri_score.numerics.fourier import ifft
from mri_score.numerics.noise import generators, noise_like
from mri_score.readers.fastmri import FastMRI, write_fastmri
from mri_score.simulation.phantom import phantom
from mri_score.sources.combined_images import Combined


def columns(width: int, acceleration: int) -> Tensor:
    return make_mask("variable-density", (width, width), acceleration, seed=1)[None, None]


@pytest.mark.parametrize("acceleration", [1, 4])
@pytest.mark.parametrize("shape", [(256, 256), (128, 96), (101, 101), (64, 64)])
def test_level_of_a_head_whose_outer_kspace_holds_signal(shape, acceleration):
    """Within 5 %, where the outer ring is 1.02 (256) to 1.8 (64) times too high."""
    scan = phantom(shape, coils=8)
    scan = undersample(scan, acceleration=acceleration) if acceleration > 1 else scan
    level = noise_level(scan.kspace, scan.mask)
    assert level.noise_std == pytest.approx(float(scan.noise_std), rel=0.05)
    ring = measure_noise(scan.kspace, scan.mask)
    if max(shape) < 256:
        assert ring.noise_std > 1.2 * float(scan.noise_std)
        assert level.whitening is None and level.covariance is None
        assert torch.allclose(level.coil_std, torch.tensor(level.noise_std))
        assert "is from the residual of the coil maps" in level.notes[-1]
    else:
        assert level.whitening is not None and level.notes == ring.notes


@pytest.mark.parametrize("true_level", [0.003, 0.03])
def test_it_is_proportional_to_the_noise(true_level):
    clean = phantom((128, 101), coils=8, noise_snr=None)
    y = 50 * (clean.kspace + true_level * noise_like(clean.kspace, generators(3)))
    assert unexplained_noise(y, clean.maps) == pytest.approx(50 * true_level, rel=0.05)


def test_padding_and_partial_echo_are_not_counted():
    scan = phantom((128, 120), coils=8)
    y = scan.kspace.clone()
    y[..., :8], y[..., -8:] = 0, 0
    y[..., :30, :] *= 1e-6  # what a crop of the readout makes of lines of zeros
    maps, mask = coil_maps(scan.kspace)[0], torch.ones(1, 1, 1, 120, dtype=torch.bool)
    for given in (None, mask):
        assert unexplained_noise(y, maps, given) == pytest.approx(float(scan.noise_std), rel=0.05)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.2, 2.0])
def test_a_given_level_far_from_the_measured_one_is_warned_of_in_its_own_unit(factor):
    scan = undersample(phantom((128, 128), coils=8), acceleration=4)
    level, unit = float(scan.noise_std), 1e-20  # of samples that single precision cannot square
    given = {"kspace": scan.kspace * unit, "mask": scan.mask[0], "noise_std": factor * level * unit}
    if 0.7 < factor < 1.4:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            from_arrays(**given)
        return
    with pytest.warns(UserWarning, match="noise_std is given as") as caught:
        from_arrays(**given)
    text = str(caught[0].message)
    assert ("smooths" in text) == (factor > 1)
    assert float(text.rsplit(" ", 1)[1]) == pytest.approx(level * unit, rel=0.05)


def test_samples_outside_the_mask_do_not_count():
    scan = phantom(96, coils=8)
    mask, maps = columns(96, 3), scan.maps
    junk = torch.where(mask, scan.kspace, 1000 + 0j)
    assert unexplained_noise(junk, maps, mask) == pytest.approx(unexplained_noise(scan.kspace * mask, maps, mask))


def test_without_outer_samples_or_with_one_coil_it_is_infinite():
    scan = phantom(64, coils=4)
    inner = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    inner[..., 16:48, 16:48] = True
    assert unexplained_noise(scan.kspace * inner, scan.maps, inner) == math.inf
    single = phantom(64, coils=1)
    assert unexplained_noise(single.kspace, single.maps) == math.inf
    ring = measure_noise(single.kspace)
    assert noise_level(single.kspace).noise_std == ring.noise_std


def test_without_maps_the_rings_level_stays_and_a_note_says_so():
    scan = phantom(64, coils=4)
    mask = columns(64, 4)
    mask[..., 32] = False
    level, ring = noise_level(scan.kspace * mask, mask), measure_noise(scan.kspace * mask, mask)
    assert level.noise_std == ring.noise_std
    assert "centre of k-space" in level.notes[-1]


def test_unequal_coils_are_whitened_and_their_level_is_that_of_the_white_noise():
    clean = phantom(160, coils=8, noise_snr=None).kspace
    gain = torch.diag(torch.linspace(0.5, 1.5, 8)).to(torch.complex64)
    noise = whiten(0.03 * noise_like(clean, generators(5)), gain)
    level = noise_level(clean + noise)
    assert level.whitening is not None
    white = whiten(noise, level.whitening)
    assert level.noise_std == pytest.approx(float((white.abs().square().mean() / 2).sqrt()), rel=0.05)


def null_space_noise(kspace: Tensor) -> float:
    """sqrt(sum |x - S S^H x|^2 / (2 (C - 1) H W)) of full k-space (1, C, H, W)."""
    maps, x = coil_maps(kspace)[0], ifft(kspace)
    rest = x - maps * (maps.conj() * x).sum(1, keepdim=True)
    return float((rest.abs().square().sum() / (2 * (kspace.shape[1] - 1) * x[0, 0].numel())).sqrt())


@pytest.mark.parametrize("name", ["brain_t2_4ch", pytest.param("brain_flash_16ch", marks=pytest.mark.slow)])
def test_real_heads_against_their_coil_null_space(shared, name):
    file = FastMRI(shared / f"data/kspace/{name}.h5")
    y = file.kspace(file.slices // 2)[None]
    truth = null_space_noise(y)
    assert measure_noise(y).noise_std > 1.15 * truth
    for acceleration in (1, 2, 4, 8):
        mask = columns(y.shape[-1], acceleration) if acceleration > 1 else file.sampled
        level = noise_level(y * mask, mask)
        assert level.noise_std == pytest.approx(truth, rel=0.06), acceleration
        assert level.whitening is None


def test_training_images_of_a_real_head_use_it(shared):
    volume = Combined(shared / "data/kspace/brain_t2_4ch.h5")
    y = volume.file.kspace(volume.slices[len(volume.slices) // 2])[None]
    assert volume.noise_std == pytest.approx(null_space_noise(y), rel=0.06)
    assert volume.whitening is None and "is from the residual of the coil maps" in volume.notes[-1]


def test_training_images_of_a_small_head_use_it(tmp_path):
    scan = phantom(64, coils=8, slices=4)
    y = scan.kspace.clone()
    y[0] = 0
    write_fastmri(tmp_path / "head.h5", y)
    volume = Combined(tmp_path / "head.h5")
    assert volume.slices == [1, 2, 3]
    assert volume.noise_std == pytest.approx(float(scan.noise_std), rel=0.05)


COVARIANCES = {
    "0.3 + 0.7 of all": 0.3 * torch.eye(8) + 0.7,
    "neighbours": 0.85 ** (torch.arange(8)[:, None] - torch.arange(8)).abs().float(),
}


@pytest.mark.parametrize(
    ("kind", "acceleration"),
    [*(("0.3 + 0.7 of all", r) for r in (1, 4, 8)), pytest.param("neighbours", 8, marks=pytest.mark.slow)],
)
def test_strongly_correlated_coils_are_measured_and_whitened(kind, acceleration):
    """The level within 5 %, and the coils whitened: the largest over the smallest noise power falls from 19 to below 5.
    """
    clean = phantom(128, coils=8, noise_snr=None).kspace
    level = 0.006 * float(clean.abs().max())
    root = torch.linalg.cholesky(COVARIANCES[kind].double()).to(torch.complex64)
    y = clean + level * whiten(noise_like(clean, generators(acceleration)), root)
    mask = make_mask("variable-density", (128, 128), acceleration, seed=3)[None, None]
    found = noise_level(y * mask, mask)
    assert found.noise_std == pytest.approx(level, rel=0.05)
    powers = torch.linalg.svdvals(found.whitening @ root).square()
    assert powers.mean() == pytest.approx(1, rel=0.2) and powers.max() < 5 * powers.min()
