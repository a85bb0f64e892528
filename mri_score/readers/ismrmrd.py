"""ISMRMRD (MRD) files: the readouts of a scan with a header each, sorted into k-space; treated as untrusted files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mri_score.errors import InputError
from mri_score.readers.base import Item, NoiseScan, Shape
from mri_score.readers.encodings import STEPS, Limits
from mri_score.readers.epi import COHERENT, Trapezoid, direction_phase, readout_fit
from mri_score.readers.geometry import Geometry
from mri_score.readers.ismrmrd_readouts import COUNTER, COUNTERS, Readouts, geometry_of, has_flag
from mri_score.readers.oversampling import remove_oversampling

if TYPE_CHECKING:  # importing torch takes a second, and only the functions that return samples need it
    from torch import Tensor


CARTESIAN = ("cartesian", "epi")
"""Trajectories of a header whose readouts are lines of the grid."""


@dataclass(frozen=True)
class Lines:
    """Readouts on the grid of k-space, equal ones averaged."""

    samples: np.ndarray
    """(L, C, nx) complex64, readout oversampling removed; the image along the readout for 3-D scans."""
    place: np.ndarray
    """(L, 2): position along the first and the second phase-encoding axis."""


class ISMRMRD(Readouts):
    """One ISMRMRD file of Cartesian readouts.

    Every combination of slice, contrast, phase, repetition and set is one image, numbered in the order of `COUNTERS`,
    see `item`. Lines are placed by their counters relative to the centre in the header's limits, short readouts by
    their centre sample, reversed ones are turned round. Averages are averaged. What was not measured is outside the
    mask. Three-dimensional scans are transformed along the readout into a stack of images with two phase-encoding
    axes. Noise readouts become `noise_scan`, separate calibration lines `calibration`.

    Echo-planar readouts are fit to the grid from the positions that the header's trapezoid gives them; those that were
    read backward get the phase of the forward ones, by a straight line through the phase of the navigators.

    The constructor checks everything except the samples. Errors: InputError with the name of the file.
    Reference: Inati et al., ISMRM Raw Data Format, MRM 2017.
    """

    # What the scan is

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        if self.encoding.trajectory not in CARTESIAN:
            raise InputError(f"{path}: its trajectory is {self.encoding.trajectory}, not {' or '.join(CARTESIAN)}")
        self._check_size(self.image_shape)
        self._phases: dict[tuple[int, ...], np.ndarray] = {}
        self._both: dict[tuple[int, ...], bool] = {}
        self._fits: dict[tuple[int, ...], np.ndarray] = {}
        self._start = np.zeros(len(self._headers), int) if self._echo_planar else self._find_starts()
        self._place = self._find_places()
        self._masks = self._find_masks()
        self._note_partial()
        self._note_directions()
        if self._echo_planar:
            self._check_directions()

    # What the scan is

    @cached_property
    def three_dimensional(self) -> bool:
        """Whether there are two phase-encoding axes."""
        limits = self.encoding.limits.get(STEPS[1])
        counted = bool(self._headers[COUNTER[STEPS[1]]].any()) or (limits is not None and limits.maximum > 0)
        return self.encoding.encoded.matrix[2] > 1 and counted

    @property
    def slices(self) -> int:
        """Number of images: those of a three-dimensional scan lie one behind the other along the readout."""
        return len(self._items) * (self._read_size if self.three_dimensional else 1)

    @property
    def rows(self) -> int:
        return self._grid[0]

    @property
    def cols(self) -> int:
        return self._grid[1]

    @property
    def image_shape(self) -> Shape:
        """(H, W) of the k-space that `kspace` returns."""
        return self._grid if self.three_dimensional else (self._read_size, self.cols)

    @property
    def crop(self) -> Shape:
        """(rows, cols) of the image to write: the header's field of view, at the size of the measured pixels."""
        x, y, z = (self._wanted(axis) for axis in range(3))
        return (y, z) if self.three_dimensional else (x, y)

    @property
    def padding(self) -> Shape:
        """Range (left, right) of the acquired columns, right excluded."""
        return self._reach(1 if self.three_dimensional else 0)

    @property
    def acquired(self) -> Tensor:
        """Bool (1, 1, 1 or H, W): the acquired region of k-space; what partial Fourier leaves out is outside."""
        import torch

        return torch.from_numpy(self._acquired)[None, None]

    @property
    def mask(self) -> Tensor | None:
        """Sampling mask: bool (cols,), (rows, cols) if it differs between rows, or (slices, 1 or rows, cols) if it
        differs between slices; None for a fully sampled file.
        """
        masks = self._masks
        if all((mask | ~self._acquired).all() for mask in masks):
            return None
        import torch

        if any((mask != masks[0]).any() for mask in masks):
            return torch.from_numpy(np.repeat(masks, self.slices // len(masks), 0))
        return torch.from_numpy(masks[0][0] if len(masks[0]) == 1 else masks[0])

    @property
    def sampled(self) -> Tensor:
        """Masks for an `Acquisition`, bool (1 or slices, 1, 1 or H, W): `mask`, or the acquired region."""
        mask = self.mask
        if mask is None:
            return self.acquired
        return mask[:, None] if mask.ndim == 3 else mask.reshape(1, 1, -1, self.cols)

    def coordinates(self, slice: int) -> Tensor | None:
        """None: the samples of a slice lie on the grid."""
        return None

    def item(self, slice: int) -> Item:
        """The slice, contrast, phase, repetition and set of an image; for 3-D scans the slice is the readout position.
        """
        key = dict(zip(COUNTERS, self._items[self._locate(slice)[0]], strict=True))
        if self.three_dimensional and self._read_size > 1:
            return Item(**(key | {"slice": self._locate(slice)[1], "slab": key["slice"]}))
        return Item(**key)

    def geometry(self, slice: int) -> Geometry | None:
        """Where the written image of a slice lies in the patient; None without a field of view in the header."""
        size = self.encoding.encoded.voxel_size
        if size is None:
            return None
        number, place = self._locate(slice)
        head = self._headers[self._readouts(self._imaging, self._items[number])[0]]
        offset = 0.0
        if self.three_dimensional:
            offset = (place + (self._read_full - self._read_size) // 2 - self._read_full // 2) * size[0]
        start = geometry_of(head, self._grid, size, offset if self.three_dimensional else None)
        rows, cols = (
            (n - inner) // 2 + (inner - wanted) // 2
            for n, inner, wanted in zip(self._grid, self.image_shape, self.crop, strict=True)
        )
        return start.cropped((rows, cols), self.crop)

    def about(self) -> dict[str, str]:
        """Name -> text on the contents of the file. Does not import torch."""
        counts = [len({key[axis] for key in self._items}) for axis in range(len(COUNTERS))]
        several = [f"{count} {name}s" for count, name in zip(counts, COUNTERS, strict=True) if count > 1]
        noise = f"{len(self._noise)} readouts" if len(self._noise) else "none"
        separate = f"{len(self._calibrating)} lines, for coil maps only" if self._separate else "none"
        return {
            "format": f"ISMRMRD, {self.encoding.trajectory}, {len(self._headers)} readouts",
            "acquisition": self.acquisition,
            "k-space": f"{self.slices} images, {self.coils} coils, {self.rows} rows x {self.cols} columns",
            "series": ", ".join(several) or "one image",
            "oversampling": "none" if self._read_size == self._read_full else f"{self._read_full} -> {self._read_size}",
            "noise scan": noise,
            "calibration": separate,
            "truth": "full k-space" if self.mask is None else "none",
        }

    # Samples

    def empty(self, slice: int) -> bool:
        """Whether all stored samples of a slice are zero; `kspace` raises an error for such a slice."""
        return not self._lines_of(slice).samples.any()

    def kspace(self, slice: int) -> Tensor:
        """One slice of k-space: (coils, H, W) complex64, DC at N // 2, unsampled points zero, file's units.

        Readout oversampling is removed as in fastMRI files. Errors: InputError for NaN, infinity and coils of zeros.
        """
        import torch

        lines = self._lines_of(slice)
        y = torch.from_numpy(self._image(lines, slice))
        for coil, samples in enumerate(y):
            if not samples.any():
                raise InputError(f"{self.path}: coil {coil} of {self.item(slice)} is all zeros; leave it out")
        return y

    def stored(self, slice: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples (coils, rows, cols) of a slice, oversampling included, and bool (rows, cols).

        Of 3-D scans, as `kspace` gives them.
        """
        if self.three_dimensional:
            mask = self._masks[self._locate(slice)[0]]
            return self._image(self._lines_of(slice), slice), np.broadcast_to(mask, self.image_shape)
        numbers = self._readouts(self._imaging, self._items[self._locate(slice)[0]])
        place, total, measured = self._full_lines(numbers)
        samples, points = np.zeros((self.coils, *self._grid), np.complex64), np.zeros(self._grid, bool)
        samples[:, :, place[:, 0]], points[:, place[:, 0]] = total.transpose(1, 2, 0), measured.T
        return samples, points

    def calibration(self, slice: int) -> tuple[Tensor, Tensor] | None:
        """The centre of k-space for coil maps: samples (coils, h, w) and bool (h, w), whether each was measured.

        None if the file has no separate calibration lines; those that belong to the image are part of `kspace`.
        """
        if not self._separate:
            return None
        import torch

        numbers = self._calibration_readouts(self._items[self._locate(slice)[0]])
        lines = self._lines(numbers)
        y = self._image(lines, slice)
        measured = np.zeros(self.image_shape, bool)
        if self.three_dimensional:
            measured[tuple(lines.place.T)] = True
        else:
            for first, last, line in np.unique(self._ranges[numbers], axis=0).tolist():
                measured[:, line] |= self._rows_of(first, last)
        rows, cols = (_range(np.flatnonzero(measured.any(1 - axis))) for axis in (0, 1))
        return torch.from_numpy(y[:, rows, cols].copy()), torch.from_numpy(measured[rows, cols].copy())

    @property
    def noise_scan(self) -> NoiseScan | None:
        """As in `Readouts`; for echo-planar scans at the mean noise level of the fitted lines."""
        found = super().noise_scan
        if found is None or not self._echo_planar:
            return found
        gain = float(np.sqrt(np.square(np.abs(self._fit(int(self._imaging[0])))).sum(1).mean()))
        return NoiseScan(found.samples * gain, found.calibrated)

    # Where readouts belong

    @cached_property
    def _grid(self) -> Shape:
        """The matrix (rows, cols) of an image, oversampling included."""
        _, y, z = self.encoding.encoded.matrix
        return (y, z) if self.three_dimensional else (self._read_full, y)

    @property
    def _read_full(self) -> int:
        return self._read_size if self._echo_planar else self.encoding.encoded.matrix[0]

    @property
    def _count(self) -> np.ndarray:
        """Samples of each readout on the grid."""
        return np.full(len(self._headers), self._read_full) if self._echo_planar else self._kept

    @property
    def _read_size(self) -> int:
        return self._wanted(0)

    def _wanted(self, axis: int) -> int:
        """Pixels of the encoded matrix within the field of view to reconstruct, along x, y or z."""
        encoded, recon = self.encoding.encoded, self.encoding.recon
        size, wanted = encoded.matrix[axis], recon.matrix[axis]
        if encoded.field_of_view is not None and recon.field_of_view is not None:
            wanted = round(size * recon.field_of_view[axis] / encoded.field_of_view[axis])
        return min(size, max(1, wanted))

    def _locate(self, slice: int) -> tuple[int, int]:
        """Number of the item, and position along the readout, of an image."""
        if not 0 <= slice < self.slices:
            raise InputError(f"{self.path} has images 0 to {self.slices - 1}, not {slice}")
        return divmod(slice, self._read_size) if self.three_dimensional else (slice, 0)

    def _calibration_readouts(self, key: tuple[int, ...]) -> np.ndarray:
        """Calibration lines of an item, or of its slice in another contrast, phase, repetition or set."""
        found = self._readouts(self._calibrating, key)
        if not len(found):
            same = self._calibrating[self._keys[self._calibrating][:, -1] == key[-1]]
            found = self._readouts(same, self._keys[same[0]].tolist()) if len(same) else same
        if not len(found):
            raise InputError(f"{self.path}: slice {key[-1]} has no calibration lines; give coil maps")
        return found

    def _find_starts(self) -> np.ndarray:
        """Position of the first kept sample of every readout along the full readout, so that k = 0 is at Nx // 2."""
        head = self._headers
        pre, post, centre = (head[name].astype(int) for name in ("discard_pre", "discard_post", "center_sample"))
        count = head["number_of_samples"].astype(int)
        back = has_flag(head["flags"], "reverse")
        ahead = self._imaging[~back[self._imaging]]
        if len(ahead):  # the centre is counted after reversal, unless that contradicts the other readouts
            expected = (centre - pre)[ahead[0]]
            stored = back & (centre - post != expected) & (count - 1 - centre - post == expected)
            centre = np.where(stored, count - 1 - centre, centre)
        start = self._read_full // 2 - centre + np.where(back, post, pre)
        used = np.union1d(self._imaging, self._calibrating)
        bad = used[(start[used] < 0) | (start[used] + (count - pre - post)[used] > self._read_full)]
        if len(bad):
            raise InputError(
                f"{self.path}: readout {bad[0]} has {count[bad[0]]} samples with the centre at {centre[bad[0]]}, which"
                f" do not fit the encoded matrix of {self._read_full}; the header contradicts the samples, export again"
            )
        return start

    def _find_places(self) -> np.ndarray:
        """(readouts, 2): position along both phase-encoding axes, so that k = 0 is at N // 2."""
        used = np.union1d(self._imaging, self._calibrating)
        place = np.zeros((len(self._headers), 2), int)
        for axis, (step, size) in enumerate(zip(STEPS, self.encoding.encoded.matrix[1:], strict=True)):
            if axis == 1 and not self.three_dimensional:
                continue
            counted = self._headers[COUNTER[step]].astype(int)
            for number, encoding in enumerate(self.header.encodings):
                these = used[self._headers["encoding_space_ref"][used] == number]
                line = counted[these]
                limits = encoding.limits.get(step) or Limits(0, size - 1, size // 2)
                place[these, axis] = line - limits.center + size // 2
                bad = these[(line < limits.minimum) | (line > limits.maximum)]
                bad = bad if len(bad) else these[(place[these, axis] < 0) | (place[these, axis] >= size)]
                if len(bad):
                    raise InputError(
                        f"{self.path}: readout {bad[0]} has {step} {counted[bad[0]]}, outside the"
                        f" header's limits {limits.minimum} to {limits.maximum} around {limits.center} or the matrix of"
                        f" {size}; export the scan again"
                    )
        return place

    def _reach(self, axis: int) -> Shape:
        """First position and position after the last along a phase-encoding axis, by the header's limits."""
        size, places = self.encoding.encoded.matrix[1 + axis], self._place[self._imaging, axis]
        limits = self.encoding.limits.get(STEPS[axis])
        if limits is None:
            return int(places.min()), int(places.max()) + 1
        shift = size // 2 - limits.center
        return max(0, limits.minimum + shift), min(size, limits.maximum + shift + 1)

    @cached_property
    def _averages(self) -> float:
        """Mean number of readouts of a line."""
        lines = np.column_stack([self._keys[self._imaging], self._place[self._imaging]])
        return len(lines) / len(np.unique(lines, axis=0))

    def _find_masks(self) -> list[np.ndarray]:
        """For each item the measured points, bool (1 or H, W)."""
        masks = []
        for key in self._items:
            numbers = self._readouts(self._imaging, key)
            mask = np.zeros(self.image_shape, bool)
            if self.three_dimensional:
                mask[tuple(self._place[numbers].T)] = True
            else:
                for first, last, line in np.unique(self._ranges[numbers], axis=0).tolist():
                    mask[:, line] |= self._rows_of(first, last)
            masks.append(mask)
        return [mask[:1] for mask in masks] if all((mask == mask[:1]).all() for mask in masks) else masks

    @cached_property
    def _ranges(self) -> np.ndarray:
        """(readouts, 3): first sample and sample after the last along the full readout, and line."""
        return np.stack([self._start, self._start + self._count, self._place[:, 0]], 1)

    def _rows_of(self, first: int, last: int) -> np.ndarray:
        """Bool (H,): the rows of an image that readouts of this range determine."""
        return remove_oversampling(self._read_full, self._read_size, first, last)[1]

    @cached_property
    def _acquired(self) -> np.ndarray:
        """Bool (1 or H, W): the box around all measured points, by the header's limits where it has some."""
        box = np.zeros(self.image_shape, bool)
        low, high = self._reach(1 if self.three_dimensional else 0)
        rows = np.any([mask.any(1) for mask in self._masks], 0)
        if self.three_dimensional:
            first, last = self._reach(0)
            rows = (np.arange(self.rows) >= first) & (np.arange(self.rows) < last)
        box[:, low:high] = rows[:, None]
        return box[:1] if (box == box[:1]).all() else box

    # Reading

    def _lines_of(self, slice: int) -> Lines:
        """The lines of an image; of the last one that was asked for, kept in memory."""
        key = self._items[self._locate(slice)[0]]
        if self._cached is None or self._cached[0] != key:
            self._cached = key, self._lines(self._readouts(self._imaging, key))
        return self._cached[1]

    def _lines(self, numbers: np.ndarray) -> Lines:
        place, total, measured = self._full_lines(numbers)
        return Lines(self._without_oversampling(total, measured), place)

    def _full_lines(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places (L, 2), samples (L, C, Nx) with oversampling, and bool (L, Nx), whether each was measured."""
        place, which = np.unique(self._place[numbers], axis=0, return_inverse=True)
        total = np.zeros((len(place), self.coils, self._read_full), np.complex64)
        count = np.zeros((len(place), self._read_full), np.int32)
        for number, line, samples in zip(numbers, which.reshape(-1), self._read(numbers), strict=True):
            start, kept = self._start[number], self._on_grid(int(number), samples)
            total[line, :, start : start + kept.shape[1]] += kept
            count[line, start : start + kept.shape[1]] += 1
        total /= np.maximum(count, 1)[:, None]
        return place, total, count > 0

    def _on_grid(self, number: int, samples: np.ndarray) -> np.ndarray:
        """The samples (C, n) of a readout in the order of the grid, without those to discard."""
        if self._echo_planar:
            import torch

            from mri_score.numerics.fourier import fft

            image = self._along_readout(number, samples)
            if has_flag(self._headers["flags"][number], "reverse") and self._needs_phase(key := self._key(number)):
                image = image * np.exp(1j * self._phase(key))
            return fft(torch.from_numpy(image.astype(np.complex64)), axes=(-1,)).numpy()
        head = self._headers[number]
        kept = samples[:, int(head["discard_pre"]) : samples.shape[1] - int(head["discard_post"])]
        return kept[:, ::-1] if has_flag(head["flags"], "reverse") else kept

    def _without_oversampling(self, lines: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """(L, C, Nx) -> (L, C, nx): samples of the smaller field of view; of 3-D scans, the image along the readout."""
        result = np.zeros((*lines.shape[:2], self._read_size), np.complex64)
        ranges = np.stack([measured.argmax(1), self._read_full - measured[:, ::-1].argmax(1)], 1)
        for first, last in np.unique(ranges, axis=0).tolist():
            these = (ranges == (first, last)).all(1)
            if (first, last) == (0, self._read_full):
                result[these] = self._cropped(lines[these])
                continue
            matrix, inside = remove_oversampling(self._read_full, self._read_size, first, last)
            matrix = matrix * inside[:, None]
            if self.three_dimensional:
                matrix = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(matrix, 0), axis=0, norm="ortho"), 0)
            result[these] = lines[these] @ matrix.T.astype(np.complex64)
        return result

    def _cropped(self, lines: np.ndarray) -> np.ndarray:
        """Complete readouts (L, C, Nx) as `_without_oversampling` gives them, by Fourier transforms."""
        import torch

        from mri_score.numerics.fourier import fft, ifft

        first = (self._read_full - self._read_size) // 2
        result = np.zeros((*lines.shape[:2], self._read_size), np.complex64)
        for place, line in enumerate(lines):  # one by one: transforms of all lines at once would need twice the memory
            if self._read_size == self._read_full and not self.three_dimensional:
                result[place] = line
                continue
            image = ifft(torch.from_numpy(line), axes=(-1,))[:, first : first + self._read_size]
            result[place] = (image if self.three_dimensional else fft(image, axes=(-1,))).numpy()
        return result

    def _image(self, lines: Lines, slice: int) -> np.ndarray:
        """K-space (C, H, W) of an image from its lines."""
        y = np.zeros((self.coils, *self.image_shape), np.complex64)
        if self.three_dimensional:
            y[:, lines.place[:, 0], lines.place[:, 1]] = lines.samples[:, :, self._locate(slice)[1]].T
        else:
            y[:, :, lines.place[:, 0]] = lines.samples.transpose(1, 2, 0)
        return y

    # Echo-planar imaging

    @property
    def _echo_planar(self) -> bool:
        return self.encoding.trajectory == "epi"

    @cached_property
    def _navigators(self) -> np.ndarray:
        """Numbers of the readouts for phase correction."""
        flags = self._headers["flags"]
        return np.flatnonzero(has_flag(flags, "phase correction") & ~has_flag(flags, "noise", "dummy"))

    def _key(self, number: int) -> tuple[int, ...]:
        return tuple(self._keys[number].tolist())

    def _needs_phase(self, key: tuple[int, ...]) -> bool:
        """Whether lines of an item, calibration lines included, were read in both directions."""
        if key not in self._both:
            numbers = np.union1d(self._readouts(self._imaging, key), self._readouts(self._calibrating, key))
            back = has_flag(self._headers["flags"][numbers], "reverse")
            self._both[key] = bool(back.any() and not back.all())
        return self._both[key]

    def _check_directions(self) -> None:
        """Errors: InputError for lines of both directions without navigators, and for readouts that fit no grid."""
        used = np.union1d(self._imaging, self._calibrating)
        for number in used:
            self._fit(int(number))
        for key in sorted({self._key(int(number)) for number in used}):
            if self._needs_phase(key) and not all(len(numbers) for numbers in self._navigators_of(key)):
                raise InputError(
                    f"{self.path}: the echo-planar lines of slice {key[-1]} were read in both directions, and there are"
                    " no readouts for phase correction of both directions (flag ACQ_IS_PHASECORR_DATA), so that the"
                    " image would have ghosts; convert the raw data with their navigators, or correct the lines by"
                    " other tools (Gadgetron, BART) and give the corrected k-space as an array or fastMRI file"
                )
            if self._needs_phase(key):
                self._phase(key)

    def _navigators_of(self, key: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Navigators of an item, or else of its slice, that were read forward, and those read backward."""
        found = self._readouts(self._navigators, key)
        if not len(found):
            found = self._navigators[self._keys[self._navigators][:, -1] == key[-1]]
        back = has_flag(self._headers["flags"][found], "reverse")
        return found[~back], found[back]

    def _fit(self, number: int) -> np.ndarray:
        """Matrix (rows, samples) of a readout, see `readout_fit`."""
        head = self._headers[number]
        count, pre, post = (int(head[name]) for name in ("number_of_samples", "discard_pre", "discard_post"))
        back = bool(has_flag(head["flags"], "reverse"))
        if (count, pre, post, back) not in self._fits:
            size, trapezoid = self.encoding.encoded.matrix[0], Trapezoid.of(self.encoding.description, str(self.path))
            wanted = size if trapezoid is None else trapezoid.samples
            if count != wanted:
                raise InputError(
                    f"{self.path}: echo-planar readout {number} has {count} samples, but the header describes {wanted};"
                    " positions of samples on the gradient's ramps come from the header (trajectoryDescription):"
                    " export the scan again"
                )
            positions = np.arange(size) - size // 2 if trapezoid is None else trapezoid.positions(size)
            if back:
                positions = positions[::-1] if trapezoid is None else -positions
            kept = positions[pre : count - post]
            self._fits[count, pre, post, back] = readout_fit(kept, size, self._read_size, str(self.path))
        return self._fits[count, pre, post, back]

    def _along_readout(self, number: int, samples: np.ndarray) -> np.ndarray:
        """Image (C, rows) along the readout from the samples (C, n) of an echo-planar readout."""
        head = self._headers[number]
        kept = samples[:, int(head["discard_pre"]) : samples.shape[1] - int(head["discard_post"])]
        return kept @ self._fit(number).T

    def _phase(self, key: tuple[int, ...]) -> np.ndarray:
        """Phase (rows,) by which lines of an item that were read forward differ from those read backward."""
        if key not in self._phases:
            means = []
            for numbers in self._navigators_of(key):
                images = [
                    self._along_readout(int(number), samples)
                    for number, samples in zip(numbers, self._read(numbers), strict=True)
                ]
                means.append(np.mean(images, axis=0))
            self._phases[key], coherent = direction_phase(*means)
            if coherent < COHERENT:
                self.notes.append(
                    f"slice {key[-1]}: the phase between echoes of both directions is no straight line in the"
                    f" navigators ({coherent:.0%} of their signal follows it): ghosts may remain"
                )
        return self._phases[key]

    # Notes

    def _note_directions(self) -> None:
        """Note on directions that are stated but cannot be those of an image: `geometry_of` assumes others."""
        head = self._headers[self._imaging]
        axes = np.stack([head[name] for name in ("read_dir", "phase_dir", "slice_dir")], 1)
        stated = axes.any((1, 2)) | ~np.isfinite(axes).all((1, 2))
        with np.errstate(all="ignore"):
            square = np.einsum("nij,nkj->nik", axes, axes, dtype=float)
        odd = int((stated & ~(np.abs(square - np.eye(3)) < 0.01).all((1, 2))).sum())
        if odd or not np.isfinite(head["position"]).all():
            self.notes.append(
                f"{odd} readouts state directions that are not three perpendicular unit vectors, or positions that are"
                " no numbers: the orientation of their images is assumed"
            )

    def _note_partial(self) -> None:
        """Notes on what was not measured although the matrix includes it, and on unequal averages."""
        for axis in range(2 if self.three_dimensional else 1):
            centre, (low, high) = self.encoding.encoded.matrix[1 + axis] // 2, self._reach(axis)
            half, gap = max(centre - low, high - centre), np.diff(np.unique(self._place[self._imaging, axis]))
            if abs((centre - low) - (high - centre)) > int(gap.max(initial=1)):
                self.notes.append(
                    f"partial Fourier: {high - low} of {2 * half} phase-encoding steps were acquired, {low - centre} to"
                    f" {high - 1 - centre}; the others are unknown, not zero, and a truth from this scan lacks them"
                )
        if (self._count[self._imaging] < self._read_full).any():
            shortest = int(self._count[self._imaging].min())
            fate = "unknown, not zero"
            if self.three_dimensional:
                fate = "taken as zero in this three-dimensional scan, which blurs its images along the readout"
            self.notes.append(
                f"partial readouts: {shortest} of {self._read_full} samples; the others are {fate}, and a truth from"
                " this scan lacks them"
            )
        if self._averages > 1:
            counts = np.unique(np.column_stack([self._keys[self._imaging], self._place[self._imaging]]), axis=0,
                               return_counts=True)[1]  # fmt: skip
            if len(set(counts.tolist())) > 1:
                self.notes.append(
                    f"lines were measured {counts.min()} to {counts.max()} times: they are averaged, and their noise"
                    " differs, which the noise level does not follow"
                )


def _range(places: np.ndarray) -> slice:
    """From the first to the last of increasing numbers."""
    return slice(int(places[0]), int(places[-1]) + 1)
