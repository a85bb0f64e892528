"""What acquisition adds to a complex image: matrix size, filtered and inconsistent k-space, tissue phase, noise.

Each takes one image (H, W) and one generator. Every change is drawn anew, in a share of the images, so that a network
learns the family of scanners and not one of them.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from mri_score.data.scale import percentile
from mri_score.numerics.fourier import fft, ifft, resize_kspace
from mri_score.numerics.noise import noise_like
from mri_score.sources.augmentation import between, log_between


def happens(share: float, random: Generator) -> bool:
    """True in this share of the calls."""
    return float(torch.rand((), generator=random)) < share


def decimate(image: Tensor, random: Generator, smallest: int, largest: int) -> Tensor:
    """The same field of view on a smaller matrix: the centre of k-space alone, which leaves edges one pixel sharp.

    The longer side becomes log-uniform between `smallest` and `largest`, never more than it has; sides are even. Half
    of the images lose up to 40 % more along one axis, whose outer lines stay zero, as scans with fewer phase-encode
    steps than columns do.
    """
    rows, cols = image.shape[-2:]
    side = max(rows, cols)
    wanted = log_between(min(smallest, side), min(largest, side), random)
    small = (2 * round(rows * wanted / side / 2), 2 * round(cols * wanted / side / 2))
    kspace = resize_kspace(fft(image), small) * math.sqrt(small[0] * small[1] / (rows * cols))
    if happens(0.5, random):
        axis = int(torch.randint(2, (), generator=random))
        kept = 2 * round(small[axis] * between(0.6, 1.0, random) / 2)
        narrow = (kept, small[1]) if axis == 0 else (small[0], kept)
        kspace = resize_kspace(resize_kspace(kspace, narrow), small)
    return ifft(kspace)


def tissue_phase(image: Tensor, random: Generator, strength: float = 0.6, share: float = 0.7) -> Tensor:
    """A phase that follows the anatomy, as susceptibility and chemical composition of tissue give it.

    A random function of the magnitude stands for susceptibility; its field is what a dipole makes of it, cut free of
    what is smoother than 1/8 of the matrix, which other transforms give. Root mean square up to `strength` radians.
    Reference: Marques and Bowtell, Concepts in Magnetic Resonance B 25:65 (2005), for the kernel.
    """
    if not happens(share, random):
        return image
    magnitude = (image.abs() / percentile(image)).clamp_max(1.5)
    susceptibility = torch.sin(log_between(1.0, 8.0, random) * magnitude + between(-math.pi, math.pi, random))
    ky, kx = _frequencies(image)
    square = (ky**2 + kx**2).clamp_min(1e-12)
    angle, tilt = between(0, math.pi, random), between(0, 1, random)
    kernel = 1 / 3 - tilt * (ky * math.sin(angle) + kx * math.cos(angle)) ** 2 / square
    cut = log_between(0.01, 0.08, random)  # cycles per pixel; 1/8 of the matrix is 0.0625 to each side
    field = _filtered(susceptibility, kernel * (1 - torch.exp(-square / (2 * cut**2))))
    inside = field[magnitude > 0.1]
    spread = inside.std() if inside.numel() > 1 else field.std()
    return image * torch.polar(torch.ones(()), log_between(0.01, strength, random) / spread.clamp_min(1e-6) * field)


def phase_texture(image: Tensor, random: Generator, strength: float = 0.2, share: float = 0.5) -> Tensor:
    """A random phase of limited bandwidth: flow, motion and imperfect coil maps. Up to `strength` radians rms."""
    if not happens(share, random):
        return image
    ky, kx = _frequencies(image)
    band = torch.exp(-(ky**2 + kx**2) / (2 * log_between(0.03, 0.4, random) ** 2))
    field = _filtered(torch.randn(image.shape, generator=random), band)
    return image * torch.polar(torch.ones(()), log_between(0.01, strength, random) / field.std() * field)


def echo_filter(image: Tensor, random: Generator, share: float = 0.7) -> Tensor:
    """A smooth complex window over k-space along each axis: decay over the echo train, asymmetric echoes, filters.

    exp(a(k) + i b(k)) with smooth random a (up to 0.8) and b (up to 0.3 radians), and in a quarter of the images an
    echo one side of which is faded out from a random place on.
    """
    if not happens(share, random):
        return image
    kspace = fft(image)
    for axis in (-2, -1):
        place = torch.linspace(-1, 1, image.shape[axis])
        amplitude = between(0, 0.8, random) * _smooth(place, random)
        phase = between(0, 0.3, random) * _smooth(place, random)
        if happens(0.5, random):
            amplitude = amplitude - between(0, 1.2, random) * place.abs()
        window = torch.polar(torch.exp(amplitude), phase)
        if happens(0.12, random):
            window = window * torch.sigmoid((place + between(0.3, 1.0, random)) / between(0.02, 0.1, random))
        window = window.flip(0) if happens(0.5, random) else window
        kspace = kspace * (window[:, None] if axis == -2 else window)
    return ifft(kspace)


def ghosts(image: Tensor, random: Generator, share: float = 0.4) -> Tensor:
    """Lines of k-space that disagree: each phase-encode line off by a small phase and amplitude.

    Alternating between neighbours (echoes of two polarities), periodic (pulsation, breathing), and of each line alone.
    """
    if not happens(share, random):
        return image
    axis = int(torch.randint(2, (), generator=random)) - 2
    number = torch.arange(image.shape[axis], dtype=torch.float32)
    wave = torch.sin(2 * math.pi * log_between(0.02, 0.5, random) * number + between(0, 2 * math.pi, random))
    alone = torch.randn(number.shape, generator=random)
    parts = [(-1.0) ** number, wave, alone]
    phase = sum((log_between(0.002, 0.06, random) * part for part in parts), torch.zeros(()))
    amplitude = sum((log_between(0.002, 0.04, random) * part for part in (parts[1], parts[2].flip(0))), torch.zeros(()))
    factors = torch.polar((1 + amplitude).clamp_min(0), phase)
    return ifft(fft(image) * (factors[:, None] if axis == -2 else factors))


def receiver_noise(
    image: Tensor, random: Generator, low: float = 0.002, high: float = 0.012, share: float = 0.9
) -> Tensor:
    """Complex white noise, its standard deviation log-uniform from `low` to `high` of the 99th percentile."""
    if not happens(share, random):
        return image
    std = log_between(low, high, random) * percentile(image)
    return image + std * noise_like(image[None], [random])[0]


def _frequencies(image: Tensor) -> tuple[Tensor, Tensor]:
    """Cycles per pixel along rows and columns, DC first: (H, 1), (1, W)."""
    rows, cols = image.shape[-2:]
    return torch.fft.fftfreq(rows)[:, None], torch.fft.fftfreq(cols)[None]


def _filtered(field: Tensor, response: Tensor) -> Tensor:
    return torch.fft.ifft2(torch.fft.fft2(field) * response).real


def _smooth(place: Tensor, random: Generator, order: int = 4) -> Tensor:
    """A random smooth function of place in [-1, 1], about 1 in size, zero at the centre of k-space."""
    waves = torch.arange(1, order + 1)
    weights = torch.randn(2, order, generator=random) / waves
    angles = math.pi / 2 * place[:, None] * waves
    return (weights[0] * torch.sin(angles) + weights[1] * (torch.cos(angles) - 1)).sum(-1) / 1.5


EFFECTS = (tissue_phase, phase_texture, echo_filter, ghosts, receiver_noise)
"""What a scanner adds to an image on its final matrix, in this order."""
