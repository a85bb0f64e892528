"""Training images from fully sampled scans: combined complex images, with their measured noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

import torch
from torch import Generator, Tensor

from mri_score.data.scale import percentile
from mri_score.data.scan import LEAST_NOISE
from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.numerics.fourier import resize_image
from mri_score.numerics.noise import generators, noise_like
from mri_score.progress import progress
from mri_score.readers import scan_files
from mri_score.sources import augmentation
from mri_score.sources.combined_images import CachedImages, Combined, cached_images
from mri_score.sources.recent import Recent

Opened = TypeVar("Opened")


def usable(
    files: Sequence[Path], open: Callable[[Path], Opened], notes: list[str], *, strict: bool, quiet: bool
) -> Iterator[Opened]:
    """Yield open(file) for each file. If not `strict`, files that raise InputError are left out, with a note."""
    with progress(len(files), "scan", "reading scans", quiet=quiet) as bar:
        for path in files:
            bar.update()
            try:
                found = open(path)
            except InputError as error:
                if strict:
                    raise
                notes.append(f"left out: {error}")
                continue
            yield found


class Slices:
    """Training source: slices of fully sampled scans, combined as in `Combined`, all equally often.

    As in reconstruction, images are scaled so that the 99th percentile of the magnitude of the whole image is 1; then
    they are cropped or padded to `size`. With `noise` or a given noise_std, items have noise_std in the same units, the
    measured one at least LEAST_NOISE, and padding is filled with noise of that level, for losses that use the noise.
    Errors: InputError if no scan can be used, and as in `Combined` if `strict`.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],                # fully sampled scans in any format, or folders of them
        size: int | tuple[int, int] | None = None,  # crop or pad images to it; None: no change
        patch: int | None = None,                   # side of random square patches; None: whole images
        augment: bool = True,                       # random flips and turns, global phase, scale
        noise: bool = False,                        # add noise_std to the items
        include: Sequence[str] = ("*",),            # patterns of file names to use, e.g. file10000*
        exclude: Sequence[str] = (),                # patterns of file names to leave out
        cache: str | Path | None = None,            # folder for combined images; None: no cache
        skip_empty: bool = True,                    # leave out slices without signal, with NaN, or a coil of zeros
        strict: bool = True,                        # False: leave out unusable files, with a note
        memory: int = 256,                          # number of slices in memory, per process
        quiet: bool = False,                        # no progress bar while the scans are read
        axes: Sequence[str] | None = None,          # of NumPy and MATLAB arrays, e.g. [slices, coils, rows, cols]
        noise_std: float | None = None,             # given noise of the scaled images, in place of the measured one
    ) -> None:  # fmt: skip
        if noise_std is not None and not noise_std > 0:
            raise InputError(f"data.noise_std is {noise_std}; it must be positive")
        self.size = (size, size) if isinstance(size, int) else size
        self.patch, self.augment, self.noise, self.noise_std = patch, augment, noise or noise_std is not None, noise_std
        self.any_orientation = augment
        if self.size is not None and patch is not None and patch > min(self.size):
            raise InputError(f"a patch of {patch} does not fit into size {self.size}; make data.patch smaller")
        self.notes: list[str] = []
        self.volumes: list[Combined | CachedImages] = []
        files = self._selected(paths, axes, include, exclude)

        def combined(path: Path) -> Combined | CachedImages:
            if cache is None:
                return Combined(path, skip_empty, axes)
            return cached_images(cache, path, skip_empty, axes)

        for volume in usable(files, combined, self.notes, strict=strict, quiet=quiet):
            self.volumes.append(volume)
            self.notes.extend(f"left out: {text}" for text in volume.left_out)
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
        """Slice `number` at `size`, without patch and augmentation: (H, W) complex."""
        return self._item(number)[0]

    def sample(self, random: Generator) -> TrainingItem:
        """One random training item, determined by the generator: image (1, H, W), noise_std and scale (1,)."""
        number = int(torch.randint(len(self), (), generator=random))
        image, noise_std, scale = self._item(number)
        if self.patch is not None:
            image = augmentation.crop(image, random, (self.patch, self.patch))
        if self.augment:
            image = augmentation.global_phase(augmentation.flip_and_turn(image, random), random)
            gain = augmentation.log_between(*augmentation.SCALES, random)
            image, noise_std, scale = gain * image, gain * noise_std, scale / gain
        return TrainingItem(
            name=self.places[number][0].name,
            image=image[None],
            noise_std=noise_std[None] if self.noise else None,
            scale=scale[None],
        )

    def _item(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Image at `size`, noise_std and scale of a slice."""
        image = self._combined(number)
        scale = self._scales.get(number)  # cached, because a percentile takes as long as reading
        if scale is None:
            scale = percentile(image).clamp_min(1e-3 * image.abs().max())
            self._scales[number] = scale
        noise_std = (self.places[number][0].noise_std / scale).clamp_min(LEAST_NOISE)
        if self.noise_std is not None:
            noise_std = torch.full_like(noise_std, self.noise_std)
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

    def _selected(
        self,
        paths: Sequence[str | Path],
        axes: Sequence[str] | None,
        include: Sequence[str],
        exclude: Sequence[str],
    ) -> list[Path]:
        """The files whose names match; a pattern without any match is noted, since it may be a typing error."""
        files = list(dict.fromkeys(file for path in paths for file in _files(path, axes)))
        for pattern in (*include, *exclude):
            if not any(_matches(file, [pattern]) for file in files):
                self.notes.append(f"no file matches {pattern!r}")
        return [file for file in files if _matches(file, include) and not _matches(file, exclude)]


def _files(path: str | Path, axes: Sequence[str] | None) -> list[Path]:
    try:
        return scan_files(path, axes=axes)
    except InputError as error:
        raise InputError(
            f"{error}. Simulate scans with: mri-score simulate --out DIR; or request the fastMRI data at"
            " fastmri.med.nyu.edu"
        ) from error


def _matches(file: Path, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in (file.name, file.stem) for pattern in patterns)
