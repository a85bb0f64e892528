"""Conversion between complex images and real channels, and norms over real components."""

from __future__ import annotations

import torch
from torch import Tensor


def to_channels(x: Tensor) -> Tensor:
    """(B, *shape) complex -> (B, 2, *shape) real; a real (B, *shape) becomes (B, 1, *shape).

    Real (B, channels, H, W), such as colour images, has its channels already.
    """
    if not x.is_complex():
        return x if x.ndim == 4 else x.unsqueeze(1)
    return torch.view_as_real(x.resolve_conj()).movedim(-1, 1)


def from_channels(channels: Tensor, like: Tensor) -> Tensor:
    """The inverse of `to_channels`, for an image such as `like` (complex or real)."""
    if not like.is_complex():
        return channels if like.ndim == 4 else channels.squeeze(1)
    return torch.view_as_complex(channels.movedim(1, -1).contiguous())


def per_item(value: Tensor | float, like: Tensor) -> Tensor:
    """A () or (B,) value as a real tensor that broadcasts against `like` (B, *shape)."""
    value = torch.as_tensor(value, dtype=like.real.dtype, device=like.device)
    return value.reshape(-1, *[1] * (like.ndim - 1)) if value.ndim else value


def real_size(x: Tensor) -> int:
    """Number of real components of one item of x (B, *shape)."""
    return x[0].numel() * (2 if x.is_complex() else 1)


def squared_norm(x: Tensor) -> Tensor:
    """sum |x|^2 of each item: (B, *shape) -> (B,)."""
    parts = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    return parts.square().flatten(1).sum(1)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Re <a, b> of each item, the inner product of real components: (B, *shape) -> (B,)."""
    return (a.conj() * b).real.flatten(1).sum(1) if a.is_complex() else (a * b).flatten(1).sum(1)
