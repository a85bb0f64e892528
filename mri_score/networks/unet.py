"""A compact U-Net for few data and small machines: no statistic of the whole image enters it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mri_score.errors import InputError


class NoiseEmbedding(nn.Module):
    """c_noise (B,) -> (B, size): cosines of fixed random frequencies and phases, then two linear layers.

    Reference: Karras et al., Analyzing and improving the training dynamics of diffusion models, CVPR 2024.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        fixed = torch.Generator().manual_seed(0)
        self.register_buffer("frequencies", 2 * torch.pi * torch.randn(size, generator=fixed))
        self.register_buffer("phases", 2 * torch.pi * torch.rand(size, generator=fixed))
        self.layers = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.Linear(size, size), nn.SiLU())

    def forward(self, c_noise: Tensor) -> Tensor:
        waves = torch.cos(c_noise[:, None] * self.frequencies + self.phases)
        return self.layers(2**0.5 * waves)


class Block(nn.Module):
    """x + conv(act(conv(gain * act(x) + shift))): the noise level sets gain and shift, nothing is normalized."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(embedding, 2 * width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        for parameter in (*self.modulation.parameters(), *self.second.parameters()):  # a new block is the identity
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        gain, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, functional.silu(x), 1 + gain)
        return x + self.second(functional.silu(self.first(h)))


class Blocks(nn.ModuleList):
    """The blocks of one resolution, in turn."""

    def __init__(self, count: int, width: int, embedding: int) -> None:
        super().__init__(Block(width, embedding) for _ in range(count))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for block in self:
            x = block(x, embedding)
        return x


class UNet(nn.Module):
    """Residual blocks at several resolutions with added skips, entered by a pixel unshuffle.

    Every operation is local, so that what is learned on patches holds on full images.
    Shapes: x (B, channels, H, W) of any size, padded inside; c_noise (B,); the same shape comes out.
    extra (B, extra_channels, H, W) enters beside x; ones where it is not given, as for the mask of a full scan.
    """

    def __init__(
        self,
        widths: Sequence[int] = (48, 96, 192),  # channels of each resolution, finest first
        blocks: int = 2,                        # residual blocks a resolution, on the way down and again on the way up
        unshuffle: int = 2,                     # pixels that enter as channels, along each axis
        embedding: int = 128,                   # size of the noise embedding
        channels: int = 2,                      # 2 for complex images, 1 for real ones
        extra_channels: int = 0,                # further channels of the input, e.g. 1 for a sampling mask
    ) -> None:  # fmt: skip
        super().__init__()
        self.unshuffle = unshuffle
        self.divisor = unshuffle * 2 ** (len(widths) - 1)
        self.channels = channels
        self.extra_channels = extra_channels
        packed = channels * unshuffle**2
        self.embed = NoiseEmbedding(embedding)
        self.enter = nn.Conv2d(packed + extra_channels * unshuffle**2, widths[0], 3, padding=1)
        steps = list(zip(widths, widths[1:], strict=False))
        self.down = nn.ModuleList(Blocks(blocks, w, embedding) for w in widths)
        self.up = nn.ModuleList(Blocks(blocks, w, embedding) for w in widths[:-1])
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in steps)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in steps)
        self.leave = nn.Conv2d(widths[0], packed, 3, padding=1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, c_noise: Tensor, extra: Tensor | None = None) -> Tensor:
        if extra is not None and not self.extra_channels:
            raise InputError("this UNet takes no extra input, such as a sampling mask; set network.extra_channels: 1")
        height, width = x.shape[-2:]
        if self.extra_channels:
            extra = x.new_ones(len(x), self.extra_channels, height, width) if extra is None else extra
            x = torch.cat([x, extra.to(x.dtype)], dim=1)
        x = functional.pad(x, (0, -width % self.divisor, 0, -height % self.divisor))
        embedding = self.embed(c_noise)

        h = self.enter(functional.pixel_unshuffle(x, self.unshuffle))
        skips = []
        for level, blocks in enumerate(self.down):
            if level:
                skips.append(h)
                h = self.shrink[level - 1](h)
            h = blocks(h, embedding)
        for level in reversed(range(len(self.up))):
            h = self.up[level](self.grow[level](h) + skips[level], embedding)
        return functional.pixel_shuffle(self.leave(h), self.unshuffle)[..., :height, :width]
