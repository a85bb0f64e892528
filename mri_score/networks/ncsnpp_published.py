"""Published names of the weights of NCSN++, DDPM++ and DDPM: import, with the arguments inferred, and export."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mri_score.errors import InputError
from mri_score.networks.ncsnpp import FIR, NCSNpp
from mri_score.networks.ncsnpp_blocks import Attention, FourierFeatures, ResidualBlock
from mri_score.networks.ncsnpp_levels import Combine, InputSkip, OutputSkip
from mri_score.networks.resampling import Downsample, DownsampleConv, Upsample, UpsampleConv

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

Unit = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def from_published(state: Mapping[str, Tensor], **overrides: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The name and arguments of `NCSNpp` and its weights from a published NCSN++, DDPM++ or DDPM (all_modules.N...).

    The tensors determine width, multipliers, blocks, attention, block, resample_conv, embedding, conditional, pyramids,
    combine, channels and levels, and, where a convolution resamples, whether it does so by FIR filters. All else is
    taken from the published configurations, unless `overrides` sets it: a positional network without pyramids is DDPM
    or DDPM++, trained variance-preserving on images in [-1, 1] (levels 0, so that c_noise is the label; plain
    resampling; published_input off). Any other is a variance-exploding NCSN++ (its `sigmas` as levels if positional;
    taps 1, 3, 3, 1; published_input). skip_rescale is off for ddpm blocks only; dropout and initial weights do not
    matter; see `unseen`. The resampling of skip pyramids may be numbered, as in the first releases, or not.
    Errors: InputError for weights of another kind of network, with the first module that does not fit.
    """
    published = _published_units(state)
    arguments, units = _inferred(published, state.get("sigmas"))
    arguments |= overrides
    if arguments["levels"] and "sigmas" in state:
        arguments |= {"sigma_max": float(state["sigmas"][0]), "sigma_min": float(state["sigmas"][-1])} | overrides
    with torch.device("meta"):
        network = NCSNpp(**{key: value for key, value in arguments.items() if key != "name"})
    weights: dict[str, Tensor] = {}
    ours = list(_units(network))
    for (path, module), unit in zip(ours, units, strict=False):  # overrides may give another number of them
        weights.update(_renamed(path, module, leaf, value) for leaf, value in unit.items())
    if arguments["levels"] and arguments["conditional"] and "sigmas" in state:
        weights["embed.features.sigmas"] = state["sigmas"]
    found = {key: value.shape for key, value in weights.items()}
    known = {key: value.shape for key, value in network.state_dict().items()}
    if len(ours) != len(units) or found != known:
        odd = ", ".join(sorted({key for key, _ in found.items() ^ known.items()})[:4])
        raise InputError(
            f"published weights of {len(published)} modules look like {arguments}, which differs at"
            f" {odd or 'its end'}: give the arguments that are wrong"
        )
    return arguments, weights


def unseen(arguments: Mapping[str, Any]) -> list[str]:
    """Of the arguments of `NCSNpp` that `from_published` gives, those that no tensor of such a network shows."""
    resamples = len(arguments["multipliers"]) > 1
    by_conv = arguments["block"] == "ddpm" and arguments.get("resample_conv", True)
    pyramids = (arguments.get("progressive", "none"), arguments.get("progressive_input", "residual"))
    fir_is_seen = by_conv or "residual" in pyramids
    return (["fir"] if resamples and not fir_is_seen else []) + ["skip_rescale", "published_input"]


def to_published(network: NCSNpp, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a network under the published names, all_modules.N...

    arguments: of the network; block, fir, embedding and conditional are read where they are not the defaults. The
    resampling of skip pyramids gets no number, as in today's releases.
    """
    arguments = {"block": "biggan", "fir": FIR, "embedding": "fourier", "conditional": True, **arguments}
    pyramids = {
        f"{path}.{'down' if isinstance(module, InputSkip) else 'up'}"
        for path, module in network.named_modules()
        if isinstance(module, (InputSkip, OutputSkip))
    }
    units = [module for path, module in _units(network) if path not in pyramids]
    state: dict[str, Tensor] = {}
    if arguments["embedding"] == "fourier" and not arguments["conditional"]:  # the release stores unused frequencies
        state["all_modules.0.W"] = torch.zeros(network.enter.out_channels)
    for number, module in enumerate(units, len(state)):
        names = _published_names(module, arguments)
        for name, value in module.state_dict().items():
            layer, _, kind = name.rpartition(".")
            layer = names.get(layer, layer)
            if layer.startswith("NIN"):
                kind, value = ("W", value[:, :, 0, 0].mT) if kind == "weight" else ("b", value)
            elif kind == "frequencies":
                kind = "W"
            leaf = ".".join(part for part in (f"all_modules.{number}", layer, kind) if part)
            state[leaf] = value.contiguous()
    return state


def _published_names(module: nn.Module, arguments: Mapping[str, Any]) -> dict[str, str]:
    """The published name of each layer of a unit."""
    absent = "Conv2d_0" if not len(arguments["fir"]) else "Conv_0"
    if isinstance(module, ResidualBlock):
        absent = "NIN_0" if arguments["block"] == "biggan" else "Conv_2"
    return {ours: name for name, ours in LEAVES[type(module)].items() if name != absent}


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
    if max(units, default=0) > 10_000:
        raise InputError(f"these weights are no published NCSN++ or DDPM: they number modules up to {max(units)}")
    return [units.get(number, {}) for number in range(max(units, default=-1) + 1)]


# ---- The arguments from the modules: each arrangement is tried, and must account for every tensor of every module.


class _Unlike(Exception):
    """The modules are not in the arrangement that is tried; `place`: the first module that does not fit."""

    def __init__(self, place: int) -> None:
        self.place = place


@dataclass(frozen=True)
class _Arrangement:
    """What decides which modules follow one another. numbered: the resampling of skip pyramids has numbers."""

    block: str
    resample_conv: bool
    fir: bool
    resolutions: int
    blocks: int
    progressive: str
    progressive_input: str
    combine: str
    numbered: bool


def _inferred(units: Sequence[Unit], sigmas: Tensor | None) -> tuple[dict[str, Any], list[Unit]]:
    """The arguments of the network that these published modules make up, and the modules of that network in order."""
    for kind, mark in (("attention", "NIN_3.W"), ("block", "GroupNorm_1.weight")):
        if not any(mark in unit for unit in units):
            raise InputError(f"these weights are no published NCSN++ or DDPM: among all_modules.N is no {kind}")
    furthest = 0
    for arrangement in _arrangements(units):
        walk = _Walk(units, arrangement)
        try:
            walk.run()
        except _Unlike as unlike:
            furthest = max(furthest, unlike.place)
            continue
        return _arguments(walk, sigmas), walk.aligned
    odd = units[min(furthest, len(units) - 1)]
    names = ", ".join(f"{name} {tuple(value.shape)}" for name, value in list(odd.items())[:3])
    raise InputError(
        f"these weights are no published NCSN++ or DDPM: of {len(units)} modules, no known arrangement has"
        f" all_modules.{furthest} ({names or 'without tensors'})"
    )


def _arrangements(units: Sequence[Unit]) -> Iterator[_Arrangement]:
    """Those with as many blocks as the file, of the kinds of layers that it has; plain ones first."""
    leaves = {leaf for unit in units for leaf in unit}
    block = "biggan" if "Conv_2.weight" in leaves else "ddpm"
    count = sum("GroupNorm_1.weight" in unit for unit in units)
    for resolutions in range(1, count):
        resampling = 2 * (resolutions - 1) if block == "biggan" else 0
        blocks, rest = divmod(count - 2 - resampling - resolutions, 2 * resolutions)
        if rest or blocks < 1:
            continue
        for up, (into, combine), numbered, by_conv in itertools.product(
            ("none", "output_skip", "residual"),
            (("none", "sum"), ("residual", "sum"), ("input_skip", "sum"), ("input_skip", "cat")),
            (False, True),
            (True, False) if block == "ddpm" else (True,),
        ):
            fir = "Conv2d_0.weight" in leaves
            yield _Arrangement(block, by_conv, fir, resolutions, blocks, up, into, combine, numbered)


class _Walk:
    """One pass over the modules in the order of an arrangement. Errors: _Unlike at the first that does not fit."""

    def __init__(self, units: Sequence[Unit], arrangement: _Arrangement) -> None:
        self.units, self.its, self.place = units, arrangement, 0
        self.aligned: list[Unit] = []
        self.widths: list[int] = []
        self.attention: list[int] = []

    def run(self) -> None:
        its = self.its
        self.embedding = "fourier" if "W" in self.next else "positional"
        self.conditional = any("Dense_0.weight" in unit for unit in self.units)
        convs = (unit for unit in self.units if unit.keys() == {"weight", "bias"} and unit["weight"].ndim == 4)
        if not (entry := next(convs, {})):
            raise _Unlike(0)
        self.width, self.channels = entry["weight"].shape[:2]
        if self.embedding == "fourier":
            self.take({"W": (self.width,)})
            if not self.conditional:  # frequencies that nothing uses
                self.aligned.pop()
        if self.conditional:
            self.take(_linear(self.width * (2 if self.embedding == "fourier" else 1), 4 * self.width))
            self.take(_linear(4 * self.width, 4 * self.width))
        self.take(_conv(self.channels, self.width))
        now, skips = self.down()
        self.block(now, now)
        self.take(_attention(now))
        self.block(now, now)
        now = self.up(now, skips)
        if its.progressive != "output_skip":
            self.head(now, self.channels)
        if self.place < len(self.units):
            raise _Unlike(self.place)

    def down(self) -> tuple[int, list[int]]:
        its, now, entered, skips = self.its, self.width, self.channels, [self.width]
        for level in range(its.resolutions):
            after = len(self.next["Conv_0.bias"]) if "Conv_0.bias" in self.next else 0
            for number in range(its.blocks):
                self.block(now, after)
                now = after
                if number == 0 and "NIN_3.W" in self.next:
                    self.attention.append(level)
                if level in self.attention:
                    self.take(_attention(now))
                skips.append(now)
            self.widths.append(now)
            if level == its.resolutions - 1:
                break
            self.resample(now)
            if its.progressive_input == "input_skip":
                self.pyramid()
                self.take({f"Conv.{name}": shape for name, shape in _conv(self.channels, now, 1).items()})
                now *= 2 if its.combine == "cat" else 1
            elif its.progressive_input == "residual":
                self.resample_conv(entered, now)
                entered = now
            skips.append(now)
        return now, skips

    def up(self, now: int, skips: list[int]) -> int:
        its, left = self.its, 0
        for level in reversed(range(its.resolutions)):
            for _ in range(its.blocks + 1):
                self.block(now + skips.pop(), self.widths[level])
                now = self.widths[level]
            if level in self.attention:
                self.take(_attention(now))
            deepest = level == its.resolutions - 1
            if its.progressive == "output_skip":
                if not deepest:
                    self.pyramid()
                self.head(now, self.channels)
            elif its.progressive == "residual" and deepest:
                self.head(now, now)
            elif its.progressive == "residual":
                self.resample_conv(left, now)
            left = now
            if level:
                self.resample(now)
        return now

    @property
    def next(self) -> Unit:
        return self.units[self.place] if self.place < len(self.units) else {}

    def take(self, shapes: Shapes) -> None:
        """The next module, which must have exactly these tensors."""
        if self.place >= len(self.units) or {name: tuple(value.shape) for name, value in self.next.items()} != shapes:
            raise _Unlike(self.place)
        self.aligned.append(self.next)
        self.place += 1

    def block(self, channels_in: int, channels_out: int, resamples: bool = False) -> None:
        shapes = _norm(channels_in, "GroupNorm_0.") | _conv(channels_in, channels_out, 3, "Conv_0.")
        shapes |= _norm(channels_out, "GroupNorm_1.") | _conv(channels_out, channels_out, 3, "Conv_1.")
        if self.conditional:
            shapes |= _linear(4 * self.width, channels_out, "Dense_0.")
        if self.its.block == "biggan" and (resamples or channels_in != channels_out):
            shapes |= _conv(channels_in, channels_out, 1, "Conv_2.")
        elif channels_in != channels_out:
            shapes |= {"NIN_0.W": (channels_in, channels_out), "NIN_0.b": (channels_out,)}
        self.take(shapes)

    def resample(self, channels: int) -> None:
        if self.its.block == "biggan":
            self.block(channels, channels, resamples=True)
        elif self.its.resample_conv:
            self.resample_conv(channels, channels)
        else:
            self.take({})

    def resample_conv(self, channels_in: int, channels_out: int) -> None:
        self.take(_conv(channels_in, channels_out, 3, "Conv2d_0." if self.its.fir else "Conv_0."))

    def pyramid(self) -> None:
        """The resampling of an image, which has no tensors."""
        if self.its.numbered:
            self.take({})
        else:
            self.aligned.append({})

    def head(self, channels_in: int, channels_out: int) -> None:
        self.take(_norm(channels_in))
        self.take(_conv(channels_in, channels_out))


def _conv(channels_in: int, channels_out: int, size: int = 3, prefix: str = "") -> Shapes:
    return {f"{prefix}weight": (channels_out, channels_in, size, size), f"{prefix}bias": (channels_out,)}


def _linear(features_in: int, features_out: int, prefix: str = "") -> Shapes:
    return {f"{prefix}weight": (features_out, features_in), f"{prefix}bias": (features_out,)}


def _norm(channels: int, prefix: str = "") -> Shapes:
    return {f"{prefix}weight": (channels,), f"{prefix}bias": (channels,)}


def _attention(channels: int) -> Shapes:
    layers = {f"NIN_{number}.{kind}": (channels,) * (2 if kind == "W" else 1) for number in range(4) for kind in "Wb"}
    return _norm(channels, "GroupNorm_0.") | layers


def _arguments(walk: _Walk, sigmas: Tensor | None) -> dict[str, Any]:
    """Those that the walk found, and the published ones for what no tensor shows."""
    its = walk.its
    pyramids = its.progressive != "none" or its.progressive_input != "none"
    convolves = its.resolutions > 1 and (
        its.block == "ddpm" and its.resample_conv or "residual" in (its.progressive, its.progressive_input)
    )
    preserving = walk.embedding == "positional" and not pyramids  # DDPM or DDPM++, as far as the tensors show
    plain = not its.fir and (preserving or convolves)
    levels = 0 if walk.embedding == "fourier" or preserving or sigmas is None else len(sigmas)
    return {
        "name": "ncsnpp",
        "width": walk.width,
        "multipliers": [width // walk.width for width in walk.widths],
        "blocks": its.blocks,
        "attention": walk.attention,
        "block": its.block,
        "fir": [] if plain else list(FIR),
        "resample_conv": its.block == "biggan" or its.resample_conv,
        "embedding": walk.embedding,
        "conditional": walk.conditional,
        "progressive": its.progressive,
        "progressive_input": its.progressive_input,
        "combine": its.combine,
        "skip_rescale": its.block == "biggan",
        "levels": levels,
        "sigma_max": 50.0,
        "sigma_min": 0.01,
        "channels": walk.channels,
        "published_input": not preserving,
    }
