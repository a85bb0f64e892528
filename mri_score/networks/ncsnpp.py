"""NCSN++ and DDPM's U-Net: one class for all published variants, and the import of published weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mri_score.errors import InputError, unknown_name
from mri_score.networks.layers import refuse_extra
from mri_score.networks.ncsnpp_blocks import (
    Attention,
    FourierFeatures,
    NoiseEmbedding,
    Parts,
    PositionalFeatures,
    Recomputed,
    ResidualBlock,
    conv,
)
from mri_score.networks.ncsnpp_levels import (
    Combine,
    DownLevel,
    InputResidual,
    InputSkip,
    OutputResidual,
    OutputSkip,
    OutputStart,
    Step,
    UpLevel,
)
from mri_score.networks.resampling import Downsample, DownsampleConv, Upsample, UpsampleConv, reflected

FIR = (1.0, 3.0, 3.0, 1.0)
VARIANTS = {
    "block": ("biggan", "ddpm"),
    "embedding": ("fourier", "positional"),
    "progressive": ("none", "output_skip", "residual"),
    "progressive_input": ("none", "input_skip", "residual"),
    "combine": ("sum", "cat"),
}


class NCSNpp(nn.Module):
    """F(x, c_noise): the network of NCSN++ before its division by sigma; score = F / sigma (preconditioning "ncsn").

    c_noise is log sigma. A Fourier embedding uses it directly, a positional one the index of the nearest of its
    `levels` noise levels. With levels 0, c_noise is the label itself, as for networks of variance-preserving
    diffusions. Weights published without scale_by_sigma give the score itself (preconditioning "score").
    Sides that are not divisible by 2^(resolutions - 1) are padded by reflection at both ends and cropped again.
    `published_input` maps x to 2x - 1, for weights that were trained so: it breaks the symmetry of phase.
    Shapes: x (B, channels, H, W), c_noise (B,) -> (B, channels, H, W).
    Errors: InputError for an unknown variant and for sides below the divisor.
    Reference: Song et al., Score-based generative modeling through stochastic differential equations, ICLR 2021.
    """

    def __init__(
        self,
        width: int = 128,                           # channels of the finest level, published as nf
        multipliers: Sequence[int] = (1, 2, 2, 2),  # multipliers of the width at each resolution, finest first: ch_mult
        blocks: int = 4,                            # residual blocks per resolution; one more on the way up
        attention: Sequence[int] = (1,),            # resolutions with attention, 0 the finest; the middle always has it
        block: str = "biggan",                      # biggan (blocks resample) or ddpm
        fir: Sequence[float] = FIR,                 # taps of the resampling filter; none: plain means and copies
        resample_conv: bool = True,                 # ddpm blocks only: a convolution where the size changes
        embedding: str = "fourier",                 # fourier or positional
        conditional: bool = True,                   # whether the noise level enters the blocks
        progressive: str = "none",                  # output pyramid: none, output_skip or residual
        progressive_input: str = "residual",        # input pyramid: none, input_skip or residual
        combine: str = "sum",                       # input_skip only: sum or cat
        skip_rescale: bool = True,                  # divide the sum of block and shortcut by sqrt 2
        dropout: float = 0.0,                       # in each residual block, while training
        fourier_scale: float = 16.0,                # standard deviation of the Fourier frequencies
        levels: int = 0,                            # positional only: number of noise levels
        sigma_max: float = 50.0,                    # largest noise level
        sigma_min: float = 0.01,                    # smallest noise level, in geometric steps
        channels: int = 2,                          # 2 for complex images, 1 for real ones
        published_input: bool = False,              # map x to 2x - 1
        checkpointing: bool = False,                # compute blocks again in the backward pass: less memory, more time
    ) -> None:  # fmt: skip
        super().__init__()
        chosen = (block, embedding, progressive, progressive_input, combine)
        for (name, known), value in zip(VARIANTS.items(), chosen, strict=True):
            if value not in known:
                raise unknown_name(f"network.{name}", value, known)
        self.published_input = published_input
        self.divisor = 2 ** (len(multipliers) - 1)
        parts = Parts(block, fir, resample_conv, 4 * width if conditional else 0, dropout, skip_rescale)
        widths = [multiplier * width for multiplier in multipliers]
        deepest = len(widths) - 1

        # From here on the order of definition is that of the published modules, which `from_published` relies on.
        self.embed: NoiseEmbedding | None = None
        if conditional and embedding == "fourier":
            self.embed = NoiseEmbedding(FourierFeatures(width, fourier_scale), 2 * width, width)
        elif conditional:
            self.embed = NoiseEmbedding(PositionalFeatures(width, levels, sigma_max, sigma_min), width, width)
        self.channels = channels
        self.enter = conv(channels, width)

        self.down = nn.ModuleList()
        now, entered, skips = width, channels, [width]
        for level, after in enumerate(widths):
            steps = []
            for _ in range(blocks):
                steps.append(Step(parts.residual(now, after), parts.attention(after) if level in attention else None))
                now = after
                skips.append(now)
            shrink: nn.Module | None = None
            pyramid: nn.Module | None = None
            if level < deepest:
                shrink = parts.shrink(now)
                if progressive_input == "input_skip":
                    pyramid = InputSkip(Downsample(fir), Combine(channels, now, combine == "cat"))
                    now *= 2 if combine == "cat" else 1
                elif progressive_input == "residual":
                    pyramid = InputResidual(DownsampleConv(entered, now, fir), parts.scale)
                    entered = now
                skips.append(now)
            self.down.append(DownLevel(steps, shrink, pyramid))

        self.middle = nn.ModuleList([parts.residual(now, now), parts.attention(now), parts.residual(now, now)])

        self.up = nn.ModuleList()
        left = 0
        for level, after in reversed(list(enumerate(widths))):
            joining = []
            for _ in range(blocks + 1):
                joining.append(parts.residual(now + skips.pop(), after))
                now = after
            attend = parts.attention(now) if level in attention else None
            pyramid = None
            if progressive == "output_skip":
                pyramid = OutputSkip(Upsample(fir) if level < deepest else None, parts.head(now, channels))
            elif progressive == "residual" and level == deepest:
                pyramid = OutputStart(parts.head(now, now, 1.0))
            elif progressive == "residual":
                pyramid = OutputResidual(UpsampleConv(left, now, fir), parts.scale)
            left = now
            self.up.append(UpLevel(joining, attend, pyramid, parts.grow(now) if level else None))
        self.leave = None if progressive == "output_skip" else parts.head(now, channels)

        for module in self.modules():
            if isinstance(module, Recomputed):
                module.checkpointing = checkpointing

    def forward(self, x: Tensor, c_noise: Tensor, extra: Tensor | None = None) -> Tensor:
        refuse_extra(self, extra)
        image, (rows, columns) = reflected(2 * x - 1 if self.published_input else x, self.divisor)
        embedding = None if self.embed is None else self.embed(c_noise)

        h = self.enter(image)
        skips = [h]
        for level in self.down:
            h, image = level(h, image, embedding, skips)
        first, attention, last = self.middle
        h = last(attention(first(h, embedding)), embedding)
        for level in self.up:
            h, image = level(h, image, embedding, skips)
        return (image if self.leave is None else self.leave(h))[..., rows, columns]


LEAVES: dict[type[nn.Module], dict[str, str]] = {
    ResidualBlock: {
        "GroupNorm_0": "norm1",
        "Conv_0": "conv1",
        "Dense_0": "modulation",
        "GroupNorm_1": "norm2",
        "Conv_1": "conv2",
        "Conv_2": "shortcut",  # of biggan blocks
        "NIN_0": "shortcut",  # of ddpm blocks
    },
    Attention: {"GroupNorm_0": "norm", "NIN_0": "query", "NIN_1": "key", "NIN_2": "value", "NIN_3": "mix"},
    Combine: {"Conv": "conv"},
    UpsampleConv: {"Conv2d_0": "conv", "Conv_0": "conv"},
    DownsampleConv: {"Conv2d_0": "conv", "Conv_0": "conv"},
    FourierFeatures: {},
    **dict.fromkeys((Upsample, Downsample, nn.Conv2d, nn.Linear, nn.GroupNorm), {}),
}
"""Classes that correspond to one published module (all_modules.N), and the names of its layers here."""

MARKS = {
    "NIN_3.W": "attention",
    "GroupNorm_1.weight": "block",
    "Conv.weight": "combine",
    "Conv2d_0.weight": "resample",
    "Conv_0.weight": "resample",
    "W": "fourier",
}
"""The first of these tensors that a published module contains identifies it."""

Unit = dict[str, Tensor]


def from_published(state: Mapping[str, Tensor], **overrides: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The name and arguments of `NCSNpp` and its weights from a published NCSN++, DDPM++ or DDPM (all_modules.N...).

    The tensors determine width, multipliers, blocks, attention, block, embedding, conditional, pyramids, combine,
    channels and levels, and in most cases whether the resampling is FIR. All else is taken from the published
    configurations, unless `overrides` sets it: a positional network without pyramids is DDPM or DDPM++, trained
    variance-preserving on images in [-1, 1] (levels 0, so that c_noise is the label; plain resampling; published_input
    off). Any other is a variance-exploding NCSN++ (its `sigmas` as levels if positional; taps 1, 3, 3, 1;
    published_input). skip_rescale is off for ddpm blocks only; dropout and initial weights do not matter.
    Errors: InputError for weights of another kind of network.
    """
    published = _published_units(state)
    arguments = _inferred(published, state.get("sigmas")) | overrides
    with torch.device("meta"):
        network = NCSNpp(**{key: value for key, value in arguments.items() if key != "name"})
    if not arguments["conditional"]:  # unused frequencies
        published = [unit for unit in published if "W" not in unit]
    ours = list(_units(network))
    weights: dict[str, Tensor] = {}
    for (path, module), unit in zip(ours, published, strict=False):
        weights.update(_renamed(path, module, leaf, value) for leaf, value in unit.items())
    if arguments["levels"] and "sigmas" in state:
        weights["embed.features.sigmas"] = state["sigmas"]
    found = {key: value.shape for key, value in weights.items()}
    known = {key: value.shape for key, value in network.state_dict().items()}
    if len(ours) != len(published) or found != known:
        odd = ", ".join(sorted({key for key, _ in found.items() ^ known.items()})[:4])
        raise InputError(
            f"published weights of {len(published)} modules look like {arguments}, which has {len(ours)} and differs at"
            f" {odd or 'its end'}: give the arguments that are wrong"
        )
    return arguments, weights


def _units(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The parts of a network that correspond to published modules, in order."""
    for name, child in module.named_children():
        if type(child) in LEAVES:
            yield path + name, child
        else:
            yield from _units(child, f"{path}{name}.")


def _renamed(path: str, module: nn.Module, leaf: str, value: Tensor) -> tuple[str, Tensor]:
    """The name and shape of a published tensor in this network."""
    layer, _, kind = leaf.rpartition(".")
    if layer.startswith("NIN"):  # a matrix (in, out) where we have a 1x1 convolution
        kind, value = ("weight", value.mT[:, :, None, None]) if kind == "W" else ("bias", value)
    elif kind == "W":
        kind = "frequencies"
    names = (path, LEAVES[type(module)].get(layer, layer), kind)
    return ".".join(name for name in names if name), value


def _published_units(state: Mapping[str, Tensor]) -> list[Unit]:
    """The tensors of each all_modules.N, by their names in it; empty for modules without parameters."""
    units: dict[int, Unit] = {}
    for key, value in state.items():
        if found := re.fullmatch(r"all_modules\.(\d+)\.(.+)", key):
            units.setdefault(int(found[1]), {})[found[2]] = value
    return [units.get(number, {}) for number in range(max(units, default=-1) + 1)]


def _kind(unit: Unit) -> str:
    if not unit:
        return "resample"  # the only published modules without parameters
    if "Conv_2.weight" in unit and unit["Conv_2.weight"].shape[0] == unit["Conv_2.weight"].shape[1]:
        return "resample"  # a biggan block that keeps its channels has a shortcut only where it resamples
    marked = (kind for mark, kind in MARKS.items() if mark in unit)
    return next(marked, None) or {1: "norm", 2: "linear", 4: "conv"}[unit["weight"].ndim]


def _inferred(units: Sequence[Unit], sigmas: Tensor | None) -> dict[str, Any]:
    """The arguments of the network that these published modules make up."""
    kinds = [_kind(unit) for unit in units]
    if missing := {"conv", "norm", "block", "attention"} - set(kinds):
        raise InputError(f"these weights are no published NCSN++ or DDPM: among all_modules.N is no {min(missing)}")
    leaves = {leaf for unit in units for leaf in unit}
    resamplers = [unit for unit, kind in zip(units, kinds, strict=True) if kind == "resample"]
    resampling = [unit for unit in resamplers if len(unit) == 2]  # bare convolutions
    width, channels = units[kinds.index("conv")]["weight"].shape[:2]
    block = "biggan" if "Conv_2.weight" in leaves else "ddpm"
    embedding = "fourier" if "fourier" in kinds else "positional"

    progressive = progressive_input = "none"
    if kinds.count("norm") > 1:
        head = units[kinds.index("norm") + 1]["weight"]
        progressive = "output_skip" if len(head) == channels else "residual"
    if "combine" in kinds:
        progressive_input = "input_skip"
    elif any(channels == weight.shape[1] for unit in resampling for weight in unit.values() if weight.ndim == 4):
        progressive_input = "residual"
    pyramids = (progressive != "none") + (progressive_input != "none")

    resolutions = 1 + len(resamplers) // (2 + pyramids)
    blocks = max(1, (kinds.count("block") - 2 - resolutions) // (2 * resolutions))
    entries = [place for place, kind in enumerate(kinds) if kind == "block"][: resolutions * blocks : blocks]
    combine = "sum"
    if progressive_input == "input_skip":
        place = kinds.index("combine")
        combine = "cat" if len(units[place + 1]["GroupNorm_0.bias"]) > len(units[place]["Conv.bias"]) else "sum"

    preserving = embedding == "positional" and not pyramids  # DDPM or DDPM++, as far as the tensors show
    plain = "Conv2d_0.weight" not in leaves and (preserving or bool(resampling))
    ladder = [] if embedding == "fourier" or preserving or sigmas is None else sigmas.tolist()
    return {
        "name": "ncsnpp",
        "width": width,
        "multipliers": [len(units[place]["Conv_0.bias"]) // width for place in entries],
        "blocks": blocks,
        "attention": [level for level, place in enumerate(entries) if kinds[place + 1] == "attention"],
        "block": block,
        "fir": [] if plain else list(FIR),
        "resample_conv": block == "biggan" or bool(resamplers and resamplers[0]),
        "embedding": embedding,
        "conditional": "linear" in kinds,
        "progressive": progressive,
        "progressive_input": progressive_input,
        "combine": combine,
        "skip_rescale": block == "biggan",
        "levels": len(ladder),
        "sigma_max": ladder[0] if ladder else 50.0,
        "sigma_min": ladder[-1] if ladder else 0.01,
        "channels": channels,
        "published_input": not preserving,
    }
