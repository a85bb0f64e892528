"""The blocks of RefineNet score networks: instance norm with channel means, residual and refinement blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, elu, interpolate, max_pool2d, pad
from torch.utils.checkpoint import checkpoint

from mri_score.errors import InputError


def refuse_extra(network: nn.Module, extra: Tensor | None, remedy: str = "") -> None:
    """Errors: InputError for an extra input, which this network does not have."""
    if extra is not None:
        raise InputError(f"{type(network).__name__} takes no extra input, such as a sampling mask{remedy}")


class InstanceNormPlus(nn.Module):
    """InstanceNorm++: gamma (h + alpha t) + beta, where h is the instance norm of x and t the norm of its means.

    h removes the mean mu of each channel; t = (mu - mean(mu)) / sqrt(var(mu) + 1e-5), over the channels and with the
    unbiased variance, restores their differences. A single channel has t = 0.
    Shapes: x (B, channels, H, W).
    Reference: Song and Ermon, Generative modeling by estimating gradients of the data distribution, NeurIPS 2019.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(1 + 0.02 * torch.randn(channels))
        self.gamma = nn.Parameter(1 + 0.02 * torch.randn(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm_plus(x, self.gamma, self.alpha, self.beta)


def instance_norm_plus(x: Tensor, gamma: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """InstanceNorm++ with gamma, alpha and beta of shape (channels,), or (B, channels) for values per item."""
    channels = x.shape[1]
    means = x.mean((2, 3), dtype=torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(means, dim=1, correction=int(channels > 1), keepdim=True)
    shift = beta + gamma * alpha * (means - mean) * torch.rsqrt(variance + 1e-5)
    return _normalized(x, gamma.to(shift.dtype).expand_as(shift), shift)


def _normalized(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """gain (x - mean) / sqrt(var + 1e-5) + shift for each channel of each item; gain and shift (B, channels).

    The batch is viewed as channels of one item, so that a single kernel normalizes, scales and shifts; unlike those of
    torch.nn.functional it accepts a single pixel. The memory format is channels first, because with channels last
    torch's group norm is inaccurate for a large mean.
    """
    batch, channels, *size = x.shape
    rows, gains, shifts = x.contiguous().view(1, batch * channels, *size), gain.flatten(), shift.flatten()
    if x.is_cuda:
        normal = torch.batch_norm(rows, gains, shifts, None, None, True, 0.0, 1e-5, True)
    else:
        normal = torch.group_norm(rows, batch * channels, gains, shifts)
    normal = normal.view(batch, channels, *size)
    return normal if x.is_contiguous() else normal.contiguous(memory_format=torch.channels_last)


def channels_last(x: Tensor) -> Tensor:
    """x with channels last in memory on a CPU, which is faster there; unchanged elsewhere."""
    return x if x.is_cuda else x.contiguous(memory_format=torch.channels_last)


def runner(checkpointing: bool) -> Callable[..., Tensor]:
    """run(block, *inputs): the block's output; with checkpointing its activations are computed again in the backward
    pass.
    """
    if checkpointing and torch.is_grad_enabled():
        return partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    return lambda block, *inputs: block(*inputs)


def conv(channels_in: int, channels_out: int, *, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(channels_in, channels_out, 3, padding=dilation, dilation=dilation, bias=bias)


class ResidualBlock(nn.Module):
    """shortcut(x) + conv2(act(norm2(conv1(act(norm1(x))))))

    The first block of a stage changes the number of channels in conv2, has a convolution as shortcut, and may halve the
    resolution by the mean of 2x2 pixels (with a 1x1 shortcut); in other blocks the shortcut is the identity.
    `norm` constructs a norm from a number of channels; a conditional norm is also called with the label.
    Shapes: x (B, channels_in, H, W) -> (B, channels_out, H, W), or (B, channels_out, H / 2, W / 2).
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        enter: bool = False,
        halve: bool = False,
        dilation: int = 1,
        norm: Callable[[int], nn.Module] = InstanceNormPlus,
    ) -> None:
        super().__init__()
        self.halve = halve
        self.normalize1 = norm(channels_in)
        self.conv1 = conv(channels_in, channels_in, dilation=dilation)
        self.normalize2 = norm(channels_in)
        self.conv2 = conv(channels_in, channels_out, dilation=dilation)
        if not enter:
            self.shortcut: nn.Module = nn.Identity()
        elif halve:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1)
        else:
            self.shortcut = conv(channels_in, channels_out, dilation=dilation)

    def forward(self, x: Tensor, *label: Tensor) -> Tensor:
        h = self.conv1(elu(self.normalize1(x, *label), inplace=True))
        h = self.conv2(elu(self.normalize2(h, *label), inplace=True))
        if self.halve:  # a mean commutes with the 1x1 shortcut; computing it first is cheaper
            h, x = avg_pool2d(h, 2), avg_pool2d(x, 2)
        return h.add_(self.shortcut(x))


class ResidualConvolutions(nn.Module):
    """RCU: `blocks` times x + conv(act(conv(act(x))))."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv(channels, channels, bias=False) for _ in range(2 * blocks))

    def forward(self, x: Tensor) -> Tensor:
        for first, second in zip(self.convs[::2], self.convs[1::2], strict=True):
            x = second(elu(first(elu(x)), inplace=True)).add_(x)
        return x


class ChainedPooling(nn.Module):
    """CRP: from x = act(x), twice path = conv(max of 5x5 around each pixel of path), added to x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv(channels, channels, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = path = elu(x)
        for layer in self.convs:
            path = layer(_largest_around(path))
            x = x + path
        return x


def _largest_around(x: Tensor) -> Tensor:
    """The maximum of 5x5 pixels around each pixel; without derivatives, computed from maxima of 2 and 4 along each
    axis.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return max_pool2d(channels_last(x), 5, stride=1, padding=2)
    if x.is_cuda:
        return max_pool2d(x, 5, stride=1, padding=2)
    return _largest_along(3, _largest_along(2, x))


def _largest_along(axis: int, x: Tensor) -> Tensor:
    """The maximum of five neighbours along one axis."""
    size, wide = x.shape[axis], pad(x, (0, 0, 2, 2) if axis == 2 else (2, 2), value=-torch.inf)
    two = torch.maximum(wide.narrow(axis, 0, size + 3), wide.narrow(axis, 1, size + 3))
    four = torch.maximum(two.narrow(axis, 0, size), two.narrow(axis, 2, size))
    return torch.maximum(four, wide.narrow(axis, 4, size), out=four)


class Fusion(nn.Module):
    """MSF: a convolution of each input, bilinear resizing to the size of the first, and their sum."""

    def __init__(self, channels_in: Sequence[int], channels_out: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv(channels, channels_out) for channels in channels_in)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        return summed(layer(x) for layer, x in zip(self.convs, inputs, strict=True))


def summed(maps: Iterable[Tensor]) -> Tensor:
    """The sum of feature maps, each resized bilinearly to the size of the first, which is changed in place."""
    total, *others = maps
    for other in others:
        if other.shape != total.shape:
            other = interpolate(other, size=total.shape[2:], mode="bilinear", align_corners=True)
        total = total.add_(other)
    return total


class RefineBlock(nn.Module):
    """RefineNet's block: RCU on each input, fusion of several inputs, chained pooling, RCU.

    Shapes: inputs (B, channels_in[i], H_i, W_i), the finest first -> (B, channels_out, H_0, W_0).
    Reference: Lin et al., RefineNet: multi-path refinement networks, CVPR 2017.
    """

    def __init__(self, channels_in: Sequence[int], channels_out: int, output_blocks: int = 1) -> None:
        super().__init__()
        self.adapt_convs = nn.ModuleList(ResidualConvolutions(channels, 2) for channels in channels_in)
        self.msf = Fusion(channels_in, channels_out) if len(channels_in) > 1 else None
        self.crp = ChainedPooling(channels_out)
        self.output_convs = ResidualConvolutions(channels_out, output_blocks)

    def forward(self, *inputs: Tensor) -> Tensor:
        adapted = [adapt(x) for adapt, x in zip(self.adapt_convs, inputs, strict=True)]
        fused = self.msf(adapted) if self.msf is not None else adapted[0]
        return self.output_convs(self.crp(fused))
