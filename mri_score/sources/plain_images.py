"""Training images as they are: real values of one channel (grey, magnitude) or three (RGB)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from mri_score.data.pixel_values import PixelValues, pixel_record
from mri_score.data.scale import percentile
from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError, unknown_name
from mri_score.readers.pixels import PixelStack, pixel_files
from mri_score.sources import augmentation
from mri_score.sources.magnitude_images import LEAST_BRIGHT
from mri_score.sources.recent import Recent

DEQUANTISATIONS = ("none", "uniform", "gaussian")
GAUSSIAN_NOISE = 0.01
SCALES = ("bits", "maximum", "percentile")


class PlainImages:
    """Images (1, H, W), or (1, 3, H, W) in RGB, drawn with equal probability from all files.

    A pixel becomes x = value / scale, for most images in [0, 1], and then what `PixelValues` makes of it.
    paths: files of `PixelStack`, or folders of them. channels: 1 for grey or magnitude, 3 for RGB. crop: side of the
    central square that is cut out first. size: the shorter side is then resized to fit, and the centre cut out. patch:
    side of a random square that is cut out in the end. scale: the value that becomes 1: a number, that of the bits of
    the data type, the maximum or the 99th percentile of the image; None: by the data type. dequantisation: of 8 bits,
    "uniform" (255 x + u) / 256, "gaussian" x + 0.01 n, or "none". centred: 2 x - 1. logit: log(x / (1 - x)). flip: left
    and right with equal probability. turns: all eight symmetries of the square. rescale: times a log-uniform factor in
    [0.6, 1.25], as for scans. skip_empty: leave out images with nearly no object, as at the ends of a stack. memory:
    number of images that each process keeps after resizing.
    Errors: InputError for unknown names, files that cannot be read, colours where grey values are asked for, and images
    without a finite brightest pixel.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        channels: int = 1,
        size: int | tuple[int, int] | None = None,
        crop: int | None = None,
        patch: int | None = None,
        scale: str | float | None = None,
        dequantisation: str = "none",
        centred: bool = False,
        logit: bool = False,
        flip: bool = False,
        turns: bool = False,
        rescale: bool = False,
        skip_empty: bool = False,
        memory: int = 100_000,
    ) -> None:
        if channels not in (1, 3):
            raise InputError(f"data.channels is {channels}; real images have 1 (grey, magnitude) or 3 (RGB)")
        if dequantisation not in DEQUANTISATIONS:
            raise unknown_name("data.dequantisation", dequantisation, DEQUANTISATIONS)
        if isinstance(scale, str) and scale not in SCALES:
            raise unknown_name("data.scale", scale, SCALES)
        if isinstance(scale, (int, float)) and not scale > 0:
            raise InputError(f"data.scale is {scale}; it is a positive number, the value that becomes 1")
        self.channels, self.crop, self.patch, self.scale = channels, crop, patch, scale
        self.size = (size, size) if isinstance(size, int) else size
        self.dequantisation, self.flip, self.turns, self.rescale = dequantisation, flip, turns, rescale
        self.values = PixelValues(centred, logit)
        if rescale and (centred or logit):
            raise InputError("data.rescale multiplies values whose zero is black; it excludes data.centred and logit")
        files = [file for given in paths for file in pixel_files(Path(given))]
        self.stacks = [PixelStack(file, colour=channels == 3) for file in files]
        self.places = [(stack, number) for stack, one in enumerate(self.stacks) for number in range(len(one))]
        if skip_empty:
            self.places = [place for place in self.places if not self._nearly_empty(*place)]
        self._kept: Recent[tuple[np.ndarray, float]] = Recent(memory)
        if not self.places:
            raise InputError(f"{', '.join(map(str, paths))} contain empty images only")

    def __len__(self) -> int:
        return len(self.places)

    @property
    def pixels(self) -> dict[str, Any]:
        """What a prior's record keeps of its images."""
        whole = self.size if self.patch is None else None
        size = {"size": list(whole)} if whole else {}
        return {"channels": self.channels, **pixel_record(self.values), "scale": self.scale or "bits", **size}

    def stored(self, number: int) -> tuple[Tensor, float]:
        """Image `number`, resized and cropped, in the file's values: (channels, H, W), and the value that becomes 1.

        Images of 8 bits are whole numbers.
        """
        array, most = self._kept.get(number, lambda: self._read(*self.places[number]))
        values = torch.from_numpy(array.astype(np.float32))
        return values, self._scale(values, most, number)

    def image(self, number: int) -> Tensor:
        """Image `number` as a prior takes it, without anything random: (H, W) or (3, H, W)."""
        values, scale = self.stored(number)
        found = self.values.forward(values / scale)
        return found[0] if self.channels == 1 else found

    def name(self, number: int) -> str:
        """Where image `number` comes from: its file, and its number in a stack."""
        stack, index = self.places[number]
        path = self.stacks[stack].path
        return path.name if len(self.stacks[stack]) == 1 else f"{path.name}:{index}"

    def sample(self, random: Generator) -> TrainingItem:
        """One training item, keyed by the generator `random` alone: image (1, H, W) or (1, 3, H, W)."""
        number = int(torch.randint(len(self), (), generator=random))
        values, scale = self.stored(number)
        x = self.dequantised(values / scale, random)
        if self.patch is not None:
            x = augmentation.crop(x, random, (self.patch, self.patch))
        if self.turns:
            x = augmentation.flip_and_turn(x, random)
        elif self.flip and bool(torch.rand((), generator=random) < 0.5):
            x = x.flip(-1)
        if self.rescale:
            x = augmentation.rescale(x, random)
        image = self.values.forward(x)
        return TrainingItem(name="image", image=image if self.channels == 1 else image[None])

    def dequantised(self, x: Tensor, random: Generator) -> Tensor:
        """x with the noise of `dequantisation`, of any shape. random: the generator of that noise."""
        if self.dequantisation == "uniform":
            return (255 * x + torch.rand(x.shape, generator=random)) / 256
        if self.dequantisation == "gaussian":
            return x + GAUSSIAN_NOISE * torch.randn(x.shape, generator=random)
        return x

    def _read(self, stack: int, index: int) -> tuple[np.ndarray, float]:
        """An image of a stack, resized and cropped, (channels, H, W), and the largest value of its type (0: none)."""
        path, array = self.stacks[stack].path, self.stacks[stack][index]
        if array.ndim == 3 and self.channels == 1:
            raise InputError(f"{path} has colour images; set data.channels: 3, or convert them to grey")
        most = float(np.iinfo(array.dtype).max) if array.dtype.kind == "u" else float(array.dtype.kind == "b")
        planes = np.moveaxis(array, -1, 0) if array.ndim == 3 else np.repeat(array[None], self.channels, 0)
        image = torch.from_numpy(planes.astype(np.float32))
        if not bool(torch.isfinite(image).all()):
            raise InputError(f"{path}, image {index}: it holds NaN or infinity; leave it out of the file")
        if self.crop is not None:
            image = _centre(image, (self.crop, self.crop))
        if self.size is not None and tuple(image.shape[-2:]) != tuple(self.size):
            image = _resized(image, self.size)
            image = image.round().clamp(0, most) if most else image
        return image.numpy().astype(np.uint8 if most == 255 else np.float32), most

    def _scale(self, values: Tensor, most: float, number: int) -> float:
        """The value that becomes 1. most: the largest of the file's data type, 0 for real numbers."""
        if isinstance(self.scale, (int, float)):
            return float(self.scale)
        kind = self.scale or ("bits" if most == 255 else "percentile")
        if kind == "bits" and most:
            return most
        if kind == "bits":
            raise InputError(f"{self.name(number)} has no whole numbers; set data.scale to maximum, percentile or 1")
        largest = float(values.abs().max())
        found = largest if kind == "maximum" else float(percentile(values).max()) or largest
        if not found > 0:
            raise InputError(f"{self.name(number)} is zero everywhere, so it has no scale; leave it out")
        return found

    def _nearly_empty(self, stack: int, index: int) -> bool:
        """Whether the object covers less than about a hundredth of the pixels."""
        values = torch.from_numpy(self._read(stack, index)[0].astype(np.float32))
        return not bool(percentile(values).max() > LEAST_BRIGHT * values.max())


def _centre(image: Tensor, size: Sequence[int]) -> Tensor:
    """The centre of an image (C, H, W). Errors: InputError if the image is smaller."""
    (rows, cols), (high, wide) = image.shape[-2:], size
    if rows < high or cols < wide:
        raise InputError(f"an image of {rows} x {cols} is smaller than {high} x {wide}; lower data.crop")
    top, left = (rows - high) // 2, (cols - wide) // 2
    return image[..., top : top + high, left : left + wide]


def _resized(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resized by one factor so that it covers `size`, antialiased bilinear, and its centre: (C, *size)."""
    rows, cols = image.shape[-2:]
    factor = max(size[0] / rows, size[1] / cols)
    covering = (max(size[0], round(rows * factor)), max(size[1], round(cols * factor)))
    return _centre(interpolate(image[None], size=covering, mode="bilinear", antialias=True)[0], size)
