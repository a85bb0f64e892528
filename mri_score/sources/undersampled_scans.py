"""Training source of undersampled scans: k-space without ground truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Generator, Tensor

from mri_score.data.acquisition import Acquisition
from mri_score.data.coils import coil_maps
from mri_score.data.noise_rings import whiten
from mri_score.data.scan import Scan, Undersampling, scaled
from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.numerics.channels import per_item
from mri_score.numerics.fourier import fft, ifft, resize_image, resize_kspace
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense
from mri_score.readers import open_scan, scan_files
from mri_score.readers.maps import cache_key, cached_maps
from mri_score.sources import augmentation
from mri_score.sources.combined_images import central_power, readable, with_signal
from mri_score.sources.full_scans import usable
from mri_score.sources.recent import Recent


class UndersampledScans:
    """Training source: slices of scans, all equally often, as kspace, maps, mask and noise_std of one size, no image.

    Slices are prepared as in reconstruction: whitened if possible, with maps from the calibration lines, scaled by
    the CG-SENSE image. With a mask of whole lines, the other axis is fully sampled: it is cropped in the image, flipped
    with the maps, and random bands of `band` lines are cut out. The undersampled axis keeps the central lines of
    k-space, like a scan of lower resolution. Fully sampled files are undersampled by one mask, seeded by the file
    name; their other samples are not used.
    Errors: InputError for invalid arguments, if no scan can be used, and for unusable scans if `strict`.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],                # scans in any format, or folders of them
        size: int | tuple[int, int] | None = None,  # rows and columns of k-space; None: no change
        band: int | None = None,                    # lines along the fully sampled axis; None: all
        coils: int | None = None,                   # number of coils: more are compressed, fewer padded
        acceleration: float | None = None,          # of fully sampled files; None: no change
        law: str = "variable-density",              # law to axis: as in `Undersampling`
        calibration_lines: int | None = None,
        mask_seed: int | None = None,
        axis: int = -1,
        augment: bool = True,                       # random flip, global phase, scale
        cache: str | Path | None = None,            # folder for coil maps; None: no cache
        skip_empty: bool = True,                    # leave out slices without signal, with NaN, or a coil of zeros
        strict: bool = True,                        # False: leave out unusable files, with a note
        memory: int = 64,                           # number of slices in memory, per process
        quiet: bool = False,                        # no progress bar while the scans are read
        axes: Sequence[str] | None = None,          # of NumPy and MATLAB arrays, e.g. [slices, coils, rows, cols]
    ) -> None:  # fmt: skip
        self.size = (size, size) if isinstance(size, int) else size
        self.band, self.coils, self.augment, self.cache = band, coils, augment, cache
        if coils is not None and coils < 1:
            raise InputError(f"data.coils is {coils}; give the number of coils for all scans, such as 8")
        sampling = Undersampling(acceleration, law, calibration_lines, mask_seed, axis)
        self.notes: list[str] = []
        self.places: list[tuple[Scan, int]] = []
        files = list(dict.fromkeys(file for path in paths for file in scan_files(path, axes=axes)))

        def opened(path: Path) -> tuple[Scan, list[int]]:
            scan = self._open(path, sampling, axes)
            return scan, list(_with_signal(scan, skip_empty))

        for scan, slices in usable(files, opened, self.notes, strict=strict, quiet=quiet):
            self.places.extend((scan, slice) for slice in slices)
            self.notes.extend(f"{scan.file.name}: {note}" for note in scan.notes)
        if not self.places:
            raise InputError(f"no scan of {', '.join(map(str, paths))} can be used; {'; '.join(self.notes)}")
        self._items: Recent[Acquisition] = Recent(memory)

    def __len__(self) -> int:
        return len(self.places)

    def sample(self, random: Generator) -> TrainingItem:
        """One random training item, determined by the generator, of batch size 1."""
        item = self.item(int(torch.randint(len(self), (), generator=random)))
        kspace, maps, mask, noise_std = item.cartesian
        free = free_axis(mask)
        if free is not None and (self.band is not None or self.augment):
            lines = self._lines(kspace.shape[free], random, item.name)
            kspace = fft(ifft(kspace, axes=(free,)).index_select(free, lines), axes=(free,))
            maps = maps.index_select(free, lines)
        elif self.band is not None:
            raise InputError(
                f"{item.name} has a mask of points, for which bands are not possible; set data.band to null"
            )
        gain = augmentation.log_between(*augmentation.SCALES, random) if self.augment else 1.0
        kspace = augmentation.global_phase(gain * kspace, random) if self.augment else kspace
        scale = item.scale / gain
        return TrainingItem(item.name, None, kspace, maps, mask, noise_std=gain * noise_std, scale=scale)

    def item(self, number: int) -> Acquisition:
        """Slice `number`, without band and augmentation."""
        return self._items.get(number, lambda: self._prepare(*self.places[number]))

    def _open(self, path: Path, sampling: Undersampling, axes: Sequence[str] | None) -> Scan:
        file = open_scan(path, axes=axes)
        shape = file.image_shape
        size = self.size or shape
        if size[0] > shape[0] or size[1] > shape[1]:
            raise InputError(
                f"{path}: k-space is {shape[0]} x {shape[1]}, less than data.size {size[0]} x {size[1]}: make data.size"
                " smaller, or leave out that scan (data.strict: false leaves out all such scans)"
            )
        return Scan(file, sampling, coils=self.coils if self.coils is not None and self.coils < file.coils else None)

    def _lines(self, size: int, random: Generator, name: str) -> Tensor:
        """Numbers of the lines of the fully sampled axis that an item keeps, in random order of direction."""
        band = self.band or size
        if band > size:
            raise InputError(f"{name} has {size} lines along its readout; data.band is {band}: make it smaller")
        lines = torch.arange(band) + int(torch.randint(size - band + 1, (), generator=random))
        return lines.flip(0) if self.augment and float(torch.rand((), generator=random)) < 0.5 else lines

    def _prepare(self, scan: Scan, slice: int) -> Acquisition:
        kspace = scan.kspace(slice)[None]
        if scan.mixing is not None:
            kspace = whiten(kspace, scan.mixing)
        kspace, mask, gain = self._narrow(kspace, scan.mask_of(slice))
        maps = self._maps(kspace, mask, scan, slice)
        item = scaled(gain * kspace, mask, maps, gain * scan.noise_std, scan.file.name)
        scan.file.close()
        return self._even(self._cropped(item), slice)

    def _narrow(self, kspace: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, float]:
        """The central lines of k-space along undersampled axes, their mask, and a factor that keeps image values."""
        shape = kspace.shape[-2:]
        size = self.size or shape
        masked = [wanted if mask.shape[axis] > 1 else n for axis, wanted, n in zip((-2, -1), size, shape, strict=True)]
        gain = math.sqrt(masked[0] * masked[1] / (shape[0] * shape[1]))
        narrowed = resize_kspace(mask, [min(n, side) for n, side in zip(masked, mask.shape[-2:], strict=True)])
        return resize_kspace(kspace, masked), narrowed, gain

    def _maps(self, kspace: Tensor, mask: Tensor, scan: Scan, slice: int) -> Tensor:
        lines = scan.sampling.calibration_lines
        more = {} if lines is None else {"calibration_lines": lines}

        def make() -> tuple[Tensor, Tensor]:
            try:
                return coil_maps(kspace, mask, **more)[:2]
            except InputError as error:
                raise InputError(f"{scan.file.path}, slice {slice}: {error}") from error

        if self.cache is None:
            return make()[0]
        path, axes, coils = scan.file.path, scan.file.axes, kspace.shape[1]
        key = cache_key(path, mask, axes=axes, training=True, slice=slice, coils=coils, lines=lines)
        return cached_maps(self.cache, key, make, file=scan.file.path.name, slice=slice)[0]

    def _cropped(self, item: Acquisition) -> Acquisition:
        """The item cropped to `size` along the fully sampled axis, in the image."""
        kspace, maps, mask, _ = item.cartesian
        free = free_axis(mask)
        if self.size is None or free is None or self.size[free] == kspace.shape[free]:
            return item
        shape = list(kspace.shape[-2:])
        shape[free] = self.size[free]
        kspace = fft(resize_image(ifft(kspace, axes=(free,)), shape), axes=(free,))
        return replace(item, kspace=kspace, maps=resize_image(maps, shape))

    def _even(self, item: Acquisition, slice: int) -> Acquisition:
        """The item, padded to `coils` coils by coils with zero maps and noise only."""
        kspace, maps, mask, noise_std = item.cartesian
        missing = (self.coils or 0) - kspace.shape[1]
        if missing <= 0:
            return item
        blind = kspace.new_zeros(1, missing, *kspace.shape[-2:])
        noise = per_item(noise_std, blind) * mask * noise_like(blind, generators(0, item.name, slice))
        return replace(item, kspace=torch.cat([kspace, noise], 1), maps=torch.cat([maps, blind], 1))


def free_axis(mask: Tensor) -> int | None:
    """The axis along which a mask (..., 1 or H, 1 or W) does not vary, -1 or -2; None for masks of points."""
    return -2 if mask.shape[-2] == 1 else -1 if mask.shape[-1] == 1 else None


def filled_image(item: Acquisition | TrainingItem, random: Sequence[Generator]) -> Tensor:
    """The zero-filled image (B, H, W), with noise at unsampled points so that its noise is white.

    Its energy is nearly that of the true image plus that of white noise, for statistics of a dataset; for fully sampled
    scans with zero padding it is a suitable input of denoisers. random: one generator per item.
    Errors: InputError without kspace, maps, mask or noise_std.
    """
    kspace, maps, mask, noise_std = item.cartesian
    noise = per_item(noise_std, kspace) * noise_like(kspace, random)
    return Sense(maps, torch.ones_like(mask)).adjoint(torch.where(mask, kspace, noise))


def _with_signal(scan: Scan, skip_empty: bool) -> list[int]:
    """The slices with signal, as in `Combined`; all slices if not skip_empty."""
    if not skip_empty:
        return list(range(scan.file.slices))
    left_out: list[str] = []
    slices = readable(scan.file, left_out)
    scan.notes.extend(f"left out: {text}" for text in left_out)
    powers = [central_power(scan.kspace(slice), scan.mask_of(slice)[0]) for slice in slices]
    scan.file.close()
    return with_signal(slices, powers, scan.noise_std)
