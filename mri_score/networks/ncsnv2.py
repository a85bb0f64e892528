"""NCSNv2: one RefineNet class for the three published depths, and the names of published weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.functional import elu

from mri_score.errors import InputError, unknown_name
from mri_score.networks.layers import (
    InstanceNormPlus,
    RefineBlock,
    ResidualBlock,
    channels_last,
    conv,
    refuse_extra,
    runner,
)
from mri_score.networks.resampling import reflected


class Stage(NamedTuple):
    """One resolution or dilation of the way down, with its width and published name."""

    width: int
    name: str
    halve: bool = False
    dilation: int = 1


class Refinement(NamedTuple):
    """One refine block of the way up, with its output width and published name."""

    width: int
    name: str


STAGES = {
    "low": (Stage(1, "res1"), Stage(2, "res2", halve=True), Stage(2, "res3", dilation=2), Stage(2, "res4", dilation=4)),
    "medium": (
        Stage(1, "res1"),
        Stage(2, "res2", halve=True),
        Stage(2, "res3", halve=True),
        Stage(4, "res4", dilation=2),
        Stage(4, "res5", dilation=4),
    ),
    "large": (
        Stage(1, "res1"),
        Stage(2, "res2", halve=True),
        Stage(2, "res3", halve=True),
        Stage(2, "res31", halve=True),
        Stage(4, "res4", dilation=2),
        Stage(4, "res5", dilation=4),
    ),
}
"""Stages from the image down; widths are multiples of the width of the network."""

REFINEMENTS = {
    "low": (Refinement(2, "refine1"), Refinement(2, "refine2"), Refinement(1, "refine3"), Refinement(1, "refine4")),
    "medium": (
        Refinement(4, "refine1"),
        Refinement(2, "refine2"),
        Refinement(2, "refine3"),
        Refinement(1, "refine4"),
        Refinement(1, "refine5"),
    ),
    "large": (
        Refinement(4, "refine1"),
        Refinement(2, "refine2"),
        Refinement(2, "refine31"),
        Refinement(2, "refine3"),
        Refinement(1, "refine4"),
        Refinement(1, "refine5"),
    ),
}
"""Refine blocks from the deepest stage up."""


class NCSNv2(nn.Module):
    """F(x): the network of NCSNv2 before its division by sigma; score = F / sigma (preconditioning "ncsn").

    The network does not depend on the noise level: c_noise is not used. Sides that are not divisible by the divisor of
    the depth (low 2, medium 4, large 8) are padded by reflection at both ends and cropped again.
    `published_input` maps x to 2x - 1, as the published MRI weights expect; only use it for those, because it breaks
    the symmetry of phase. `checkpointing` stores only the outputs of stages for the backward pass, and computes the
    rest again.
    Shapes: x (B, channels, H, W), c_noise (B,) -> (B, channels, H, W).
    Errors: InputError for an unknown depth and for sides below the divisor.
    Reference: Song and Ermon, Improved techniques for training score-based generative models, NeurIPS 2020.
    """

    def __init__(
        self,
        depth: str = "large",           # low (NCSNv2), medium (NCSNv2Deeper) or large (NCSNv2Deepest)
        width: int = 128,               # channels of the first stage, published as ngf
        channels: int = 2,              # 2 for complex images, 1 for real ones
        published_input: bool = False,  # map x to 2x - 1
        checkpointing: bool = False,    # training in less memory, a third slower
    ) -> None:  # fmt: skip
        super().__init__()
        if depth not in STAGES:
            raise unknown_name("network.depth", depth, STAGES)
        stages, refinements = STAGES[depth], REFINEMENTS[depth]
        self.published_input, self.checkpointing = published_input, checkpointing
        self.divisor = 2 ** sum(stage.halve for stage in stages)

        self.channels = channels
        self.begin_conv = conv(channels, width)
        self.stages = nn.ModuleList()
        now = width
        for number, stage in enumerate(stages):
            after = stage.width * width
            first = ResidualBlock(now, after, enter=number > 0, halve=stage.halve, dilation=stage.dilation)
            self.stages.append(nn.Sequential(first, ResidualBlock(after, after, dilation=stage.dilation)))
            now = after

        self.refine = nn.ModuleList([RefineBlock([now], now)])
        for stage, refinement in zip(reversed(stages[:-1]), refinements[1:], strict=True):
            after = refinement.width * width
            self.refine.append(RefineBlock([stage.width * width, now], after, 3 if stage is stages[0] else 1))
            now = after
        self.normalizer = InstanceNormPlus(width)
        self.end_conv = conv(width, channels)

    def forward(self, x: Tensor, c_noise: Tensor, extra: Tensor | None = None) -> Tensor:
        refuse_extra(self, extra)
        x, (rows, columns) = reflected(2 * x - 1 if self.published_input else x, self.divisor)
        run = runner(self.checkpointing)

        h = self.begin_conv(channels_last(x))
        skips = []
        for stage in self.stages:
            h = run(stage, h)
            skips.append(h)
        h = run(self.refine[0], skips.pop())
        for refine in self.refine[1:]:
            h = run(refine, skips.pop(), h)
        return self.end_conv(elu(self.normalizer(h)))[..., rows, columns]


def from_published(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The arguments of the network for published weights, and the weights under the names of this class."""
    parts = {key.partition(".")[0] for key in state}
    depth = "large" if "res31" in parts else "medium" if "res5" in parts else "low"
    width, channels = state["begin_conv.weight"].shape[:2]
    network = {"name": "ncsnv2", "depth": depth, "width": width, "channels": channels, "published_input": True}
    return network, rename_published(state, depth)


def rename_published(state: Mapping[str, Tensor], depth: str) -> dict[str, Tensor]:
    """The published weights of NCSNv2, NCSNv2Deeper or NCSNv2Deepest under the names of `NCSNv2(depth)`.

    Accepts raw and averaged weights, with and without the prefix "module."; the noise levels (`sigmas`) are ignored.
    Errors: InputError for a name that this depth does not have.
    """
    if depth not in STAGES:
        raise unknown_name("depth", depth, STAGES)
    parts = {stage.name: f"stages.{number}" for number, stage in enumerate(STAGES[depth])}
    parts |= {refinement.name: f"refine.{number}" for number, refinement in enumerate(REFINEMENTS[depth])}
    parts |= {name: name for name in ("begin_conv", "normalizer", "end_conv")}
    return {_renamed(key, parts): value for key, value in state.items() if key.removeprefix("module.") != "sigmas"}


def _renamed(key: str, parts: Mapping[str, str]) -> str:
    part, _, leaf = key.removeprefix("module.").partition(".")
    if part not in parts:
        raise InputError(f"published weights have {key!r}; this depth has {', '.join(parts)}: try another depth")
    leaf = re.sub(r"(\d)_(\d)_(conv|norm)", lambda found: f"{found[3]}s.{2 * int(found[1]) + int(found[2]) - 3}", leaf)
    return f"{parts[part]}.{leaf.replace('.conv.', '.')}"


def publish(state: Mapping[str, Tensor], depth: str) -> dict[str, Tensor]:
    """The weights of `NCSNv2(depth)`, or of `NCSN` with the depth low, under the published names.

    The inverse of `rename_published`; `sigmas` keep their name. Errors: InputError for an unknown depth.
    """
    if depth not in STAGES:
        raise unknown_name("depth", depth, STAGES)
    stages, refinements = STAGES[depth], REFINEMENTS[depth]
    halving = "|".join(stage.name for stage in stages if stage.halve)
    published = {}
    for key, value in state.items():
        key = re.sub(r"^stages\.(\d)", lambda found: stages[int(found[1])].name, key)
        key = re.sub(r"^refine\.(\d)", lambda found: refinements[int(found[1])].name, key)
        key = re.sub(r"(?<=adapt_convs\.\d\.)(conv|norm)s\.(\d)|(?<=output_convs\.)(conv|norm)s\.(\d)", _step, key)
        key = re.sub(rf"^({halving})\.0\.(conv2|shortcut)\.", r"\1.0.\2.conv.", key)  # a mean follows the convolution
        published[key] = value
    return published


def _step(found: re.Match[str]) -> str:
    """The published name of layer number n of residual convolutions: block and stage, each from 1."""
    kind, number = found[1] or found[3], int(found[2] or found[4])
    return f"{number // 2 + 1}_{number % 2 + 1}_{kind}"
