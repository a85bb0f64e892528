"""From a file or arrays to scaled acquisitions, ready for reconstruction."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mri_score.data import masks
from mri_score.data.acquisition import Acquisition
from mri_score.data.coils import CalibrationRegion, coil_maps, compress_coils, maps_from_calibration, truth_image
from mri_score.data.noise_level import noise_level, told_noise
from mri_score.data.noise_rings import NoiseLevel, evenly_spaced, whiten, with_noise_scan
from mri_score.data.scale import safe_unit, scale_of
from mri_score.errors import InputError
from mri_score.numerics.fourier import ifft
from mri_score.numerics.noise import key
from mri_score.operators.base import LinearOperator
from mri_score.operators.sense import Sense
from mri_score.readers.base import Item, Reader, result_name
from mri_score.readers.layout import check_samples
from mri_score.readers.maps import StoredMaps, cache_key, cached_maps, normalise_maps, read_maps
from mri_score.readers.sampling import choose_mask, find_sampling, mask_candidates

LEAST_NOISE = 1e-3
"""Lower bound of noise_std, relative to the image scale."""


def scaled(
    kspace: Tensor,
    mask: Tensor,
    maps: Tensor,
    noise_std: float,
    name: str,
    mixing: Tensor | None = None,
) -> Acquisition:
    """An acquisition scaled so that the 99th percentile of the CG-SENSE image of each slice is 1.

    The scale comes from the undersampled data only. After 15 iterations of conjugate gradients the percentile is above
    0.85 of the fully sampled one, when that of the zero-filled image can be as low as 0.7.
    kspace, maps: (B, C, H, W). mask: broadcastable to kspace. noise_std: in the units of kspace. name: for messages.
    mixing: matrix that was applied to the coils, stored as `whitening`. Errors: InputError for a slice without signal.
    """
    scale = scale_of(Sense(maps, mask).cg_sense(kspace), name)
    return Acquisition(
        name=name,
        kspace=kspace / scale[:, None, None, None],
        maps=maps,
        mask=mask,
        noise_std=(noise_std / scale).clamp_min(LEAST_NOISE),
        scale=scale,
        whitening=mixing,
    )


def coil_weight(acquisition: Acquisition) -> Tensor:
    """Root sum of squares (B, H, W) of the maps in the file's own coils: |image| times this is the RSS image."""
    maps = acquisition.coil_maps
    if acquisition.whitening is not None:
        maps = whiten(maps, torch.linalg.pinv(acquisition.whitening))
    return maps.abs().square().sum(1).sqrt()


def from_arrays(
    kspace: Tensor,
    mask: Tensor | None = None,
    maps: Tensor | None = None,
    noise_std: float | None = None,
    name: str = "k-space",
) -> Acquisition:
    """The scaled acquisition of k-space in memory. Mask, maps and noise level are estimated if not given.

    kspace: complex (B, C, H, W), unsampled points zero, any unit. mask: (W,), (H, 1) or (H, W), or one of these for
    each slice, such as (B, 1, W); see `mask_candidates`. By default the mask of each slice follows from its nonzero
    points, see `find_sampling`. maps: (B or 1, C, H, W); by default from ESPIRiT.
    noise_std: standard deviation of the real, and of the imaginary, part of a sample, in the units of kspace; by
    default measured, and the coils are then whitened if maps are not given. name: seeds random numbers and labels
    messages.
    A given noise_std far from the measured one is warned of (UserWarning).
    Errors: InputError for shapes that do not fit, NaN or infinity, and slices without signal.
    """
    if kspace.ndim != 4 or not kspace.is_complex():
        raise InputError(
            f"{name} has shape {tuple(kspace.shape)} {kspace.dtype}; it needs complex (slices, coils, rows, cols)"
        )
    if not bool(torch.isfinite(torch.view_as_real(kspace.resolve_conj())).all()):
        raise InputError(f"{name} contains NaN or infinity")
    mask = _mask_of_arrays(kspace, mask, name)
    unit = safe_unit(kspace)
    kspace = kspace * mask if unit == 1 else kspace / unit * mask
    told = noise_std is not None
    noise_std = None if noise_std is None else noise_std / unit
    empty = (kspace == 0).flatten(1).all(1)
    if bool(empty.any()):
        number = int(empty.nonzero()[0])
        raise InputError(f"{name}: slice {number} is zero at all sampled points; leave it out")
    mixing = None
    if maps is not None:
        maps = _fitting(maps, kspace, name)
    if noise_std is None:
        middle = len(kspace) // 2
        level = noise_level(kspace, mask, None if maps is None else maps[middle : middle + 1], name=name)
        noise_std, mixing = level.noise_std, level.whitening if maps is None else None
    if mixing is not None:
        kspace = whiten(kspace, mixing)
    maps = coil_maps(kspace, mask)[0] if maps is None else maps
    if told and (warning := told_noise(noise_std, kspace, mask, maps, name, unit)) is not None:
        warnings.warn(warning, stacklevel=2)
    found = scaled(kspace, mask, maps, noise_std, name, mixing)
    return found if unit == 1 else replace(found, scale=found.scale * unit)


def _mask_of_arrays(kspace: Tensor, mask: Tensor | None, name: str) -> Tensor:
    """Bool (1 or B, 1, 1 or H, 1 or W): a given mask, or the sampling of each slice as in files."""
    slices, coils, rows, cols = kspace.shape
    points = [one.numpy() if bool(one.any()) else None for one in (kspace != 0).any(1).cpu()]
    first = next((number for number, one in enumerate(points) if one is not None), 0)
    check_samples(name, kspace[first].cpu().numpy())
    if mask is None:
        if all(one is None for one in points):
            raise InputError(f"{name} is zero everywhere; there is nothing to reconstruct")
        sampling = find_sampling(points)
        found = sampling.acquired if sampling.mask is None else sampling.mask
    else:
        candidates = mask_candidates(mask.cpu().numpy(), slices, coils, (rows, cols))
        if not candidates:
            raise InputError(
                f"{name}: a mask of shape {tuple(mask.shape)} does not fit k-space of (slices, coils, rows, cols) ="
                f" {tuple(kspace.shape)}; give ({cols},), ({rows}, 1), ({rows}, {cols}) or ({slices}, 1, {cols})"
            )
        found = choose_mask(candidates, points)
    return torch.from_numpy(np.ascontiguousarray(found))[:, None].to(kspace.device)


def from_operator(
    kspace: Tensor, operator: LinearOperator, noise_std: float | None = None, name: str = "k-space"
) -> Acquisition:
    """The acquisition of samples with a forward operator of their own, scaled as `scaled` does.

    Shapes: kspace (B, *samples) complex, what the operator makes of images (B, *image). noise_std: of the real and of
    the imaginary part of a sample, in the units of kspace.
    Errors: InputError without a noise level, for samples that are not finite, and for a slice without signal.
    """
    if not kspace.is_complex() or not bool(torch.isfinite(torch.view_as_real(kspace.resolve_conj())).all()):
        raise InputError(f"{name} is {kspace.dtype}, or holds NaN or infinity; it needs finite complex samples")
    if noise_std is None or not noise_std > 0:
        raise InputError(
            f"{name}: noise_std is {noise_std}; with an operator of its own it must be given, above 0, as nothing says"
            " which samples hold noise alone"
        )
    unit = safe_unit(kspace)
    kspace, noise_std = (kspace, noise_std) if unit == 1 else (kspace / unit, noise_std / unit)
    scale = scale_of(operator.cg_sense(kspace).flatten(1).unsqueeze(1), name)
    return Acquisition(
        name=name,
        kspace=kspace / scale.reshape(-1, *[1] * (kspace.ndim - 1)),
        noise_std=(noise_std / scale).clamp_min(LEAST_NOISE),
        scale=scale * unit,
        forward=operator,
    )


def _fitting(maps: Tensor, kspace: Tensor, name: str) -> Tensor:
    """Check given maps (B or 1, C, H, W), normalise them and expand them to the shape of kspace."""
    if maps.ndim != 4 or maps.shape[1:] != kspace.shape[1:] or len(maps) not in (1, len(kspace)):
        raise InputError(
            f"{name}: maps of shape {tuple(maps.shape)} do not fit k-space of {tuple(kspace.shape)}"
            " (slices, coils, rows, cols); give maps of one slice, or of all slices, or none"
        )
    return normalise_maps(maps).expand(kspace.shape)


@dataclass(frozen=True)
class Undersampling:
    """Settings for undersampling a fully sampled scan.

    law, calibration_lines, seed, axis: as in `make_mask`; the seed is appended to that of the file name.
    """

    acceleration: float | None = None
    """Nominal acceleration; None leaves the scan as it is."""
    law: str = "variable-density"
    calibration_lines: int | None = None
    seed: int | None = None
    axis: int = -1

    @property
    def from_file(self) -> bool:
        """Whether `law` is a mask file, which has an acceleration of its own."""
        return Path(self.law).suffix in masks.MASK_FILES

    @property
    def nominal(self) -> float | None:
        """The nominal acceleration; None for mask files."""
        return None if self.from_file else self.acceleration


Sampling = Undersampling  # the former name



class Scan:
    """A file prepared for reconstruction: undersampled, noise measured, coils whitened or compressed.

    Nothing here uses samples outside the mask, except `truth`, and `make_maps` if full_maps is set.
    file: the opened scan. sampling: how a fully sampled scan is undersampled; None: not at all. maps: a file of coil
    maps; None: estimated, and kept in the folder `cache` if it is given. coils: number of virtual coils; None: those of
    the file. full_maps: maps from full k-space, for studies only; the report states it. noise_std: the noise level of
    each real component of a sample, in the file's units; None: measured in outer k-space.
    All values are in the file's units divided by `unit`, which is 1 for samples of usual size.
    Errors: InputError for undersampling a scan that was acquired undersampled.
    """

    along_trajectory = False
    """Whether it takes samples along a trajectory."""

    def __init__(
        self,
        file: Reader,
        sampling: Undersampling | None = None,
        maps: str | Path | None = None,
        cache: str | Path | None = None,
        coils: int | None = None,
        full_maps: bool = False,
        noise_std: float | None = None,
    ) -> None:
        if noise_std is not None and not 0 < noise_std < math.inf:
            raise InputError(f"{file.path}: noise_std is given as {noise_std}; it must be positive")
        self.given_noise = noise_std
        self.file, self.sampling = file, sampling or Undersampling()
        self.given_maps, self.cache, self.coils, self.full_maps = maps, cache, coils, full_maps
        self.notes = list(file.notes)
        self._faults: dict[int, InputError | None] = {}
        self._last_maps: tuple[int, Tensor] | None = None
        if file.coordinates(0) is not None and not self.along_trajectory:
            raise InputError(
                f"{file.path} was acquired along a trajectory; only info and reconstruct take such scans, without the"
                " options of masks"
            )
        if self.sampling.acceleration is not None and file.mask is not None:
            factor = masks.true_acceleration(file.sampled, acquired=file.acquired)
            raise InputError(
                f"{file.path} is already undersampled ({factor:.2f} fold); reconstruct it as it is, without --accel and"
                " --mask"
            )

    @cached_property
    def mask(self) -> Tensor:
        """Bool (1 or slices, 1, 1 or H, 1 or W): the mask of the volume, or of each slice if they differ."""
        sampled = self.file.sampled
        if self.sampling.acceleration is None:
            return sampled
        acquired = self.file.acquired
        if self.sampling.from_file:
            mask = masks.read_mask(self.sampling.law, self.file.image_shape, self.file.slices)
            mask = mask[:, None] if mask.ndim == 3 else mask[None, None]
            return mask if bool(acquired.all()) else mask & acquired
        rows = acquired.any(-1).flatten().nonzero()
        mask = masks.make_mask(
            self.sampling.law,
            self.file.image_shape,
            self.sampling.acceleration,
            self.sampling.calibration_lines,
            masks.mask_seed(result_name(self.file.path), self.sampling.seed),
            self.sampling.axis,
            self.file.padding,
            rows=(int(rows[0]), int(rows[-1]) + 1) if acquired.shape[-2] > 1 else None,
        )[None, None]
        return mask & acquired if acquired.shape[-2] > 1 else mask

    def mask_of(self, slice: int) -> Tensor:
        """Bool (1, 1, 1 or H, 1 or W): the mask of one slice."""
        return self.mask[slice : slice + 1] if len(self.mask) > 1 else self.mask

    @property
    def acceleration(self) -> float:
        """True acceleration: number of acquired points divided by number of sampled points, over all slices."""
        return self.acceleration_of(range(self.file.slices))

    def acceleration_of(self, slices: Iterable[int]) -> float:
        """True acceleration of some slices together."""
        chosen = self.mask[list(slices)] if len(self.mask) > 1 else self.mask
        return masks.true_acceleration(chosen, acquired=self.file.acquired)

    @property
    def has_truth(self) -> bool:
        """Whether the file is fully sampled."""
        return self.file.mask is None

    @cached_property
    def looked_at(self) -> list[int]:
        """Slices that noise is measured on: evenly spaced, without those that have a fault.

        If all of these have one, the good slice that is nearest to the middle. Errors: InputError without any.
        """
        middle = self.file.slices // 2
        if spaced := [slice for slice in evenly_spaced(self.file.slices) if self.fault(slice) is None]:
            return spaced
        for slice in sorted(range(self.file.slices), key=lambda slice: abs(slice - middle)):
            if self.fault(slice) is None:
                return [slice]
        raise self._faults[middle] or InputError(f"{self.file.path} has no slice that can be used")

    def fault(self, slice: int) -> InputError | None:
        """Why a slice cannot be reconstructed: empty, not finite, a coil of zeros, damaged; None if it can.

        slice: its number. The slice is read once for this.
        """
        if slice not in self._faults:
            self._faults[slice] = None
            try:
                self._samples(slice)
            except InputError as error:
                self._faults[slice] = error
        return self._faults[slice]

    def _samples(self, slice: int) -> Tensor:
        """K-space of one slice, which is read a second time only to find out whether it is empty."""
        try:
            return self.file.kspace(slice)
        except InputError as error:
            if self.file.empty(slice):
                raise InputError(f"{self.file.path}: slice {slice} is all zeros; leave it out with --slices") from error
            raise

    @property
    def middle(self) -> int:
        """The slice of `looked_at` that is nearest to the middle of the volume."""
        return min(self.looked_at, key=lambda slice: abs(slice - self.file.slices // 2))

    @cached_property
    def unit(self) -> float:
        """The value in the file's units that is 1 in k-space, noise level, scale and truth here; see `safe_unit`."""
        return safe_unit(self.file.kspace(self.middle))

    def _in_unit(self, kspace: Tensor) -> Tensor:
        return kspace if self.unit == 1 else kspace / self.unit

    @cached_property
    def noise(self) -> NoiseLevel:
        """Noise of the volume, measured once, on the sampled points of the file's own coils."""
        if self._given is not None:
            maps: Tensor | None = self._given[self.middle : self.middle + 1]
        else:
            single = self.file.calibration(self.middle) is None and len(self.frames(self.middle)) == 1
            maps = None if single else self._maps_of_samples(self.middle, None)[0]
        slices, middle = [self.kspace(slice) for slice in self.looked_at], self.looked_at.index(self.middle)
        mask = self.mask[self.looked_at] if len(self.mask) > 1 else self.mask
        level = noise_level(slices, mask, maps, middle=middle, name=self.file.name)
        if self.file.noise_scan is not None:
            samples = self._in_unit(self.file.noise_scan.samples)
            level = with_noise_scan(level, samples, self.file.noise_scan.calibrated)
        if self.unit != 1:
            self.notes.append(f"the samples are near {self.unit:.3g}: levels of noise in notes are in units of that")
        self.notes.extend(level.notes)
        self._compare_noise(level)
        return level

    def _compare_noise(self, level: NoiseLevel) -> None:
        """Note a given noise level beside the measured one."""
        if self.given_noise is not None:
            measured = level.noise_std * self.unit
            self.notes.append(f"the noise level is given as {self.given_noise:.4g}; outer k-space has {measured:.4g}")

    @property
    def noise_std(self) -> float:
        """Noise level in units of `unit`, before and after mixing: whitening and compression do not change it."""
        return self.noise.noise_std if self.given_noise is None else self.given_noise / self.unit

    @cached_property
    def mixing(self) -> Tensor | None:
        """(D, C): matrix of whitening followed by coil compression; None without both."""
        mixing = self.noise.whitening
        if self.given_maps is not None and mixing is not None:
            self.notes.append("the coils are not whitened, because the given maps are for the coils of the file")
            mixing = None
        if self.coils is not None:
            middle = self.kspace(self.middle)[None]
            _, matrix = compress_coils(middle if mixing is None else whiten(middle, mixing), self.coils)
            mixing = matrix if mixing is None else matrix @ mixing.to(matrix)
        return mixing

    @cached_property
    def _given(self) -> StoredMaps | None:
        if self.given_maps is None:
            return None
        if self.coils is not None:
            raise InputError(
                "--coils makes virtual coils, but the maps of --maps are for the coils of the file; leave out one of"
                " the two"
            )
        maps = read_maps(self.given_maps, (self.file.slices, self.file.coils, *self.file.image_shape))
        self.notes.extend(maps.notes)
        return maps

    def acquisition(self, slice: int) -> Acquisition:
        """One slice, scaled, with coil maps; batch size 1.

        Errors: InputError for an empty slice, and as in `coil_maps`.
        """
        kspace = self.kspace(slice)[None]
        if self.mixing is not None:
            kspace = whiten(kspace, self.mixing)
        maps = self._given[slice : slice + 1] if self._given is not None else self._maps(slice)
        return scaled(kspace, self.mask_of(slice), maps, self.noise_std, self.file.name, self.mixing)

    def truth(self, slice: int) -> tuple[Tensor, Tensor]:
        """Ground truth of one `slice` of a fully sampled scan: image (H, W) and coil images (C, H, W), file's units."""
        kspace = self._in_unit(self.file.kspace(slice))[None]
        return truth_image(kspace)[0], ifft(kspace)[0]

    def kspace(self, slice: int) -> Tensor:
        """Masked k-space (C, H, W) of one slice, in units of `unit`. Errors: InputError for an empty slice."""
        return self._in_unit(self._samples(slice)) * self.mask_of(slice)[0]

    def make_maps(self, slice: int) -> tuple[Tensor, Tensor, CalibrationRegion]:
        """Estimate coil maps (1, C, H, W), eigenvalue (1, H, W) and their origin for one slice.

        Errors: InputError as in `coil_maps`.
        """
        if self.full_maps:
            return self._estimate(slice, self._in_unit(self.file.kspace(slice))[None], None, self.mixing)
        return self._maps_of_samples(slice, self.mixing)

    def _maps_of_samples(self, slice: int, mixing: Tensor | None) -> tuple[Tensor, Tensor, CalibrationRegion]:
        """As `make_maps`, in the coils after `mixing`: from separate calibration lines, all frames, or the slice."""
        if (found := self.file.calibration(slice)) is not None:
            kspace = self._in_unit(found[0])[None]
            kspace = kspace if mixing is None else whiten(kspace, mixing)
            try:
                return maps_from_calibration(kspace, found[1], self.file.image_shape)
            except InputError as error:
                raise InputError(f"{self.file.path}, slice {slice}: {error} with --maps") from error
        frames = self.frames(slice)
        if len(frames) == 1:
            return self._estimate(slice, self.kspace(slice)[None], self.mask_of(slice), mixing)
        maps, eigenvalue, region = self._estimate(slice, *self._average(frames), mixing)
        return maps, eigenvalue, replace(region, source=f"{region.source} of the average of {len(frames)} frames")

    def frames(self, slice: int) -> list[int]:
        """The numbers of all images of the same slice, contrast and set, in time: repetitions and phases."""
        return self._frames[replace(self.file.item(slice), repetition=0, phase=0)]

    @cached_property
    def _frames(self) -> dict[Item, list[int]]:
        """Item with repetition and phase 0 -> the numbers of all its images, in time."""
        found: dict[Item, list[int]] = {}
        for number in range(self.file.slices):
            found.setdefault(replace(self.file.item(number), repetition=0, phase=0), []).append(number)
        return found

    def _average(self, frames: Sequence[int]) -> tuple[Tensor, Tensor]:
        """K-space (1, C, H, W), averaged over the frames that sampled a point, and the mask of all of them."""
        used = [number for number in frames if self.fault(number) is None]
        total, count = torch.zeros((), dtype=torch.complex64), torch.zeros(())
        for number in used:
            total, count = total + self.kspace(number)[None], count + self.mask_of(number).float()
        return total / count.clamp_min(1), count > 0

    def _estimate(
        self, slice: int, kspace: Tensor, mask: Tensor | None, mixing: Tensor | None
    ) -> tuple[Tensor, Tensor, CalibrationRegion]:
        if mixing is not None:
            kspace = whiten(kspace, mixing)
        lines = self.sampling.calibration_lines
        try:
            return coil_maps(kspace, mask, **({} if lines is None else {"calibration_lines": lines}))
        except InputError as error:
            raise InputError(f"{self.file.path}, slice {slice}: {error} with --maps") from error

    def _maps(self, slice: int) -> Tensor:
        first = slice if self.full_maps else self.frames(slice)[0]  # frames share their maps
        if self._last_maps is None or self._last_maps[0] != first:
            self._last_maps = first, self._cached_maps(first)
        return self._last_maps[1]

    def _cached_maps(self, slice: int) -> Tensor:
        if self.cache is None:
            return self.make_maps(slice)[0]
        mixed = "as stored" if self.mixing is None else _fingerprint(self.mixing)
        lines = self.sampling.calibration_lines
        mask = self.mask_of(slice) if len(self.frames(slice)) == 1 else self.mask
        axes, full = self.file.axes, self.full_maps
        key = cache_key(self.file.path, mask, axes=axes, slice=slice, full=full, coils=mixed, lines=lines)
        return cached_maps(self.cache, key, lambda: self.make_maps(slice)[:2], file=self.file.path.name, slice=slice)[0]


def _fingerprint(matrix: Tensor) -> str:
    """A text that is equal for matrices that agree to six decimals."""
    digits = torch.view_as_real(matrix.to(torch.complex128)).mul(1e6).round().long()
    return str(key(*digits.flatten().tolist()))
