"""The numerical head: its contrast, its noise, its maps, and that a volume is a volume."""

from __future__ import annotations

import math

import pytest
import torch

from mri_score.errors import InputError
from mri_score.numerics.fourier import fft, ifft
from mri_score.operators.sense import Sense
from mri_score.simulation.anatomy import Field, Head
from mri_score.simulation.phantom import (
    CONTRASTS,
    TISSUES,
    Sequence,
    Tissue,
    coil_profiles,
    fine_image,
    phantom,
    pixel_size,
    scanner_points,
)


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.corrcoef(torch.stack([a.abs().flatten(), b.abs().flatten()]))[0, 1].item()


def test_the_same_arguments_give_the_same_scan():
    first, second = phantom(48, coils=3, seed=5), phantom(48, coils=3, seed=5)
    Head.of.cache_clear()
    third = phantom(48, coils=3, seed=5)
    assert torch.equal(first.kspace, second.kspace) and torch.equal(first.kspace, third.kspace)


def test_other_seeds_are_other_heads():
    one, other = phantom(96, seed=1, noise_snr=None).image, phantom(96, seed=2, noise_snr=None).image
    again = phantom(96, seed=1, noise_snr=10).image
    assert correlation(one, other) < 0.9
    assert torch.equal(one, again)


def test_neighbouring_slices_resemble_each_other_more_than_distant_ones():
    image = phantom(64, coils=1, slices=9, noise_snr=None).image
    near = [correlation(image[i], image[i + 1]) for i in range(8)]
    far = [correlation(image[i], image[i + 4]) for i in range(5)]
    assert min(near) > max(far)


def test_a_slice_of_a_stack_is_the_slice_at_its_height():
    stack, alone = phantom(64, slices=3, position=10.0).image, phantom(64, position=15.0).image[0]
    ratio = (stack[2].conj() * alone).sum() / stack[2].abs().square().sum()
    torch.testing.assert_close(stack[2] * ratio, alone, atol=1e-4, rtol=1e-4)
    assert abs(ratio.imag) < 1e-5


@pytest.mark.parametrize("size", [64, 63, (72, 55), (50, 81)])
def test_kspace_is_the_forward_operator_of_the_truth(size):
    scan = phantom(size, coils=5, slices=2, noise_snr=None)
    shape = (size, size) if isinstance(size, int) else size
    assert scan.image.shape == (2, *shape)
    forward = Sense(scan.maps, torch.ones(1, 1, 1, 1, dtype=torch.bool))
    torch.testing.assert_close(forward(scan.image), scan.kspace)
    torch.testing.assert_close(forward.adjoint(scan.kspace), scan.image, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("coils", [1, 2, 8, 17])
def test_maps_have_unit_norm_everywhere(coils):
    maps = phantom((40, 33), coils=coils).maps
    torch.testing.assert_close(maps.abs().square().sum(1), torch.ones(1, 40, 33))


def test_coils_see_different_sides_smoothly():
    profiles, x = coil_profiles((64, 64), 4.0, 10.0, 8), scanner_points((64, 64), 4.0, 10.0)
    head = (x[0] / 80) ** 2 + (x[1] / 100) ** 2 < 1
    magnitude = profiles.abs() * head
    brightest = magnitude.flatten(1).argmax(1)
    assert len(set(brightest.tolist())) == 8
    for axis in (1, 2):
        step = (profiles - profiles.roll(1, axis)).abs() * head
        assert step.max() < 0.2 * magnitude.max()


@pytest.mark.parametrize("snr", [10.0, 25.0])
def test_noise_has_the_stated_level_in_each_component(snr):
    noisy, clean = phantom(96, coils=4, noise_snr=snr), phantom(96, coils=4, noise_snr=None)
    noise = torch.view_as_real(noisy.kspace - clean.kspace)
    stated = 10 ** (-snr / 20) / math.sqrt(2)
    assert noisy.noise_std.item() == pytest.approx(stated)
    assert noise[..., 0].std().item() == pytest.approx(stated, rel=0.02)
    assert noise[..., 1].std().item() == pytest.approx(stated, rel=0.02)
    assert clean.noise_std.item() == 0


def test_the_99th_percentile_is_one():
    image = phantom(96, slices=2, contrast="T1").image
    assert image.abs().flatten().quantile(0.99).item() == pytest.approx(1, abs=1e-2)


def test_the_air_around_the_head_is_empty_but_for_ringing():
    image = phantom(128).image[0].abs()
    border = torch.cat([image[:4].flatten(), image[:, :4].flatten(), image[:, -4:].flatten()])
    assert border.max() < 0.03


def test_signals_are_the_closed_forms():
    tissue = Tissue(t1=1000, t2=100, density=0.8)
    assert Sequence(1e9, 0).signal(tissue) == pytest.approx(0.8)
    assert Sequence(1000 * math.log(2), 100 * math.log(2)).signal(tissue) == pytest.approx(0.8 / 4)
    assert Sequence(1e9, 0, 1000 * math.log(2)).signal(tissue) == pytest.approx(0)
    assert Sequence(1e9, 0, 0).signal(tissue) == pytest.approx(-0.8)


def test_tissues_are_ordered_as_radiologists_know_them():
    signal = {name: {t: s.signal(TISSUES[t]) for t in TISSUES} for name, s in CONTRASTS.items()}
    assert signal["T2"]["csf"] > signal["T2"]["lesion"] > signal["T2"]["grey"] > signal["T2"]["white"]
    assert signal["T1"]["fat"] > signal["T1"]["white"] > signal["T1"]["grey"] > signal["T1"]["csf"]
    assert signal["FLAIR"]["lesion"] > signal["FLAIR"]["grey"] > 5 * abs(signal["FLAIR"]["csf"])
    assert signal["PD"]["grey"] > signal["PD"]["white"] > signal["PD"]["bone"]


@pytest.mark.parametrize("contrast", ["T1", "T2", "FLAIR"])
def test_deep_tissue_shows_its_signal(contrast):
    """The median where a tissue's own layer is on top and no later layer is near."""
    head, shape = Head.of(3), (96, 96)
    image = fine_image(shape, 14.0, 3, contrast).abs().flatten()
    p = head.points(scanner_points((192, 192), pixel_size(shape) / 2, 14.0).flatten(1))
    number = {name: i for i, name in enumerate(TISSUES)}
    top, inside = torch.zeros(p.shape[1], dtype=torch.long), torch.zeros(p.shape[1])
    for name, distance in head.layers(p):
        clear = torch.where(distance < 0, -distance, torch.where(distance < 2, 0.0, inside))
        top, inside = torch.where(distance < 0, number[name], top), clear
    sequence = CONTRASTS[contrast]
    for name in ("white", "csf", "thalamus"):
        seen = image[(top == number[name]) & (inside > 1.0)]
        assert len(seen) > 30
        assert seen.median().item() == pytest.approx(abs(sequence.signal(TISSUES[name])), rel=0.06, abs=0.003)


def test_a_field_has_its_gradient_variance_and_wavelength():
    field = Field(0, "test", wavelength=30.0, gradient=True)
    p = 150 * torch.rand(3, 4000, generator=torch.Generator().manual_seed(0))
    value, *gradient = field(p)
    assert value.std().item() == pytest.approx(1, abs=0.15)
    assert torch.stack(gradient).square().sum(0).mean().sqrt().item() == pytest.approx(2 * math.pi / 30, rel=0.2)
    for axis, slope in enumerate(gradient):
        step = torch.zeros(3, 1)
        step[axis] = 2.2
        measured = (field(p + step)[0] - field(p - step)[0]) / 4.4
        assert (measured - slope).std() < 0.15 * slope.std()


def test_truth_is_band_limited_not_sampled():
    """The centre of k-space does not depend on the matrix: pixels hold partial volume."""
    small, large = (phantom(n, coils=1, noise_snr=None, position=0.0).image[0] for n in (64, 128))
    inner = ifft(fft(large)[32:96, 32:96])
    scale = (inner.conj() * small).sum() / inner.abs().square().sum()
    error = (scale * inner - small).abs().square().sum() / small.abs().square().sum()
    assert error < 0.01


def test_bad_arguments_are_named():
    with pytest.raises(InputError, match="T3.*FLAIR"):
        phantom(contrast="T3")
    with pytest.raises(InputError, match="8 x 8"):
        phantom(size=8)
    with pytest.raises(InputError, match="coils=0"):
        phantom(coils=0)
