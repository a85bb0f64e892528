"""Images that samples are compared with, files of samples, and statistics of features in files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mri_score.data.scale import percentile
from mri_score.errors import InputError
from mri_score.files import whole_file
from mri_score.numerics.fourier import resize_image
from mri_score.readers.arrays import require_file
from mri_score.readers.hdf5 import StoredDataset, open_hdf5, plain_dataset, read_whole, reading
from mri_score.sample_quality.frechet import Gaussian
from mri_score.sources.magnitude_images import ImageStacks
from mri_score.sources.plain_images import PlainImages
from mri_score.untrusted.process import read_apart


def prepare(image: Tensor, shape: Sequence[int]) -> Tensor:
    """The magnitude of an image (H, W), cropped or padded about its centre, with its 99th percentile at 1: (*shape).

    A colour image (3, H, W) is clipped to [0, 1] and has its shape already.
    """
    if image.ndim == 3:
        return image.clamp(0, 1)
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


class ColourImages(Sequence[Tensor]):
    """RGB images (3, H, W) with pixels in [0, 1], of the files of `PlainImages`; grey ones in equal channels.

    paths: files of `PixelStack`, or folders of them. shape: rows and columns, to which images of another size are
    resized, and then cropped about their centre; None: those of the first image. most: largest number of images, evenly
    spaced; None: all.
    """

    def __init__(
        self, paths: Sequence[str | Path], shape: Sequence[int] | None = None, most: int | None = None
    ) -> None:
        source = PlainImages(paths, 3)
        self.shape = tuple(shape or source.image(0).shape[-2:])
        self.source = PlainImages(paths, 3, size=(self.shape[0], self.shape[1]))
        count = min(most or len(source), len(source))
        self.numbers = [index * len(source) // count for index in range(count)]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[one] for one in range(len(self))[index]]
        return self.source.image(self.numbers[index]).clamp(0, 1)

    def name(self, index: int) -> str:
        """The file of the image at this index, and its number in a stack."""
        return self.source.name(self.numbers[index])


def read_statistics(path: Path) -> Gaussian:
    """Mean and covariance of features from an .npz file with `mu` (D,) and `sigma` (D, D), as FID tools write them.

    Errors: InputError for anything else.
    """
    require_file(path)
    size = path.stat().st_size
    mu, sigma = read_apart("mri_score.readers.arrays_parsing:statistics", path, memory=(256 << 20) + 16 * size)
    return Gaussian.from_covariance(torch.from_numpy(mu), torch.from_numpy(sigma))


def write_statistics(path: Path, features: Tensor) -> None:
    """Write mean and covariance of features (n, D) as `mu` and `sigma` of an .npz file."""
    fitted = Gaussian.fit(features)
    with whole_file(path) as part, open(part, "wb") as file:
        np.savez(file, mu=fitted.mean.numpy(), sigma=(fitted.root.T @ fitted.root).numpy())


def read_samples(path: Path) -> Tensor:
    """The dataset `samples` or `image` of an HDF5 file as mri-score sample writes it; or pictures of a folder, as RGB.

    Returns (N, H, W), complex or real, or (N, 3, H, W) with pixels in [0, 1].

    Errors: InputError for a file without them, or with values that are not finite.
    """
    if path.is_dir() or path.suffix not in (".h5", ".hdf5"):
        return torch.stack(list(ColourImages([path])))
    with reading(path), open_hdf5(path) as file:
        dataset = plain_dataset(file, path, "samples")
        dataset = plain_dataset(file, path, "image") if dataset is None else dataset
        if dataset is None or not _is_samples(dataset):
            raise InputError(
                f"{path} has {sorted(file)}; it needs `samples` (N, rows, columns), as mri-score sample writes them, or"
                " (N, 3, rows, columns) for colours"
            )
        images = torch.from_numpy(read_whole(dataset))
    if not images.numel() or not bool(torch.isfinite(images.abs()).all()):
        raise InputError(f"{path}: there are no samples, or some are not finite; sample again")
    return images


def _is_samples(dataset: StoredDataset) -> bool:
    axes = dataset.ndim == 3 or (dataset.ndim == 4 and dataset.shape[1] == 3)
    return axes and dataset.dtype.kind in ("fiuc" if dataset.ndim == 3 else "f")
