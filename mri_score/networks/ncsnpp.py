"""NCSN++ and DDPM's U-Net: one class for all published variants."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mri_score.errors import unknown_name
from mri_score.networks.layers import refuse_extra
from mri_score.networks.ncsnpp_blocks import (
    FourierFeatures,
    NoiseEmbedding,
    Parts,
    PositionalFeatures,
    Recomputed,
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

        # From here on the order of definition is that of the published modules, which `ncsnpp_published` relies on.
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
