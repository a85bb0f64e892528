"""HDF5 from strangers: nothing is read that does not lie, in full and in plain sight, in the file itself; our own."""

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

if TYPE_CHECKING:  # a file's header is told before torch is imported
    from torch import Tensor

LARGEST_READ = 2 << 30
"""Bytes of a slice, or of a chunk: what one read makes room for."""
LARGEST_COMPRESSION = 100
SMALL = 1 << 20
"""Bytes below which any compression is believed: labels that repeat shrink by more than images."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a broken HDF5 file raises into one error that names it."""
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
    """A file to fill, which is at `path` once it is whole. Errors: InputError where the disk is full."""
    try:
        with whole_file(path) as part, h5py.File(part, "w") as file:
            yield file
    except RuntimeError as error:  # what h5py raises then
        raise InputError(f"cannot write {path}: {error}; is the disk full?") from error


def write_arrays(path: Path, arrays: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> Path:
    """Write an HDF5 of named arrays, such as `samples` (N, H, W), with what made them as attributes."""
    with new_hdf5(path) as file:
        for name, array in arrays.items():
            file[name] = array.numpy()
        file.attrs.update({**attributes, "mri_score": __version__})
    return path


def open_hdf5(path: Path) -> h5py.File:
    if not path.is_file():
        raise InputError(f"{path} is not a file; give an HDF5 file or, where several are read, a folder of them")
    if not h5py.is_hdf5(path):
        raise InputError(f"cannot read {path}: it is not an HDF5 file; export it again, or name another")
    return h5py.File(path, "r")


def plain_dataset(file: h5py.File, path: Path, key: str) -> h5py.Dataset | None:
    """A dataset that lies in this very file, in full; None where there is none of that name.

    Links, external storage and virtual datasets could show any file of this machine (CVE-2026-1669), and a few bytes
    can claim terabytes.
    """
    links = file.id.links
    if not links.exists(key.encode()):
        return None
    if links.get_info(key.encode()).type != h5py.h5l.TYPE_HARD:
        raise InputError(f"{path}: {key} is a link to another place; copy the data into the file (h5repack)")
    dataset = file[key]
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{path}: {key} is a group, not a dataset; write it as one array")
    if dataset.external or dataset.is_virtual:
        raise InputError(f"{path}: the samples of {key} lie in other files; copy the data into the file (h5repack)")
    _check_size(path, key, dataset)
    return dataset


def plain_datasets(file: h5py.File, path: Path) -> Iterator[tuple[str, h5py.Dataset]]:
    """Name and dataset of everything at the top of a file but its groups, each as strictly as one alone."""
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
            f"{path}: {key} claims {claimed} bytes, shape {dataset.shape}, but {stored} are stored;"
            " the file is incomplete or forged: fetch or export it again"
        )
    largest = max(math.prod(dataset.shape[1:]) * item, math.prod(dataset.chunks or (0,)) * item)
    if largest > LARGEST_READ:
        raise InputError(f"{path}: one slice of {key} takes {largest} bytes; at most {LARGEST_READ} are read; split it")
