"""Combined coil images of fully sampled scans, slice by slice, and their cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mri_score.data.coils import truth_image
from mri_score.data.masks import true_acceleration
from mri_score.data.noise_level import noise_level
from mri_score.data.noise_rings import evenly_spaced, whiten
from mri_score.data.scale import safe_unit
from mri_score.errors import InputError
from mri_score.numerics.fourier import resize_kspace
from mri_score.readers import open_scan
from mri_score.readers.base import Reader
from mri_score.readers.hdf5 import StoredDataset, StoredFile, new_hdf5, open_hdf5, plain_dataset, reading
from mri_score.readers.maps import cache_key

VERSION = 3
"""Version of the combined images; increase it when they change, so that older caches are not used."""
CENTRE = 16
"""Side of the central square of k-space whose power decides whether a slice has signal."""
LEAST_SIGNAL = 0.05
"""A slice is empty if its central amplitude is below this fraction of that of the brightest slice."""
LEAST_POWER = 0.2
"""A slice is also empty if its central power is below this fraction of the noise power."""


class Combined:
    """sum_c conj(S_c) x_c of each slice of a fully sampled file; x_c are whitened coil images.

    Images and noise_std are in the file's units; for samples far from 1, in a unit in which they are near 1, see
    `safe_unit`.

    The maps S_c come from ESPIRiT on full k-space. As sum_c |S_c|^2 = 1 at every pixel, the noise of the image is white
    with noise_std in each real component, like that of a coil sample. Without whitening (the reason is in `notes`),
    noise_std is the root mean square over the coils. For a single coil the image is not changed.
    The constructor reads and checks all samples, to find slices with signal and the noise level. With `skip_empty`,
    slices without signal are left out, and those with NaN, infinity or a coil of zeros too, which `left_out` states.
    axes: of an array without a header, see `open_scan`.
    Errors: InputError for a file that is undersampled, damaged, or too small for coil maps.
    """

    def __init__(self, path: str | Path, skip_empty: bool = True, axes: Sequence[str] | None = None) -> None:
        self.file = open_scan(path, axes=axes)
        self.name = self.file.name
        if self.file.mask is not None:
            acceleration = true_acceleration(self.file.sampled, acquired=self.file.acquired)
            raise InputError(
                f"{path} is undersampled {acceleration:.4g} fold, and these training images need fully sampled scans;"
                " exclude it, or learn from undersampled scans alone by a loss that is made for them"
            )
        self.left_out: list[str] = []
        slices = readable(self.file, self.left_out) if skip_empty else list(range(self.file.slices))
        self.unit = safe_unit(self.file.kspace(slices[len(slices) // 2])) if slices else 1.0
        powers = [central_power(self._kspace(slice)) for slice in slices]
        looked_at = [slices[number] for number in evenly_spaced(len(slices))]
        level = noise_level([self._kspace(slice) for slice in looked_at], name=str(path))
        self.file.close()
        self.noise_std, self.whitening, self.notes = level.noise_std, level.whitening, list(level.notes)
        self.slices = with_signal(slices, powers, self.noise_std) if skip_empty else slices

    def image(self, slice: int) -> Tensor:
        """Combined image of a slice, (H, W) complex64, without readout oversampling.

        Errors: InputError.
        """
        kspace = self._kspace(slice)[None]
        self.file.close()
        if self.whitening is not None:
            kspace = whiten(kspace, self.whitening)
        try:
            return truth_image(kspace)[0]
        except InputError as error:
            raise InputError(f"{self.file.path}, slice {slice}: {error}") from error

    def _kspace(self, slice: int) -> Tensor:
        kspace = self.file.kspace(slice)
        return kspace if self.unit == 1 else kspace / self.unit


def readable(file: Reader, left_out: list[str]) -> list[int]:
    """The slices that are not empty and can be used; a text for each that is neither goes to `left_out`.

    Errors: InputError of the first of these, if all others are empty.
    """
    found, faults = [], []
    for slice in range(file.slices):
        try:
            file.kspace(slice)
            found.append(slice)
        except InputError as error:
            if not _is_empty(file, slice):
                faults.append(error)
    if faults and not found:
        raise faults[0]
    left_out.extend(map(str, faults))
    return found


def _is_empty(file: Reader, slice: int) -> bool:
    try:
        return file.empty(slice)
    except InputError:  # its samples cannot be read at all
        return False


def central_power(kspace: Tensor, mask: Tensor | None = None) -> float:
    """Mean |y|^2 of the sampled points among the central CENTRE x CENTRE. Shapes: kspace (C, H, W), mask (1, H, W)."""
    shape = [min(CENTRE, side) for side in kspace.shape[-2:]]
    power = resize_kspace(kspace, shape)
    if mask is not None:
        power = power[:, resize_kspace(mask.expand(1, *kspace.shape[-2:]), shape)[0]]
    return float(power.abs().square().mean())


def with_signal(slices: Sequence[int], powers: Sequence[float], noise_std: float) -> list[int]:
    """The slices with signal, by the powers of their central samples; see LEAST_SIGNAL and LEAST_POWER."""
    noise = 2 * noise_std**2
    signal = (torch.tensor(powers) - noise).clamp_min(0)
    least, most = LEAST_POWER * noise, float(signal.max())
    bright = signal >= max(LEAST_SIGNAL**2 * most, least if most > least else 0)
    return [slice for slice, kept in zip(slices, bright.tolist(), strict=True) if kept]


class CachedImages:
    """The images of `Combined`, read from a file of `cached_images`."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        with reading(path), open_hdf5(path) as file:
            self._images, slices = (_dataset(file, path, key) for key in ("image", "slice"))
            shape = self._images.shape
            if len(shape) != 3 or slices.shape != shape[:1]:
                raise InputError(f"{path}: {len(slices)} slices cannot have images {shape}; remove the file")
            self.slices: list[int] = slices[()].tolist()
            self.noise_std = float(file.attrs["noise_std"])
            self.notes = str(file.attrs["notes"]).splitlines()
            self.left_out = str(file.attrs.get("left_out", "")).splitlines()

    def image(self, slice: int) -> Tensor:
        with reading(self.path):
            return torch.from_numpy(self._images[self.slices.index(slice)])


def cached_images(
    folder: str | Path, path: str | Path, skip_empty: bool = True, axes: Sequence[str] | None = None
) -> CachedImages:
    """The combined images of a file from the cache; if they are missing or damaged, they are made and saved.

    folder: the cache. path, skip_empty, axes: as in `Combined`. Errors: InputError, as in `Combined`.
    """
    key = cache_key(path, None, axes=axes or (), combined=VERSION, skip_empty=skip_empty)
    kept, name = Path(folder) / f"{key}.h5", Path(path).stem
    try:
        return CachedImages(kept, name)
    except InputError:
        _write(kept, Combined(path, skip_empty, axes))
    return CachedImages(kept, name)


def _write(path: Path, volume: Combined) -> None:
    images = torch.stack([volume.image(slice) for slice in volume.slices])
    with new_hdf5(path) as file:
        file["image"] = images.numpy()
        file["slice"] = volume.slices
        texts = {"notes": "\n".join(volume.notes), "left_out": "\n".join(volume.left_out), "file": volume.name}
        file.attrs.update({"noise_std": volume.noise_std, **texts})


def _dataset(file: StoredFile, path: Path, key: str) -> StoredDataset:
    dataset = plain_dataset(file, path, key)
    if dataset is None:
        raise InputError(f"{path} is not a file of combined images: it has no dataset {key}; remove it")
    return dataset
