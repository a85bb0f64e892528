"""NCSN: a RefineNet whose norms depend on the noise level, and the names of published weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import log
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, elu

from mri_score.networks.layers import ResidualBlock, conv, instance_norm_plus, refuse_extra, summed
from mri_score.networks.ncsnv2 import REFINEMENTS, STAGES, rename_published
from mri_score.networks.resampling import reflected


class ConditionalNorm(nn.Module):
    """InstanceNorm++ with a row of gamma, alpha and beta for each noise level.

    Shapes: x (B, channels, H, W), label (B,) of integers.
    """

    def __init__(self, channels: int, *, levels: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(levels, 3 * channels)
        nn.init.normal_(self.embed.weight[:, : 2 * channels], 1, 0.02)
        nn.init.zeros_(self.embed.weight[:, 2 * channels :])

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        gamma, alpha, beta = self.embed(label).chunk(3, dim=1)
        return instance_norm_plus(x, gamma, alpha, beta)


class ResidualConvolutions(nn.Module):
    """RCU: `blocks` times x + conv(act(norm(conv(act(norm(x))))))."""

    def __init__(self, channels: int, blocks: int, levels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ConditionalNorm(channels, levels=levels) for _ in range(2 * blocks))
        self.convs = nn.ModuleList(conv(channels, channels, bias=False) for _ in range(2 * blocks))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        layers = list(zip(self.norms, self.convs, strict=True))
        for (norm1, conv1), (norm2, conv2) in zip(layers[::2], layers[1::2], strict=True):
            h = conv1(elu(norm1(x, label)))
            x = conv2(elu(norm2(h, label))).add_(x)
        return x


class ChainedPooling(nn.Module):
    """CRP: from x = act(x), twice path = conv(mean of 5x5 around each pixel of norm(path)), added to x."""

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ConditionalNorm(channels, levels=levels) for _ in range(2))
        self.convs = nn.ModuleList(conv(channels, channels, bias=False) for _ in range(2))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x = path = elu(x)
        for norm, layer in zip(self.norms, self.convs, strict=True):
            path = layer(avg_pool2d(norm(path, label), 5, stride=1, padding=2))
            x = x + path
        return x


class Fusion(nn.Module):
    """MSF: a norm and a convolution of each input, bilinear resizing to the size of the first, and their sum."""

    def __init__(self, channels_in: Sequence[int], channels_out: int, levels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ConditionalNorm(channels, levels=levels) for channels in channels_in)
        self.convs = nn.ModuleList(conv(channels, channels_out) for channels in channels_in)

    def forward(self, inputs: Sequence[Tensor], label: Tensor) -> Tensor:
        return summed(layer(norm(x, label)) for norm, layer, x in zip(self.norms, self.convs, inputs, strict=True))


class Stage(nn.ModuleList):
    """Blocks one after the other, each with the label."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        for block in self:
            x = block(x, label)
        return x


class RefineBlock(nn.Module):
    """RefineNet's block with conditional norms: RCU on each input, fusion of several inputs, chained pooling, RCU.

    Shapes: inputs (B, channels_in[i], H_i, W_i), the finest first -> (B, channels_out, H_0, W_0).
    """

    def __init__(self, channels_in: Sequence[int], channels_out: int, levels: int, output_blocks: int = 1) -> None:
        super().__init__()
        self.adapt_convs = nn.ModuleList(ResidualConvolutions(channels, 2, levels) for channels in channels_in)
        self.msf = Fusion(channels_in, channels_out, levels) if len(channels_in) > 1 else None
        self.crp = ChainedPooling(channels_out, levels)
        self.output_convs = ResidualConvolutions(channels_out, output_blocks, levels)

    def forward(self, inputs: Sequence[Tensor], label: Tensor) -> Tensor:
        adapted = [adapt(x, label) for adapt, x in zip(self.adapt_convs, inputs, strict=True)]
        fused = self.msf(adapted, label) if self.msf is not None else adapted[0]
        return self.output_convs(self.crp(fused, label), label)


class NCSN(nn.Module):
    """F(x, label): the network of NCSN, whose output is the score itself (preconditioning "score").

    The label is the index of the noise level that is nearest to sigma in the logarithm, c_noise = log sigma. The levels
    are geometric, or those of the loaded weights. Odd sides are padded by reflection and cropped again.
    `published_input` maps x to 2x - 1, as published weights expect.
    Shapes: x (B, channels, H, W), c_noise (B,) -> (B, channels, H, W).
    Errors: InputError for sides below 2.
    Reference: Song and Ermon, Generative modeling by estimating gradients of the data distribution, NeurIPS 2019.
    """

    sigmas: Tensor

    def __init__(
        self,
        levels: int = 10,               # number of noise levels
        sigma_max: float = 1.0,         # largest level
        sigma_min: float = 0.01,        # smallest level
        width: int = 128,               # channels of the first stage, published as ngf
        channels: int = 2,              # 2 for complex images, 1 for real ones
        published_input: bool = False,  # map x to 2x - 1
    ) -> None:  # fmt: skip
        super().__init__()
        stages, refinements = STAGES["low"], REFINEMENTS["low"]
        self.published_input = published_input
        self.divisor = 2 ** sum(stage.halve for stage in stages)
        ladder = torch.linspace(log(sigma_max), log(sigma_min), levels, dtype=torch.float64).exp()
        self.register_buffer("sigmas", ladder.float())
        norm = partial(ConditionalNorm, levels=levels)

        self.channels = channels
        self.begin_conv = conv(channels, width)
        self.stages = nn.ModuleList()
        now = width
        for number, stage in enumerate(stages):
            after, dilation = stage.width * width, stage.dilation
            first = ResidualBlock(now, after, enter=number > 0, halve=stage.halve, dilation=dilation, norm=norm)
            second = ResidualBlock(after, after, dilation=dilation, norm=norm)
            self.stages.append(Stage([first, second]))
            now = after

        self.refine = nn.ModuleList([RefineBlock([now], now, levels)])
        for stage, refinement in zip(reversed(stages[:-1]), refinements[1:], strict=True):
            after, blocks = refinement.width * width, 3 if stage is stages[0] else 1
            self.refine.append(RefineBlock([stage.width * width, now], after, levels, blocks))
            now = after
        self.normalizer = norm(width)
        self.end_conv = conv(width, channels)

    def label(self, c_noise: Tensor) -> Tensor:
        """The index of the nearest noise level: (B,) -> (B,)."""
        return (c_noise[:, None] - self.sigmas.log()).abs().argmin(1)

    def forward(self, x: Tensor, c_noise: Tensor, extra: Tensor | None = None) -> Tensor:
        refuse_extra(self, extra)
        x, (rows, columns) = reflected(2 * x - 1 if self.published_input else x, self.divisor)
        label = self.label(c_noise)

        h = self.begin_conv(x)
        skips = []
        for stage in self.stages:
            h = stage(h, label)
            skips.append(h)
        h = self.refine[0]([skips.pop()], label)
        for refine in self.refine[1:]:
            h = refine([skips.pop(), h], label)
        return self.end_conv(elu(self.normalizer(h, label)))[..., rows, columns]


def from_published(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The arguments of the network for published weights, and the weights under the names of this class.

    Most releases do not store the noise levels (`sigmas`); the network then has its own.
    """
    width, channels = state["begin_conv.weight"].shape[:2]
    levels = len(state["normalizer.embed.weight"])
    network = {"name": "ncsn", "levels": levels, "width": width, "channels": channels, "published_input": True}
    weights = rename_published(state, "low")
    if "sigmas" in state:
        weights["sigmas"] = state["sigmas"]
    return network, weights
