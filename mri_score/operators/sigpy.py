"""Any SigPy linop as a batched torch operator, with gradients in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.operators.base import LinearOperator

if TYPE_CHECKING:  # SigPy and its numba take a second to import
    from sigpy.linop import Linop


class SigpyOperator(LinearOperator):
    """A SigPy linop, item by item: y[i] = A[i](x[i]).

    linop: one for all items, or one for each; all have the same shapes. SigPy computes on the CPU, wherever x is.
    The norm is that of the linop. If it is above 1, as for NUFFTs, pass `linop * (1 / norm(linop))` and scale k-space
    and noise_std by the same factor.
    Shapes: x (B, *linop.ishape), y (B, *linop.oshape), complex64 or complex128, as given.
    Errors: InputError for linops of different shapes, or an x or y that does not fit them.
    Reference: Ong and Lustig, SigPy: a Python package for high performance iterative reconstruction, ISMRM 2019.
    """

    def __init__(self, linop: Linop | Sequence[Linop]) -> None:
        super().__init__()
        self.linops: tuple[Linop, ...] = tuple(linop) if isinstance(linop, Sequence) else (linop,)
        shapes = {(tuple(one.ishape), tuple(one.oshape)) for one in self.linops}
        if len(shapes) != 1:
            raise InputError(
                f"SigpyOperator got {len(self.linops)} linops with {len(shapes)} different shapes;"
                " one batch needs linops of one shape"
            )
        ((self.image_shape, self.sample_shape),) = shapes

    def forward(self, x: Tensor) -> Tensor:
        _check(x, self.image_shape, len(self.linops))
        return _Apply.apply(x, self.linops)

    def adjoint(self, y: Tensor) -> Tensor:
        _check(y, self.sample_shape, len(self.linops))
        return _Apply.apply(y, tuple(linop.H for linop in self.linops))


def is_operator(value: object) -> bool:
    """Whether this is an operator of either kind, and not a function that makes one."""
    return isinstance(value, LinearOperator) or _is_linop(value)


def as_operator(operator: object) -> LinearOperator:
    """The operator itself, or a SigPy linop as a `SigpyOperator`. Errors: InputError for anything else."""
    if _is_linop(operator):
        return SigpyOperator(operator)
    if not isinstance(operator, LinearOperator):
        raise InputError(
            f"a forward operator is {type(operator).__name__}; it needs a LinearOperator, a SigPy linop, or a function"
            " that makes either of coil maps and mask"
        )
    return operator


def _is_linop(value: object) -> bool:
    from sigpy.linop import Linop

    return isinstance(value, Linop)


def sigpy_sense(maps: Tensor, mask: Tensor) -> SigpyOperator:
    """The operator of `Sense`, computed by SigPy's linop. Shapes: maps (B, C, H, W), mask broadcastable to them."""
    import sigpy.mri.linop

    weights = mask.expand(len(maps), *mask.shape[1:]).cpu().numpy().astype(np.float32)
    linops = [
        sigpy.mri.linop.Sense(one.cpu().numpy(), weights=np.broadcast_to(weight, one.shape[-2:]))
        for one, weight in zip(maps, weights[:, 0], strict=True)
    ]
    return SigpyOperator(linops if len(linops) > 1 else linops[0])


class _Apply(torch.autograd.Function):
    """Linops on a batch; the gradient of a linear map is its adjoint, in all orders."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linops: tuple[Linop, ...]) -> Tensor:
        ctx.linops = linops
        items = x.detach().resolve_conj().cpu().numpy()
        linops = linops * len(items) if len(linops) == 1 else linops
        result = np.stack([linop(np.ascontiguousarray(item)) for linop, item in zip(linops, items, strict=True)])
        return torch.from_numpy(result).to(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Apply.apply(gradient, tuple(linop.H for linop in ctx.linops)), None


def norm(linop: Linop, iterations: int = 30) -> float:
    """The largest singular value of a linop by power iteration, about a percent too low at most."""
    random = np.random.default_rng(0)
    x = (random.standard_normal(linop.ishape) + 1j * random.standard_normal(linop.ishape)).astype(np.complex64)
    for _ in range(iterations):
        x = linop.N(x / np.linalg.norm(x))
    return float(np.sqrt(np.linalg.norm(x)))


def _check(x: Tensor, shape: tuple[int, ...], linops: int) -> None:
    if tuple(x.shape[1:]) != shape or not x.is_complex():
        raise InputError(
            f"SigpyOperator got {tuple(x.shape)} {x.dtype}; its linop takes complex (B, {', '.join(map(str, shape))})"
        )
    if linops not in (1, len(x)):
        raise InputError(f"SigpyOperator has {linops} linops for a batch of {len(x)}; pass one linop, or one an item")
