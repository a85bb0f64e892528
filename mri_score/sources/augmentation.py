"""Training transforms: what makes a magnitude slice look like a complex image that a scanner could have given.

Each takes one image (H, W) and one generator, and says by how much it changes the image.
"""

from __future__ import annotations

import cmath
import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample

from mri_score.data.scale import percentile
from mri_score.numerics.fourier import fft, ifft, resize_image, resize_kspace

SCALES = (0.6, 1.25)
"""Range of random scales in training, because the percentile of an undersampled scan is uncertain."""
PHASE, RAMP = 3.0, 6.0
"""Largest standard deviation of the smooth phase, and largest phase ramp over the field of view (radians)."""


def between(low: float, high: float, random: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=random))


def log_between(low: float, high: float, random: Generator) -> float:
    return math.exp(between(math.log(low), math.log(high), random))


def flip_and_turn(image: Tensor, random: Generator) -> Tensor:
    """One of the eight symmetries of the square; for other images one of the four that keep their shape."""
    choice = int(torch.randint(8, (), generator=random))
    quarters = choice % 4 if image.shape[-2] == image.shape[-1] else 2 * (choice % 2)
    image = torch.rot90(image, quarters, (-2, -1))
    return image.flip(-1) if choice >= 4 else image


def warp(image: Tensor, random: Generator, degrees: float = 15.0, zoom: float = 0.1, stretch: float = 0.05) -> Tensor:
    """Rotation up to `degrees`, zoom and anisotropy up to those fractions, bicubic. Magnitude images only."""
    angle = math.radians(between(-degrees, degrees, random))
    size = 1 / (1 + between(-zoom, zoom, random))
    ratio = 1 + between(-stretch, stretch, random)
    rows, cols = image.shape[-2:]
    c, s = math.cos(angle) * size, math.sin(angle) * size
    matrix = torch.tensor([[c * ratio, -s * rows / cols, 0.0], [s * cols / rows, c / ratio, 0.0]], dtype=image.dtype)
    grid = affine_grid(matrix[None], [1, 1, rows, cols], align_corners=False)
    warped = grid_sample(image[None, None], grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    return warped[0, 0].clamp_min(0)


def tone(image: Tensor, random: Generator, strength: float = 3.0, share: float = 0.7) -> Tensor:
    """Another contrast: m -> (1 + a) m / (1 + a m), a in [-0.4, strength], for a `share` of the magnitude images.

    Keeps 0 and 1; what is far brighter than 1 grows fourfold at most. For a > 0 tissue comes up against fat and
    vessels, as in proton-density and gradient-echo images, which are rare in training sets.
    """
    if float(torch.rand((), generator=random)) >= share:
        return image
    a = log_between(0.6, 1 + strength, random) - 1
    return (1 + a) * image / (1 + a * image).clamp_min((1 + a) / 4)


def smooth_field(shape: tuple[int, int], random: Generator, order: int = 4, decay: float = 1.0) -> Tensor:
    """A random smooth real field of unit standard deviation: cosines up to `order` half waves across the image."""
    rows, cols = shape
    degree = torch.arange(order + 1, dtype=torch.float32)
    weights = 1 / (1 + degree[:, None] ** 2 + degree[None] ** 2) ** (decay / 2)
    weights[0, 0] = 0
    coefficients = weights * torch.randn(order + 1, order + 1, generator=random)

    def waves(count: int) -> Tensor:
        place = (torch.arange(count) + 0.5) / count
        return torch.cos(math.pi * degree[:, None] * place)

    field = waves(rows).T @ coefficients @ waves(cols)
    energy = torch.where(degree == 0, 1.0, 0.5)  # mean square of a wave
    return field / (weights.square() * energy[:, None] * energy).sum().sqrt()


def global_phase(image: Tensor, random: Generator) -> Tensor:
    """Multiply a complex image by e^(i phase), uniform over the circle."""
    return image * cmath.exp(1j * between(-math.pi, math.pi, random))


def smooth_phase(
    image: Tensor, random: Generator, strength: float = PHASE, slope: float = RAMP, steps: float = 0.4
) -> Tensor:
    """Magnitude -> complex: a uniform global phase, a linear ramp, a smooth field, sometimes a step (radians).

    The linear part is an off-centre echo; the smooth part is receive phase and field inhomogeneity, several turns
    over a head in gradient echoes; a `steps` share of the images gets a region whose phase is off by a constant, as
    fat against water or air against tissue is.
    """
    rows, cols = image.shape[-2:]
    y = torch.linspace(-0.5, 0.5, rows)[:, None]
    x = torch.linspace(-0.5, 0.5, cols)[None]
    phase = between(-math.pi, math.pi, random) + between(-slope, slope, random) * y + between(-slope, slope, random) * x
    phase = phase + between(0, strength, random) * smooth_field((rows, cols), random, order=6, decay=2.0)
    if float(torch.rand((), generator=random)) < steps:
        region = smooth_field((rows, cols), random, order=6) > between(0.5, 1.5, random)
        phase = phase + between(-math.pi, math.pi, random) * region
    return torch.polar(image, phase.to(image.dtype))


def susceptibility(image: Tensor, random: Generator, share: float = 0.5) -> Tensor:
    """Susceptibility effects of air beside tissue in gradient echoes, for a `share` of the complex images.

    One to three spheres of air near the slice, each giving a phase of A h^3 `dipole`, h its distance from the slice in
    parts of the field of view and A its strength in radians, up to several turns. B0 mostly crosses the slice, as in
    axial ones. Spins dephase through a slice as thick as 1 to 2.5 % of the field of view: the signal fades by the sinc
    of the phase across it.
    """
    if float(torch.rand((), generator=random)) >= share:
        return image
    rows, cols = image.shape[-2:]
    places = torch.meshgrid(torch.linspace(-0.5, 0.5, rows), torch.linspace(-0.5, 0.5, cols), indexing="ij")
    half = between(0.005, 0.0125, random)
    tilt = 0.2 if float(torch.rand((), generator=random)) < 0.7 else 10.0
    b = torch.tensor([0.0, 0.0, 1.0]) + tilt * torch.randn(3, generator=random)
    b = b / b.norm()
    low, high = torch.zeros(rows, cols), torch.zeros(rows, cols)  # the phase at the two faces of the slice
    for _ in range(1 + int(torch.randint(3, (), generator=random))):
        y, x = (place - between(-0.45, 0.45, random) for place in places)
        depth = log_between(0.03, 0.2, random)
        strength = log_between(0.5, 12.0, random) * (1 if float(torch.rand((), generator=random)) < 0.5 else -1)
        for face, z in ((low, depth - half), (high, depth + half)):
            face += strength * depth**3 * dipole(y, x, z, b)
    return image * torch.polar(torch.sinc((high - low) / (2 * math.pi)), (low + high) / 2)


def dipole(y: Tensor, x: Tensor, z: float, b: Tensor) -> Tensor:
    """(3 (b . r)^2 - |r|^2) / |r|^5 at r = (y, x, z): the field about a sphere of other susceptibility, B0 along b."""
    square = y**2 + x**2 + z**2
    along = b[0] * y + b[1] * x + b[2] * z
    return (3 * along**2 - square) / square**2.5


def fat_shift(image: Tensor, random: Generator, share: float = 0.3) -> Tensor:
    """Add a constant phase to the rim of the object, like that of scalp fat, for a `share` of the complex images."""
    if float(torch.rand((), generator=random)) >= share:
        return image
    rows, cols = image.shape[-2:]
    width = between(0.01, 0.03, random)
    frequencies = torch.fft.fftfreq(rows)[:, None] * rows, torch.fft.fftfreq(cols)[None] * cols
    low_pass = torch.exp(-2 * (math.pi * width) ** 2 * (frequencies[0] ** 2 + frequencies[1] ** 2))
    inside = (image.abs() > 0.1 * percentile(image)).to(torch.float32)
    smooth = torch.fft.ifft2(torch.fft.fft2(inside) * low_pass).real
    rim = (inside > 0) & (smooth < between(0.6, 0.9, random))
    return image * torch.polar(torch.ones(()), between(-math.pi, math.pi, random) * rim)


def shade(image: Tensor, random: Generator, strength: float = 0.3) -> Tensor:
    """Receive profile: times exp(smooth field), up to `strength` standard deviations of the logarithm."""
    rows, cols = image.shape[-2:]
    return image * torch.exp(between(0, strength, random) * smooth_field((rows, cols), random, order=2))


def coarsen(image: Tensor, random: Generator, least: float = 0.45, share: float = 0.6) -> Tensor:
    """A scan of lower resolution over the same field of view: k-space cropped, Gibbs ringing included.

    Applies to a `share` of the images; the matrix shrinks log-uniformly down to the fraction `least`. Values keep
    their size.
    """
    rows, cols = image.shape[-2:]
    if float(torch.rand((), generator=random)) >= share:
        return image
    factor = log_between(least, 1.0, random)
    small = (2 * round(rows * factor / 2), 2 * round(cols * factor / 2))
    gain = math.sqrt(small[0] * small[1] / (rows * cols))
    return ifft(resize_kspace(fft(image), small)) * gain


def crop(image: Tensor, random: Generator, size: tuple[int, int]) -> Tensor:
    """A patch anywhere in the image; an image that is smaller is zero-padded."""
    for axis, length in zip((-2, -1), size, strict=True):
        spare = image.shape[axis] - length
        if spare > 0:
            image = image.narrow(axis, int(torch.randint(spare + 1, (), generator=random)), length)
    return resize_image(image, size)


def rescale(image: Tensor, random: Generator, low: float = SCALES[0], high: float = SCALES[1]) -> Tensor:
    """Multiply by a log-uniform random factor."""
    return image * log_between(low, high, random)
