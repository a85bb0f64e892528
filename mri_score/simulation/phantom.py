"""Simulated scan of a numerical head: tissue contrast, phase, coils and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mri_score.data.acquisition import Acquisition
from mri_score.data.scale import percentile
from mri_score.errors import InputError, unknown_name
from mri_score.numerics.fourier import fft, ifft, resize_kspace
from mri_score.numerics.noise import generators, noise_like
from mri_score.simulation.anatomy import Head

FIELD_OF_VIEW = (230.0, 190.0)
"""Smallest height and width of the image (mm): all heads fit in, tilted ones too."""
SPACING = 5.0
"""Distance between neighbouring slices (mm)."""
MIDDLE = 20.0
"""Height of the middle of a stack above the AC-PC plane (mm), through the bodies of the ventricles."""
EDGE = 1.0
"""Width (mm) of the transition between tissues, because edges are seldom at right angles to the slice."""
EXTENT = 80.0
"""Largest height of a stack (mm); stacks of many slices have a smaller distance."""


@dataclass(frozen=True)
class Tissue:
    """Relaxation times (ms) and proton density relative to water."""

    t1: float
    t2: float
    density: float


TISSUES = {
    "air": Tissue(1.0, 1.0, 0.0),
    "csf": Tissue(4163, 1800, 1.00),
    "grey": Tissue(1820, 99, 0.86),
    "white": Tissue(1084, 69, 0.75),
    "striatum": Tissue(1480, 83, 0.84),
    "thalamus": Tissue(1330, 80, 0.81),
    "pallidus": Tissue(1080, 58, 0.80),
    "plexus": Tissue(2400, 250, 0.92),
    "lesion": Tissue(1900, 170, 0.88),
    "blood": Tissue(1.0, 1.0, 0.0),
    "dura": Tissue(900, 20, 0.50),
    "bone": Tissue(400, 5, 0.12),
    "marrow": Tissue(365, 70, 0.50),
    "fat": Tissue(371, 90, 0.62),
    "muscle": Tissue(1412, 50, 0.80),
}
"""Values at 3 T.

Grey and white matter, muscle: Stanisz et al., MRM 2005. T1 of cerebrospinal fluid: Rooney et al., MRM 2007. T1 of fat
and marrow: Gold et al., AJR 2004; their T2 and density are lowered, so that the scalp is not brighter than the brain.
Densities of the brain: close to BrainWeb's (Kwan et al., IEEE TMI 1999). Nuclei, plexus, lesion, dura and bone are set
by hand between these, for realistic contrast. Flowing blood gives no spin echo.
"""


@dataclass(frozen=True)
class Sequence:
    """A spin-echo sequence: repetition time, echo time and, with an inversion pulse, inversion time (ms)."""

    tr: float
    te: float
    ti: float | None = None

    def signal(self, tissue: Tissue) -> float:
        """PD (1 - e^(-TR/T1)) e^(-TE/T2); inverted: PD (1 - 2 e^(-TI/T1) + e^(-TR/T1)) e^(-TE/T2), sign kept."""
        recovery = math.exp(-self.tr / tissue.t1)
        gained = 1 - recovery if self.ti is None else 1 - 2 * math.exp(-self.ti / tissue.t1) + recovery
        return tissue.density * gained * math.exp(-self.te / tissue.t2)


CONTRASTS = {
    "T1": Sequence(tr=550, te=10),
    "T2": Sequence(tr=5000, te=100),
    "PD": Sequence(tr=4000, te=20),
    "FLAIR": Sequence(tr=9000, te=125, ti=2430),
}


def phantom(
    size: int | tuple[int, int] = 256,
    coils: int = 8,
    slices: int = 1,
    seed: int = 0,
    contrast: str = "T2",
    noise_snr: float | None = 36.0,
    position: float | None = None,
) -> Acquisition:
    """A fully sampled scan of a numerical head: kspace = F(maps * image) + noise.

    size: image matrix, N or (H, W). coils: receiver coils. slices: number of slices, 5 mm apart. seed: of head and
    noise; equal arguments give equal scans. contrast: T1, T2, PD or FLAIR. noise_snr: SNR in dB, with noise_std =
    10^(-noise_snr / 20) / sqrt 2 in each real component (36 is typical of clinical brain scans); None is free of noise.
    position: height of the middle slice above the AC-PC plane (mm). Returns an `Acquisition` with kspace and maps
    (slices, coils, H, W), image (slices, H, W) and noise_std, scaled so that the 99th percentile of |image| over the
    stack is 1. The image is band-limited from a grid of twice the size, so edges have partial-volume effects and Gibbs
    ringing.
    Errors: InputError for sizes below 16, unknown contrasts, and no coils or slices.
    """
    shape = image_shape(size)
    check_scan(coils, slices, contrast)
    pixel, heights = pixel_size(shape), slice_heights(slices, position)
    image = torch.stack([band_limited(fine_image(shape, z, seed, contrast), shape) for z in heights])
    profiles = torch.stack([coil_profiles(shape, pixel, z, coils) for z in heights])
    shading = profiles.abs().square().sum(1, keepdim=True).sqrt()
    image = image * shading[:, 0]
    image = image / percentile(image.flatten(0, 1))
    maps = profiles / shading
    noise_std = torch.tensor(noise_std_of_snr(noise_snr))
    clean = fft(maps * image.unsqueeze(1))
    noise = torch.cat([noise_like(clean[:1], generators(seed, "phantom", slice)) for slice in range(slices)])
    return Acquisition("phantom", kspace=clean + noise_std * noise, maps=maps, noise_std=noise_std, image=image)


def image_shape(size: int | tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) from one number or two. Errors: InputError below 16."""
    rows, cols = (size, size) if isinstance(size, int) else (int(n) for n in size)
    if min(rows, cols) < 16:
        raise InputError(f"phantom size is {rows} x {cols}; a head needs at least 16 x 16 pixels, e.g. size=256")
    return rows, cols


def pixel_size(shape: tuple[int, int]) -> float:
    """Side of the square pixel (mm) for which the head fits into an image of `shape` (H, W)."""
    return max(extent / n for extent, n in zip(FIELD_OF_VIEW, shape, strict=True))


def slice_heights(slices: int, position: float | None = None) -> list[float]:
    """Heights (mm) above the AC-PC plane of a stack around `position` (mm), lowest first."""
    spacing = min(SPACING, EXTENT / slices)
    middle = MIDDLE if position is None else position
    return [middle + spacing * (i - (slices - 1) / 2) for i in range(slices)]


def fine_image(shape: tuple[int, int], z: float, seed: int, contrast: str) -> Tensor:
    """Complex transverse magnetisation (2 H, 2 W) of a slice z mm above AC-PC, on twice the grid of `shape` (H, W)."""
    fine, pixel, head = (2 * shape[0], 2 * shape[1]), pixel_size(shape) / 2, Head.of(seed)
    scanner = scanner_points(fine, pixel, z).flatten(1)
    near = ((scanner[:2] / torch.tensor([[90.0], [112.0]])) ** 2).sum(0) < 1
    p = head.points(scanner[:, near])
    sequence = CONTRASTS[contrast]
    magnitude = torch.zeros_like(p[0])
    for tissue, distance in head.layers(p):
        share = (0.5 - distance / max(EDGE, pixel)).clamp(0, 1)
        magnitude = magnitude + share * (sequence.signal(TISSUES[tissue]) - magnitude)
    texture = 1 + 0.03 * head.fine(p)[1] + 0.03 * head.slow(p)[3]
    image = torch.zeros(scanner.shape[1], dtype=torch.complex64)
    image[near] = torch.polar(magnitude * texture, _phase(p, head.vary[14:20]))
    return image.reshape(fine)


def band_limited(fine: Tensor, shape: tuple[int, int]) -> Tensor:
    """The image of `shape` from the central k-space of a finer image (*, H, W); image values do not change."""
    gain = math.sqrt(shape[0] * shape[1] / (fine.shape[-2] * fine.shape[-1]))
    return ifft(resize_kspace(fft(fine), shape)) * gain


def coil_profiles(shape: tuple[int, int], pixel: float, z: float, coils: int) -> Tensor:
    """Complex receive profiles (C, H, W) of coil loops on a helmet; a single coil is a body coil with profile 1.

    Each profile is Bx - i By of a magnetic dipole behind the middle of the loop. The common shading is reduced to its
    fourth root, as scanners do by normalisation to the body coil. pixel: side of a pixel (mm). z: height of the slice.
    """
    p = scanner_points(shape, pixel, z)
    if coils == 1:
        return torch.ones(1, *shape, dtype=torch.complex64)
    number = torch.arange(coils)
    angle = 2 * math.pi * (number + 0.5) / coils
    height = 15.0 + (0.0 if coils <= 8 else 38.0) * (number % 3 - 1)
    inward = torch.stack([-angle.cos(), -angle.sin(), torch.zeros(coils)], 1)[..., None, None]
    centre = torch.stack([120 * angle.cos(), 145 * angle.sin(), height], 1)[..., None, None]
    r = p - centre
    square = r.square().sum(1, keepdim=True)
    field = (3 * (inward * r).sum(1, keepdim=True) * r / square.clamp_min(1.0) - inward) / (square + 25.0**2) ** 1.5
    profiles = torch.complex(field[:, 0], -field[:, 1]) * 100.0**3
    return profiles / profiles.abs().square().sum(0).pow(3 / 8)


def scanner_points(shape: tuple[int, int], pixel: float, z: float) -> Tensor:
    """Coordinates (3, H, W) in mm, isocentre at pixel N // 2. Columns run to the subject's left, rows to the back."""
    rows, cols = ((torch.arange(n, dtype=torch.float32) - n // 2) * pixel for n in shape)
    y, x = torch.meshgrid(-rows, cols, indexing="ij")
    return torch.stack([x, y, torch.full_like(x, z)])


def noise_std_of_snr(noise_snr: float | None) -> float:
    """Noise level, each real component, for an SNR in dB and an image with 99th percentile 1; None gives 0."""
    return 0.0 if noise_snr is None else 10 ** (-noise_snr / 20) / math.sqrt(2)


def _phase(p: Tensor, vary: Tensor) -> Tensor:
    """Phase (radians): a second-order polynomial of B0 and receive phase, and a peak due to air in the sinuses."""
    x, y, z = p / 100
    a = vary.tolist()
    smooth = 2.5 * a[0] + 1.2 * a[1] * x + (0.8 + 0.6 * a[2]) * y + 0.7 * a[3] * (x**2 - y**2) + 0.5 * a[4] * x * y
    sinus = (x / 0.3) ** 2 + ((y - 0.55) / 0.25) ** 2 + ((z + 0.3) / 0.4) ** 2
    return smooth + (1.6 + 0.4 * a[5]) * torch.exp(-sinus)


def check_scan(coils: int, slices: int, contrast: str) -> None:
    """Check the arguments of `phantom`. Errors: InputError for unknown contrasts, and no coils or slices."""
    if contrast not in CONTRASTS:
        raise unknown_name("phantom contrast", contrast, CONTRASTS)
    if coils < 1 or slices < 1:
        raise InputError(f"phantom has coils={coils} and slices={slices}; both need to be at least 1")
