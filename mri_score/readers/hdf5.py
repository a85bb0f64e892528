"""HDF5: reading files of others through the reading process, and writing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from mri_score import __version__
from mri_score.errors import InputError
from mri_score.files import sink, whole_file
from mri_score.readers.raw_samples import Identity, read_raw, run_of
from mri_score.untrusted.process import read_apart

if TYPE_CHECKING:  # `mri-score info` prints the header before it imports torch
    from torch import Tensor

LARGEST_READ = 1 << 30
"""Largest slice, chunk or other part that is read at once, in bytes."""
LARGEST_COMPRESSION = 1000
"""Largest ratio of a dataset's size to what is stored of it, beyond SMALL: deflate reaches 1032."""
SMALL = 1 << 30
"""Bytes that a chunked dataset may declare without storing them, such as slices that were never written."""
AT_ONCE = 64 << 20
"""Bytes that `read_whole` reads at once."""
_PARSING = "mri_score.readers.hdf5_parsing"


class StoredDataset:
    """A dataset in a file: its facts, and its samples part by part, as in `dataset[3]` or `dataset[2:5, ..., 0]`.

    Samples come in native byte order and at most double precision; text of variable length as an object array of bytes.
    """

    function = f"{_PARSING}:samples"

    def __init__(self, path: Path, key: str, facts: Mapping[str, Any]) -> None:
        self.path, self.key = path, key
        self.shape: tuple[int, ...] = tuple(facts["shape"])
        self.stored: int = facts["stored"]
        """Bytes that are stored of it, after compression."""
        self.chunks: tuple[int, ...] | None = facts["chunks"]
        self._start: int | None = facts.get("start")
        self._identity: Identity | None = facts.get("identity")
        self._declared = declared = np.dtype(facts["dtype"])
        self.text = declared.kind == "O"
        self.dtype = _native(declared)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def mapped(self) -> int:
        """Bytes of address space that a read takes besides its samples."""
        return 0

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a dataset without axes has no length")
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        """The samples at `index`: numbers and slices with positive steps, in order of the axes, and one Ellipsis.

        Errors: InputError for more than LARGEST_READ, and for a damaged file.
        """
        parts, shape = _resolved(index, self.shape)
        size = math.prod(shape) * self.dtype.itemsize
        if size > LARGEST_READ:
            raise InputError(
                f"{self.path}: {self.key} has {size} bytes to read at once, more than {LARGEST_READ}; split it"
            )
        array = self._raw(parts, shape)
        if array is None:
            array = self._parsed(parts, size)
        if array.shape != shape:
            raise InputError(f"{self.path}: {self.key} has changed while it was read; read the file again")
        if self.text:
            array = array.astype(object)
        return array if array.shape else array[()]

    def _raw(self, parts: tuple[Any, ...], shape: tuple[int, ...]) -> np.ndarray | None:
        """The samples, if they need no parser: stored as in memory, one after the other, in a file as it was opened."""
        run = run_of(parts, self.shape)
        item = self.dtype.itemsize
        if self._start is None or self._identity is None or run is None or item != self._declared.itemsize:
            return None
        first, count = run
        values = read_raw(self.path, self._identity, self._start + first * item, count, self._declared)
        return None if values is None else values.reshape(shape).astype(self.dtype, copy=False)

    def _parsed(self, parts: tuple[Any, ...], size: int) -> np.ndarray:
        """The samples from the reading process. size: in bytes."""
        _require_file(self.path)
        chunk = math.prod(self.chunks or (0,)) * self.dtype.itemsize
        return read_apart(
            self.function,
            self.path,
            memory=(128 << 20) + self.mapped + min(3 * size + 2 * chunk, 2 << 30),
            seconds=10 + (size + chunk) // (100 << 20),
            key=self.key,
            index=parts,
        )

    def __iter__(self) -> Iterator[Any]:
        return (self[number] for number in range(len(self)))


class StoredFile(Mapping[str, StoredDataset]):
    """An HDF5 file that others made, read through the reading process. `with open_hdf5(path) as file: ...`

    A mapping of the names of its top-level members; `file[key]` is the checked dataset. `attrs` holds the attributes of
    the file as text, numbers and lists. It holds no file handle, and can be pickled.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        found = read_apart(f"{_PARSING}:contents", path)
        self.attrs: dict[str, Any] = found["attributes"]
        self.members: dict[str, dict[str, Any]] = found["members"]
        self.identity: Identity = found["identity"]

    def __iter__(self) -> Iterator[str]:
        return (key for key in self.members if "/" not in key)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, key: str) -> StoredDataset:
        dataset = plain_dataset(self, self.path, key)
        if dataset is None:
            raise KeyError(key)
        return dataset

    def __contains__(self, key: object) -> bool:
        return key in self.members

    def __enter__(self) -> StoredFile:
        return self

    def __exit__(self, *error: object) -> None: ...

    def close(self) -> None:
        """Nothing is open between reads."""


def _native(dtype: np.dtype) -> np.dtype:
    if dtype.kind in "fiu" and dtype.itemsize > 8:
        return np.dtype(np.float64)
    if dtype.kind == "c" and dtype.itemsize > 16:
        return np.dtype(np.complex128)
    return dtype.newbyteorder("=")


def _resolved(index: Any, shape: tuple[int, ...]) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """The index as `hdf5_parsing.samples` takes it, and the shape of what it selects."""
    given = index if isinstance(index, tuple) else (index,)
    if sum(one is Ellipsis for one in given) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if Ellipsis in given:
        place = given.index(Ellipsis)
        given = (*given[:place], *[slice(None)] * (len(shape) - len(given) + 1), *given[place + 1 :])
    if len(given) > len(shape):
        raise IndexError(f"{len(given)} indices for {len(shape)} axes")
    parts: list[Any] = []
    sides: list[int] = []
    for one, side in zip(given, shape, strict=False):
        if isinstance(one, slice):
            start, stop, step = one.indices(side)
            if step < 1:
                raise IndexError("only positive steps can be read")
            parts.append((start, max(start, stop), step))
            sides.append(len(range(start, stop, step)))
        else:
            number = int(one)
            if not -side <= number < side:
                raise IndexError(f"index {number} of an axis of {side}")
            parts.append(number % side)
    return tuple(parts), (*sides, *shape[len(given) :])


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert the exceptions of a damaged file to an InputError that names the file."""
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

    Errors: InputError where it cannot be written, DiskFull where the disk is full.
    """
    with whole_file(path) as part, sink(part) as raw, h5py.File(raw, "w") as file:
        yield file


def write_arrays(path: Path, arrays: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> Path:
    """Write named arrays, such as `samples` (N, H, W), to HDF5, with their settings as attributes; return the path."""
    with new_hdf5(path) as file:
        for name, array in arrays.items():
            file[name] = array.numpy()
        file.attrs.update({**attributes, "mri_score": __version__})
    return path


def open_hdf5(path: Path) -> StoredFile:
    """Open an HDF5 file for reading. Errors: InputError for anything else, for a file in use, and for a damaged one."""
    _require_file(path)
    return StoredFile(path)


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path} is not a file; give an HDF5 file or, where several are read, a folder of them")


def plain_dataset(file: StoredFile, path: Path, key: str) -> StoredDataset | None:
    """The dataset `key`, if it is stored completely in this file; None if there is none of that name.

    key: its name; `group/name` for one within groups. Refused are links, external storage and virtual datasets, which
    could expose any file of the machine (CVE-2026-1669), filters that are not needed, and datasets that declare far
    more data than the file has. Errors: InputError.
    """
    facts = file.members.get(key)
    if facts is None:
        return None
    if "problem" in facts:
        raise InputError(facts["problem"])
    if "group" in facts:
        raise InputError(f"{path}: {key} is a group, not a dataset; write it as one array")
    dataset = StoredDataset(path, key, facts | {"identity": file.identity})
    _check_size(path, dataset)
    return dataset


def plain_datasets(file: StoredFile, path: Path) -> Iterator[tuple[str, StoredDataset]]:
    """Yield name and dataset of all top-level datasets, each checked as in `plain_dataset`; groups are skipped."""
    for key in file:
        if "group" not in file.members[key] and (dataset := plain_dataset(file, path, key)) is not None:
            yield key, dataset


def read_whole(dataset: StoredDataset) -> np.ndarray:
    """All samples of a dataset, read in parts of about 64 MiB; the caller has checked that they fit into memory."""
    if not dataset.shape:
        return np.asarray(dataset[()])
    whole = np.empty(dataset.shape, dataset.dtype)
    step = max(1, AT_ONCE // max(1, math.prod(dataset.shape[1:]) * dataset.dtype.itemsize))
    for first in range(0, len(dataset), step):
        whole[first : first + step] = dataset[first : first + step]
    return whole


def check_claims(path: Path, dataset: StoredDataset) -> None:
    """Check that a dataset declares no more than is stored of it, and stores no more than its chunks can hold.

    path: of its file. dataset: as the file describes it. Errors: InputError.
    """
    claimed, stored, key = dataset.nbytes, dataset.stored, dataset.key
    most = stored if dataset.chunks is None else SMALL + LARGEST_COMPRESSION * stored
    if claimed > most or stored > path.stat().st_size:
        raise InputError(
            f"{path}: {key} declares {claimed} bytes, shape {dataset.shape}, but {stored} are stored;"
            " the file is incomplete or forged: fetch or export it again"
        )
    if dataset.chunks is not None and stored > _most_stored(dataset):
        raise InputError(
            f"{path}: {key} stores more than its chunks can hold, {stored} bytes, which its filters could inflate"
            " without end; rewrite it: h5repack -f GZIP=4"
        )


def _check_size(path: Path, dataset: StoredDataset) -> None:
    check_claims(path, dataset)
    item = dataset.dtype.itemsize
    largest = max(math.prod(dataset.shape[1:]) * item, math.prod(dataset.chunks or (0,)) * item)
    if largest > LARGEST_READ:
        raise InputError(
            f"{path}: one slice of {dataset.key} has {largest} bytes; at most {LARGEST_READ} are allowed; split it"
        )


def _most_stored(dataset: StoredDataset) -> int:
    """The most that the chunks of a dataset take: what cannot be compressed grows a little, and has a checksum."""
    chunks = dataset.chunks or (1,)
    count = math.prod(-(-side // chunk) for side, chunk in zip(dataset.shape, chunks, strict=True))
    return count * (math.prod(chunks) * dataset.dtype.itemsize * 21 // 20 + 256)
