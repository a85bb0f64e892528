"""Stacks of images with labels: HDF5 (`image`: slice, row, column) and NIfTI."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mri_score.errors import InputError
from mri_score.readers.hdf5 import open_hdf5, plain_dataset, plain_datasets, reading


def read_stack(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read a stack of real images (slices, rows, columns), in the file's data type, and the labels of its slices.

    Labels are datasets with one value per slice, such as the patient; NIfTI files have none.
    Errors: InputError for a file that cannot be read, or has no `image` of three axes.
    """
    if path.name.endswith((".nii", ".nii.gz")):
        return _read_nifti(path), {}
    with reading(path), open_hdf5(path) as file:
        dataset = plain_dataset(file, path, "image")
        if dataset is None or dataset.ndim != 3 or dataset.dtype.kind not in "fiub":
            raise InputError(
                f"{path} has {sorted(file)}; an image stack needs `image` (slice, row, column), real numbers"
            )
        labels = {
            key: _texts(value[:]) if value.dtype.kind in "SO" else value[:]
            for key, value in plain_datasets(file, path)
            if value.ndim == 1 and len(value) == len(dataset)
        }
        return dataset[:], labels


def _texts(values: np.ndarray) -> np.ndarray:
    return np.array([one.decode(errors="replace") for one in values.tolist()], dtype=object)


def _read_nifti(path: Path) -> np.ndarray:
    try:
        import nibabel
    except ImportError as error:
        raise InputError(f"reading NIfTI files such as {path} needs nibabel: pip install 'mri-score[nifti]'") from error
    try:
        volume = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)  # type: ignore[attr-defined]
    except Exception as error:  # nibabel raises many kinds for a broken file
        raise InputError(f"{path} cannot be read as NIfTI: {error}") from error
    if volume.ndim != 3:
        raise InputError(f"{path} has shape {volume.shape}; an image stack needs three axes")
    return np.ascontiguousarray(np.abs(np.moveaxis(volume, 2, 0)))
