"""Simulated scans of image stacks: magnitudes of a stack with phase, coil maps and noise level of a real scan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from mri_score.data.coils import coil_maps
from mri_score.data.noise_level import noise_level
from mri_score.data.scale import percentile, safe_unit
from mri_score.errors import InputError
from mri_score.numerics.fourier import fft, ifft
from mri_score.numerics.noise import generators, noise_like
from mri_score.readers import open_scan
from mri_score.readers.image_stack import finite_slices, read_stack
from mri_score.readers.maps import normalise_maps
from mri_score.simulation import phantom
from mri_score.simulation.simulate import UNIT, check_folder, write_simulated

VOLUME_LABELS = ("patient", "study", "contrast")
"""Labels of a stack that distinguish its volumes."""
HEAD = 0.1
"""Threshold for the object, relative to the 99th percentile: only there phase and coil maps are used."""
OBJECT = 0.97
"""Smallest eigenvalue of ESPIRiT at pixels whose maps are used."""
EXPLAINED = 0.9
"""Smallest share of the signal's energy that the coil maps of the real scan must explain."""
WIDTHS = (0.32, 0.16, 0.08, 0.04, 0.02)
"""Widths of the Gaussians that extend phase and coil maps beyond the object, relative to the field of view.

The last is the resolution inside the object, too low to keep anatomy and noise of the real scan.
"""


@dataclass(frozen=True)
class ScanTemplate:
    """Phase, coil maps and noise level of a real scan, for simulated scans."""

    name: str
    profiles: Tensor
    """(C, H, W) complex, unit sum of squares: coil maps times the phase of the image, smoothly extended beyond the
    head.
    """
    head: Tensor
    """(H, W) bool: where the scan has signal."""
    noise_std: float
    """Standard deviation of the real, and of the imaginary, part of a sample, relative to the image's 99th percentile.
    """


def simulate_like(
    out: str | Path,
    images: str | Path,
    like: str | Path | ScanTemplate,
    *,
    slices: Callable[[int], Sequence[int]] = range,
    only: Mapping[str, Sequence[str]] | None = None,
    noise: float | None = None,
    undersample: float | None = None,
    seed: int = 0,
) -> list[Path]:
    """Write multi-coil scans of a stack of magnitude images, with phase, coil maps and noise level of a real scan.

    out: folder for the files <labels>_<like>.h5, one for each patient, study and contrast if the stack has such labels.
    images: the stack (HDF5 or NIfTI). like: the fully sampled real scan, or what
    `scan_template` made of it, which takes the axes of arrays too. slices: function from the number of slices of
    a volume to the slices to write. only: label -> values; other slices are left out, e.g. {"patient": ["p19"]}. noise:
    SNR in dB as in `phantom`; None takes the noise level of the real scan. undersample: as in `simulate`. K-space is
    F(magnitude * profiles) + white noise on the grid of the images; profiles come from `fit`. The noise of a slice
    depends on seed, file name and slice number only. Returns the paths.
    Errors: InputError if `out` is a file, `like` is not fully sampled or too noisy, or no slice is left.
    """
    out, images = check_folder(out), Path(images)
    stack, labels = read_stack(images)
    if not finite_slices(stack).all():
        raise InputError(f"{images} has images with NaN or infinity; leave those slices out of the file")
    template = like if isinstance(like, ScanTemplate) else scan_template(like)
    relative = template.noise_std if noise is None else phantom.noise_std_of_snr(noise)
    paths = []
    for values, members in _volumes(images, stack, labels, only or {}).items():
        chosen = [members[number] for number in slices(len(members))]
        magnitude = torch.from_numpy(stack[chosen].astype(np.float32))
        magnitude = magnitude * (UNIT / percentile(magnitude.flatten(0, 1)))
        path = out / f"{'_'.join([*(values or (images.stem,)), template.name])}.h5"
        clean = fft(fit(template, magnitude) * magnitude[:, None])
        white = [noise_like(clean[:1], generators(seed, path.name, number)) for number in chosen]
        facts = dict(zip((label for label in VOLUME_LABELS if label in labels), values, strict=True))
        write_simulated(
            path,
            clean + relative * UNIT * torch.cat(white),
            (magnitude.shape[-2], magnitude.shape[-1]),
            relative * UNIT,
            acquisition=_acquisition(facts.get("contrast"), images, template),
            undersample=undersample,
            attributes={
                "images": images.name,
                "like": template.name,
                "slices": ",".join(map(str, chosen)),
                **{"patient_id" if label == "patient" else label: value for label, value in facts.items()},
            },
        )
        paths.append(path)
    return paths


def scan_template(like: str | Path, axes: Sequence[str] | None = None) -> ScanTemplate:
    """Phase, coil maps and noise level of the middle slice of a fully sampled scan.

    Coil maps come from ESPIRiT on full k-space, inside and around the object where the eigenvalue is high; the phase is
    that of the combined image inside the object. Both are smoothed and extended over the field of view.
    like: the scan. axes: its axes, if it is an array without a header, see `open_scan`.
    Errors: InputError for an undersampled scan, and for one that is too noisy.
    """
    file = open_scan(like, axes=axes)
    if file.mask is not None:
        raise InputError(f"{like} is undersampled; phase and coil maps come from fully sampled scans: name another")
    kspace = file.kspace(file.slices // 2)[None]
    kspace = kspace / safe_unit(kspace)
    maps, eigenvalue, _ = coil_maps(kspace)
    coils = ifft(kspace)[0]
    image = (maps[0].conj() * coils).sum(0)
    head = image.abs() > HEAD * percentile(image)
    explained = float(image[head].abs().square().sum() / coils[:, head].abs().square().sum())
    if explained < EXPLAINED:
        raise InputError(
            f"{like}: coil maps from its full k-space explain {explained:.0%} of its signal, less than"
            f" {EXPLAINED:.0%}; it is too noisy for coil maps: name another scan"
        )
    level = noise_level(kspace, maps=maps, name=file.name).noise_std
    phase = torch.sgn(extend(torch.sgn(image)[None], head))
    around = _blur(head.to(maps.real.dtype), WIDTHS[-2]) > 0.3
    profiles = normalise_maps(extend(maps[0], around & (eigenvalue[0] > OBJECT))) * phase
    return ScanTemplate(file.name, profiles, head, level / float(percentile(image)))


def extend(field: Tensor, known: Tensor) -> Tensor:
    """Extend a field (C, H, W) smoothly from the pixels where it is `known`, bool (H, W), to the whole field of view.

    The result is a Gaussian average. Near known pixels the window is narrow; far away wider windows take over.
    """
    weight = known.to(field.real.dtype)
    tiny = torch.finfo(weight.dtype).tiny
    result = torch.zeros_like(field)
    for width in WIDTHS:
        confidence = _blur(weight, width)
        share = 1 - (1 - confidence).clamp(0, 1) ** 4 if width < WIDTHS[0] else 1
        result = result + share * (_blur(weight * field, width) / confidence.clamp_min(tiny) - result)
    return result


def fit(template: ScanTemplate, magnitude: Tensor) -> Tensor:
    """The template's profiles (C, H, W), resampled so that its head is at the position of the head in the images.

    They are turned by 90 degrees if one head is taller than wide and the other not, then shifted and stretched until
    centre and spread of both heads agree along each axis. Bicubic interpolation; unit sum of squares.
    magnitude: images (S, H, W).
    """
    head = (magnitude > HEAD * percentile(magnitude.flatten(0, 1))).any(0)
    there, here = _place(template.head), _place(head)
    profiles = template.profiles
    if (there[1][0] > there[1][1]) != (here[1][0] > here[1][1]):
        profiles = torch.rot90(profiles, -1, (-2, -1))
        there = _place(torch.rot90(template.head, -1, (-2, -1)))
    axes = [
        (2 * ((torch.arange(size) - now) * (spread / wide) + centre) + 1) / other - 1
        for size, now, wide, centre, spread, other in zip(
            head.shape, *here, *there, profiles.shape[-2:], strict=True
        )
    ]  # fmt: skip
    rows, cols = torch.meshgrid(*axes, indexing="ij")
    parts = torch.view_as_real(profiles).movedim(-1, 0)
    grid = torch.stack([cols, rows], -1).to(parts).expand(2, -1, -1, -1)
    found = grid_sample(parts, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return normalise_maps(torch.view_as_complex(found.movedim(0, -1).contiguous()))


def _place(head: Tensor) -> tuple[list[float], list[float]]:
    """Centre and standard deviation of a region (H, W) along both axes, in pixels."""
    points = head.nonzero().double()
    return points.mean(0).tolist(), points.std(0).tolist()


def _blur(x: Tensor, width: float) -> Tensor:
    """x (*, H, W) convolved with a Gaussian of standard deviation `width` times each side, zero beyond the edges."""
    rows, cols = (_window(size, width).to(x.dtype) for size in x.shape[-2:])
    return rows @ x @ cols


def _window(size: int, width: float) -> Tensor:
    place = torch.arange(size) / (width * size)
    window = torch.exp(-(place[:, None] - place).square() / 2)
    return window / window.sum(1).max()


def _volumes(
    path: Path, stack: np.ndarray, labels: Mapping[str, np.ndarray], only: Mapping[str, Sequence[str]]
) -> dict[tuple[str, ...], list[int]]:
    """Slice numbers of each volume, in order, without empty slices."""
    keep = np.array([image.max() > 0 for image in stack])
    for label, wanted in only.items():
        if label not in labels:
            raise InputError(f"{path} has no labels {label!r}; it has: {', '.join(sorted(labels)) or 'none'}")
        keep &= np.isin(labels[label].astype(str), list(wanted))
    order = np.argsort(labels["slice"], kind="stable") if "slice" in labels else np.arange(len(stack))
    names = [label for label in VOLUME_LABELS if label in labels]
    volumes: dict[tuple[str, ...], list[int]] = {}
    for index in order[keep[order]]:
        volumes.setdefault(tuple(str(labels[name][index]) for name in names), []).append(int(index))
    if not volumes:
        chosen = ", ".join(f"{label} {' or '.join(wanted)}" for label, wanted in only.items())
        raise InputError(f"{path} has no slice with signal{f' of {chosen}' if chosen else ''}; choose others")
    return dict(sorted(volumes.items()))


def _acquisition(contrast: str | None, images: Path, template: ScanTemplate) -> str:
    what = "simulated" if contrast is None else f"simulated {contrast}"
    return f"{what}: magnitudes of {images.name}, phase, coil maps and noise level of {template.name}"
