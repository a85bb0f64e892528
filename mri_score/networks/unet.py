"""A compact U-Net for few data and small machines: local, unless attention or the pixel's place is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mri_score.networks.layers import channels_last, refuse_extra, runner


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


class Attention(nn.Module):
    """x + out(softmax(q k^T / sqrt(width)) v): every pixel looks at every other, with one head.

    q and k have unit mean square, so that no weight can make the softmax all but constant or all but one pixel.
    Shapes: x (B, width, H, W), of few pixels: the cost goes with the square of their number.
    Reference: Vaswani et al., NeurIPS 2017; the norm of q and k: Henry et al., EMNLP Findings 2020.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        for parameter in self.out.parameters():  # as a block, it is new as the identity
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).transpose(1, 2)
        q, k, v = self.enter(pixels).chunk(3, dim=-1)
        q, k = (functional.rms_norm(part, part.shape[-1:], eps=1e-6) for part in (q, k))
        looks = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1)  # in plain operations, which can be derived twice
        return x + self.out(looks @ v).transpose(1, 2).reshape(x.shape)


FREQUENCIES = (1, 2)
"""Of `place_of`, in turns over the longer side."""


def place_of(height: int, width: int, spacing: int) -> Tensor:
    """Where the pixels of an image lie: y and x, then for each f sin and cos of pi f y and pi f x, (10, rows, columns).

    One unit for both axes: -1 to 1 along the longer side, 0 at the centre of the image. For coarse pixels, `spacing`
    of the image's wide, as many as cover it: the last ones may lie partly outside.
    """
    half = max(height, width) / 2
    y, x = (((torch.arange(-(-side // spacing)) + 0.5) * spacing - side / 2) / half for side in (height, width))
    place = torch.stack(torch.meshgrid(y, x, indexing="ij"))
    turns = [turn(torch.pi * f * place) for f in FREQUENCIES for turn in (torch.sin, torch.cos)]
    return torch.cat([place, *turns])


class UNet(nn.Module):
    """Residual blocks at several resolutions with added skips, entered by a pixel unshuffle.

    Every operation is local, so that what is learned on patches holds on full images; attention and position are for
    training on whole images. What a larger network has beside a smaller one can start silent: `grow_from`.
    Shapes: x (B, channels, H, W) of any size, padded inside; c_noise (B,); the same shape comes out.
    extra (B, extra_channels, H, W) enters beside x; ones where it is not given, as for the mask of a full scan.
    `checkpointing` keeps for the derivatives only what goes from one resolution to the next and computes the rest anew.
    """

    def __init__(
        self,
        widths: Sequence[int] = (48, 96, 192),  # channels of each resolution, finest first
        blocks: int = 2,                        # residual blocks a resolution, on the way down and again on the way up
        unshuffle: int = 2,                     # pixels that enter as channels, along each axis
        embedding: int = 128,                   # size of the noise embedding
        channels: int = 2,                      # 2 for complex images, 1 for real ones
        extra_channels: int = 0,                # further channels of the input, e.g. 1 for a sampling mask
        checkpointing: bool = False,            # training in less memory, a third slower
        position: bool = False,                 # tell the network where in the image it is; for whole images
        attention: bool = False,                # of all pixels of the coarsest resolution to each other
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
        # By its level: in a deeper network the same weights would mean something else.
        self.attention = nn.ModuleDict({str(len(widths) - 1): Attention(widths[-1])} if attention else {})
        self.place = nn.Conv2d(2 + 4 * len(FREQUENCIES), widths[0], 1, bias=False) if position else None
        if self.place is not None:
            nn.init.zeros_(self.place.weight)

    @torch.no_grad()
    def grow_from(self, weights: Mapping[str, Tensor]) -> None:
        """Start as the network of these weights, of fewer levels, blocks a level, or without attention or position.

        What it adds is silent and learns: new blocks are the identity, and nothing comes up from new levels. For sizes
        that the larger divisor divides the function is the same; else only near the border that is padded farther.
        Errors: RuntimeError where the weights are not part of this network.
        """
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

        h = self.enter(channels_last(functional.pixel_unshuffle(x, self.unshuffle)))
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
