"""Flips, turns by right angles and global phases of images: what a prior of images of any orientation does not see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mri_score.numerics.noise import Random, uniform


class Orientations(NamedTuple):
    """One orientation for each item of a batch of images (B, rows, cols)."""

    turns: tuple[int, ...]
    """Of each item: 0 to 3 turns by a right angle; 4 to 7: a flip of the columns before turns - 4 of them."""
    phase: Tensor
    """(B,), of magnitude 1: the factor of each item; real images have 1."""


def random_orientations(x: Tensor, random: Sequence[Random]) -> Orientations:
    """An orientation for each item of x (B, rows, cols) that keeps its shape, all equally probable.

    random: one generator an item; each gives two numbers. Images that are not square are turned by 0 or 180 degrees.
    """
    square = x.shape[-1] == x.shape[-2]
    places, angles = uniform(random), uniform(random)
    turns = tuple(int(8 * place) if square else 2 * int(4 * place) for place in places.tolist())
    if not x.is_complex():
        return Orientations(turns, torch.ones(len(x), dtype=x.dtype, device=x.device))
    return Orientations(turns, torch.polar(torch.ones_like(angles), 2 * math.pi * angles).to(x.device, x.dtype))


def turned(x: Tensor, orientations: Orientations) -> Tensor:
    """The images x (B, rows, cols), each in its orientation: multiplied by its phase, flipped, turned."""
    x = orientations.phase[:, None, None] * x
    items = []
    for item, turns in zip(x, orientations.turns, strict=True):
        flipped = item.flip(-1) if turns >= 4 else item
        items.append(torch.rot90(flipped, turns % 4, (-2, -1)))
    return torch.stack(items)


def turned_back(x: Tensor, orientations: Orientations) -> Tensor:
    """The inverse of `turned`: turned_back(turned(x, o), o) = x."""
    items = []
    for item, turns in zip(x, orientations.turns, strict=True):
        upright = torch.rot90(item, -(turns % 4), (-2, -1))
        items.append(upright.flip(-1) if turns >= 4 else upright)
    return orientations.phase.conj()[:, None, None] * torch.stack(items)
