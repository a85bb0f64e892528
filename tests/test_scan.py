"""From a file to a scaled acquisition: what it is made of, and what it must never see."""

from __future__ import annotations

import numpy as np
import pytest
import sigpy
import sigpy.mri
import torch
from torch import Tensor

from mri_score.data.acquisition import Acquisition
from mri_score.data.noise_rings import whiten
from mri_score.data.scan import Scan, Undersampling, _fingerprint, coil_weight, from_arrays, scaled
from mri_score.errors import InputError
from mri_score.numerics.fourier import fft, ifft, resize_image
from mri_score.numerics.noise import generators, noise_like
from mri_score.readers.fastmri import FastMRI, write_fastmri
from mri_score.readers.maps import normalise_maps, write_maps
from mri_score.simulation.phantom import phantom

SHAPE = (96, 81)
FAST = Undersampling(acceleration=4)


@pytest.fixture(scope="module")
def head() -> Acquisition:
    return phantom(SHAPE, coils=6, slices=3)


def stored(folder, kspace: Tensor, name: str = "head", **options) -> FastMRI:
    """k-space in a file, read back."""
    folder.mkdir(exist_ok=True)
    write_fastmri(folder / f"{name}.h5", kspace, **options)
    return FastMRI(folder / f"{name}.h5")


def cg_sense(y: Tensor, maps: Tensor, mask: Tensor) -> np.ndarray:
    """SigPy's conjugate gradient, 15 iterations from zero: (C, H, W) -> (H, W)."""
    model = sigpy.mri.linop.Sense(maps.numpy(), weights=mask.expand(y.shape[-2:]).numpy().astype(np.float32))
    image = np.zeros(y.shape[-2:], np.complex64)
    steps = sigpy.alg.ConjugateGradient(model.H * model, model.H * y.numpy(), image, max_iter=15, tol=0)
    while not steps.done():
        steps.update()
    return image


def test_the_scale_is_the_99th_percentile_of_cg_sense(tmp_path, head):
    scan = Scan(stored(tmp_path, 7 * head.kspace), FAST)
    found = scan.acquisition(1)
    mixed = scan.kspace(1) if scan.mixing is None else whiten(scan.kspace(1), scan.mixing)
    image = cg_sense(mixed, found.maps[0], found.mask[0, 0])
    percentile = np.percentile(np.abs(image), 99, method="inverted_cdf")
    assert float(found.scale) == pytest.approx(percentile, rel=1e-3)
    assert torch.allclose(found.kspace[0] * found.scale, mixed, rtol=1e-5, atol=1e-5)
    assert float(found.noise_std * found.scale) == pytest.approx(scan.noise_std)
    assert scan.noise_std == pytest.approx(7 * float(head.noise_std), rel=0.06)


@pytest.mark.parametrize("coils", [None, 4])
@pytest.mark.parametrize("oversampled", [False, True])
def test_nothing_outside_the_mask_is_seen(tmp_path, head, oversampled, coils):
    """Other values in the unsampled columns of the file: bit by bit the same acquisition."""
    y, options = head.kspace, {"recon": SHAPE}
    if oversampled:
        y = fft(resize_image(ifft(y), (2 * SHAPE[0], SHAPE[1])))
        y = y + 0.01 * noise_like(y, generators(2, draws=3))
    mask = Scan(stored(tmp_path / "a", y, **options), FAST).mask
    junk = torch.where(mask, y, 100 * noise_like(y, generators(9, draws=3)))
    one, two = (Scan(stored(tmp_path / f, k, **options), FAST, coils=coils) for f, k in (("a", y), ("b", junk)))
    assert not torch.equal(one.file.kspace(1), two.file.kspace(1))
    a, b = one.acquisition(1), two.acquisition(1)
    for name in ("kspace", "maps", "mask", "noise_std", "scale"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert one.notes == two.notes
    assert (a.whitening is None and b.whitening is None) or torch.equal(a.whitening, b.whitening)


def test_the_noise_has_a_floor(head):
    y, mask = head.kspace[:1], torch.ones(1, 1, 1, SHAPE[1], dtype=torch.bool)
    assert scaled(y, mask, head.maps[:1], 1e-9, "head").noise_std.tolist() == [pytest.approx(1e-3)]
    above = scaled(y, mask, head.maps[:1], 0.01, "head")
    assert float(above.noise_std * above.scale) == pytest.approx(0.01)


@pytest.mark.parametrize("rows", [6, 4])
def test_coil_weight_leads_back_to_the_files_coils(head, rows):
    """|image| times it is the RSS of un-mixed S x; of compressed coils, of what compression kept."""
    image, mixing = head.image[:1], noise_like(torch.empty(1, 6, 6, dtype=torch.complex64), generators(4))[0]
    if rows < 6:
        mixing = torch.linalg.qr(mixing)[0][:rows]
    maps = normalise_maps(whiten(head.maps[:1], mixing))
    back = whiten(maps * image[:, None], mixing.mH if rows < 6 else torch.linalg.inv(mixing))
    weight = coil_weight(Acquisition("head", maps, maps, whitening=mixing))
    assert torch.allclose(weight * image.abs(), back.abs().square().sum(1).sqrt(), rtol=1e-3, atol=1e-5)
    assert torch.allclose(coil_weight(head), torch.ones(3, *SHAPE), atol=1e-5)


def test_unequal_coils_are_whitened_and_the_rss_stays_that_of_the_file(tmp_path):
    clean = phantom(160, coils=6, noise_snr=None)
    gain = torch.diag(torch.linspace(0.5, 1.5, 6)).to(torch.complex64)
    y = clean.kspace + whiten(0.02 * noise_like(clean.kspace, generators(5)), gain)
    found = Scan(stored(tmp_path, y)).acquisition(0)
    assert found.whitening is not None
    combined = (found.maps.conj() * ifft(found.kspace)).sum(1) * found.scale
    rss = clean.image.abs()
    inside = rss > 0.2
    assert float(((coil_weight(found) * combined.abs() - rss)[inside]).norm() / rss[inside].norm()) < 0.05


def test_given_maps_are_used_as_they_are(tmp_path, head):
    write_maps(tmp_path / "maps.h5", 3 * head.maps, torch.ones(3, *SHAPE), {})
    scan = Scan(stored(tmp_path, head.kspace), FAST, maps=tmp_path / "maps.h5")
    found = scan.acquisition(2)
    assert torch.allclose(found.maps, head.maps[2:], atol=1e-5) and found.whitening is None
    assert scan.noise_std == pytest.approx(float(head.noise_std), rel=0.05)
    with pytest.raises(InputError, match="--coils makes virtual coils"):
        Scan(scan.file, FAST, maps=tmp_path / "maps.h5", coils=4).acquisition(0)


def test_compressed_coils_keep_noise_and_image(tmp_path, head):
    file = stored(tmp_path, head.kspace)
    whole, scan = Scan(file, FAST), Scan(file, FAST, coils=4)
    found = scan.acquisition(1)
    assert found.kspace.shape[1] == found.maps.shape[1] == 4 and found.whitening.shape == (4, 6)
    assert scan.noise_std == whole.noise_std
    weight, full = coil_weight(found), coil_weight(whole.acquisition(1))
    inside = head.image[1:2].abs() > 0.2
    assert float((weight - full)[inside].norm() / full[inside].norm()) < 0.05


def test_real_coils_are_not_whitened_by_signal(shared):
    """Two rings agree within 5 % on this head, and hold signal."""
    scan = Scan(FastMRI(shared / "data/kspace/brain_t2_4ch.h5"), FAST)
    assert scan.mixing is None and scan.acquisition(0).whitening is None
    assert "so the coils are not whitened" in scan.notes[-1]


def test_empty_slices_at_the_ends_do_not_stop_a_volume(tmp_path):
    scan = phantom(64, coils=6, slices=6)
    y = scan.kspace.clone()
    y[[0, 1, 2, 5]] = 0
    found = Scan(stored(tmp_path, y), FAST)
    assert found.looked_at == [3, 4] and found.middle == 3
    assert found.noise_std == pytest.approx(float(scan.noise_std), rel=0.1)
    assert found.acquisition(4).kspace.abs().sum() > 0
    for slice in (0, 5):
        with pytest.raises(InputError, match=f"head.h5: slice {slice} is all zeros; leave it out with --slices"):
            found.acquisition(slice)


def test_maps_are_cached_by_their_mixing(tmp_path, head):
    matrix = noise_like(torch.empty(1, 6, 6, dtype=torch.complex64), generators(4))[0]
    assert _fingerprint(matrix) != _fingerprint(matrix.flip(0))  # the same sum of magnitudes
    assert _fingerprint(matrix) != _fingerprint(-matrix)
    steady = matrix.real.round(decimals=3) + 0j
    assert _fingerprint(steady) == _fingerprint(steady + 1e-8) == _fingerprint(steady - 1e-8)
    file, cache = stored(tmp_path, head.kspace), tmp_path / "cache"
    first = Scan(file, FAST, cache=cache).acquisition(1)
    again = Scan(file, FAST, cache=cache).acquisition(1)
    assert torch.equal(first.maps, again.maps) and len(list(cache.glob("*.h5"))) == 1
    Scan(file, FAST, cache=cache, coils=4).acquisition(1)
    assert len(list(cache.glob("*.h5"))) == 2


def test_an_undersampled_file_is_not_undersampled_again(tmp_path, head):
    file = stored(tmp_path, head.kspace)
    mask = Scan(file, FAST).mask
    already = stored(tmp_path, head.kspace * mask, "fast", mask=mask.flatten())
    with pytest.raises(InputError, match="already undersampled .* without --accel"):
        Scan(already, FAST)
    assert torch.equal(Scan(already).mask.flatten(), mask.flatten())


# Arrays.


@pytest.mark.parametrize("shape", [(1, 1, 1, SHAPE[1]), (SHAPE[1],), (1, SHAPE[1]), SHAPE, (3, 1, 1, SHAPE[1])])
def test_masks_of_arrays_are_found_or_broadcast(tmp_path, head, shape):
    mask = Scan(stored(tmp_path, head.kspace), FAST).mask
    y = head.kspace * mask
    found, given = from_arrays(y, maps=head.maps), from_arrays(y, mask.expand(3, 1, *SHAPE)[
        tuple(slice(0, n) for n in (1,) * (4 - len(shape)) + shape)].reshape(shape), maps=head.maps)  # fmt: skip
    assert torch.equal(found.mask, mask)
    assert torch.allclose(found.noise_std, given.noise_std, rtol=1e-5)
    assert torch.allclose(found.kspace, given.kspace, rtol=1e-5)


def test_arrays_that_cannot_be_reconstructed_are_refused(head):
    y = head.kspace
    for bad, message in (
        (y[0], "needs complex"),
        (y * torch.nan, "NaN"),
    ):
        with pytest.raises(InputError, match=message):
            from_arrays(bad)
    with pytest.raises(InputError, match="a mask of shape .* does not fit"):
        from_arrays(y, torch.ones(7))
    for maps in (head.maps[:2], head.maps[:, :4], head.maps[0]):
        with pytest.raises(InputError, match="maps of shape .* do not fit"):
            from_arrays(y, maps=maps)


def test_a_given_noise_level_takes_the_place_of_the_measured_one(tmp_path, head):
    measured = Scan(stored(tmp_path, head.kspace[0]), Undersampling(4.0))
    given = Scan(stored(tmp_path, head.kspace[0]), Undersampling(4.0), noise_std=3 * measured.noise_std * measured.unit)
    assert given.noise_std == pytest.approx(3 * measured.noise_std)
    assert given.acquisition(0).noise_std == pytest.approx(3 * measured.acquisition(0).noise_std)
    assert torch.equal(given.acquisition(0).kspace, measured.acquisition(0).kspace)
    assert any("is given as" in note and "outer k-space has" in note for note in given.notes)
    with pytest.raises(InputError, match="must be positive"):
        Scan(stored(tmp_path, head.kspace[0]), noise_std=-1.0)
