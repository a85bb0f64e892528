"""BART's cfl files and MATLAB files in the reading process. Called through `untrusted.read_apart` only."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mri_score.errors import InputError, parsing
from mri_score.readers.hdf5_parsing import filter_problem, opened

LONGEST_HEADER = 1 << 16
LARGEST_VARIABLE = 1 << 30
"""Most values of a variable of a MATLAB file of version 5, which is read as a whole."""
Index = tuple[int | tuple[int, int, int], ...]


def cfl_contents(path: Path) -> dict[str, Any]:
    """Shape, dtype (a text for numpy.dtype) and stored bytes of a .cfl file by its .hdr; no samples are read.

    Errors: InputError without a header, and for a file whose length is not the declared one.
    """
    header = path.with_suffix(".hdr")
    try:
        with open(header, "rb") as file:
            lines = file.read(LONGEST_HEADER).decode("ascii", errors="replace").splitlines()
        place = next(number for number, line in enumerate(lines) if line.strip().lower() == "# dimensions")
        shape = tuple(int(size) for size in lines[place + 1].split())
    except (OSError, StopIteration, IndexError, ValueError) as error:
        raise InputError(
            f"{path} needs its header {header.name}, a text with the line '# Dimensions' and the sizes below it; write"
            " both files again with BART"
        ) from error
    declared, stored = 8 * math.prod(shape), path.stat().st_size
    if not shape or min(shape) < 1 or declared != stored:
        raise InputError(
            f"{path} has {stored} bytes, but the sizes in {header.name}, {shape}, declare {declared}; the file is"
            " incomplete or forged: write it again"
        )
    return {"shape": shape, "dtype": "<c8", "chunks": None, "stored": stored}


def cfl_samples(path: Path, key: str, index: Index) -> np.ndarray:
    """Part of the array, as `hdf5_parsing.samples`; only this part of the file is read. key: not used."""
    shape = cfl_contents(path)["shape"]
    array = np.memmap(path, dtype="<c8", mode="r", shape=shape, order="F")
    return np.array(array[_slices(index)])


def mat_contents(path: Path, variable: str | None) -> dict[str, Any]:
    """What `cfl_contents` says, of a variable of a MATLAB file, and its name; axes in MATLAB's order.

    variable: its name; None takes `kspace`, or else the only array of at least three axes.
    Errors: InputError for another format, and for no such variable, or several.
    """
    if h5py.is_hdf5(path):
        with opened(path) as file:
            sizes = {
                name: file[name].shape[::-1]
                for name in file
                if isinstance(file.get(name, getlink=True), h5py.HardLink) and isinstance(file[name], h5py.Dataset)
            }
            name = _chosen(path, sizes, variable)
            dataset = _plain_dataset(file, path, name)
            parts = dataset.dtype.names
            if parts is not None and (set(parts) != {"real", "imag"} or dataset.dtype["real"].kind != "f"):
                raise InputError(f"{path}: {name} has the fields {parts}; it needs complex numbers")
            dtype = dataset.dtype if parts is None else np.dtype(f"c{2 * dataset.dtype['real'].itemsize}")
            chunks, stored = dataset.chunks and dataset.chunks[::-1], dataset.id.get_storage_size()
            facts = {"hdf5": True, "chunks": chunks, "stored": stored}
            return {"name": name, "shape": sizes[name], "dtype": dtype.str, **facts}
    from scipy.io import whosmat

    with parsing(f"cannot read {path} as a MATLAB file", "save it again with -v7 or -v7.3"):
        sizes = {name: shape for name, shape, _ in whosmat(path)}
    name = _chosen(path, sizes, variable)
    if math.prod(sizes[name]) > LARGEST_VARIABLE:
        raise InputError(f"{path}: {name} has the shape {sizes[name]}; save such large arrays with -v7.3")
    array = _load(path, name)
    facts = {"hdf5": False, "chunks": None, "stored": array.nbytes}
    return {"name": name, "shape": array.shape, "dtype": array.dtype.str, **facts}


def mat_samples(path: Path, key: str, index: Index) -> np.ndarray:
    """Part of the variable `key`, as `hdf5_parsing.samples`, axes in MATLAB's order."""
    if not h5py.is_hdf5(path):
        return np.array(_load(path, key)[_slices(index)])
    with opened(path, locking=False) as file:
        values = np.asarray(_plain_dataset(file, path, key)[_slices(index)[::-1]]).T
        if values.dtype.names is None:
            return values
        return values["real"] + 1j * values["imag"]


def _load(path: Path, name: str) -> np.ndarray:
    from scipy.io import loadmat

    with parsing(f"cannot read {name} of {path}: it is damaged", "save it again"):
        array = np.asarray(loadmat(path, variable_names=[name])[name])
    if array.dtype.kind not in "fiuc":
        raise InputError(f"{path}: {name} holds {array.dtype}, not numbers; save k-space as a numeric array")
    return array


def _plain_dataset(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    dataset = file[name]
    if dataset.external or dataset.is_virtual or dataset.dtype.hasobject or dataset.shape is None:
        raise InputError(f"{path}: {name} is no plain array of numbers; save it again with -v7.3")
    if problem := filter_problem(dataset):
        raise InputError(f"{path}: {name} {problem}; save it again with -v7.3")
    return dataset


def _chosen(path: Path, sizes: dict[str, tuple[int, ...]], variable: str | None) -> str:
    if variable in sizes:
        return variable
    large = [name for name, shape in sizes.items() if len(shape) > 2]
    listed = ", ".join(f"{name} {shape}" for name, shape in sizes.items()) or "nothing"
    if variable is not None:
        raise InputError(f"{path} has no variable {variable}; it holds: {listed}")
    if "kspace" in sizes:
        return "kspace"
    if len(large) != 1:
        raise InputError(f"{path}: which variable is k-space? Name it kspace; it holds: {listed}")
    return large[0]


def _slices(index: Index) -> tuple[int | slice, ...]:
    return tuple(slice(*one) if isinstance(one, tuple) else one for one in index)
