"""A compact U-Net for small data sets and machines; local, unless attention or position is switched on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mri_score.networks.layers import channels_last, refuse_extra, runner
from mri_score.networks.winograd import Conv3x3, by_winograd


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
    """x + conv(act(conv(gain * act(x) + shift))); gain and shift depend on the noise level, and there is no
    normalization.
    """

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(embedding, 2 * width)
        self.first = Conv3x3(width, width)
        self.second = Conv3x3(width, width)
        for parameter in (*self.modulation.parameters(), *self.second.parameters()):  # a new block is the identity
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        gain, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, functional.silu(x), 1 + gain)
        fresh = not torch.is_grad_enabled()  # memory that is used again is faster than new memory
        return self.second(functional.silu(self.first(h), inplace=fresh)).add_(x)


class Blocks(nn.ModuleList):
    """The blocks of one resolution, one after the other."""

    def __init__(self, count: int, width: int, embedding: int) -> None:
        super().__init__(Block(width, embedding) for _ in range(count))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for block in self:
            x = block(x, embedding)
        return x


class Attention(nn.Module):
    """x + out(softmax(q k^T / sqrt(width)) v): attention over all pairs of pixels, with one head.

    q and k are normalized to unit mean square, so that the softmax is neither nearly constant nor nearly a single
    pixel.
    Shapes: x (B, width, H, W), with few pixels, because the cost increases with the square of their number.
    Reference: Vaswani et al., NeurIPS 2017; the norm of q and k: Henry et al., EMNLP Findings 2020.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        for parameter in self.out.parameters():  # like a block, it starts as the identity
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).transpose(1, 2)
        q, k, v = self.enter(pixels).chunk(3, dim=-1)
        q, k = (functional.rms_norm(part, part.shape[-1:], eps=1e-6) for part in (q, k))
        looks = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1)  # these operations have second derivatives
        return x + self.out(looks @ v).transpose(1, 2).reshape(x.shape)


FREQUENCIES = (1, 2)
"""Frequencies of `place_of`, in periods over the longer side."""


def place_of(height: int, width: int, spacing: int) -> Tensor:
    """The positions of the pixels of an image: y and x, then for each f sin and cos of pi f y and pi f x, (10, rows,
    columns).

    Both axes have the same unit: -1 to 1 along the longer side, 0 at the centre of the image. With coarse pixels, each
    `spacing` pixels wide, the last ones may lie partly outside the image.
    """
    half = max(height, width) / 2
    y, x = (((torch.arange(-(-side // spacing)) + 0.5) * spacing - side / 2) / half for side in (height, width))
    place = torch.stack(torch.meshgrid(y, x, indexing="ij"))
    turns = [turn(torch.pi * f * place) for f in FREQUENCIES for turn in (torch.sin, torch.cos)]
    return torch.cat([place, *turns])


class UNet(nn.Module):
    """Residual blocks at several resolutions with additive skip connections, after a pixel unshuffle.

    All operations are local, so that a network trained on patches works on full images; attention and position are for
    training on whole images. `grow_from` starts a larger network as the function of a smaller one.
    Shapes: x (B, channels, H, W) of any size, padded inside; c_noise (B,); the result has the shape of x.
    extra (B, extra_channels, H, W): a further input; ones by default, which is the mask of a full scan.
    `checkpointing` stores only the outputs of resolutions for the backward pass, and computes the rest again.
    """

    def __init__(
        self,
        widths: Sequence[int] = (48, 96, 192),  # channels of each resolution, finest first
        blocks: int = 2,                        # residual blocks per resolution, on the way down and on the way up
        unshuffle: int = 2,                     # pixels that enter as channels, along each axis
        embedding: int = 128,                   # size of the noise embedding
        channels: int = 2,                      # 2 for complex images, 1 for real ones
        extra_channels: int = 0,                # further channels of the input, e.g. 1 for a sampling mask
        checkpointing: bool = False,            # training in less memory, a third slower
        position: bool = False,                 # the position of each pixel as a further input; for whole images
        attention: bool = False,                # between all pixels of the coarsest resolution
    ) -> None:  # fmt: skip
        super().__init__()
        self.unshuffle = unshuffle
        self.divisor = unshuffle * 2 ** (len(widths) - 1)
        self.channels = channels
        self.checkpointing = checkpointing
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
        # Named by its resolution, because in a deeper network another resolution is the coarsest.
        self.attention = nn.ModuleDict({str(len(widths) - 1): Attention(widths[-1])} if attention else {})
        self.place = nn.Conv2d(2 + 4 * len(FREQUENCIES), widths[0], 1, bias=False) if position else None
        if self.place is not None:
            nn.init.zeros_(self.place.weight)

    @torch.no_grad()
    def grow_from(self, weights: Mapping[str, Tensor]) -> None:
        """Start with the weights of a network with fewer resolutions or blocks, or without attention, position or extra
        channels.

        The added parts have no effect at first, but are trained: new blocks are the identity, and the output of new
        resolutions is zero. For sizes divisible by the larger divisor the function is the same; for others it differs
        near the borders, which are padded more.
        Errors: RuntimeError if the weights are not a part of this network.
        """
        weights = dict(weights)
        enter, own = weights.get("enter.weight"), self.enter.weight
        if self.extra_channels and enter is not None and len(enter) == len(own) and enter.shape[1] < own.shape[1]:
            weights["enter.weight"] = functional.pad(enter, (0, 0, 0, 0, 0, own.shape[1] - enter.shape[1]))
        loaded = self.load_state_dict(weights, strict=False)
        if loaded.unexpected_keys:
            raise RuntimeError(f"it has no place for {', '.join(loaded.unexpected_keys[:4])}, ...")
        for name in loaded.missing_keys:
            if name.startswith("grow."):
                self.get_parameter(name).zero_()

    def forward(self, x: Tensor, c_noise: Tensor, extra: Tensor | None = None) -> Tensor:
        if not self.extra_channels:
            refuse_extra(self, extra, "; set network.extra_channels: 1")
        height, width = x.shape[-2:]
        if self.extra_channels:
            extra = x.new_ones(len(x), self.extra_channels, height, width) if extra is None else extra
            x = torch.cat([x, extra.to(x.dtype)], dim=1)
        x = functional.pad(x, (0, -width % self.divisor, 0, -height % self.divisor))
        embedding = self.embed(c_noise)
        run = runner(self.checkpointing)

        h = functional.pixel_unshuffle(x, self.unshuffle)
        h = self.enter(h.contiguous() if by_winograd(h) else channels_last(h))
        if self.place is not None:
            rows, columns = h.shape[-2:]
            place = place_of(height, width, self.unshuffle).to(h)
            h = h + functional.pad(self.place(place[None]), (0, columns - place.shape[-1], 0, rows - place.shape[-2]))
        skips = []
        for level, blocks in enumerate(self.down):
            if level:
                skips.append(h)
                h = self.shrink[level - 1](h)
            h = run(blocks, h, embedding)
        for attention in self.attention.values():
            h = attention(h)
        for level in reversed(range(len(self.up))):
            h = run(self.up[level], self.grow[level](h) + skips[level], embedding)
        return functional.pixel_shuffle(self.leave(h), self.unshuffle)[..., :height, :width]
