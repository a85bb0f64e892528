"""Images that samples are compared with, and files of samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mri_score.data.scale import percentile
from mri_score.errors import InputError
from mri_score.numerics.fourier import resize_image
from mri_score.readers.hdf5 import open_hdf5, plain_dataset, reading
from mri_score.sources.magnitude_images import ImageStacks


def prepare(image: Tensor, shape: Sequence[int]) -> Tensor:
    """The magnitude of an image (H, W), cropped or padded about its centre, with its 99th percentile at 1: (*shape)."""
    magnitude = resize_image(image.abs(), shape)
    return magnitude / percentile(magnitude).clamp_min(1e-3 * magnitude.max()).clamp_min(1e-12)


class RealImages(Sequence[Tensor]):
    """Slices of image stacks, prepared when they are read.

    paths: files, or folders of them. shape: rows and columns; None: those of the first slice. most: largest number of
    slices, evenly spaced; None: all.
    """

    def __init__(
        self, paths: Sequence[str | Path], shape: Sequence[int] | None = None, most: int | None = None
    ) -> None:
        self.stacks = [(Path(path), ImageStacks([path], augment=False)) for path in paths]
        everything = [(stack, number) for stack, (_, images) in enumerate(self.stacks) for number in range(len(images))]
        count = min(most or len(everything), len(everything))
        self.places = [everything[index * len(everything) // count] for index in range(count)]
        self.shape = tuple(shape or self._image(0).shape)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[one] for one in range(len(self))[index]]
        return prepare(self._image(index), self.shape)

    def name(self, index: int) -> str:
        """The origin of the image at this index: `file:slice`, for a folder `folder/number of the file:slice`."""
        place, number = self.places[index]
        path, stack = self.stacks[place]
        file, slice_number = [one for group in stack.groups.values() for one in group][number]
        return f"{path.name}{f'/{file}' if path.is_dir() else ''}:{slice_number}"

    def _image(self, index: int) -> Tensor:
        stack, number = self.places[index]
        return self.stacks[stack][1].image(number)


def read_samples(path: Path) -> Tensor:
    """The dataset `samples` or `image` (N, H, W) of an HDF5 file, complex or real, as mri-score sample writes it.

    Errors: InputError for a file without them, or with values that are not finite.
    """
    with reading(path), open_hdf5(path) as file:
        dataset = plain_dataset(file, path, "samples")
        dataset = plain_dataset(file, path, "image") if dataset is None else dataset
        if dataset is None or dataset.ndim != 3 or dataset.dtype.kind not in "fiuc":
            raise InputError(
                f"{path} has {sorted(file)}; it needs `samples` (N, rows, columns), as mri-score sample writes them"
            )
        images = torch.from_numpy(dataset[:])
    if not images.numel() or not bool(torch.isfinite(images.abs()).all()):
        raise InputError(f"{path}: there are no samples, or some are not finite; sample again")
    return images
