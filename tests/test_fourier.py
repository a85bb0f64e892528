"""Laws of the Fourier transform and its crops, of channels, and of noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sigpy
import torch
from torch import Tensor

from mri_score.numerics.channels import from_channels, per_item, real_size, squared_norm, to_channels
from mri_score.numerics.fourier import fft, ifft, resize_image, resize_kspace
from mri_score.numerics.noise import generators, key, noise_like, signs_like, uniform

SIZES = [(8, 6), (7, 9), (8, 5), (5, 8), (1, 4)]
RESIZES = [(8, 4), (8, 5), (9, 4), (9, 5), (4, 8), (5, 8), (4, 9), (5, 9), (6, 6)]


def gaussian(*shape: int, dtype: torch.dtype = torch.complex128, seed: int = 0) -> Tensor:
    return noise_like(torch.zeros(shape, dtype=dtype), generators(seed, draws=shape[0]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("axes", [(-2, -1), (-1,), (-2,), (1, 2)])
def test_fft_equals_sigpy_both_ways(size, axes):
    x = gaussian(3, *size)
    np.testing.assert_allclose(fft(x, axes).numpy(), sigpy.fft(x.numpy(), axes=axes), atol=1e-12)
    np.testing.assert_allclose(ifft(x, axes).numpy(), sigpy.ifft(x.numpy(), axes=axes), atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_fft_is_unitary(size):
    x, y = gaussian(2, *size), gaussian(2, *size, seed=1)
    torch.testing.assert_close(ifft(fft(x)), x)
    torch.testing.assert_close(fft(ifft(x)), x)
    torch.testing.assert_close(squared_norm(fft(x)), squared_norm(x))
    torch.testing.assert_close(torch.vdot(fft(x).flatten(), y.flatten()), torch.vdot(x.flatten(), ifft(y).flatten()))


@pytest.mark.parametrize("size", SIZES)
def test_dc_and_the_image_centre_sit_at_half(size):
    """A constant has all of its energy in DC; a point at the centre has a flat, phase-free spectrum."""
    centre = (0, size[0] // 2, size[1] // 2)
    dc = torch.zeros(1, *size, dtype=torch.complex128)
    dc[centre] = math.sqrt(math.prod(size))
    torch.testing.assert_close(fft(torch.ones_like(dc)), dc)
    point = torch.zeros_like(dc)
    point[centre] = 1
    torch.testing.assert_close(fft(point), torch.full_like(dc, 1 / math.sqrt(math.prod(size))))


@pytest.mark.parametrize(("before", "after"), RESIZES)
def test_image_resize_follows_fastmri_and_kspace_resize_keeps_dc(before, after):
    large, small = max(before, after), min(before, after)
    image_offset, kspace_offset = (large - small) // 2, large // 2 - small // 2
    x = torch.arange(1, before + 1).repeat(3, 1)
    for resize, offset in ((resize_image, image_offset), (resize_kspace, kspace_offset)):
        result = resize(x, (after,))
        if after <= before:
            assert torch.equal(result, x[:, offset : offset + after])
        else:
            assert torch.equal(result[:, offset : offset + before], x) and result.sum() == x.sum()
    assert resize_kspace(x, (after,))[0, after // 2] == x[0, before // 2]


def test_the_two_crops_differ_from_even_to_odd_only():
    x = torch.arange(9)
    for n, m in [(8, 4), (8, 5), (9, 4), (9, 5)]:
        assert torch.equal(resize_image(x[:n], (m,)), resize_kspace(x[:n], (m,))) == ((n, m) != (8, 5))


@pytest.mark.parametrize("resize", [resize_image, resize_kspace])
@pytest.mark.parametrize(("rows", "cols"), [((8, 5), (5, 8)), ((7, 4), (9, 6)), ((4, 9), (9, 4))])
def test_resizes_act_on_each_axis_and_padding_undoes_cropping(resize, rows, cols):
    (h, new_h), (w, new_w) = rows, cols
    x = gaussian(2, h, w)
    both = resize(x, (new_h, new_w))
    torch.testing.assert_close(both, resize(resize(x, (new_w,)).mT, (new_h,)).mT)
    if new_h >= h and new_w >= w:
        assert torch.equal(resize(both, (h, w)), x)
    bigger = resize(x, (h + 3, w + 4))
    assert torch.equal(resize(bigger, (h, w)), x)


def test_cropping_kspace_interpolates_and_keeps_dc_phase():
    """A constant image stays a constant image when its k-space is cropped, for every parity."""
    for before, after in RESIZES:
        image = ifft(resize_kspace(fft(torch.ones(1, before) + 0j, (-1,)), (after,)), (-1,))
        torch.testing.assert_close(image, torch.full_like(image, math.sqrt(before / after)))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128, torch.float32])
def test_channels_come_back(dtype):
    x = gaussian(2, 3, 5, dtype=dtype)
    channels = to_channels(x)
    assert torch.equal(from_channels(channels, x), x) and not channels.is_complex()
    assert torch.equal(from_channels(channels.mT.contiguous().mT, x), x)
    if dtype.is_complex:
        assert torch.equal(channels[:, 0], x.real) and torch.equal(channels[:, 1], x.imag)
    torch.testing.assert_close(squared_norm(x), channels.square().sum((1, 2, 3)))
    assert real_size(x) == channels[0].numel()


def test_per_item_broadcasts_over_items_only():
    x = gaussian(3, 4, 3)
    torch.testing.assert_close(per_item(torch.tensor([1.0, 2.0, 3.0]), x) * x, torch.stack([x[0], 2 * x[1], 3 * x[2]]))
    torch.testing.assert_close(per_item(0.5, x) * x, x / 2)
    assert per_item(torch.tensor([1.0, 2.0, 3.0]), x).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128, torch.float32, torch.float64])
def test_noise_has_unit_variance_in_each_real_component(dtype):
    """100 000 numbers a component: the variance is within 5 of its own standard deviations, sqrt(2 / n)."""
    n = 100_000
    channels = to_channels(noise_like(torch.zeros(1, n, dtype=dtype), generators(3))).double()[0]
    for part in channels:
        assert abs(part.var() - 1) < 5 * math.sqrt(2 / n) and abs(part.mean()) < 5 / math.sqrt(n)
    if dtype.is_complex:
        assert abs((channels[0] * channels[1]).mean()) < 5 / math.sqrt(n)


def test_noise_does_not_depend_on_the_batch():
    x = torch.zeros(5, 3, 4, dtype=torch.complex64)
    together = noise_like(x, generators(1, "file_7", 4, draws=5))
    apart = [noise_like(x[:1], generators(1, "file_7", 4, draws=[i])) for i in range(5)]
    assert torch.equal(together, torch.cat(apart))
    backwards = noise_like(x, generators(1, "file_7", 4, draws=5)[::-1])
    assert torch.equal(backwards.flip(0), together)


def test_generators_differ_by_every_part_of_their_key():
    parts = [(1, "a", 0, [0]), (2, "a", 0, [0]), (1, "b", 0, [0]), (1, "a", 1, [0]), (1, "a", 0, [1]), (1, "", 0, [0])]
    numbers = [float(uniform(generators(*part))) for part in parts]
    assert len(set(numbers)) == len(parts)
    assert float(uniform(generators(*parts[0]))) == numbers[0]
    assert key(1, "1") == key("1", 1) and key("a", "bc") != key("ab", "c") and 0 <= key("a") < 2**63


def test_one_generator_an_item():
    with pytest.raises(ValueError, match="2 items need 2 generators, not 1"):
        noise_like(torch.zeros(2, 3), generators(0))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float64])
def test_signs_are_fair_and_uncorrelated(dtype):
    n = 40_000
    signs = signs_like(torch.zeros(1, n, dtype=dtype), generators(2))
    channels = to_channels(signs)[0].double()
    assert signs.dtype == dtype and torch.equal(channels.abs(), torch.ones_like(channels))
    assert (channels.mean(1).abs() < 5 / math.sqrt(n)).all()
    if dtype.is_complex:
        assert abs((channels[0] * channels[1]).mean()) < 5 / math.sqrt(n)


def test_uniform_fills_the_unit_interval():
    values = uniform(generators(4, draws=2000))
    assert values.dtype == torch.float64 and values.min() >= 0 and values.max() < 1
    assert abs(values.mean() - 0.5) < 5 * math.sqrt(1 / 12 / 2000)
