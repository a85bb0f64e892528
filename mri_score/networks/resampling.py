"""Down- and upsampling by two: FIR filters as in StyleGAN2, or means and copies; padding to divisible sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, interpolate, pad

from mri_score.errors import InputError


def fir_kernel(taps: Sequence[float]) -> Tensor:
    """The outer product of the taps with themselves, of sum 1: (K,) -> (K, K).

    Errors: InputError unless K is even and the sum of the taps is not zero.
    """
    if len(taps) % 2 or not sum(taps):
        raise InputError(f"FIR taps are {list(taps)}; give an even number of them, not of sum 0, e.g. [1, 3, 3, 1]")
    row = torch.tensor(taps, dtype=torch.get_default_dtype()) / sum(taps)
    return torch.outer(row, row)


def fir_up(x: Tensor, kernel: Tensor, margin: int = 0) -> Tensor:
    """Upsampling: a zero after each pixel, then a convolution with 4 * kernel and zero padding.

    Shapes: x (B, C, H, W), kernel (K, K), K even -> (B, C, 2 H + 2 margin, 2 W + 2 margin).
    Reference: Karras et al., Analyzing and improving the image quality of StyleGAN, CVPR 2020 (upfirdn).
    """
    each = (4 * kernel).to(x.dtype).expand(x.shape[1], 1, *kernel.shape)
    return pad(conv_transpose2d(x, each, stride=2, groups=x.shape[1]), [margin + 1 - len(kernel) // 2] * 4)


def fir_down(x: Tensor, kernel: Tensor, stride: int = 2, margin: int = 0) -> Tensor:
    """Downsampling: a convolution with the kernel and zero padding, of which every second pixel is kept.

    Shapes: x (B, C, H, W), kernel (K, K), K even -> (B, C, H / 2, W / 2) for even sides and no margin.
    """
    each = kernel.flip(0, 1).to(x.dtype).expand(x.shape[1], 1, *kernel.shape)
    return conv2d(x, each, stride=stride, padding=len(kernel) // 2 - 1 + margin, groups=x.shape[1])


class Resampling(nn.Module):
    """The base of the four classes below: a FIR kernel, or none for plain resampling (no taps)."""

    kernel: Tensor | None

    def __init__(self, taps: Sequence[float] = ()) -> None:
        super().__init__()
        self.register_buffer("kernel", fir_kernel(taps) if len(taps) else None, persistent=False)

    def _convolution(self, channels_in: int, channels_out: int, **options: int) -> nn.Conv2d:
        """A 3x3 convolution with the initial weights of DDPM: uniform, by the mean of fan-in and fan-out, and no bias.
        """
        layer = nn.Conv2d(channels_in, channels_out, 3, **options)  # type: ignore[arg-type]
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        return layer


class Upsample(Resampling):
    """Twice the size, by the FIR filter or by copies: (B, C, H, W) -> (B, C, 2 H, 2 W)."""

    def forward(self, x: Tensor) -> Tensor:
        return interpolate(x, scale_factor=2) if self.kernel is None else fir_up(x, self.kernel)


class Downsample(Resampling):
    """Half the size, by the FIR filter or the mean of 2x2 pixels: (B, C, H, W) -> (B, C, H / 2, W / 2)."""

    def forward(self, x: Tensor) -> Tensor:
        return avg_pool2d(x, 2) if self.kernel is None else fir_down(x, self.kernel)


class UpsampleConv(Resampling):
    """`Upsample`, then a 3x3 convolution, which also uses the output of the filter beyond the border.

    Shapes: x (B, channels_in, H, W) -> (B, channels_out, 2 H, 2 W).
    """

    def __init__(self, channels_in: int, channels_out: int, taps: Sequence[float] = ()) -> None:
        super().__init__(taps)
        self.conv = self._convolution(channels_in, channels_out, padding=int(self.kernel is None))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(interpolate(x, scale_factor=2) if self.kernel is None else fir_up(x, self.kernel, margin=1))


class DownsampleConv(Resampling):
    """The FIR filter, then a 3x3 convolution at every second pixel; without taps only the convolution, with zeros below
    and right of the image.

    Shapes: x (B, channels_in, H, W) -> (B, channels_out, H / 2, W / 2).
    """

    def __init__(self, channels_in: int, channels_out: int, taps: Sequence[float] = ()) -> None:
        super().__init__(taps)
        self.conv = self._convolution(channels_in, channels_out, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel is None:
            return self.conv(pad(x, (0, 1, 0, 1)))
        return self.conv(fir_down(x, self.kernel, stride=1, margin=1))


def reflected(x: Tensor, divisor: int) -> tuple[Tensor, tuple[slice, slice]]:
    """The image padded by reflection at both ends to sides divisible by `divisor`, and the slices of the image in it.

    Shapes: x (B, C, H, W). Divisible sides are not padded.
    Errors: InputError for sides below the divisor.
    """
    height, width = x.shape[-2:]
    if min(height, width) < divisor:
        raise InputError(f"images of {height} x {width} are too small: this network needs sides of {divisor}")
    down, across = -height % divisor, -width % divisor
    top, left = down // 2, across // 2
    inside = slice(top, top + height), slice(left, left + width)
    if not down and not across:
        return x, inside
    return pad(x, (left, across - left, top, down - top), mode="reflect"), inside
