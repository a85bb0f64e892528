"""What every reader of scans offers: one volume of Cartesian k-space, read slice by slice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # torch takes a second: it is loaded where samples are asked for, not to tell what a file holds
    from torch import Tensor

Shape = tuple[int, int]


class Reader(Protocol):
    """One volume of k-space in a file. Opening it checks everything but the samples, and raises InputError.

    A reader can be pickled, for the workers of a training run.
    """

    @property
    def path(self) -> Path: ...

    @property
    def name(self) -> str:
        """Of the scan: the file's without its suffix."""
        ...

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What else the file says, such as `patient_id`."""
        ...

    @property
    def acquisition(self) -> str:
        """The contrast, as the file names it."""
        ...

    @property
    def slices(self) -> int: ...

    @property
    def coils(self) -> int: ...

    @property
    def rows(self) -> int:
        """Of the stored k-space: samples of the readout."""
        ...

    @property
    def cols(self) -> int:
        """Of the stored k-space: phase encodes."""
        ...

    @property
    def image_shape(self) -> Shape:
        """(H, W) of what `kspace` gives."""
        ...

    @property
    def crop(self) -> Shape:
        """(rows, cols) of the written image, within `image_shape`."""
        ...

    @property
    def padding(self) -> Shape:
        """The range (left, right) of acquired columns; those outside are zeros."""
        ...

    @property
    def mask(self) -> Tensor | None:
        """Bool (cols,), or (rows, cols) where both are phase encodes; None for a fully sampled file."""
        ...

    @property
    def sampled(self) -> Tensor:
        """What an `Acquisition` takes as its mask: `mask`, or all columns within the padding, as (1, 1, 1 or H, W)."""
        ...

    @property
    def notes(self) -> list[str]:
        """What a user should know of the file, such as where its header and its samples disagree."""
        ...

    def about(self) -> dict[str, str]:
        """What the file says, in words, for `mri-score info`."""
        ...

    def empty(self, slice: int) -> bool:
        """Whether nothing but zeros is stored of a slice."""
        ...

    def kspace(self, slice: int) -> Tensor:
        """One slice (coils, H, W), complex64, DC at N // 2, without readout oversampling, unsampled points zero.

        Errors: InputError for samples that are not finite and coils of zeros.
        """
        ...

    def close(self) -> None:
        """Close what is open; the next read opens it again."""
        ...
