"""Stacks of images with labels: HDF5 (`image`: slice, row, column) and NIfTI."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mri_score.errors import InputError, visible
from mri_score.readers.arrays import read_nifti
from mri_score.readers.hdf5 import open_hdf5, plain_dataset, plain_datasets, read_whole, reading

LARGEST_STACK = 8 << 30
"""Largest stack that is read, in bytes: it is held in memory."""


def read_stack(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read a stack of real images (slices, rows, columns), in the file's data type, and the labels of its slices.

    Labels are datasets with one value per slice, such as the patient; NIfTI files have none.
    Errors: InputError for a file that cannot be read, has no `image` of three axes, or has NaN or infinity in every
    slice; see `finite_slices` for the others.
    """
    if path.name.endswith((".nii", ".nii.gz")):
        stack, labels = _read_nifti(path)
    else:
        stack, labels = _read_hdf5(path)
    if not finite_slices(stack).any():
        raise InputError(f"{path} has NaN or infinity in every image; export it again")
    return stack, labels


def finite_slices(stack: np.ndarray) -> np.ndarray:
    """Bool (slices,): which slices of a stack (slices, rows, columns) have neither NaN nor infinity."""
    return np.array([np.isfinite(image).all() for image in stack])


def _read_nifti(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return read_nifti(path), {}


def _read_hdf5(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    with reading(path), open_hdf5(path) as file:
        dataset = plain_dataset(file, path, "image")
        if dataset is None or dataset.ndim != 3 or dataset.dtype.kind not in "fiub" or not dataset.size:
            raise InputError(
                f"{path} has {sorted(file)}; an image stack needs `image` (slice, row, column), real numbers"
            )
        if dataset.nbytes > LARGEST_STACK:
            raise InputError(f"{path}: image has {dataset.nbytes} bytes, more than {LARGEST_STACK}; split the file")
        labels = {
            key: _texts(value[:]) if value.dtype.kind in "SO" else value[:]
            for key, value in plain_datasets(file, path)
            if value.ndim == 1 and len(value) == len(dataset)
        }
        return read_whole(dataset), labels


def _texts(values: np.ndarray) -> np.ndarray:
    return np.array([visible(one.decode(errors="replace")) for one in values.tolist()], dtype=object)
