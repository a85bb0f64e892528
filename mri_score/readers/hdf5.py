"""HDF5: reading untrusted files, of which only data stored in the file itself are read, and writing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from mri_score import __version__
from mri_score.errors import InputError
from mri_score.files import whole_file

if TYPE_CHECKING:  # `mri-score info` prints the header before it imports torch
    from torch import Tensor

LARGEST_READ = 2 << 30
"""Largest slice or chunk to read, in bytes."""
LARGEST_COMPRESSION = 100
"""Largest compression ratio accepted for datasets above SMALL bytes."""
SMALL = 1 << 20
"""Datasets up to this many bytes may have any compression ratio, because repeated labels compress well."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert the exceptions of h5py for a damaged file to an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read as HDF5: it is truncated or damaged ({error}); fetch or export it again"
        ) from error


@contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a new HDF5 file for writing; it appears at `path` when it is complete.

    Errors: InputError where it cannot be written, for example because the disk is full.
    """
    try:
        with whole_file(path) as part, h5py.File(part, "w") as file:
            yield file
    except RuntimeError as error:  # h5py's error for a full disk
        raise InputError(f"cannot write {path}: {error}; is the disk full?") from error


def write_arrays(path: Path, arrays: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> Path:
    """Write named arrays, such as `samples` (N, H, W), to HDF5, with their settings as attributes; return the path."""
    with new_hdf5(path) as file:
        for name, array in arrays.items():
            file[name] = array.numpy()
        file.attrs.update({**attributes, "mri_score": __version__})
    return path


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading. Errors: InputError for anything else."""
    if not path.is_file():
        raise InputError(f"{path} is not a file; give an HDF5 file or, where several are read, a folder of them")
    if not h5py.is_hdf5(path):
        raise InputError(f"cannot read {path}: it is not an HDF5 file; export it again, or name another")
    return h5py.File(path, "r")


def plain_dataset(file: h5py.File, path: Path, key: str) -> h5py.Dataset | None:
    """The dataset `key`, if it is stored completely in this file; None if there is none of that name.

    Refused are links, external storage and virtual datasets, which could expose any file of the machine
    (CVE-2026-1669), and datasets that declare far more data than the file has. Errors: InputError.
    """
    links = file.id.links
    if not links.exists(key.encode()):
        return None
    if links.get_info(key.encode()).type != h5py.h5l.TYPE_HARD:
        raise InputError(f"{path}: {key} is a link; copy the data into the file (h5repack)")
    dataset = file[key]
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{path}: {key} is a group, not a dataset; write it as one array")
    if dataset.external or dataset.is_virtual:
        raise InputError(f"{path}: the data of {key} are stored in other files; copy them into this file (h5repack)")
    _check_size(path, key, dataset)
    return dataset


def plain_datasets(file: h5py.File, path: Path) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield name and dataset of all top-level datasets, each checked as in `plain_dataset`; groups are skipped."""
    for key in file:
        hard = isinstance(file.get(key, getlink=True), h5py.HardLink)
        if hard and file.get(key, getclass=True) is h5py.Group:
            continue
        if (dataset := plain_dataset(file, path, key)) is not None:
            yield key, dataset


def _check_size(path: Path, key: str, dataset: h5py.Dataset) -> None:
    if dataset.shape is None:
        raise InputError(f"{path}: {key} is empty; export the scan again")
    item = dataset.dtype.itemsize
    claimed, stored = math.prod(dataset.shape) * item, dataset.id.get_storage_size()
    compression = 1 if dataset.chunks is None else LARGEST_COMPRESSION if claimed > SMALL else SMALL
    if stored < claimed / compression or stored > path.stat().st_size:
        raise InputError(
            f"{path}: {key} declares {claimed} bytes, shape {dataset.shape}, but {stored} are stored;"
            " the file is incomplete or forged: fetch or export it again"
        )
    largest = max(math.prod(dataset.shape[1:]) * item, math.prod(dataset.chunks or (0,)) * item)
    if largest > LARGEST_READ:
        raise InputError(
            f"{path}: one slice of {key} has {largest} bytes; at most {LARGEST_READ} are allowed; split it"
        )
