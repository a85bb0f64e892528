"""Real images of one or three channels as they are stored: pictures, arrays, HDF5, NIfTI and the files of CIFAR."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mri_score.errors import InputError
from mri_score.readers.arrays import open_npy, read_nifti, read_picture, require_file
from mri_score.readers.hdf5 import StoredDataset, open_hdf5, plain_dataset, read_whole, reading
from mri_score.untrusted.process import read_apart

PICTURES = (".png", ".jpg", ".jpeg")
STACKS = (".npy", ".h5", ".hdf5", ".nii", ".nii.gz")
CIFAR_TRAINING = re.compile(r"data_batch_\d|train")
CIFAR_TEST = re.compile(r"test_batch|test")
MOST_IN_MEMORY = 1 << 30
"""Largest stack that is read at once and held in memory, in bytes."""
KEYS = ("image", "images")
"""Datasets of an HDF5 file that may hold images, in this order."""


class PixelStack(Sequence[np.ndarray]):
    """The images of one file, each (H, W) or (H, W, 3), in the file's data type.

    path: of a picture (PNG, JPEG); an array (.npy) or HDF5 dataset `image` of shape (N, H, W), (N, H, W, 1 or 3) or
    (N, 1 or 3, H, W); a NIfTI volume (slices along its third axis, magnitude); or a python file of CIFAR-10 or
    CIFAR-100. colour: whether pictures are read as RGB or as grey values.
    Stacks of more than MOST_IN_MEMORY bytes in .npy and HDF5 are read image by image.
    Errors: InputError for anything else, and for complex numbers.
    """

    def __init__(self, path: Path, colour: bool) -> None:
        self.path, self.colour = path, colour
        self.stack: np.ndarray | StoredDataset | None = None
        if path.suffix.lower() in PICTURES:
            require_file(path)
            return
        self.stack = _open(path)
        shape = self.stack.shape
        self.first = len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3)
        channels = shape[1 if self.first else 3] if len(shape) == 4 else 1
        if len(shape) not in (3, 4) or channels not in (1, 3) or self.stack.dtype.kind not in "fiub" or not len(self):
            raise InputError(
                f"{path} holds {self.stack.dtype} of shape {shape}; real images are (N, rows, columns), or"
                " (N, rows, columns, 3) for colours"
            )

    def __len__(self) -> int:
        return 1 if self.stack is None else self.stack.shape[0]

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self.stack is None:
            return read_picture(self.path, self.colour)
        image = np.asarray(self.stack[index])
        if image.ndim == 3:
            image = image.transpose(1, 2, 0) if self.first else image
            image = image[..., 0] if image.shape[2] == 1 else image
        return image


def _open(path: Path) -> np.ndarray | StoredDataset:
    if path.suffix == ".npy":
        array = open_npy(path)
        return array[()] if array.dtype.kind in "fiub" and 0 < array.nbytes <= MOST_IN_MEMORY else array
    if path.name.endswith((".nii", ".nii.gz")):
        return read_nifti(path)
    if path.suffix in (".h5", ".hdf5"):
        with reading(path), open_hdf5(path) as file:
            for key in KEYS:
                if (dataset := plain_dataset(file, path, key)) is not None:
                    small = dataset.dtype.kind in "fiub" and 0 < dataset.nbytes <= MOST_IN_MEMORY
                    return read_whole(dataset) if small else dataset
            raise InputError(f"{path} has {sorted(file)}; images are a dataset `image` (N, rows, columns[, 3])")
    if is_cifar(path):
        require_file(path)
        size = path.stat().st_size
        return read_apart("mri_score.readers.cifar_parsing:images", path, memory=(256 << 20) + 6 * size, seconds=60)
    raise InputError(
        f"{path} is none of {', '.join((*PICTURES, *STACKS))}, and no python file of CIFAR (data_batch_1, train, ...)"
    )


def is_cifar(path: Path) -> bool:
    """Whether a file has the name of a python file of CIFAR-10 or CIFAR-100."""
    return bool(CIFAR_TRAINING.fullmatch(path.name) or CIFAR_TEST.fullmatch(path.name))


def pixel_files(path: Path) -> list[Path]:
    """The files that a path names: itself, or what a folder and its subfolders hold of them, sorted.

    Of a folder of CIFAR only the training batches are taken; name the file `test_batch` or `test` for the others.
    Errors: InputError for a path that does not exist, and for a folder without images.
    """
    if not path.is_dir():
        if not path.exists():
            raise InputError(f"{path} does not exist; data.paths names images, stacks of them, or folders")
        return [path]
    batches = sorted(one for one in path.iterdir() if one.is_file() and CIFAR_TRAINING.fullmatch(one.name))
    if batches:
        return batches
    files = sorted(one for one in path.rglob("*") if one.name.lower().endswith(PICTURES + STACKS) and one.is_file())
    if not files:
        raise InputError(f"{path} holds no images ({', '.join(PICTURES + STACKS)})")
    return files
