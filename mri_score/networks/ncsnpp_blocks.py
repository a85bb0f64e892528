"""The blocks of NCSN++ and DDPM: embeddings of the noise level, residual and attention blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu
from torch.utils.checkpoint import checkpoint

from mri_score.networks.resampling import Downsample, DownsampleConv, Upsample, UpsampleConv

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)
OUTPUT = 1e-10
"""Published scale of the last convolution of a block: nearly zero, so that a new block is nearly its shortcut."""


def started(layer: Layer, scale: float = 1.0) -> Layer:
    """The layer with the initial weights of DDPM: uniform, of variance scale / mean(fan in, fan out), and no bias."""
    nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(scale))
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def conv(channels_in: int, channels_out: int, scale: float = 1.0) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return started(nn.Conv2d(channels_in, channels_out, 3, padding=1), scale)


def pointwise(channels_in: int, channels_out: int, scale: float = 1.0) -> nn.Conv2d:
    """A 1x1 convolution."""
    return started(nn.Conv2d(channels_in, channels_out, 1), scale)


def group_norm(channels: int) -> nn.GroupNorm:
    """min(channels / 4, 32) groups, or the next smaller number that divides the channels."""
    most = max(1, min(channels // 4, 32))
    return nn.GroupNorm(next(n for n in range(most, 0, -1) if channels % n == 0), channels, eps=1e-6)


class FourierFeatures(nn.Module):
    """c_noise (B,) -> (B, 2 size): sine and cosine of 2 pi w c_noise, with fixed random w of standard deviation
    `scale`.

    Reference: Tancik et al., Fourier features let networks learn high frequency functions, NeurIPS 2020.
    """

    frequencies: Tensor

    def __init__(self, size: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(size))

    def forward(self, c_noise: Tensor) -> Tensor:
        angles = c_noise[:, None] * self.frequencies * 2 * math.pi
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class PositionalFeatures(nn.Module):
    """A label (B,) -> (B, size): sine and cosine of label * 10000^(-j / (size / 2 - 1)), j = 0, 1, ...

    With `levels` decreasing noise levels, the label is the index of the level nearest to sigma = exp(c_noise), in the
    logarithm; without levels, c_noise is the label.
    Reference: Vaswani et al., Attention is all you need, NeurIPS 2017.
    """

    sigmas: Tensor | None
    frequencies: Tensor

    def __init__(self, size: int, levels: int, sigma_max: float, sigma_min: float) -> None:
        super().__init__()
        ladder = torch.linspace(math.log(sigma_max), math.log(sigma_min), levels).exp() if levels else None
        self.register_buffer("sigmas", ladder)
        half = size // 2
        falling = torch.exp(torch.arange(half) * (-math.log(10_000) / max(half - 1, 1)))
        self.register_buffer("frequencies", falling, persistent=False)
        self.odd = size % 2

    def forward(self, c_noise: Tensor) -> Tensor:
        label = c_noise
        if self.sigmas is not None:
            label = (self.sigmas.log() - c_noise[:, None]).abs().argmin(dim=1)
        angles = label[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos(), angles.new_zeros(len(angles), self.odd)], dim=1)


class NoiseEmbedding(nn.Module):
    """c_noise (B,) -> (B, 4 width): features and two linear layers."""

    def __init__(self, features: nn.Module, size: int, width: int) -> None:
        super().__init__()
        self.features = features
        self.first = started(nn.Linear(size, 4 * width))
        self.second = started(nn.Linear(4 * width, 4 * width))

    def forward(self, c_noise: Tensor) -> Tensor:
        features = self.features(c_noise).to(self.first.weight.dtype)
        return self.second(silu(self.first(features)))


class Recomputed(nn.Module):
    """A block that can store only its inputs for the backward pass, and compute the rest again (`checkpointing`)."""

    checkpointing = False

    def forward(self, *inputs: Tensor | None) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(self.compute, *inputs, use_reentrant=False)
        return self.compute(*inputs)

    def compute(self, *inputs: Tensor | None) -> Tensor:
        raise NotImplementedError


class ResidualBlock(Recomputed):
    """shortcut(x) + conv2(act(norm2(conv1(act(norm1(x))) + modulation(act(embedding)))))

    `resample` halves or doubles act(norm1(x)) and x, as BigGAN does. The shortcut is the identity, or a 1x1 convolution
    where channels or size change. `rescale` divides the sum by sqrt 2; embedding 0: independent of the noise level.
    Shapes: x (B, channels_in, H, W), embedding (B, embedding) -> (B, channels_out, H, W), or half or twice the sides.
    References: Ho et al., Denoising diffusion probabilistic models, NeurIPS 2020; Brock et al., BigGAN, ICLR 2019.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        embedding: int,
        resample: nn.Module | None = None,
        dropout: float = 0.0,
        rescale: bool = True,
        shortcut_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.scale = 0.5**0.5 if rescale else 1.0
        self.resample = resample
        self.norm1 = group_norm(channels_in)
        self.conv1 = conv(channels_in, channels_out)
        self.modulation = started(nn.Linear(embedding, channels_out)) if embedding else None
        self.norm2 = group_norm(channels_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv(channels_out, channels_out, OUTPUT)
        changes = channels_in != channels_out or resample is not None
        self.shortcut = pointwise(channels_in, channels_out, shortcut_scale) if changes else nn.Identity()

    def compute(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        h = silu(self.norm1(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.conv1(h)
        if self.modulation is not None:
            h = h + self.modulation(silu(embedding))[:, :, None, None]
        h = self.conv2(self.dropout(silu(self.norm2(h))))
        return (self.shortcut(x) + h) * self.scale


class Attention(Recomputed):
    """x + mix(softmax(q^T k / sqrt C) v) over all pairs of pixels, one head; `rescale` divides the sum by sqrt 2.

    Shapes: x and result (B, C, H, W).
    """

    def __init__(self, channels: int, rescale: bool = True) -> None:
        super().__init__()
        self.scale = 0.5**0.5 if rescale else 1.0
        self.norm = group_norm(channels)
        self.query, self.key, self.value = (pointwise(channels, channels, 0.1) for _ in range(3))
        self.mix = pointwise(channels, channels, OUTPUT)

    def compute(self, x: Tensor) -> Tensor:  # type: ignore[override]
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).mT for layer in (self.query, self.key, self.value))
        if torch.is_grad_enabled():  # the fused kernel needs less memory, but has no second derivative
            attended = torch.softmax(q @ k.mT * q.shape[-1] ** -0.5, dim=-1) @ v
        else:
            attended = scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return (x + self.mix(attended.mT.reshape(x.shape))) * self.scale


class Unmodulated(nn.Module):
    """A layer that ignores the noise level, in the place of a residual block."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, h: Tensor, embedding: Tensor | None) -> Tensor:
        return self.layer(h)


@dataclass(frozen=True)
class Parts:
    """How the parts of one network are constructed. The fields are arguments of `NCSNpp`; embedding: its size (0:
    none).
    """

    block: str
    fir: Sequence[float]
    resample_conv: bool
    embedding: int
    dropout: float
    rescale: bool

    def residual(self, channels_in: int, channels_out: int, resample: nn.Module | None = None) -> ResidualBlock:
        return ResidualBlock(
            channels_in,
            channels_out,
            embedding=self.embedding,
            resample=resample,
            dropout=self.dropout,
            rescale=self.rescale,
            shortcut_scale=0.1 if self.block == "ddpm" else 1.0,
        )

    def attention(self, channels: int) -> Attention:
        return Attention(channels, self.rescale)

    def shrink(self, channels: int) -> nn.Module:
        if self.block == "biggan":
            return self.residual(channels, channels, Downsample(self.fir))
        return Unmodulated(DownsampleConv(channels, channels, self.fir) if self.resample_conv else Downsample(self.fir))

    def grow(self, channels: int) -> nn.Module:
        if self.block == "biggan":
            return self.residual(channels, channels, Upsample(self.fir))
        return Unmodulated(UpsampleConv(channels, channels, self.fir) if self.resample_conv else Upsample(self.fir))

    def head(self, channels_in: int, channels_out: int, scale: float = OUTPUT) -> nn.Module:
        return nn.Sequential(group_norm(channels_in), nn.SiLU(), conv(channels_in, channels_out, scale))

    @property
    def scale(self) -> float:
        return 0.5**0.5 if self.rescale else 1.0
