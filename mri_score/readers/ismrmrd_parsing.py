"""ISMRMRD files in the reading process: headers and samples of readouts. Called through `untrusted.read_apart` only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mri_score.errors import InputError
from mri_score.readers.hdf5_parsing import opened


def headers(path: Path, group: str, fields: Sequence[str]) -> dict[str, np.ndarray]:
    """The headers of all readouts of a file, field by field; counters as `idx/<counter>`.

    Errors: InputError as in `opened`, for data that are no list of readouts, and for missing fields.
    """
    with opened(path) as file:
        data = _data(file, path, group)
        if len(data) * data.dtype["head"].itemsize > path.stat().st_size:
            raise InputError(f"{path}: its {len(data)} readouts do not fit into the file; it is truncated or forged")
        heads = data.fields("head")[:]
    found: dict[str, np.ndarray] = {}
    for name in fields:
        outer, _, inner = name.partition("/")
        if outer not in (heads.dtype.names or ()) or (inner and inner not in (heads[outer].dtype.names or ())):
            raise InputError(f"{path}: the readouts' headers have no {name}; export the scan again")
        found[name] = np.ascontiguousarray(heads[outer][inner] if inner else heads[outer])
        if found[name].dtype.kind not in "uif":
            raise InputError(f"{path}: {name} in the readouts' headers is no number; export the scan again")
    return found


def readouts(path: Path, group: str, runs: Sequence[tuple[int, int]], field: str) -> dict[str, Any]:
    """Samples or trajectories of readouts: {"lengths": numbers of each readout, "values": all of them, float32}.

    runs: (start, stop) of consecutive readouts. field: data or traj. Errors: InputError as in `headers`.
    """
    with opened(path, locking=False) as file:
        stored = _data(file, path, group).fields(field)
        found = [values for start, stop in runs for values in stored[start:stop]]
    return {
        "lengths": np.array([len(values) for values in found], dtype=np.int64),
        "values": np.concatenate(found).astype(np.float32) if found else np.zeros(0, np.float32),
    }


def _data(file: h5py.File, path: Path, group: str) -> h5py.Dataset:
    """The dataset of readouts, stored in the file itself."""
    parent: Any = file
    for name in (*group.split("/"), "data"):
        if not isinstance(parent, h5py.Group) or not isinstance(parent.get(name, getlink=True), h5py.HardLink):
            raise InputError(f"{path}: {group}/data is missing, or a link; copy the data into the file (h5repack)")
        parent = parent[name]
    plain = isinstance(parent, h5py.Dataset) and not parent.external and not parent.is_virtual and parent.ndim == 1
    names = parent.dtype.names or () if plain else ()
    flat = {name: h5py.check_vlen_dtype(parent.dtype[name]) for name in ("data", "traj") if name in names}
    if "head" not in names or len(flat) < 2 or any(dtype != np.float32 for dtype in flat.values()) or not len(parent):
        raise InputError(f"{path}: {group}/data is no list of ISMRMRD readouts; export the scan again")
    if parent.id.get_create_plist().get_nfilters():
        raise InputError(f"{path}: {group}/data is filtered; write it without filters: h5repack -f NONE")
    return parent
