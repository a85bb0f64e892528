"""The centred, orthonormal FFT, correct for odd sizes, and crops for images and for k-space."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

AXES = (-2, -1)


def fft(x: Tensor, axes: Sequence[int] = AXES) -> Tensor:
    """Image -> k-space: DC is at index N // 2 of each of `axes`, and the norm is preserved."""
    axes = tuple(axes)
    return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(x, axes), dim=axes, norm="ortho"), axes)


def ifft(y: Tensor, axes: Sequence[int] = AXES) -> Tensor:
    """k-space -> image: the inverse, and the adjoint, of `fft`."""
    axes = tuple(axes)
    return torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(y, axes), dim=axes, norm="ortho"), axes)


def resize_image(x: Tensor, shape: Sequence[int]) -> Tensor:
    """x with its last len(shape) axes cropped as fastMRI crops images, from (N - n) // 2, or padded with zeros."""
    return _resize(x, shape, lambda large, small: (large - small) // 2)


def resize_kspace(y: Tensor, shape: Sequence[int]) -> Tensor:
    """Crop or zero-pad so that DC stays at its place: from N // 2 - n // 2. Differs from images for even to odd sizes.
    """
    return _resize(y, shape, lambda large, small: large // 2 - small // 2)


def _resize(x: Tensor, shape: Sequence[int], offset: Callable[[int, int], int]) -> Tensor:
    padding: list[int] = []
    for axis, size in zip(range(-len(shape), 0), shape, strict=True):
        now = x.shape[axis]
        if now >= size:
            x = x.narrow(axis, offset(now, size), size)
            padding = [0, 0, *padding]
        else:
            before = offset(size, now)
            padding = [before, size - now - before, *padding]
    return pad(x, padding) if any(padding) else x
