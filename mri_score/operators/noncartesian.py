"""Parallel imaging along any trajectory: coil maps, then the non-uniform Fourier transform by SigPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.numerics.fourier import AXES
from mri_score.operators.sigpy import SigpyOperator, norm

if TYPE_CHECKING:  # SigPy and its numba take a second to import
    from sigpy.linop import Linop

OVERSAMPLING, WIDTH = 1.5, 6
"""Oversampling and width of the gridding kernel: the error of samples is 5e-5; SigPy's default 1.25 and 4 give 7e-3."""


class NonCartesian(SigpyOperator):
    """y_j = gain / sqrt(H W) sum_r maps(r) x(r) exp(-2 pi i (k_1 r_1 / H + k_2 r_2 / W)),  r centred, k of sample j.

    On all points of the grid it is gain times `Sense`. gain = 1 / norm of the transform makes the norm at most 1, so
    k-space in natural units and its noise_std must be multiplied by `gain` too; white noise remains white. There is no
    density compensation. `normal` is a convolution on a grid of twice the size, exact but for rounding.
    Shapes: maps (B or 1, C, H, W), coordinates (M, 2) in cycles per field of view, within half the matrix; x (B, H, W),
    y (B, C, M).
    Errors: InputError for coordinates outside the matrix or of another shape.
    Reference: Fessler and Sutton, Nonuniform fast Fourier transforms, IEEE TSP 2003; Wajer and Pruessmann, Major
    speedup of reconstruction for sensitivity encoding with arbitrary trajectories, ISMRM 2001, for `normal`.
    """

    maps: Tensor
    _kernel: Tensor

    def __init__(self, maps: Tensor, coordinates: Tensor, gain: float | None = None) -> None:
        shape = (maps.shape[-2], maps.shape[-1])
        _check(coordinates, shape)
        self.gain = find_gain(coordinates, shape) if gain is None else gain
        transform = _transform(coordinates, (maps.shape[1], *shape))
        super().__init__([self.gain * transform * _multiply(one) for one in maps])
        self.register_buffer("maps", maps, persistent=False)
        self.register_buffer(
            "_kernel", self.gain**2 * _convolution(coordinates.cpu(), shape).to(maps.real), persistent=False
        )

    def normal(self, x: Tensor) -> Tensor:
        result = torch.zeros_like(x)
        wide = self._kernel.shape
        for one in self.maps.unbind(1):  # coil by coil, so that the grids of twice the size fit into the cache
            spread = torch.fft.ifft2(self._kernel * torch.fft.fft2(one * x, s=wide))
            result += one.conj() * spread[..., : x.shape[-2], : x.shape[-1]]
        return result


def find_gain(coordinates: Tensor, shape: Sequence[int]) -> float:
    """1 / norm of the transform that samples images of `shape`; with coil maps of unit norm it is the bound."""
    return 1 / (1.01 * norm(_transform(coordinates, tuple(shape))))  # power iteration is about a percent too low


def _transform(coordinates: Tensor, shape: tuple[int, ...]) -> Linop:
    import sigpy.linop

    return sigpy.linop.NUFFT(shape, coordinates.cpu().double().numpy(), oversamp=OVERSAMPLING, width=WIDTH)


def _multiply(maps: Tensor) -> Linop:
    import sigpy.linop

    array = maps.detach().cpu().resolve_conj().numpy()
    return sigpy.linop.Multiply(array.shape[1:], array)


def _convolution(coordinates: Tensor, shape: tuple[int, int]) -> Tensor:
    """The real spectrum of t(d) = sum_j exp(2 pi i k_j . d / N) / (H W), d all displacements: (2 H, 2 W), DC first."""
    waves = []
    for k, size in zip(coordinates.double().T, shape, strict=True):
        displacement = torch.cat([torch.arange(size), torch.arange(-size, 0)]).double()
        angle = 2 * torch.pi / size * k * displacement[:, None]
        waves.append(torch.polar(torch.ones_like(angle), angle))
    kernel = waves[0] @ waves[1].T / (shape[0] * shape[1])
    kernel[shape[0]], kernel[:, shape[1]] = 0, 0  # a displacement of N never occurs
    return torch.fft.fft2(kernel, dim=AXES).real


def _check(coordinates: Tensor, shape: tuple[int, int]) -> None:
    if coordinates.ndim != 2 or coordinates.shape[1] != 2 or coordinates.is_complex():
        raise InputError(
            f"a trajectory is {tuple(coordinates.shape)} {coordinates.dtype}; it needs real (samples, 2), rows and"
            " columns of k-space in cycles per field of view"
        )
    beyond = coordinates.abs().amax(0) > torch.tensor(shape).to(coordinates) / 2 + 0.5
    if bool(beyond.any()):
        raise InputError(
            f"a trajectory reaches {coordinates.abs().max():.1f} cycles per field of view, beyond the matrix {shape};"
            " its coordinates run from -N/2 to N/2"
        )
