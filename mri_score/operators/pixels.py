"""Known pixels: the operator of inpainting."""

from __future__ import annotations

import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.numerics.channels import per_item
from mri_score.operators.base import LinearOperator


class Pixels(LinearOperator):
    """The known pixels of an image: y = keep * x, zero at unknown pixels.

    It is diagonal, so that `solve` is a division: x = b / (keep^2 + weight).
    Shapes: keep (B or 1, *image), bool or real weights in [0, 1]; x and y (B, *image).
    Errors: InputError for complex weights, and weights outside of [0, 1].
    """

    keep: Tensor

    def __init__(self, keep: Tensor) -> None:
        super().__init__()
        if keep.is_complex() or not bool(((keep >= 0) & (keep <= 1)).all()):
            raise InputError("a pixel mask holds True and False, or real weights from 0 (hidden) to 1 (known)")
        self.register_buffer("keep", keep)

    def forward(self, x: Tensor) -> Tensor:
        return self.keep * x

    def adjoint(self, y: Tensor) -> Tensor:
        return self.keep * y

    def solve(
        self,
        b: Tensor,
        weight: Tensor | float,
        start: Tensor | None = None,
        tolerance: Tensor | float = 1e-6,
        max_iterations: int = 500,
    ) -> Tensor:
        return b / (self.keep.to(torch.promote_types(self.keep.dtype, b.real.dtype)).square() + per_item(weight, b))
