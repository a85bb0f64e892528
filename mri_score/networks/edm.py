"""The networks of EDM: its versions of DDPM++ and NCSN++ (`song`) and of ADM (`dhariwal`), and published weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, scaled_dot_product_attention, silu

from mri_score.errors import InputError, unknown_name
from mri_score.networks.layers import refuse_extra
from mri_score.networks.resampling import fir_kernel, reflected

KINDS = ("song", "dhariwal")
ENCODERS = ("standard", "skip", "residual")
DECODERS = ("standard", "skip")


class Resampled(nn.Module):
    """Up- or downsampling by a FIR filter and a convolution, as in EDM: either may be missing.

    size: of the convolution's kernel, 0 for none. change: "up", "down" or none. taps: of the filter. fused: the strided
    filter follows the convolution ("down" alone), whose padding then includes the filter's.
    Shapes: x (B, channels_in, H, W) -> (B, channels_out, H, W), or twice or half the sides.
    """

    resample_filter: Tensor | None

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        size: int = 3,
        change: str = "",
        taps: Sequence[float] = (1, 1),
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.change, self.fused, self.padding = change, fused, size // 2
        self.weight: nn.Parameter | None = None
        self.bias: nn.Parameter | None = None
        if size:
            self.weight = nn.Parameter(torch.empty(channels_out, channels_in, size, size))
            self.bias = nn.Parameter(torch.zeros(channels_out))
            nn.init.xavier_uniform_(self.weight)
        self.register_buffer("resample_filter", fir_kernel(taps)[None, None] if change else None)

    def forward(self, x: Tensor) -> Tensor:
        taps = self.resample_filter
        if taps is None:
            return conv2d(x, self.weight, self.bias, padding=self.padding)  # type: ignore[arg-type]
        margin = (taps.shape[-1] - 1) // 2
        if self.fused and self.weight is not None:
            x = conv2d(x, self.weight, padding=self.padding + margin)
            x = conv2d(x, taps.to(x.dtype).expand(x.shape[1], 1, -1, -1), stride=2, groups=x.shape[1])
            return x if self.bias is None else x + self.bias[:, None, None]
        each = taps.to(x.dtype).expand(x.shape[1], 1, -1, -1)
        if self.change == "up":
            x = conv_transpose2d(x, 4 * each, stride=2, padding=margin, groups=x.shape[1])
        else:
            x = conv2d(x, each, stride=2, padding=margin, groups=x.shape[1])
        return x if self.weight is None else conv2d(x, self.weight, self.bias, padding=self.padding)


class Block(nn.Module):
    """EDM's residual block: x + conv1(act(norm1(conv0(act(norm0(x)))))) with the embedding, and attention after it.

    adaptive: the embedding scales and shifts the second norm (ADM); otherwise it is added before it (DDPM++), the sums
    are divided by sqrt 2, and every change of size has a 1x1 convolution in the shortcut.
    Shapes: x (B, channels_in, H, W), embedding (B, features) -> (B, channels_out, H, W), or twice or half the sides.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        features: int,
        *,
        adaptive: bool,
        change: str = "",
        attention: bool = False,
        taps: Sequence[float] = (1, 1),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.adaptive, self.channels_out = adaptive, channels_out
        self.scale: float = 1.0 if adaptive else 0.5**0.5
        eps = 1e-5 if adaptive else 1e-6
        self.norm0 = _norm(channels_in, eps)
        self.conv0 = Resampled(channels_in, channels_out, 3, change, taps)
        self.affine = nn.Linear(features, channels_out * (2 if adaptive else 1))
        self.norm1 = _norm(channels_out, eps)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = Resampled(channels_out, channels_out)
        nn.init.zeros_(self.conv1.weight)  # type: ignore[arg-type]
        self.skip: Resampled | None = None
        if change or channels_in != channels_out:
            size = 1 if not adaptive or channels_in != channels_out else 0
            self.skip = Resampled(channels_in, channels_out, size, change, taps)
        self.heads = (channels_out // 64 if adaptive else 1) if attention else 0  # none for narrow blocks, as published
        if self.heads:
            self.norm2 = _norm(channels_out, eps)
            self.qkv = Resampled(channels_out, 3 * channels_out, 1)
            self.proj = Resampled(channels_out, channels_out, 1)
            nn.init.zeros_(self.proj.weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv0(silu(self.norm0(x)))
        change = self.affine(embedding)[:, :, None, None]
        if self.adaptive:
            scale, shift = change.chunk(2, dim=1)
            h = silu(shift + self.norm1(h) * (1 + scale))
        else:
            h = silu(self.norm1(h + change))
        h = self.conv1(self.dropout(h))
        x = ((x if self.skip is None else self.skip(x)) + h) * self.scale
        if not self.heads:
            return x
        channels = self.qkv(self.norm2(x)).reshape(len(x), self.heads, x.shape[1] // self.heads, 3, -1)
        q, k, v = (part.mT for part in channels.unbind(3))  # the three of a channel lie side by side
        attended = scaled_dot_product_attention(q, k, v).mT.reshape(x.shape)
        return (self.proj(attended) + x) * self.scale


class EdmUNet(nn.Module):
    """F(x, c_noise): the networks that EDM trains, for its preconditioning ("edm") or "vp".

    Sides that are not divisible by 2^(resolutions - 1) are padded by reflection and cropped again.
    Shapes: x (B, channels, H, W), c_noise (B,) -> (B, channels, H, W).
    Errors: InputError for an unknown kind, encoder or decoder, and for sides below the divisor.
    Reference: Karras et al., Elucidating the design space of diffusion-based generative models, NeurIPS 2022; Dhariwal
    and Nichol, Diffusion models beat GANs on image synthesis, NeurIPS 2021.
    """

    freqs: Tensor

    def __init__(
        self,
        kind: str = "song",                         # song (DDPM++, NCSN++) or dhariwal (ADM)
        width: int = 128,                           # published as model_channels
        multipliers: Sequence[int] = (1, 2, 2, 2),  # multipliers of the width at each resolution, finest first
        blocks: int = 4,                            # residual blocks per resolution; one more on the way up
        attention: Sequence[int] = (1,),            # resolutions with attention, 0 the finest; the middle always has it
        embedding: str = "positional",              # positional or fourier
        noise_features: int = 1,                    # features of the noise level, in multiples of width
        features: int = 4,                          # of the embedding, in multiples of width: channel_mult_emb
        encoder: str = "standard",                  # standard, skip or residual
        decoder: str = "standard",                  # standard or skip
        fir: Sequence[float] = (1.0, 1.0),          # taps of the resampling filter; NCSN++ has 1, 3, 3, 1
        dropout: float = 0.0,                       # in each residual block, while training
        channels: int = 2,                          # 2 for complex images, 1 for real ones
    ) -> None:  # fmt: skip
        super().__init__()
        for name, value, known in (
            ("kind", kind, KINDS), ("encoder", encoder, ENCODERS), ("decoder", decoder, DECODERS),
            ("embedding", embedding, ("positional", "fourier")),
        ):  # fmt: skip
            if value not in known:
                raise unknown_name(f"network.{name}", value, known)
        self.channels, self.song, self.divisor = channels, kind == "song", 2 ** (len(multipliers) - 1)
        noise, emb = noise_features * width, features * width
        half = noise // 2
        frequencies = 16 * torch.randn(half)
        if embedding == "positional":
            last = max(half - (1 if self.song else 0), 1)
            frequencies = torch.exp(torch.arange(half) * (-math.log(10_000) / last))
        self.fourier = embedding == "fourier"
        self.register_buffer("freqs", frequencies, persistent=self.fourier)
        self.map_layer0, self.map_layer1 = nn.Linear(noise, emb), nn.Linear(emb, emb)

        def block(channels_in: int, channels_out: int, **options: Any) -> Block:
            return Block(channels_in, channels_out, emb, adaptive=not self.song, taps=fir, dropout=dropout, **options)

        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        now = width * (1 if self.song else multipliers[0])
        self.enc["0_conv"] = Resampled(channels, now)
        skips, entered, deepest = [now], channels, len(multipliers) - 1
        for level, multiplier in enumerate(multipliers):
            if level:
                self.enc[f"{level}_down"] = block(now, now, change="down")
                skips.append(now)
                if encoder == "skip":
                    self.enc[f"{level}_aux_down"] = Resampled(channels, channels, 0, "down", fir)
                    self.enc[f"{level}_aux_skip"] = Resampled(channels, now, 1)
                elif encoder == "residual":
                    self.enc[f"{level}_aux_residual"] = Resampled(entered, now, 3, "down", fir, fused=True)
                    entered = now
            for number in range(blocks):
                self.enc[f"{level}_block{number}"] = block(now, multiplier * width, attention=level in attention)
                now = multiplier * width
                skips.append(now)
        for level, multiplier in reversed(list(enumerate(multipliers))):
            if level == deepest:
                self.dec[f"{level}_in0"] = block(now, now, attention=True)
                self.dec[f"{level}_in1"] = block(now, now)
            else:
                self.dec[f"{level}_up"] = block(now, now, change="up")
            for number in range(blocks + 1):
                attends = level in attention and (number == blocks or not self.song)
                self.dec[f"{level}_block{number}"] = block(now + skips.pop(), multiplier * width, attention=attends)
                now = multiplier * width
            if self.song and (decoder == "skip" or not level):
                if decoder == "skip" and level < deepest:
                    self.dec[f"{level}_aux_up"] = Resampled(channels, channels, 0, "up", fir)
                self.dec[f"{level}_aux_norm"] = _norm(now, 1e-6)
                self.dec[f"{level}_aux_conv"] = Resampled(now, channels)
        if not self.song:
            self.out_norm, self.out_conv = _norm(now, 1e-5), Resampled(now, channels)

    def forward(self, x: Tensor, c_noise: Tensor, extra: Tensor | None = None) -> Tensor:
        refuse_extra(self, extra)
        x, (rows, columns) = reflected(x, self.divisor)
        embedding = self._embedded(c_noise)
        skips: list[Tensor] = []
        image = x
        for name, part in self.enc.items():
            if name.endswith("aux_down"):
                image = part(image)
            elif name.endswith("aux_skip"):
                x = skips[-1] = x + part(image)
            elif name.endswith("aux_residual"):
                x = skips[-1] = image = (x + part(image)) * 0.5**0.5
            else:
                x = part(x, embedding) if isinstance(part, Block) else part(x)
                skips.append(x)
        out: Tensor | None = None
        for name, part in self.dec.items():
            if name.endswith("aux_up"):
                out = part(out)
            elif name.endswith("aux_norm"):
                head = silu(part(x))
            elif name.endswith("aux_conv"):
                out = part(head) if out is None else part(head) + out
            else:
                x = part(torch.cat([x, skips.pop()], dim=1) if "_block" in name else x, embedding)
        if not self.song:
            out = self.out_conv(silu(self.out_norm(x)))
        assert out is not None
        return out[..., rows, columns]

    def _embedded(self, c_noise: Tensor) -> Tensor:
        angles = c_noise[:, None] * self.freqs * (2 * math.pi if self.fourier else 1)
        parts = [angles.sin(), angles.cos()] if self.song else [angles.cos(), angles.sin()]
        features = torch.cat(parts, dim=1).to(self.map_layer0.weight.dtype)
        return silu(self.map_layer1(silu(self.map_layer0(features))))


def _norm(channels: int, eps: float) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, max(1, channels // 4)), channels, eps=eps)


def from_published(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The name and arguments of `EdmUNet` and its weights from those of EDM's SongUNet or DhariwalUNet.

    state: by the published names, such as enc.64x64_block0.conv0.weight, which with the shapes determine all arguments
    but the dropout. The weights of the labels of augmentation (map_augment), which are used in training only, are
    left out.
    Errors: InputError for networks with class labels and for other networks; KeyError for one of which parts are
    missing.
    """
    if "map_label.weight" in state:
        raise InputError("it takes class labels (map_label), which a prior has no use for")
    found = [re.match(r"(?:enc|dec)\.(\d+)x\d+_", key) for key in state]
    sides = sorted({int(one[1]) for one in found if one}, reverse=True)
    levels = {side: level for level, side in enumerate(sides)}
    if not sides or any(side != sides[0] >> level for side, level in levels.items()):
        raise InputError(f"the sides of its resolutions are {sides}, not halved one after the other")
    song = "out_conv.weight" not in state
    emb, noise = state["map_layer0.weight"].shape
    fourier = "map_noise.freqs" in state

    def named(found: re.Match[str]) -> str:
        return f"{found[1]}.{levels[int(found[2])]}"

    weights: dict[str, Tensor] = {}
    for key, value in state.items():
        if key == "map_noise.freqs":
            weights["freqs"] = value
        elif not key.startswith("map_augment"):
            weights[re.sub(r"^(enc|dec)\.(\d+)x\d+(?=_)", named, key)] = value
    entry = weights["enc.0_conv.weight"]
    width = int(entry.shape[0]) if song else int(noise)
    outs = [weights[f"enc.{level}_block0.conv0.weight"].shape[0] for level in range(len(sides))]
    filters = [value for key, value in weights.items() if key.endswith("resample_filter")]
    taps = [1.0, 1.0] if not filters or filters[0].shape[-1] == 2 else [1.0, 3.0, 3.0, 1.0]
    parts = {key.split(".")[1].partition("_")[2] for key in weights if key[:4] in ("enc.", "dec.")}
    return {
        "name": "edm",
        "kind": "song" if song else "dhariwal",
        "width": width,
        "multipliers": [int(out) // width for out in outs],
        "blocks": sum(re.fullmatch(r"enc\.0_block\d+\.conv0\.weight", key) is not None for key in weights),
        "attention": [level for level in range(len(sides)) if f"enc.{level}_block0.qkv.weight" in weights],
        "embedding": "fourier" if fourier else "positional",
        "noise_features": int(noise) // width,
        "features": int(emb) // width,
        "encoder": "skip" if "aux_skip" in parts else "residual" if "aux_residual" in parts else "standard",
        "decoder": "skip" if "aux_up" in parts else "standard",
        "fir": taps,
        "channels": int(entry.shape[1]),
    }, weights
