"""Cartesian parallel imaging, batched: coil maps, Fourier transform, mask."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mri_score.errors import InputError, unknown_name
from mri_score.numerics.channels import per_item
from mri_score.numerics.fourier import AXES, fft, ifft
from mri_score.operators.base import LinearOperator
from mri_score.operators.lines import LineSystems, direct_below, find_owners

CACHED_PIXELS = 1 << 16
"""Number of complex values that `normal` processes at a time on a CPU."""

ROUNDING = 80
"""Smallest relative residual, in units of rounding, above which a direct solution is refined by iterations."""

Solver = Literal["auto", "cg", "direct"]


class Sense(LinearOperator):
    """Cartesian parallel imaging: y = mask * F(maps * x).

    Shapes: maps (B or 1, C, H, W) complex, mask (bool or real) broadcastable to y, x (B, H, W), y (B, C, H, W).
    Maps with sum over coils of |maps|^2 <= 1 and a mask within [0, 1] make the norm at most 1.
    `normal`, and thus `solve`, has gradients with respect to x only, not to the maps.
    solver: `cg`; `direct`, for masks of whole lines, with factors; or `auto`, which on a CPU chooses for each item the
    solver with fewer operations for its weight (`direct_below`). The choice does not depend on measured time or on
    other items, so that an item does not depend on its batch. Within a walk, factors of an item are kept once computed.
    Errors: InputError for maps that are not complex (B, C, H, W), a mask that does not broadcast against them, an
    unknown solver, or `direct` for a mask of points or one that differs between coils.
    Reference: Pruessmann et al., SENSE: sensitivity encoding for fast MRI, MRM 1999.
    """

    maps: Tensor
    mask: Tensor
    _conjugate: Tensor
    _filter: Tensor
    _systems: LineSystems | None
    _factored: Tensor
    """Items (B,) of the last solution whose weight was small enough for factors at some level."""

    def __init__(self, maps: Tensor, mask: Tensor, solver: Solver = "auto") -> None:
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
        self.register_buffer("_factored", torch.zeros(0, dtype=torch.bool, device=maps.device), persistent=False)
        self.solver, self._systems = solver, None
        self._line_axis = self._axes[0] if self._axes else -1
        self._has_lines = len(self._axes) < 2 and self._filter.shape[1] == 1
        _check_solver(solver, self._has_lines)

    def begin_walk(self) -> None:
        self._factored = self._factored[:0]

    def forward(self, x: Tensor) -> Tensor:
        return self.mask * fft(self.maps * x.unsqueeze(1))

    def adjoint(self, y: Tensor) -> Tensor:
        return (self._conjugate * ifft(self.mask * y)).sum(1)

    def normal(self, x: Tensor) -> Tensor:
        return _Normal.apply(x, self)

    def apply_normal(self, x: Tensor) -> Tensor:
        """A^H A x without autograd.

        Only the axes of the mask are transformed, with FFTs without shifts, as circular convolutions commute with
        shifts.
        """
        x = _along(self._axes, x).unsqueeze(1)
        result = torch.zeros_like(x)
        for maps, conjugate, mask, images, spectra in self._blocks(x):
            coils = torch.mul(maps, x, out=images)
            if self._axes:
                spectra = torch.fft.fftn(coils, dim=self._axes, out=spectra).mul_(mask)
                coils = torch.fft.ifftn(spectra, dim=self._axes, out=images).mul_(conjugate)
            else:
                coils = coils.mul_(mask).mul_(conjugate)
            result += coils.sum(1, keepdim=True) if coils.shape[1] > 1 else coils
        return result.squeeze(1)

    def solve(
        self,
        b: Tensor,
        weight: Tensor | float,
        start: Tensor | None = None,
        tolerance: Tensor | float = 1e-6,
        max_iterations: int | None = None,
    ) -> Tensor:
        """x with (A^H A + weight) x = b, by the `solver`.

        With max_iterations, conjugate gradient is used whatever the solver: stopping early is a regularisation.
        """
        if max_iterations is not None:
            return super().solve(b, weight, start, tolerance, max_iterations)
        weights = per_item(weight, b).flatten().expand(len(b))
        if len(self._factored) != len(b):  # another batch
            self._factored = torch.zeros_like(weights, dtype=torch.bool)
        direct = (weights < self._direct_below()) | self._factored & (weights < self._direct_below(factored=True))
        self._factored = self._factored | direct
        if bool(direct.any()):
            start = torch.zeros_like(b) if start is None else start
            start = torch.where(direct[:, None, None], self._solve_lines(b, weights, start), start)
        # The residual of a direct solution comes from its final rounding to the precision of b.
        goal = torch.as_tensor(tolerance, dtype=weights.dtype, device=b.device).expand(len(b))
        rounding = ROUNDING * torch.finfo(weights.dtype).eps
        return super().solve(b, weight, start, torch.where(direct, goal.clamp_min(rounding), goal))

    def _solve_lines(self, b: Tensor, weights: Tensor, start: Tensor) -> Tensor:
        if self._systems is None:
            self._systems = self._factor()
        x = start.to(torch.complex128)
        return (x + self._systems.solve(b - self.normal(x) - per_item(weights, x) * x, weights)).to(b.dtype)

    def _direct_below(self, factored: bool = False) -> float:
        """The weight below which items are solved with factors."""
        if self.solver != "auto" or not self._has_lines or self.maps.device.type != "cpu":
            return math.inf if self.solver == "direct" else 0.0
        coils, n = self.maps.shape[1], self.maps.shape[self._line_axis]
        return direct_below(coils, n, n * self.maps[0, 0].numel(), factored)

    def _factor(self) -> LineSystems:
        first, owners = find_owners(self.maps, self._filter)
        maps = self.maps.expand(len(owners), -1, -1, -1)
        spectra = self._filter.flatten(1).expand(len(owners), maps.shape[self._line_axis])
        return LineSystems(maps[first], spectra[first], self._line_axis, owners)

    def _blocks(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]]:
        """Maps, their conjugate, the filter and buffers for coil images and spectra: a few coils at a time on a CPU.

        They then fit into the cache; reused buffers avoid page faults, which take as long as the arithmetic.
        """
        coils = self.maps.shape[1]
        mask = self._filter.expand(-1, coils, -1, -1)
        if x.device.type != "cpu":
            yield self.maps, self._conjugate, mask, None, None
            return
        block = min(coils, max(1, CACHED_PIXELS // x.numel()))
        dtype = torch.promote_types(x.dtype, self.maps.dtype)
        images, spectra = (torch.empty_like(x.expand(-1, block, -1, -1), dtype=dtype) for _ in range(2))
        for start in range(0, coils, block):
            some = slice(start, start + block)
            count = min(block, coils - start)
            yield self.maps[:, some], self._conjugate[:, some], mask[:, some], images[:, :count], spectra[:, :count]


class _Normal(torch.autograd.Function):
    """A^H A, which is its own gradient: no coil images are stored for the backward pass. Maps have no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: Sense) -> Tensor:
        ctx.operator = operator
        return operator.apply_normal(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Normal.apply(gradient, ctx.operator), None


def _varies(mask: Tensor, axis: int) -> bool:
    """Whether the mask varies along an axis; if not, forward and inverse transform cancel."""
    return not torch.equal(mask, mask.narrow(axis, 0, 1).expand_as(mask))


def _along(axes: tuple[int, ...], x: Tensor) -> Tensor:
    """The same x, with columns contiguous in memory if only these are transformed, which is fastest for FFTs."""
    return x.mT.contiguous().mT if axes == (-2,) else x.contiguous()


def _filter(mask: Tensor, axes: tuple[int, ...]) -> Tensor:
    """mask^2 with DC first, the only shift that remains, as circular convolutions commute with shifts of the image."""
    mask = mask if _varies(mask, -3) else mask.narrow(-3, 0, 1)
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
        torch.broadcast_tensors(mask, maps)  # broadcast_shapes would import SymPy, half a second
    except RuntimeError as error:
        raise InputError(
            f"a mask of shape {tuple(mask.shape)} does not fit coil maps of shape {tuple(maps.shape)};"
            " make it broadcastable, e.g. (1, 1, 1, W) for columns"
        ) from error


def _check_solver(solver: str, has_lines: bool) -> None:
    if solver not in get_args(Solver):
        raise unknown_name("the solver of Sense", solver, get_args(Solver))
    if solver == "direct" and not has_lines:
        raise InputError(
            "the direct solver of Sense got a mask of points, or one that differs between coils;"
            " it takes whole lines, the same for all coils: use solver='auto' or 'cg'"
        )
