"""NumPy files, NIfTI volumes and pictures of others, through the reading process."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mri_score.errors import InputError
from mri_score.readers.hdf5 import StoredDataset
from mri_score.untrusted.process import read_apart

_PARSING = "mri_score.readers.arrays_parsing"


class StoredArray(StoredDataset):
    """The array of a .npy file, read part by part."""

    function = f"{_PARSING}:npy_samples"

    @property
    def mapped(self) -> int:
        return self.stored


def open_npy(path: Path) -> StoredArray:
    """Open a .npy file; its array is read part by part, as in `open_npy(path)[3]`, or whole, with `[()]`.

    Errors: InputError for anything else, for Python objects, and for a file whose length is not the declared one.
    """
    require_file(path)
    return StoredArray(path, "the array", read_apart(f"{_PARSING}:npy_contents", path))


def read_nifti(path: Path) -> np.ndarray:
    """The magnitude of a NIfTI volume, float32 (slices, rows, columns): its third axis is the first.

    Errors: InputError for anything else, more than 512^3 voxels, and where nibabel is not installed.
    """
    from importlib.util import find_spec

    if find_spec("nibabel") is None:
        raise InputError(f"reading NIfTI files such as {path} needs nibabel: pip install 'mri-score[nifti]'")
    require_file(path)
    return read_apart(f"{_PARSING}:nifti", path, memory=2 << 30)


def read_picture(path: Path, colour: bool = False) -> np.ndarray:
    """The grey values (rows, columns) of the PNG or JPEG picture at `path`, or with `colour` RGB (rows, columns, 3).

    Errors: InputError for anything else.
    """
    require_file(path)
    return read_apart(f"{_PARSING}:picture", path, memory=1 << 30, colour=colour)


def require_file(path: Path) -> None:
    """Check that a path is a regular file: reading a pipe would wait for ever. Errors: InputError."""
    if not path.is_file():
        raise InputError(f"cannot read {path}: it is not a file; give the path of one")
