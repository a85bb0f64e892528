"""Cartesian parallel imaging, batched: coil maps, Fourier transform, mask."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.numerics.fourier import AXES, fft, ifft
from mri_score.operators.base import LinearOperator

CACHED_PIXELS = 1 << 16
"""How many complex numbers `normal` handles at a time on a CPU."""


class Sense(LinearOperator):
    """Cartesian parallel imaging: y = mask * F(maps * x).

    Shapes: maps (B or 1, C, H, W) complex, mask (bool or real) broadcastable to y, x (B, H, W), y (B, C, H, W).
    Maps with sum over coils of |maps|^2 <= 1 and a mask within [0, 1] make the norm at most 1.
    Errors: InputError for maps that are not complex (B, C, H, W) or a mask that does not broadcast against them.
    Reference: Pruessmann et al., SENSE: sensitivity encoding for fast MRI, MRM 1999.
    """

    maps: Tensor
    mask: Tensor
    _conjugate: Tensor
    _filter: Tensor

    def __init__(self, maps: Tensor, mask: Tensor) -> None:
        super().__init__()
        _check(maps, mask)
        mask = mask.reshape((1,) * (4 - mask.ndim) + tuple(mask.shape)).to(maps.device)
        mask = mask if mask.dtype == torch.bool else mask.to(maps.real.dtype)
        self._axes = tuple(axis for axis in AXES if _varies(mask, axis))
        maps = _along(self._axes, maps)
        self.register_buffer("maps", maps, persistent=False)
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("_conjugate", maps.conj().resolve_conj(), persistent=False)
        self.register_buffer("_filter", _filter(mask.to(maps.real.dtype), self._axes), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.mask * fft(self.maps * x.unsqueeze(1))

    def adjoint(self, y: Tensor) -> Tensor:
        return (self._conjugate * ifft(self.mask * y)).sum(1)

    def normal(self, x: Tensor) -> Tensor:
        x = _along(self._axes, x).unsqueeze(1)
        result = torch.zeros_like(x)
        for maps, conjugate, mask in self._blocks(x):
            coils = self._convolve(maps * x, mask).mul_(conjugate)
            result += coils.sum(1, keepdim=True) if coils.shape[1] > 1 else coils
        return result.squeeze(1)

    def _convolve(self, coils: Tensor, mask: Tensor) -> Tensor:
        """F^H mask^2 F along the axes on which the mask varies: a circular convolution, free of shifts."""
        if not self._axes:
            return mask * coils
        return torch.fft.ifftn(torch.fft.fftn(coils, dim=self._axes).mul_(mask), dim=self._axes)

    def _blocks(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Maps, their conjugate and the filter: a few coils at a time on a CPU, where they stay in cache."""
        coils = self.maps.shape[1]
        block = max(1, CACHED_PIXELS // x.numel()) if x.device.type == "cpu" else coils
        mask = self._filter.expand(-1, coils, -1, -1)
        return zip(*(part.split(block, dim=1) for part in (self.maps, self._conjugate, mask)), strict=True)


def _varies(mask: Tensor, axis: int) -> bool:
    """Whether the mask differs along an axis; where it does not, forward and inverse transform cancel."""
    return not torch.equal(mask, mask.narrow(axis, 0, 1).expand_as(mask))


def _along(axes: tuple[int, ...], x: Tensor) -> Tensor:
    """The same x, with memory that runs down the columns if only these are transformed: FFTs are fastest so."""
    return x.mT.contiguous().mT if axes == (-2,) else x.contiguous()


def _filter(mask: Tensor, axes: tuple[int, ...]) -> Tensor:
    """mask^2 with DC first: the one shift that is left, as circular convolutions commute with shifts of the image."""
    for axis in AXES:
        if axis not in axes:
            mask = mask.narrow(axis, 0, 1)
    return torch.fft.ifftshift(mask, AXES).square()


def _check(maps: Tensor, mask: Tensor) -> None:
    if maps.ndim != 4 or not maps.is_complex():
        raise InputError(
            f"coil maps are {tuple(maps.shape)} {maps.dtype};"
            " Sense needs complex (B, C, H, W): add a batch axis with maps[None]"
        )
    if mask.is_complex():
        raise InputError("the sampling mask is complex; Sense needs bool or real weights: pass kspace.abs() > 0")
    try:
        torch.broadcast_shapes(mask.shape, maps.shape)
    except RuntimeError as error:
        raise InputError(
            f"a mask of shape {tuple(mask.shape)} does not fit coil maps of shape {tuple(maps.shape)};"
            " make it broadcastable, e.g. (1, 1, 1, W) for columns"
        ) from error
