"""Coil maps against SigPy and simulated truth; calibration regions and coil compression."""

from __future__ import annotations

import math

import h5py
import numpy as np
import pytest
import sigpy
import sigpy.mri
import torch

from mri_score.data import coils, espirit
from mri_score.data.coils import (
    calibration_region,
    coil_maps,
    compress_coils,
    truth_image,
)
from mri_score.errors import InputError
from mri_score.numerics.fourier import fft, ifft, resize_kspace
from mri_score.numerics.noise import generators, noise_like


def scan(shape=(48, 51), coils=4, noise_std=1e-3, seed=0):
    """k-space (1, C, H, W), true maps and object of a phantom; the unitary FFT keeps noise_std in the image."""
    image = torch.from_numpy(sigpy.shepp_logan(shape).astype(np.complex64))[None]
    maps = torch.from_numpy(sigpy.mri.birdcage_maps((coils, *shape), r=1.3).astype(np.complex64))[None]
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    kspace = fft(maps * image)
    return kspace + noise_std * noise_like(kspace, generators(seed, "scan")), maps, image[0].abs() > 0.05


def lines_mask(width, centre, step=4):
    mask = torch.zeros(1, 1, 1, width, dtype=torch.bool)
    mask[..., ::step] = True
    mask[..., width // 2 - centre // 2 : width // 2 - centre // 2 + centre] = True
    return mask


def square_mask(shape, size, seed=0):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.3
    return (mask | resize_kspace(torch.ones(size, size, dtype=torch.bool), shape))[None, None]


def aligned(maps, witness):
    """The witness with the phase of `maps` at every pixel."""
    return witness * torch.sgn((witness.conj() * maps).sum(-3, keepdim=True))


def unexplained(kspace, maps, inside):
    """Relative energy of the coil images that the maps cannot carry."""
    images = ifft(kspace)
    left = images - maps * (maps.conj() * images).sum(1, keepdim=True)
    return float(left[..., inside].abs().square().sum() / images[..., inside].abs().square().sum())


def assert_like_sigpy(kspace, inside):
    maps, eigenvalue = espirit.espirit(resize_kspace(kspace, (24, 24)), kspace.shape[-2:])
    app = sigpy.mri.app.EspiritCalib(kspace[0].numpy(), crop=0, output_eigenvalue=True, show_pbar=False)
    witness, value = (torch.from_numpy(np.squeeze(part)) for part in app.run())
    assert torch.allclose(aligned(maps[0], witness)[:, inside], maps[0][:, inside], atol=1e-4)
    assert torch.allclose(eigenvalue[0][inside], value[inside], atol=1e-4)


@pytest.mark.parametrize("shape", [(64, 48), (45, 63)])
def test_equals_sigpy(shape):
    kspace, _, inside = scan(shape)
    assert_like_sigpy(kspace, inside)


@pytest.mark.slow
def test_equals_sigpy_on_a_head(shared):
    with h5py.File(shared / "data/kspace/brain_flash_16ch.h5") as file:
        kspace = torch.from_numpy(file["kspace"][()])
    rss = ifft(kspace)[0].abs().square().sum(0).sqrt()
    assert_like_sigpy(kspace, rss > 0.15 * rss.quantile(0.99))


@pytest.mark.parametrize(
    ("shape", "coil_count", "noise_std"), [((64, 48), 8, 1e-3), ((45, 63), 3, 3e-2), ((33, 40), 1, 1e-3)]
)
def test_filtered_maps_equal_the_eigensolver_s(monkeypatch, shape, coil_count, noise_std):
    """In air too; and all but a few pixels of the object come from the filter."""
    kspace, _, inside = scan(shape, coil_count, noise_std)
    calibration, certain = resize_kspace(kspace, (24, 24)), []
    witness, values = espirit.espirit(calibration.to(torch.complex128), shape)
    filtered = espirit._filtered

    def watched(*arguments):
        certain.append(filtered(*arguments)[2].reshape(-1, shape[1]))
        return filtered(*arguments)

    monkeypatch.setattr(espirit, "_filtered", watched)
    maps, eigenvalue = espirit.espirit(calibration, shape)
    assert torch.cat(certain)[inside].float().mean() > 0.98
    assert (maps - aligned(maps, witness)).norm(dim=1).max() < 1.2 * espirit.ACCURACY  # single precision adds a little
    assert torch.allclose(eigenvalue.double(), values, atol=1e-6)


def test_the_filter_is_certain_of_no_wrong_vector():
    """Neither of the second eigenvector nor of a mixture with one whose eigenvalue is near, at any scale."""
    basis, _ = torch.linalg.qr(noise_like(torch.empty(3, 5, 5, dtype=torch.complex128), generators(2, draws=3)))
    values = torch.tensor([[1, 0.6, 0.5, 0.1, 0], [1, 0.6, 0.5, 0.1, 0], [1, 0.97, 0.5, 0.1, 0]], dtype=torch.float64)
    matrices = 1e-3 * (basis * values[:, None]) @ basis.mH
    starts = torch.stack([basis[0].sum(1), basis[1, :, 1], basis[2].sum(1)])
    value, vector, good = espirit._filtered(matrices, starts)
    assert good.tolist() == [True, False, False]
    assert float(value[0]) == pytest.approx(1e-3, rel=1e-6)
    assert float((basis[0, :, 0].conj() @ vector[0]).abs()) == pytest.approx(1, abs=1e-6)
    value, vector = espirit._top_eigenpairs(matrices[:, None, None], starts, torch.complex64)
    assert torch.allclose(value.flatten(), torch.full((3,), 1e-3, dtype=torch.float64), rtol=1e-6)
    assert torch.allclose((basis[..., 0].conj() * vector[:, 0, 0]).sum(1).abs(), torch.ones(3).double(), atol=1e-6)


@pytest.mark.parametrize("size", [(12, 11), (24, 24), (40, 30)])
@pytest.mark.parametrize("noise_std", [1e-4, 3e-2])
def test_the_projector_is_that_of_the_singular_vectors(size, noise_std):
    """Fewer patches than entries of a patch, or more; noise below the threshold, or above."""
    kspace = torch.cat([scan(noise_std=noise_std, seed=seed)[0] for seed in (1, 2)])
    patches = espirit._patches(resize_kspace(kspace, size), 6, None)
    left, values, _ = torch.linalg.svd(patches)
    entries, count = patches.shape[1:]
    every = torch.zeros(2, entries, dtype=torch.float64)
    every[:, : values.shape[1]] = values.square()
    noise = every.sort().values[:, : entries // 4].mean(1) / count
    edge = 1.1 * noise.sqrt() * (math.sqrt(count) + math.sqrt(entries))
    kept = every.sqrt() > torch.maximum(0.02 * values[:, 0], edge)[:, None]
    expected = (left * kept[:, None]) @ left.mH
    assert torch.allclose(espirit._projector(patches, 0.02), expected, atol=1e-8)


def test_finds_the_true_maps_and_a_unit_norm_everywhere():
    kspace, truth, inside = scan((63, 50))
    maps, eigenvalue, _ = coil_maps(kspace)
    assert ((maps.conj() * truth).sum(1).abs()[:, inside] > 0.999).all()
    assert torch.allclose(maps.abs().square().sum(1), torch.ones(1, 63, 50), atol=1e-5)
    assert (eigenvalue[:, inside] > 0.97).all() and (eigenvalue < 1.001).all()


def test_the_dominant_virtual_coil_has_no_phase():
    kspace, _, _ = scan()
    maps, _, _ = coil_maps(kspace * 3j)
    again, _, _ = coil_maps(kspace)
    assert torch.allclose(maps, again, atol=1e-4)
    matrix = compress_coils(kspace[..., 9:42], 1)[1]
    virtual = torch.einsum("dc,bchw->bdhw", matrix, maps)
    virtual = virtual * torch.sgn(virtual.mean()).conj()
    strong = virtual.abs() > 0.2
    assert strong.float().mean() > 0.5 and (virtual[strong].angle().abs() < 0.05).all()


def test_maps_stay_smooth_where_the_first_coil_is_dark():
    """A silent phase reference would tear the phase of all the other coils apart."""
    kspace, _, inside = scan()
    noise = 1e-3 * noise_like(kspace[:, :1], generators(5))
    maps, _, _ = coil_maps(torch.cat([noise, kspace], 1))
    turn = (maps[:, 1:, 1:] * maps[:, 1:, :-1].conj()).sum(1).angle().abs()
    assert turn[:, (inside[1:] & inside[:-1])].max() < 0.2


def test_a_slice_does_not_depend_on_its_batch_mates_or_on_the_blocks(monkeypatch):
    kspace = torch.cat([scan(seed=1)[0], 5 * scan(seed=2, noise_std=1e-2)[0]])
    together, values, _ = coil_maps(kspace)
    monkeypatch.setattr(espirit, "BLOCK", 51 * 16 * 7)
    for i in range(2):
        alone, value, _ = coil_maps(kspace[i : i + 1])
        assert torch.allclose(alone[0], together[i], atol=1e-5) and torch.allclose(value[0], values[i], atol=1e-5)


def test_whole_readout_beats_the_square_with_ten_lines():
    kspace, _, inside = scan((96, 80), noise_std=3e-2)
    wide, _, report = coil_maps(kspace, lines_mask(80, 10))
    square, _ = espirit.espirit(resize_kspace(kspace, (10, 10)), (96, 80))
    assert report.shapes == ((64, 10),)
    floor = unexplained(kspace, coil_maps(kspace)[0], inside)
    assert unexplained(kspace, wide, inside) - floor < 0.5 * (unexplained(kspace, square, inside) - floor)


@pytest.mark.parametrize("lines", [6, 8, 10, 16, 24])
def test_the_kernel_suits_the_number_of_lines(lines):
    """Maps of the kernel that is chosen are near the best of all kernels; those of kernel 6 are not, with few lines."""
    kspace, _, inside = scan((96, 80), noise_std=3e-2)
    mask = lines_mask(80, lines)
    floor = unexplained(kspace, coil_maps(kspace)[0], inside)
    left = [unexplained(kspace, coil_maps(kspace, mask, kernel=side)[0], inside) for side in (3, 4, 5, 6)]
    chosen = unexplained(kspace, coil_maps(kspace, mask)[0], inside)
    assert chosen < 1.05 * min(left)
    assert lines > 10 or chosen - floor < 0.8 * (left[-1] - floor)


def test_only_the_calibration_lines_count():
    kspace, _, _ = scan((40, 60))
    mask = lines_mask(60, 12, step=7)
    outside = torch.ones(60, dtype=torch.bool)
    outside[24:36] = False
    changed = torch.where(outside, 100 * kspace.flip(-1), kspace)
    assert torch.equal(coil_maps(kspace, mask)[0], coil_maps(changed, mask)[0])
    by_hand, _ = espirit.espirit(kspace[..., 24:36], (40, 60))
    assert torch.equal(coil_maps(kspace, mask)[0], by_hand)
    turned, _, report = coil_maps(kspace.mT, mask.mT)
    assert report.shapes == ((12, 40),) and torch.allclose(turned.mT, by_hand, atol=1e-4)


def test_patches_with_holes_are_left_out():
    kspace, _, inside = scan()
    calibration = resize_kspace(kspace, (24, 22))
    holes = torch.ones(24, 22, dtype=torch.bool)
    whole, _ = espirit.espirit(calibration, (48, 51))
    assert torch.equal(espirit.espirit(calibration, (48, 51), sampled=holes)[0], whole)
    holes[3, 4] = holes[18, 15] = False
    spoilt = torch.where(holes, calibration, 1e3)
    maps, _ = espirit.espirit(spoilt, (48, 51), sampled=holes)
    assert (maps.conj() * whole).sum(1).abs()[:, inside].min() > 0.999
    assert (espirit.espirit(spoilt, (48, 51))[0].conj() * whole).sum(1).abs()[:, inside].min() < 0.9


def test_calibration_region_of_masks():
    mask = torch.zeros(100, dtype=torch.bool)
    mask[[3, 20, 44, 80]] = True
    mask[46:55] = True
    assert calibration_region(mask.expand(70, 100)) == (slice(3, 67), slice(46, 55))
    assert calibration_region(mask[:, None].expand(100, 70)) == (slice(46, 55), slice(3, 67))
    assert calibration_region(torch.ones(31, 101).bool(), lines=24) == (slice(0, 31), slice(38, 62))
    assert calibration_region(square_mask((40, 40), 10)[0, 0]) is None
    with pytest.raises(InputError, match="line 50"):
        calibration_region(torch.roll(mask, 20).expand(70, 100))


def test_two_dimensional_masks_keep_the_square_of_least_misfit():
    kspace, _, inside = scan((64, 60), noise_std=1e-2)
    mask = square_mask((64, 60), 16)
    maps, _, report = coil_maps(kspace * mask, mask)
    held_out = coils._held_out(mask[0, 0])
    tried = {}
    for size in coils.SIZES:
        holes = resize_kspace(mask[0, 0], (size, size))
        one, _ = espirit.espirit(resize_kspace(kspace * mask, (size, size)), (64, 60), sampled=holes)
        tried[size] = coils._misfit(kspace * mask, one, mask[0, 0], held_out).item()
    assert report.misfit[0] == pytest.approx(min(tried.values()), rel=1e-4)
    assert tried[report.shapes[0][0]] == pytest.approx(min(tried.values()), rel=1e-4)
    assert unexplained(kspace, maps, inside) < 0.05
    assert coils._misfit(kspace * mask, maps.flip(1), mask[0, 0], held_out) > 2 * report.misfit[0]


def test_held_out_samples_take_no_part_in_their_own_prediction():
    kspace, _, _ = scan((64, 60))
    mask = square_mask((64, 60), 16)[0, 0]
    held_out = coils._held_out(mask)
    assert 20 < held_out.sum() < 0.1 * mask.sum() and not (held_out & ~mask).any()
    assert not resize_kspace(held_out, (24, 24)).any()
    maps, _, _ = coil_maps(kspace)
    assert coils._misfit(kspace * ~held_out + 1e4 * held_out, maps, mask, held_out).item() == pytest.approx(1, abs=1e-2)


def test_a_mask_for_each_slice():
    kspace = torch.cat([scan(seed=1)[0], scan(seed=2)[0]])
    masks = torch.cat([lines_mask(51, 9).expand(1, 1, 48, 51), square_mask((48, 51), 20)])
    maps, _, report = coil_maps(kspace * masks, masks)
    for i in range(2):
        alone, _, one = coil_maps(kspace[i : i + 1] * masks[i], masks[i : i + 1])
        assert torch.equal(maps[i], alone[0]) and report.shapes[i] == one.shapes[0]


def test_prospective_scan_with_holes_in_its_centre(shared, monkeypatch):
    with h5py.File(shared / "data/kspace/prospective_random_6ch.h5") as file:
        kspace, mask = torch.from_numpy(file["kspace"][()]), torch.from_numpy(file["mask"][()])
    assert not resize_kspace(mask, (16, 16)).all()
    monkeypatch.setattr(coils, "SIZES", (24, 20, 8))
    _, _, report = coil_maps(kspace, mask)
    assert report.misfit[0] < 0.11 and report.shapes[0] > (8, 8)


def test_bad_calibration_is_named():
    kspace, _, _ = scan((40, 60))
    with pytest.raises(InputError, match=r"40 x 2.*at least 3"):
        coil_maps(kspace, lines_mask(60, 2, step=9))
    with pytest.raises(InputError, match="slice 0 of 1 is zero in all coils"):
        coil_maps(torch.zeros_like(kspace))
    with pytest.raises(InputError, match="zero in coil 2"):
        coil_maps(kspace * (torch.arange(4) != 2)[:, None, None])
    with pytest.raises(InputError, match="NaN"):
        coil_maps(torch.where(torch.arange(60) == 30, torch.nan, kspace))
    with pytest.raises(InputError, match="no complete 3 x 3 patch"):
        coil_maps(kspace, (torch.arange(40)[:, None] + torch.arange(60)) % 2 == 0)
    with pytest.raises(InputError, match="no fully"):
        espirit.espirit(kspace, (40, 60), sampled=torch.zeros(40, 60, dtype=torch.bool))


def test_truth_carries_the_whole_signal():
    kspace, _, inside = scan((48, 51), noise_std=1e-4)
    rss = ifft(kspace).abs().square().sum(1).sqrt()
    truth = truth_image(kspace)
    assert (truth.abs() <= rss + 1e-5).all()
    assert torch.allclose(truth.abs()[:, inside], rss[:, inside], rtol=5e-3)
    turned = coil_maps(kspace)[0] * 1j
    assert torch.allclose(truth_image(kspace, turned), -1j * truth, atol=1e-6)


def test_compression_keeps_noise_white_and_what_fits():
    kspace, _, _ = scan(coils=3, noise_std=0)
    mix, _ = torch.linalg.qr(noise_like(torch.empty(1, 8, 3, dtype=torch.complex64), generators(1))[0])
    eight = torch.einsum("dc,bchw->bdhw", mix, kspace)
    three, matrix = compress_coils(eight, 3)
    assert torch.allclose(matrix @ matrix.mH, torch.eye(3, dtype=matrix.dtype), atol=1e-5)
    assert torch.allclose(torch.einsum("dc,bdhw->bchw", matrix.conj(), three), eight, atol=1e-5)
    two, _ = compress_coils(eight, 2)
    singular = torch.linalg.svdvals(eight.movedim(1, 0).flatten(1))
    assert two.abs().square().sum() == pytest.approx(float(singular[:2].square().sum()), rel=1e-4)
    assert torch.equal(compress_coils(eight[:, :, :9], 3, matrix)[0], three[:, :, :9])
    with pytest.raises(InputError, match="8 coils to 9"):
        compress_coils(eight, 9)


@pytest.mark.parametrize("noise_std", [0.03, 0.12])
def test_maps_of_small_noisy_images_keep_to_the_signal(noise_std):
    """Noise that reaches above the threshold would span the whole space, and leave maps of nothing."""
    kspace, true, inside = scan((48, 51), noise_std=noise_std)
    maps, _, _ = coil_maps(kspace)
    shared = (maps.conj() * true).sum(1).abs()[0]
    assert float(shared[inside].median()) > 0.99
