"""The levels of NCSN++ and DDPM: their steps, and the pyramids that run beside the blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mri_score.networks.ncsnpp_blocks import Attention, ResidualBlock, pointwise


class Step(nn.Module):
    """A residual block, and attention where its level has it."""

    def __init__(self, block: ResidualBlock, attention: Attention | None) -> None:
        super().__init__()
        self.block, self.attention = block, attention

    def forward(self, h: Tensor, embedding: Tensor | None) -> Tensor:
        h = self.block(h, embedding)
        return h if self.attention is None else self.attention(h)


class Combine(nn.Module):
    """A 1x1 convolution of the image, added to h or put before its channels (`cat`)."""

    def __init__(self, channels: int, width: int, cat: bool) -> None:
        super().__init__()
        self.conv, self.cat = pointwise(channels, width), cat

    def forward(self, image: Tensor, h: Tensor) -> Tensor:
        return torch.cat([self.conv(image), h], dim=1) if self.cat else self.conv(image) + h


class InputSkip(nn.Module):
    """The image itself, made smaller, enters each level: (h, image) -> (h, smaller image)."""

    def __init__(self, down: nn.Module, combine: Combine) -> None:
        super().__init__()
        self.down, self.combine = down, combine

    def forward(self, h: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        image = self.down(image)
        return self.combine(image, h), image


class InputResidual(nn.Module):
    """A short way down beside the blocks: a strided convolution of what entered the level above is added to h."""

    def __init__(self, down: nn.Module, scale: float) -> None:
        super().__init__()
        self.down, self.scale = down, scale

    def forward(self, h: Tensor, entered: Tensor) -> tuple[Tensor, Tensor]:
        h = (self.down(entered) + h) * self.scale
        return h, h


class OutputSkip(nn.Module):
    """Each level adds an image of its own to the enlarged one of the level below; the deepest has none below."""

    def __init__(self, up: nn.Module | None, head: nn.Module) -> None:
        super().__init__()
        self.up, self.head = up, head

    def forward(self, h: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        own = self.head(h)
        return h, own if self.up is None else self.up(image) + own


class OutputStart(nn.Module):
    """The deepest level's convolution, from which `OutputResidual` goes up."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, h: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        return h, self.head(h)


class OutputResidual(nn.Module):
    """A short way up beside the blocks: an enlarging convolution of what left the level below is added to h."""

    def __init__(self, up: nn.Module, scale: float) -> None:
        super().__init__()
        self.up, self.scale = up, scale

    def forward(self, h: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        h = (self.up(left) + h) * self.scale
        return h, h


class DownLevel(nn.Module):
    """One resolution of the way down; all but the deepest end in half the size and the input pyramid."""

    def __init__(self, steps: list[Step], shrink: nn.Module | None, pyramid: nn.Module | None) -> None:
        super().__init__()
        self.steps, self.shrink, self.pyramid = nn.ModuleList(steps), shrink, pyramid

    def forward(self, h: Tensor, image: Tensor, embedding: Tensor | None, skips: list[Tensor]) -> tuple[Tensor, Tensor]:
        for step in self.steps:
            h = step(h, embedding)
            skips.append(h)
        if self.shrink is None:
            return h, image
        h = self.shrink(h, embedding)
        if self.pyramid is not None:
            h, image = self.pyramid(h, image)
        skips.append(h)
        return h, image


class UpLevel(nn.Module):
    """One resolution of the way up: each block takes a skip; then the output pyramid, and twice the size."""

    def __init__(
        self,
        blocks: list[ResidualBlock],
        attention: Attention | None,
        pyramid: nn.Module | None,
        grow: nn.Module | None,
    ) -> None:
        super().__init__()
        self.blocks, self.attention, self.pyramid, self.grow = nn.ModuleList(blocks), attention, pyramid, grow

    def forward(self, h: Tensor, image: Tensor, embedding: Tensor | None, skips: list[Tensor]) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), embedding)
        if self.attention is not None:
            h = self.attention(h)
        if self.pyramid is not None:
            h, image = self.pyramid(h, image)
        return (h if self.grow is None else self.grow(h, embedding)), image
