"""Layouts of k-space that contradict the header or the samples: other orders of the axes, DC at the corner."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mri_score.errors import InputError
from mri_score.readers.ismrmrd_header import Header

CONTRAST = 20.0
"""Ratio of the largest to the median power along an axis from which it is an axis of k-space, not of coils."""
PEAKS = "the samples have no peak along the {} axis, as coils have none, but along another axis"
NAMES = {-2: "rows", -1: "columns"}
LEAST_CORNER, MOST_CENTRE = 0.5, 0.15
"""Shares of the power near index 0 and near N // 2 with which the origin of k-space is at index 0."""


def check_header(place: str, shape: Sequence[int], header: Header, images: int | None = None) -> list[str]:
    """Compare the shape of k-space with the receivers and matrices of its header; returns notes on small differences.

    place: name of the file, for messages. shape: (slices, coils, rows, cols), or (slices, rows, cols) of a single coil.
    images: number of slices of the reconstruction in the file; None without one.
    Errors: InputError if the header fits only another order of the axes; it names the command that puts them in order.
    """
    notes = []
    if (receivers := header.coils) is not None and receivers > 1:
        notes = _check_receivers(place, shape, header, receivers, images)
    rows, cols = shape[-2:]
    x, y = ({matrix[axis] for matrix in (header.encoded, header.recon) if matrix} for axis in (0, 1))
    if rows != cols and x and rows not in x and cols in x and rows in y:
        raise _wrong_order(
            place,
            shape,
            f"the header has its readout of {' or '.join(map(str, sorted(x)))} samples in the last axis",
            "np.swapaxes(kspace, -1, -2)",
        )
    if header.encoded is not None and rows not in x:
        notes.append(f"the header states a readout of {header.encoded[0]}, kspace has {rows} rows: kspace counts")
    return notes


def _check_receivers(place: str, shape: Sequence[int], header: Header, receivers: int, images: int | None) -> list[str]:
    counted = f"the header counts {receivers} receivers"
    spans = {size for matrix in (header.encoded, header.recon) if matrix for size in matrix}
    if len(shape) == 3:
        if shape[0] == receivers and images != shape[0]:
            raise InputError(
                f"{place}: kspace {tuple(shape)} would be {shape[0]} slices of one coil, but {counted}; if its first"
                " axis is coils, write kspace[None]; if it is slices of a combined coil, delete ismrmrd_header or set"
                " its receiverChannels to 1"
            )
        if shape[2] == receivers and shape[2] not in spans and set(shape[:2]) <= spans:
            raise _wrong_order(place, shape, counted, "np.moveaxis(kspace, -1, 0)[None]")
        return []
    slices, coils, rows, cols = shape
    if coils == receivers:
        return []
    if cols == receivers:
        raise _wrong_order(place, shape, counted, "np.moveaxis(kspace, -1, -3)")
    if rows == receivers and coils in spans:
        raise _wrong_order(place, shape, counted, "np.swapaxes(kspace, -3, -2)")
    if slices == receivers and images != slices:
        raise _wrong_order(place, shape, counted, "np.swapaxes(kspace, 0, 1)")
    return [f"{counted}, kspace has {coils} coils: kspace counts"]


def check_samples(place: str, kspace: np.ndarray) -> None:
    """Check one slice of k-space with signal, complex (C, H, W), for its origin and the order of its axes.

    The power of k-space has a sharp peak at its origin along rows and columns, and none along coils.
    place: name of the scan, for messages.
    Errors: InputError if an axis of coils is last or in the middle, or if the origin is at index 0; it names the
    command that helps. Samples without a clear peak, such as noise, pass.
    """
    magnitude = np.abs(kspace).astype(np.float64)
    if not np.isfinite(magnitude).all() or not magnitude.any():
        return  # samples that are not finite are reported when they are used
    power = np.square(magnitude / magnitude.max())
    profiles = [power.sum(tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    coils, rows, cols = (_peaked(profile) for profile in profiles)
    shape = ("slices", *kspace.shape)
    if len(kspace) == 1 and rows and not cols and 2 * kspace.shape[2] <= kspace.shape[1]:
        raise _wrong_order(place, shape, PEAKS.format("last"), "np.moveaxis(kspace, -1, -3)")
    if coils and not cols:
        raise _wrong_order(place, shape, PEAKS.format("last"), "np.moveaxis(kspace, -1, -3)")
    if coils and not rows:
        raise _wrong_order(place, shape, PEAKS.format("third"), "np.swapaxes(kspace, -3, -2)")
    axes = tuple(axis for axis, profile in zip((-2, -1), profiles[1:], strict=True) if _starts_at_origin(profile))
    if axes:
        raise InputError(
            f"{place}: the origin of k-space is at index 0 of {' and '.join(NAMES[a] for a in axes)},"
            f" it must be at index N // 2; write np.fft.fftshift(kspace, axes={axes})"
        )


def _peaked(profile: np.ndarray) -> bool:
    """Whether the power along an axis has a sharp peak near its middle or its ends, as k-space has."""
    size = len(profile)
    if size < 8:
        return False
    peak = int(profile.argmax())
    near = min(abs(peak - size // 2), peak, size - peak) <= max(1, size // 8)
    return near and bool(profile.max() > CONTRAST * np.median(profile[profile > 0]))


def _starts_at_origin(profile: np.ndarray) -> bool:
    size = len(profile)
    width = size // 8
    place, total = np.arange(size), profile.sum()
    corner = profile[np.minimum(place, size - place) <= width].sum() / total
    return size >= 16 and bool(corner > LEAST_CORNER and _near_centre(profile, width) / total < MOST_CENTRE)


def _near_centre(profile: np.ndarray, width: int) -> float:
    middle = len(profile) // 2
    return float(profile[middle - width : middle + width + 1].sum())


def _wrong_order(place: str, shape: Sequence[object], reason: str, command: str) -> InputError:
    return InputError(
        f"{place}: kspace of shape ({', '.join(map(str, shape))}) is not in the order (slices, coils, rows, columns):"
        f" {reason}; write {command}"
    )
