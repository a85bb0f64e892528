"""HDF5 in the reading process: what a file contains, and its samples. Called through `untrusted.read_apart` only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mri_score.errors import InputError
from mri_score.readers.raw_samples import identity_of

FILTERS = {
    h5py.h5z.FILTER_DEFLATE: "gzip",
    h5py.h5z.FILTER_SHUFFLE: "shuffle",
    h5py.h5z.FILTER_FLETCHER32: "fletcher32",
    32000: "lzf",
}
"""Number of each filter that is read, and its name."""
DEEPEST = 4
"""Levels of groups that are listed."""
MOST_MEMBERS = 1000
LONGEST_ATTRIBUTE = 1 << 16
"""Largest attribute that is read, in bytes and in values; larger ones are left out."""
IN_USE = ("unable to lock file", "file is already open for write", "Resource temporarily unavailable")


@contextmanager
def opened(path: Path, locking: bool | None = None) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading. locking: False ignores locks of other programs; None takes HDF5's default.

    Errors: InputError for a file that is in use, that is not HDF5, or that is damaged, also while the block reads it.
    """
    try:
        if not h5py.is_hdf5(path):
            raise InputError(f"cannot read {path}: it is not an HDF5 file; export it again, or name another")
        with _open(path, locking) as file:
            yield file
    except (InputError, MemoryError):
        raise
    except Exception as error:  # h5py passes on whatever the library or its own conversions raise
        if any(text in str(error) for text in IN_USE):
            raise InputError(
                f"{path} is in use: another program has it open for writing ({error}); close it there, or set"
                " HDF5_USE_FILE_LOCKING=FALSE, for example where the file system has no locks"
            ) from error
        raise InputError(
            f"{path} cannot be read as HDF5: it is truncated or damaged ({error}); fetch or export it again"
        ) from error


def _open(path: Path, locking: bool | None) -> h5py.File:
    try:
        return h5py.File(path, "r", locking=locking)
    except ValueError:  # a build of HDF5 without this switch
        return h5py.File(path, "r")


def contents(path: Path) -> dict[str, Any]:
    """What a file contains: {"attributes": of the file, "members": {name: facts}, "identity"}. No samples are read.

    Names of members within groups are `group/member`. facts: "group" True for a group; "problem", a sentence, for
    anything that may not be read; else shape, dtype (a text for numpy.dtype), chunks, stored (bytes), start (byte of
    the file at which samples begin that are stored as in memory; None for others).
    Errors: InputError as in `opened`.
    """
    status = path.stat()  # before the file is opened: what replaces it afterwards differs
    with opened(path) as file:
        members: dict[str, dict[str, Any]] = {}
        _list(file, path, "", members, DEEPEST)
        return {"attributes": attributes_of(file), "members": members, "identity": identity_of(status)}


def samples(path: Path, key: str, index: tuple[int | tuple[int, int, int], ...]) -> np.ndarray:
    """Part of a dataset: native byte order, at most double precision; text of any length as bytes.

    index: for each of the first axes a number or (start, stop, step). Errors: InputError as in `opened`, and for what
    `contents` has a problem with.
    """
    with opened(path, locking=False) as file:
        facts = _facts(file, path, key)
        if "problem" in facts or "group" in facts:
            raise InputError(facts.get("problem", f"{path}: {key} is a group, not a dataset"))
        values = file[key][tuple(slice(*one) if isinstance(one, tuple) else one for one in index)]
        if facts["dtype"] == "O":
            return _text_array(np.asarray(values, dtype=object))
        array = np.asarray(values)
        if array.dtype.itemsize > 8 and array.dtype.kind in "fiu":
            return array.astype(np.float64)
        if array.dtype.itemsize > 16 and array.dtype.kind == "c":
            return array.astype(np.complex128)
        return array.astype(array.dtype.newbyteorder("="), copy=False)


def _text_array(values: np.ndarray) -> np.ndarray:
    texts = [one if isinstance(one, bytes) else str(one).encode() for one in values.reshape(-1).tolist()]
    return np.array(texts, dtype=f"S{max(map(len, texts), default=0) + 1}").reshape(values.shape)


def attributes_of(item: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """The attributes of a file, group or dataset as text, numbers and lists of them; unreadable ones are left out."""
    found: dict[str, Any] = {}
    for number, name in enumerate(item.attrs):
        if number == MOST_MEMBERS:
            break
        try:
            about = item.attrs.get_id(name)
            if about.get_storage_size() > LONGEST_ATTRIBUTE or math.prod(about.shape or (0,)) > LONGEST_ATTRIBUTE:
                continue
            value = _plain(item.attrs[name])
        except MemoryError:
            raise
        except Exception:  # an attribute of a type that h5py cannot convert
            continue
        if value is not None:
            found[name] = value
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    elif isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list):
        values = [_plain(one) for one in value]
        return None if None in values else values
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        return value if len(value) <= LONGEST_ATTRIBUTE else None
    return value if isinstance(value, (bool, int, float)) else None


def _list(group: h5py.Group, path: Path, prefix: str, members: dict[str, dict[str, Any]], depth: int) -> None:
    for name in group:
        if len(members) >= MOST_MEMBERS:
            raise InputError(f"{path} has more than {MOST_MEMBERS} datasets; split it")
        key = f"{prefix}{name}"
        members[key] = _facts(group, path, name, key)
        if "group" in members[key] and depth > 1:
            _list(group[name], path, f"{key}/", members, depth - 1)


def _facts(parent: h5py.Group, path: Path, name: str, key: str | None = None) -> dict[str, Any]:
    """The facts of `contents` for the member `name` of a group; key: its full name, for messages."""
    key = name if key is None else key
    *groups, name = name.split("/")
    for group in groups:  # a link anywhere on the way leads out of the file
        if parent.get(group, getlink=True, default=None).__class__ is not h5py.HardLink:
            return {"problem": f"{path}: {key} is a link; copy the data into the file (h5repack)"}
        parent = parent[group]
    if parent.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        return {"problem": f"{path}: {key} is a link; copy the data into the file (h5repack)"}
    try:
        item = parent[name]
        if isinstance(item, h5py.Group):
            return {"group": True}
        if not isinstance(item, h5py.Dataset):
            return {"problem": f"{path}: {key} is a data type, not a dataset"}
        return _dataset_facts(item, path, key)
    except MemoryError:
        raise
    except Exception as error:
        return {"problem": f"{path}: {key} is truncated or damaged ({error}); fetch or export the file again"}


def _dataset_facts(item: h5py.Dataset, path: Path, key: str) -> dict[str, Any]:
    if item.external or item.is_virtual:
        return {"problem": f"{path}: the data of {key} are stored in other files; copy them into this file (h5repack)"}
    if item.shape is None:
        return {"problem": f"{path}: {key} is empty; export the scan again"}
    if problem := filter_problem(item):
        return {"problem": f"{path}: {key} {problem}; rewrite it without them: h5repack -f GZIP=4"}
    dtype, text = item.dtype, h5py.check_string_dtype(item.dtype)
    if dtype.hasobject and (text is None or text.length is not None):
        return {"problem": f"{path}: {key} has values of variable length ({dtype}), which are not read here"}
    if dtype.fields is not None:
        return {"problem": f"{path}: {key} has several fields ({', '.join(dtype.fields)}), which are not read here"}
    return {
        "shape": item.shape,
        "dtype": "O" if dtype.hasobject else dtype.str,
        "chunks": item.chunks,
        "stored": item.id.get_storage_size(),
        "start": _start(item),
    }


def _start(item: h5py.Dataset) -> int | None:
    """The byte of the file at which the samples of a dataset begin, if they are stored in one piece as in memory."""
    if item.chunks is not None or item.dtype.kind not in "fiuc" or item.id.get_storage_size() != item.nbytes:
        return None
    if not item.id.get_type().equal(h5py.h5t.py_create(item.dtype, logical=True)):  # such as floats of 24 bits
        return None
    return item.id.get_offset()


def filter_problem(item: h5py.Dataset) -> str | None:
    """What is wrong with the filters of a dataset `item`: unknown ones, two compressions, values of other chunks."""
    plist = item.id.get_create_plist()
    found = [plist.get_filter(number) for number in range(plist.get_nfilters())]
    numbers = [one[0] for one in found]
    if other := [number for number in numbers if number not in FILTERS]:
        return f"needs the HDF5 filters {other}; those read here are {', '.join(FILTERS.values())}"
    if len(set(numbers)) < len(numbers) or {32000, h5py.h5z.FILTER_DEFLATE} <= set(numbers):
        return "is compressed several times over by its filters"
    size = math.prod(item.chunks or (0,)) * item.dtype.itemsize
    for number, _, values, _ in found:
        if number == 32000 and len(values) > 2 and values[2] != size:
            return "has an lzf filter for chunks of another size"
        if number == h5py.h5z.FILTER_SHUFFLE and values and values[0] != item.dtype.itemsize:
            return "has a shuffle filter for values of another size"
    return None
