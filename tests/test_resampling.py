"""Resampling: StyleGAN2's definition by SciPy and by explicit steps, adjointness, and reflection by NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d, upfirdn
from torch.nn.functional import conv2d

from mri_score.errors import InputError
from mri_score.networks.resampling import (
    Downsample,
    DownsampleConv,
    Upsample,
    UpsampleConv,
    fir_down,
    fir_kernel,
    fir_up,
    reflected,
)

TAPS = [(1, 3, 3, 1), (1, 1), (1, 4, 2, 3), (1, 2, 5, 4, 3, 1)]  # the published ones, the shortest, lopsided, longer
SIZES = [(8, 6), (5, 9), (1, 3)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(4)


def by_definition(x, taps, *, up=1, down=1, before, after):
    """StyleGAN2's upfirdn: zeros after each pixel, zeros around, a convolution, every `down`-th pixel."""
    taps = np.array(taps, float) / sum(taps)
    planes = []
    for plane in x.detach().numpy().reshape(-1, *x.shape[-2:]):
        wide = np.zeros([side * up for side in plane.shape])
        wide[::up, ::up] = plane
        wide = convolve2d(np.pad(wide, (before, after)), np.outer(taps, taps), mode="valid")
        planes.append(wide[::down, ::down])
    return torch.from_numpy(np.stack(planes).reshape(*x.shape[:2], *planes[0].shape))


@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.parametrize("size", SIZES)
def test_doubling_is_scipys_upfirdn_along_both_axes(taps, size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    h, start = 2 * np.array(taps) / sum(taps), len(taps) // 2 - 1
    expected = x.numpy()
    for axis in (2, 3):
        wide = upfirdn(h, expected, up=2, axis=axis)
        expected = np.take(wide, range(start, start + 2 * x.shape[axis]), axis=axis)
    np.testing.assert_allclose(fir_up(x, fir_kernel(taps).double()).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.parametrize("size", SIZES[:2])
def test_halving_is_scipys_upfirdn_along_both_axes(taps, size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    h, margin = np.array(taps) / sum(taps), len(taps) // 2 - 1
    expected = x.numpy()
    for axis in (2, 3):
        around = [(margin, margin) if a == axis else (0, 0) for a in range(4)]
        whole = upfirdn(h, np.pad(expected, around), axis=axis)
        last = whole.shape[axis] - len(taps) + 1
        expected = np.take(whole, range(len(taps) - 1, last, 2), axis=axis)
    np.testing.assert_allclose(fir_down(x, fir_kernel(taps).double()).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("taps", TAPS)
def test_convolution_after_doubling_pads_once_as_stylegan2_does(taps):
    """Its steps: a transposed convolution with the mirrored weights, then the filter."""
    layer = UpsampleConv(3, 5, taps).double()
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    wide = torch.zeros(2, 3, 9, 7, dtype=torch.float64)
    wide[..., ::2, ::2] = x
    wide = conv2d(wide, layer.conv.weight, padding=2)
    p = len(taps) - 2 - 2
    expected = 4 * by_definition(wide, taps, before=(p + 1) // 2 + 1, after=p // 2 + 1)
    torch.testing.assert_close(layer(x), expected + layer.conv.bias[:, None, None], rtol=0, atol=1e-6)


@pytest.mark.parametrize("taps", TAPS)
def test_convolution_after_the_filter_keeps_every_second_pixel(taps):
    layer = DownsampleConv(3, 5, taps).double()
    torch.nn.init.normal_(layer.conv.bias)
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    p = len(taps) - 2 + 2
    smooth = by_definition(x, taps, before=(p + 1) // 2, after=p // 2)
    expected = conv2d(smooth, layer.conv.weight, layer.conv.bias, stride=2)
    assert layer(x).shape == (2, 5, 4, 3)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("taps", [(), (1, 3, 3, 1)])
def test_a_constant_stays_one_inside(taps):
    one = torch.ones(1, 2, 12, 10)
    torch.testing.assert_close(Upsample(taps)(one)[..., 2:-2, 2:-2], torch.ones(1, 2, 20, 16))
    torch.testing.assert_close(Downsample(taps)(one)[..., 1:-1, 1:-1], torch.ones(1, 2, 4, 3))


@pytest.mark.parametrize("taps", [(), (1, 3, 3, 1), (1, 1)])
def test_doubling_is_four_times_the_adjoint_of_halving(taps):
    """For symmetric taps."""
    x, y = torch.randn(2, 3, 8, 6), torch.randn(2, 3, 4, 3)
    torch.testing.assert_close((Upsample(taps)(y) * x).sum(), 4 * (Downsample(taps)(x) * y).sum())


def test_plain_resampling_copies_and_averages():
    x = torch.randn(1, 2, 6, 4)
    np.testing.assert_array_equal(Upsample()(x).numpy(), x.numpy().repeat(2, axis=2).repeat(2, axis=3))
    np.testing.assert_allclose(Downsample()(x).numpy(), x.numpy().reshape(1, 2, 3, 2, 2, 2).mean((3, 5)), atol=1e-6)


def test_plain_convolutions_pad_below_and_to_the_right_or_see_copies():
    x = torch.randn(1, 2, 6, 4)
    down, up = DownsampleConv(2, 3), UpsampleConv(2, 3)
    expected = conv2d(x, down.conv.weight, padding=1)[..., 1::2, 1::2]
    torch.testing.assert_close(down(x), expected)
    torch.testing.assert_close(up(x), conv2d(Upsample()(x), up.conv.weight, padding=1))


@pytest.mark.parametrize("taps", [(1, 2, 1), (1, -1)])
def test_taps_without_a_centre_between_pixels_or_a_sum_are_refused(taps):
    with pytest.raises(InputError, match=r"even number .* \[1, 3, 3, 1\]"):
        fir_kernel(taps)


@pytest.mark.parametrize("size", [(13, 18), (16, 9), (8, 24), (9, 15)])
def test_reflection_is_numpys(size):
    x = torch.randn(2, 3, *size)
    wide, inside = reflected(x, 8)
    around = [(-side % 8 // 2, -side % 8 - -side % 8 // 2) for side in size]
    np.testing.assert_array_equal(wide.numpy(), np.pad(x.numpy(), [(0, 0), (0, 0), *around], mode="reflect"))
    torch.testing.assert_close(wide[(..., *inside)], x)
    with pytest.raises(InputError, match="sides of 32"):
        reflected(x, 32)
