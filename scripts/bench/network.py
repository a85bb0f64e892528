"""Network calls: NCSNv2 against its published form in plain PyTorch, the compact U-Net against channels first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from harness import Row, Spread, compare
from torch import Tensor, nn
from torch.nn.functional import elu, interpolate, max_pool2d

from mri_score.models.precision import find_precision
from mri_score.networks.ncsnv2 import NCSNv2, rename_published
from mri_score.networks.unet import UNet
from mri_score.priors.store import load_prior

NAME = "network"
SIZES = {"quick": [(32, 192)], "full": [(32, 384), (128, 384)]}
"""Width of NCSNv2 and side of the image."""
HEAD = {"quick": 128, "full": 256}
"""Side of the image of the U-Net."""
PRECISIONS = {"float32": (torch.float32, 1e-4), "bfloat16": (torch.bfloat16, 0.1)}
"""Precision of the network, and the allowed difference of the results."""


def run(sizes: str, threads: int) -> list[Row]:
    torch.manual_seed(0)
    rows = [row for case in SIZES[sizes] for row in ncsnv2_rows(*case, sizes)]
    return [*rows, *unet_rows(HEAD[sizes], sizes), *prior_rows(HEAD[sizes], sizes)]


def ncsnv2_rows(width: int, side: int, sizes: str, device: str = "cpu") -> list[Row]:
    plain = PlainNCSNv2(width)
    ours = NCSNv2("large", width=width)
    ours.load_state_dict(rename_published(plain.state_dict(), "large"))
    saving = NCSNv2("large", width=width, checkpointing=True)
    saving.load_state_dict(ours.state_dict())
    plain, ours, saving = plain.to(device), last(ours, device), last(saving, device)
    x, rows = torch.randn(1, 2, side, side, device=device), []
    what = f"NCSNv2 large, width {width}, {side} x {side}"
    for name, (precision, bound) in PRECISIONS.items():
        calls = [forward(network, x, precision) for network in (ours, plain)]
        wanted = 1.3 if name == "float32" else None
        rows.append(compare(f"{what}, {name}, call", "published form", *calls, sizes=sizes, wanted=wanted, bound=bound))
        steps = [step(network, x, precision) for network in (ours, plain)]
        rows.append(compare(f"{what}, {name}, training step", "published form", *steps, sizes=sizes))
    if device == "cuda":
        calls = [step(torch.compile(ours), x, torch.bfloat16), step(plain, x, torch.float32)]
        note = "ours compiled and in bfloat16, theirs as published, in float32"
        rows.append(compare(f"{what}, training step", "published form", *calls, sizes=sizes, wanted=2, note=note))
    theirs = kept(plain, x)
    for network, note in ((ours, ""), (saving, "checkpointing")):
        wanted = 2 if note else None
        rows.append(
            Row(f"{what}, kept for the gradient", "published form", kept(network, x), theirs, wanted, note=note)
        )
    calls = [step(network, x, torch.float32) for network in (saving, plain)]
    row = compare(f"{what}, float32, training step", "published form", *calls, sizes=sizes, note="checkpointing")
    return [*rows, row]


def unet_rows(side: int, sizes: str, device: str = "cpu") -> list[Row]:
    network = load_prior("brain").network
    assert isinstance(network, UNet)
    network = last(network.requires_grad_(), device)
    x, rows = torch.randn(1, 2, side, side, device=device), []
    for name, (precision, _) in PRECISIONS.items():
        for what, make in (("call", forward), ("training step", step)):
            rows.append(
                compare(
                    f"U-Net of brain, {side} x {side}, {name}, {what}", "", make(network, x, precision), sizes=sizes
                )
            )
    for what, make in (("call", forward), ("training step", step)):
        plain = directly(make(network, x, torch.float32))
        what = f"U-Net of brain, {side} x {side}, float32, {what}"
        rows.append(compare(what, "direct convolutions", make(network, x, torch.float32), plain, sizes=sizes))
    rows.append(Row(f"U-Net of brain, {side} x {side}, kept for the gradient", "", kept(network, x)))
    network.checkpointing = True
    return [*rows, Row(rows[-1].what, "without", kept(network, x), rows[-1].ours, 2, note="checkpointing")]


def prior_rows(side: int, sizes: str) -> list[Row]:
    """A call of each of the other priors for reconstruction, compared with one of brain."""
    image, rows = torch.randn(1, side, side, dtype=torch.cfloat), []
    for name in ("brain-fast", "brain-ncsnv2"):
        for precision in PRECISIONS:
            calls = []
            for prior in (load_prior(name), load_prior("brain")):
                prior.precision = find_precision(precision)
                calls.append(lambda prior=prior: prior.denoise(image, 0.1))
            rows.append(compare(f"{name}, {side} x {side}, {precision}, call", "brain", *calls, sizes=sizes))
    return rows


def last(network: nn.Module, device: str) -> nn.Module:
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def forward(network: nn.Module, x: Tensor, precision: torch.dtype) -> Callable[[], Tensor]:
    @torch.no_grad()
    def call() -> Tensor:
        with torch.autocast(x.device.type, precision) if precision != torch.float32 else nullcontext():
            return network(x, x.new_zeros(len(x))).float()

    return call


def step(network: nn.Module, x: Tensor, precision: torch.dtype) -> Callable[[], None]:
    """Forward and backward pass of a squared error, without the optimizer, which is the same for both."""

    def call() -> None:
        network.zero_grad()
        with torch.autocast(x.device.type, precision) if precision != torch.float32 else nullcontext():
            output = network(x, x.new_zeros(len(x)))
        output.float().square().mean().backward()

    return call


def directly(call: Callable[[], Tensor | None]) -> Callable[[], Tensor | None]:
    """The same call without Winograd's algorithm."""

    def other() -> Tensor | None:
        with torch.backends.nnpack.flags(enabled=False):
            return call()

    return other


def kept(network: nn.Module, x: Tensor) -> Spread:
    """MiB of the graph of one call until the gradient is computed, each storage once, without the weights."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(x, x.new_zeros(len(x)))
    assert output.requires_grad
    return Spread.exact(sum(found.values()) / 2**20, "MiB")


class PlainNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.instance_norm = nn.InstanceNorm2d(channels)
        self.alpha = nn.Parameter(1 + 0.02 * torch.randn(channels))
        self.gamma = nn.Parameter(1 + 0.02 * torch.randn(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))
        mean, variance = means.mean(-1, keepdim=True), means.var(-1, keepdim=True)
        compared = (means - mean) / torch.sqrt(variance + 1e-5)
        h = self.instance_norm(x) + compared[..., None, None] * self.alpha[:, None, None]
        return self.gamma[:, None, None] * h + self.beta[:, None, None]


class MeanPooled(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, side: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, side, padding=side // 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        return sum(h[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4


class PlainBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, enter: bool = False, dilation: int = 1) -> None:
        super().__init__()

        def conv(a: int, b: int) -> nn.Conv2d:
            return nn.Conv2d(a, b, 3, padding=dilation, dilation=dilation)

        halve = enter and dilation == 1
        self.normalize1 = PlainNorm(channels_in)
        self.conv1 = conv(channels_in, channels_in)
        self.normalize2 = PlainNorm(channels_in)
        self.conv2 = MeanPooled(channels_in, channels_out, 3) if halve else conv(channels_in, channels_out)
        self.shortcut = nn.Identity()
        if enter:
            self.shortcut = MeanPooled(channels_in, channels_out, 1) if halve else conv(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(elu(self.normalize1(x)))
        h = self.conv2(elu(self.normalize2(h)))
        return self.shortcut(x) + h


class PlainRCU(nn.Module):
    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        for i in range(blocks):
            for j in range(2):
                self.add_module(f"{i + 1}_{j + 1}_conv", nn.Conv2d(channels, channels, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        for i in range(self.blocks):
            residual = x
            for j in range(2):
                x = getattr(self, f"{i + 1}_{j + 1}_conv")(elu(x))
            x = x + residual
        return x


class PlainCRP(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = path = elu(x)
        for conv in self.convs:
            path = conv(max_pool2d(path, 5, stride=1, padding=2))
            x = path + x
        return x


class PlainMSF(nn.Module):
    def __init__(self, channels_in: Sequence[int], channels_out: int) -> None:
        super().__init__()
        self.channels_out = channels_out
        self.convs = nn.ModuleList(nn.Conv2d(c, channels_out, 3, padding=1) for c in channels_in)

    def forward(self, xs: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        total = torch.zeros(len(xs[0]), self.channels_out, *size, device=xs[0].device)
        for x, conv in zip(xs, self.convs, strict=True):
            total = total + interpolate(conv(x), size=size, mode="bilinear", align_corners=True)
        return total


class PlainRefine(nn.Module):
    def __init__(self, channels_in: Sequence[int], channels_out: int, output_blocks: int = 1) -> None:
        super().__init__()
        self.adapt_convs = nn.ModuleList(PlainRCU(c, 2) for c in channels_in)
        if len(channels_in) > 1:
            self.msf = PlainMSF(channels_in, channels_out)
        self.crp = PlainCRP(channels_out)
        self.output_convs = PlainRCU(channels_out, output_blocks)

    def forward(self, *xs: Tensor) -> Tensor:
        hs = [adapt(x) for adapt, x in zip(self.adapt_convs, xs, strict=True)]
        h = self.msf(hs, xs[0].shape[2:]) if len(hs) > 1 else hs[0]
        return self.output_convs(self.crp(h))


class PlainNCSNv2(nn.Module):
    """NCSNv2Deepest in its published form, without the division by sigma.

    Reference: Song and Ermon, Improved techniques for training score-based generative models, NeurIPS 2020.
    """

    def __init__(self, width: int, channels: int = 2) -> None:
        super().__init__()
        n = width

        def stage(a: int, b: int, enter: bool = True, dilation: int = 1) -> nn.ModuleList:
            return nn.ModuleList([PlainBlock(a, b, enter, dilation), PlainBlock(b, b, False, dilation)])

        self.begin_conv = nn.Conv2d(channels, n, 3, padding=1)
        self.res1 = stage(n, n, enter=False)
        self.res2 = stage(n, 2 * n)
        self.res3 = stage(2 * n, 2 * n)
        self.res31 = stage(2 * n, 2 * n)
        self.res4 = stage(2 * n, 4 * n, dilation=2)
        self.res5 = stage(4 * n, 4 * n, dilation=4)
        self.refine1 = PlainRefine([4 * n], 4 * n)
        self.refine2 = PlainRefine([4 * n, 4 * n], 2 * n)
        self.refine31 = PlainRefine([2 * n, 2 * n], 2 * n)
        self.refine3 = PlainRefine([2 * n, 2 * n], 2 * n)
        self.refine4 = PlainRefine([2 * n, 2 * n], n)
        self.refine5 = PlainRefine([n, n], n, 3)
        self.normalizer = PlainNorm(n)
        self.end_conv = nn.Conv2d(n, channels, 3, padding=1)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        h = self.begin_conv(x)
        skips = []
        for stage in (self.res1, self.res2, self.res3, self.res31, self.res4, self.res5):
            for block in stage:
                h = block(h)
            skips.append(h)
        h = self.refine1(skips.pop())
        for refine in (self.refine2, self.refine31, self.refine3, self.refine4, self.refine5):
            h = refine(skips.pop(), h)
        return self.end_conv(elu(self.normalizer(h)))
