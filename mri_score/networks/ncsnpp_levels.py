"""The resolutions of NCSN++ and DDPM: their steps, and the pyramids beside the blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mri_score.networks.ncsnpp_blocks import Attention, ResidualBlock, pointwise


class Step(nn.Module):
    """A residual block, followed by attention at some resolutions."""

    def __init__(self, block: ResidualBlock, attention: Attention | None) -> None:
        super().__init__()
        self.block, self.attention = block, attention

    def forward(self, h: Tensor, embedding: Tensor | None) -> Tensor:
        h = self.block(h, embedding)
        return h if self.attention is None else self.attention(h)


class Combine(nn.Module):
    """A 1x1 convolution of the image, added to h, or concatenated before its channels (`cat`)."""

    def __init__(self, channels: int, width: int, cat: bool) -> None:
        super().__init__()
        self.conv, self.cat = pointwise(channels, width), cat

    def forward(self, image: Tensor, h: Tensor) -> Tensor:
        return torch.cat([self.conv(image), h], dim=1) if self.cat else self.conv(image) + h


class InputSkip(nn.Module):
    """The downsampled image is an input of each resolution: (h, image) -> (h, smaller image)."""

    def __init__(self, down: nn.Module, combine: Combine) -> None:
        super().__init__()
        self.down, self.combine = down, combine

    def forward(self, h: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        image = self.down(image)
        return self.combine(image, h), image


class InputResidual(nn.Module):
    """A path down beside the blocks: a strided convolution of the input of the level above is added to h."""

    def __init__(self, down: nn.Module, scale: float) -> None:
        super().__init__()
        self.down, self.scale = down, scale

    def forward(self, h: Tensor, entered: Tensor) -> tuple[Tensor, Tensor]:
        h = (self.down(entered) + h) * self.scale
        return h, h


class OutputSkip(nn.Module):
    """Each resolution adds an image to the upsampled image of the next coarser one, if there is one."""

    def __init__(self, up: nn.Module | None, head: nn.Module) -> None:
        super().__init__()
        self.up, self.head = up, head

    def forward(self, h: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        own = self.head(h)
        return h, own if self.up is None else self.up(image) + own


class OutputStart(nn.Module):
    """The convolution at the coarsest resolution, where `OutputResidual` starts."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, h: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        return h, self.head(h)


class OutputResidual(nn.Module):
    """A path up beside the blocks: an upsampling convolution of the output of the level below is added to h."""

    def __init__(self, up: nn.Module, scale: float) -> None:
        super().__init__()
        self.up, self.scale = up, scale

    def forward(self, h: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        h = (self.up(left) + h) * self.scale
        return h, h


class DownLevel(nn.Module):
    """One resolution of the way down; all but the coarsest end with downsampling and the input pyramid."""

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
    """One resolution of the way up: each block takes a skip connection; then output pyramid and upsampling."""

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
