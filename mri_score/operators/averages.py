"""Averages of pixels or channels: the operators of super-resolution and of colourisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from mri_score.errors import InputError
from mri_score.numerics.channels import per_item
from mri_score.operators.base import LinearOperator

LUMINANCE = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in a grey value, ITU-R BT.601; a picture becomes grey by them in most programs."""


class Averages(LinearOperator):
    """A map with A A^H = gain times the identity, so that `solve` is exact:

        (A^H A + weight)^-1 b = (b - A^H A b / (gain + weight)) / weight.

    A subclass writes `forward` and `adjoint`, and sets `gain`.
    """

    gain: float

    def solve(
        self,
        b: Tensor,
        weight: Tensor | float,
        start: Tensor | None = None,
        tolerance: Tensor | float = 1e-6,
        max_iterations: int = 500,
    ) -> Tensor:
        weight = per_item(weight, b)
        part = self.normal(b) / self.gain  # the projection of b on the rows of A
        return (b - part) / weight + part / (self.gain + weight)


class BlockMeans(Averages):
    """y is the mean of each block of factor x factor pixels of x: the operator of super-resolution.

    Shapes: x (B, *channels, H, W), real or complex, y (B, *channels, H / factor, W / factor).
    Errors: InputError for a factor below 1, and for sides that it does not divide.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        if factor < 1:
            raise InputError(f"the factor of super-resolution is {factor}; it is a whole number from 2 on")
        self.factor, self.gain = factor, 1 / factor**2

    def forward(self, x: Tensor) -> Tensor:
        rows, cols = x.shape[-2:]
        if rows % self.factor or cols % self.factor:
            raise InputError(f"blocks of {self.factor} x {self.factor} pixels do not divide {rows} x {cols} pixels")
        if x.is_complex():
            return torch.complex(self(x.real), self(x.imag))
        planes = x.reshape(-1, 1, rows, cols)
        return avg_pool2d(planes, self.factor).reshape(*x.shape[:-2], rows // self.factor, cols // self.factor)

    def adjoint(self, y: Tensor) -> Tensor:
        copies = y.repeat_interleave(self.factor, -2).repeat_interleave(self.factor, -1)
        return self.gain * copies


class Grey(Averages):
    """y = sum_c share_c x_c, the grey values of a colour image: the operator of colourisation.

    Shapes: x (B, C, H, W) real, y (B, H, W). shares: (C,), not all zero.
    """

    shares: Tensor

    def __init__(self, shares: Sequence[float] = LUMINANCE) -> None:
        super().__init__()
        self.register_buffer("shares", torch.tensor(shares, dtype=torch.float64)[:, None, None])
        self.gain = float(self.shares.square().sum())

    def forward(self, x: Tensor) -> Tensor:
        return (self.shares.to(x.dtype) * x).sum(1)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.shares.to(y.dtype) * y[:, None]
