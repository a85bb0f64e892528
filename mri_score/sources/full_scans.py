"""Slices of fully sampled fastMRI scans as training data: complex images, with the noise that they have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from mri_score.data.acquisition import Acquisition
from mri_score.data.scale import percentile
from mri_score.data.scan import LEAST_NOISE
from mri_score.errors import InputError
from mri_score.numerics.fourier import resize_image
from mri_score.numerics.noise import generators, noise_like
from mri_score.readers import scan_files
from mri_score.sources import augmentation
from mri_score.sources.combined_images import CachedImages, Combined, cached_images
from mri_score.sources.recent import Recent

Opened = TypeVar("Opened")


def usable(
    files: Sequence[Path], open: Callable[[Path], Opened], notes: list[str], *, strict: bool, quiet: bool
) -> Iterator[Opened]:
    """open(file) of each file. Without `strict` those that raise InputError are left out, with a note."""
    for path in tqdm(files, desc="reading scans", unit="scan", leave=False, disable=True if quiet else None):
        try:
            found = open(path)
        except InputError as error:
            if strict:
                raise
            notes.append(f"left out: {error}")
            continue
        yield found


class Slices:
    """Slices of several scans, all drawn equally often: combined as in `Combined`, noisy as the scanner gave them.

    As at reconstruction the 99th percentile of the magnitude of the whole image becomes 1; then comes the crop to
    `size`. With `noise`, noise_std is that of the item in the same units, not below LEAST_NOISE, and pixels that
    `size` adds hold noise of that level: a loss that learns from noise finds it everywhere.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],                # fully sampled fastMRI files, or folders of them
        size: int | tuple[int, int] | None = None,  # images are cropped or padded to it; None: left as they are
        patch: int | None = None,                   # side of the square that is cut out; None: the whole image
        augment: bool = True,                       # flips and turns, global phase, scale
        noise: bool = False,                        # items carry noise_std
        include: Sequence[str] = ("*",),            # patterns of file names, e.g. file10000*
        exclude: Sequence[str] = (),                # the same; these win
        cache: str | Path | None = None,            # a folder that keeps the images; None: made again in every process
        skip_empty: bool = True,                    # leave slices without signal out
        strict: bool = True,                        # False: leave files that cannot be used out, with a note
        memory: int = 256,                          # slices that each process holds
        quiet: bool = False,                        # no progress bar while the scans are read
    ) -> None:  # fmt: skip
        self.size = (size, size) if isinstance(size, int) else size
        self.patch, self.augment, self.noise = patch, augment, noise
        if self.size is not None and patch is not None and patch > min(self.size):
            raise InputError(f"a patch of {patch} does not fit into size {self.size}; make data.patch smaller")
        self.notes: list[str] = []
        self.volumes: list[Combined | CachedImages] = []
        files = self._selected(paths, include, exclude)

        def combined(path: Path) -> Combined | CachedImages:
            return Combined(path, skip_empty) if cache is None else cached_images(cache, path, skip_empty)

        for volume in usable(files, combined, self.notes, strict=strict, quiet=quiet):
            self.volumes.append(volume)
            if noise:
                self.notes.extend(f"{volume.name}: {note}" for note in volume.notes)
        self.places = [(volume, slice) for volume in self.volumes for slice in volume.slices]
        if not self.places:
            raise InputError(f"no scan of {', '.join(map(str, paths))} can be used; {'; '.join(self.notes)}")
        self._images: Recent[Tensor] = Recent(memory)
        self._scales: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.places)

    def image(self, number: int) -> Tensor:
        """Slice `number` at `size`, neither cut nor augmented: (H, W)."""
        return self._item(number)[0]

    def sample(self, random: Generator) -> Acquisition:
        """One training item, keyed by its generator alone: image (1, H, W), noise_std and scale (1,)."""
        number = int(torch.randint(len(self), (), generator=random))
        image, noise_std, scale = self._item(number)
        if self.patch is not None:
            image = augmentation.crop(image, random, (self.patch, self.patch))
        if self.augment:
            image = augmentation.global_phase(augmentation.flip_and_turn(image, random), random)
            gain = augmentation.log_between(*augmentation.SCALES, random)
            image, noise_std, scale = gain * image, gain * noise_std, scale / gain
        return Acquisition(
            name=self.places[number][0].name,
            image=image[None],
            noise_std=noise_std[None] if self.noise else None,
            scale=scale[None],
        )

    def _item(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Image at `size`, noise_std and scale of a slice."""
        image = self._combined(number)
        scale = self._scales.get(number)  # a percentile takes as long as reading the image
        if scale is None:
            scale = percentile(image).clamp_min(1e-3 * image.abs().max())
            self._scales[number] = scale
        noise_std = (self.places[number][0].noise_std / scale).clamp_min(LEAST_NOISE)
        return self._resized(image / scale, noise_std, number), noise_std, scale

    def _resized(self, image: Tensor, noise_std: Tensor, number: int) -> Tensor:
        rows, cols = self.size or image.shape
        shape = (max(rows, self.patch or 0), max(cols, self.patch or 0))
        resized = resize_image(image, shape)
        if not self.noise or (shape[0] <= image.shape[0] and shape[1] <= image.shape[1]):
            return resized
        volume, slice = self.places[number]
        measured = resize_image(torch.ones(image.shape, dtype=torch.bool), shape)
        added = noise_std * noise_like(resized[None], generators(0, volume.name, slice))[0]
        return torch.where(measured, resized, added)

    def _combined(self, number: int) -> Tensor:
        volume, slice = self.places[number]
        return self._images.get(number, lambda: volume.image(slice))

    def _selected(self, paths: Sequence[str | Path], include: Sequence[str], exclude: Sequence[str]) -> list[Path]:
        """The files whose names match; a pattern that matches none is noted, since it may be a slip."""
        files = list(dict.fromkeys(file for path in paths for file in _files(path)))
        for pattern in (*include, *exclude):
            if not any(_matches(file, [pattern]) for file in files):
                self.notes.append(f"no file matches {pattern!r}")
        return [file for file in files if _matches(file, include) and not _matches(file, exclude)]


def _files(path: str | Path) -> list[Path]:
    try:
        return scan_files(path)
    except InputError as error:
        raise InputError(
            f"{error}. To get some: mri-score simulate --out DIR, or fastMRI's, which need the agreement at"
            " fastmri.med.nyu.edu"
        ) from error


def _matches(file: Path, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in (file.name, file.stem) for pattern in patterns)
