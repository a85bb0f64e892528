"""Which points of k-space a volume has samples of: from its samples, the masks that came with them, and its header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mri_score.readers.base import Shape
from mri_score.readers.oversampling import determined

MASK_FILES = (".npy", ".h5")
"""Suffixes of files with a mask, in place of the name of a sampling pattern."""
FILLED = 0.99
"""Share of nonzero points from which a region counts as completely sampled: quantised samples may be exactly zero."""
LEAST_SHARE = 0.5
"""Smallest share of its bounding box that a completely sampled region has; an ellipse has 0.79."""


@dataclass(frozen=True)
class StoredSampling:
    """The sampling of a stored volume, on its stored matrix of k-space (rows, cols)."""

    padding: Shape
    """Range (left, right) of the acquired columns, right excluded."""
    mask: np.ndarray | None
    """Bool (1 or slices, 1 or rows, cols): the sampled points, of each slice if they differ; None: fully sampled."""
    acquired: np.ndarray
    """Bool (1, 1 or rows, cols): the acquired region; points outside are zero padding and never sampled."""
    notes: list[str] = field(default_factory=list)


def find_sampling(
    points: Sequence[np.ndarray | None], stored: np.ndarray | None = None, declared: Shape | None = None
) -> StoredSampling:
    """Padding and masks from the nonzero samples of all slices, the masks in the file and the padding in its header.

    Where these contradict each other, the samples decide, with a note. A slice is fully sampled if its nonzero points
    fill a region without gaps (a box, or an ellipse), of which the mask, if there is one, leaves out nothing; zeros
    around the region are padding. Other zeros are unsampled: single points if more than 1 % of the points in sampled
    columns are zero, else whole columns.
    points: bool (rows, cols) for each slice, nonzero samples; None for slices of zeros. stored: bool (1 or slices, 1 or
    rows, 1 or cols), the masks of the file, or None. declared: the header's padding (left, right), or None.
    """
    known = [number for number, one in enumerate(points) if one is not None]
    assert known, "a volume without any nonzero sample has no sampling"
    shape = next(one for one in points if one is not None).shape
    found: dict[tuple[bytes, bytes], _SliceSampling] = {}  # slices mostly repeat one pattern
    slices: dict[int, _SliceSampling] = {}
    for number in known:
        nonzero, mask = points[number], None if stored is None else stored[number if len(stored) > 1 else 0]
        assert nonzero is not None
        key = nonzero.tobytes(), b"" if mask is None else mask.tobytes()
        slices[number] = found[key] = found.get(key) or _sampling_of_slice(nonzero, mask)
    kinds = list(found.values())
    notes = list(dict.fromkeys(note for kind in kinds for note in kind.notes))
    region = np.any([kind.region for kind in kinds], 0)
    columns = np.any([one.any(0) for one in points if one is not None], 0)
    first, last = int(columns.argmax()), len(columns) - int(columns[::-1].argmax())
    whole = all(kind.full and _same_extent(kind.region, region) for kind in kinds)
    if declared is None or whole:
        padding = (first, last) if all(kind.full for kind in kinds) else (0, shape[1])
    else:
        padding = (min(max(declared[0], 0), first), max(min(declared[1], shape[1]), last))
    if declared is not None and declared != padding:
        notes.append(f"columns {declared[0]} to {declared[1]} were acquired by the header, {padding} by the samples")
    if whole:
        return StoredSampling(padding, None, _smallest(region[None]), notes)
    masks = np.zeros((len(points), *shape), bool)
    for number, one in slices.items():
        masks[number] = one.mask
    for number in set(range(len(points))) - set(known):
        masks[number] = slices[min(known, key=lambda other: abs(other - number))].mask
    acquired = np.zeros((1, *shape), bool)
    acquired[:, :, slice(*padding)] = True
    if bool((masks == spans(masks, 1)).all()):  # whole lines along the readout: zero rows at the edges are padding
        acquired &= np.asarray(masks.any((0, 2)))[:, None]
    if len(masks) > 1 and bool((masks == masks[:1]).all()):
        masks = masks[:1]
    if len(masks) > 1:
        rates = acquired.sum() / masks[known].sum((1, 2))
        notes.append(f"the slices have different masks, of R = {rates.min():.2f} to {rates.max():.2f}")
    return StoredSampling(padding, _smallest(masks), _smallest(acquired), notes)


@dataclass(frozen=True)
class _SliceSampling:
    """The sampling of one slice; arrays are bool (rows, cols)."""

    mask: np.ndarray
    region: np.ndarray
    """The smallest region without gaps around the samples."""
    full: bool
    notes: tuple[str, ...]


def _sampling_of_slice(points: np.ndarray, stored: np.ndarray | None) -> _SliceSampling:
    rows, columns = np.asarray(points.any(1)), np.asarray(points.any(0))
    box = _span(rows)[:, None] & _span(columns)
    region = spans(points, 0) | spans(points, 1)
    gapless = bool(rows[_span(rows)].all() and columns[_span(columns)].all())
    full = gapless and points.sum() >= FILLED * region.sum() and region.sum() >= LEAST_SHARE * box.sum()
    if full and (stored is None or bool((stored | ~region).all())):
        return _SliceSampling(region, region, True, ())
    if stored is None:
        by_points = points[_span(rows)][:, columns].mean() < FILLED
        kind = "points" if by_points else "columns"
        mask = points if by_points else box & columns
        note = f"the file has no mask: {kind} of zeros in kspace are taken as unsampled"
        return _SliceSampling(mask, box, False, (note,))
    notes = []
    stored = np.broadcast_to(stored, points.shape)
    lines = bool((stored == stored[:1]).all())
    row_lines = bool((stored == stored[:, :1]).all())
    measured = box & (columns if lines else rows[:, None]) if lines or row_lines else points
    if (points & ~stored).any():
        notes.append(
            "kspace has nonzero samples outside the mask: they are set to zero (--ignore-mask takes all samples)"
        )
    missing = int((stored[0] & ~columns).sum() if lines else (stored & ~measured).sum())
    if missing:
        notes.append(f"kspace is zero at {missing} points of the mask: taken as unsampled")
    return _SliceSampling(stored & measured, box, False, tuple(notes))


def spans(points: np.ndarray, axis: int) -> np.ndarray:
    """Bool, shaped like `points`: everything from the first to the last nonzero point of each line along an axis."""
    forward = np.maximum.accumulate(points, axis)
    return forward & np.flip(np.maximum.accumulate(np.flip(points, axis), axis), axis)


def _same_extent(region: np.ndarray, other: np.ndarray) -> bool:
    """Whether two regions span the same rows and columns, and differ in few points."""
    spanned = all(np.array_equal(region.any(axis), other.any(axis)) for axis in (0, 1))
    return spanned and bool(region.sum() >= FILLED * other.sum())


def _span(line: np.ndarray) -> np.ndarray:
    return spans(line, 0)


def _smallest(masks: np.ndarray) -> np.ndarray:
    """Masks (slices, rows, cols) with a single row where all rows are equal."""
    return masks[:, :1] if bool((masks == masks[:, :1]).all()) else masks


def remove_oversampled_rows(masks: np.ndarray, rows: int) -> np.ndarray:
    """Masks (slices, 1 or rows, cols) for k-space whose field of view was narrowed to `rows` rows along the readout.

    masks: bool (slices, 1 or N, cols); columns have no gaps. Sampled are the rows that the samples determine.
    """
    if masks.shape[1] in (1, rows):
        return masks
    return _smallest(np.stack([determined(mask, rows) for mask in masks]))


def mask_candidates(stored: np.ndarray, slices: int, coils: int, shape: Shape) -> list[np.ndarray]:
    """What a stored mask of any usual shape may mean, the most usual reading first: bool (1 or slices, 1 or H, 1 or W).

    The last two axes are rows and columns, as in numpy's broadcasting: (W,), (1, W), (H, 1), (H, W). Axes before them
    are slices, or slices and coils (of one mask). (slices, W) has one line mask a slice. An axis of 1 may follow, as in
    fastMRI's own masks (1, 1, W, 1). Empty if no reading fits.
    """
    stored = np.asarray(stored) != 0
    cols = shape[1]
    readings: list[np.ndarray] = [stored]
    if stored.ndim == 2 and stored.shape == (slices, cols):
        readings.append(stored[:, None])
    if stored.ndim > 1 and stored.shape[-1] == 1:
        readings += [stored[..., 0], *([stored[:, None, :, 0]] if stored.ndim == 3 else [])]
    found: list[np.ndarray] = []
    for one in readings:
        mask = _of_slices(one, slices, coils)
        if mask is None or not all(n in (1, size) for n, size in zip(mask.shape, (slices, *shape), strict=True)):
            continue
        if not any(np.array_equal(mask, other) for other in found):
            found.append(mask)
    return found


def _of_slices(mask: np.ndarray, slices: int, coils: int) -> np.ndarray | None:
    """A mask (..., rows, cols) as (slices, rows, cols), if its coils are all alike."""
    mask = mask[(None,) * (3 - mask.ndim)]
    while mask.ndim > 4 and mask.shape[0] == 1:
        mask = mask[0]
    if mask.ndim == 3:
        mask = mask[None] if mask.shape[0] == coils != slices else mask[:, None]
    if mask.ndim != 4 or mask.shape[1] not in (1, coils) or bool((mask != mask[:, :1]).any()):
        return None
    return np.asarray(mask[:, 0])


def choose_mask(candidates: Sequence[np.ndarray], points: Sequence[np.ndarray | None]) -> np.ndarray:
    """The first candidate outside which all samples are zero; the first of all, if there is none."""

    def fits(mask: np.ndarray) -> bool:
        each = (mask[number if len(mask) > 1 else 0] for number in range(len(points)))
        return not any((one & ~here).any() for one, here in zip(points, each, strict=True) if one is not None)

    return next((mask for mask in candidates if fits(mask)), candidates[0])
