"""Coil maps on disk: files of users, files of `mri-score maps`, and the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.readers.array_scan import CflMaps
from mri_score.readers.arrays import open_npy
from mri_score.readers.hdf5 import StoredDataset, new_hdf5, open_hdf5, plain_dataset, reading

VERSION = 3
"""Version of `coil_maps`; increase it when its results change, so that older cached maps are not used."""


def normalise_maps(maps: Tensor) -> Tensor:
    """Scale maps (..., C, H, W) to sum_c |S_c|^2 = 1 at every pixel; maps that are all zero become 1 / sqrt(C) each."""
    norm = maps.abs().square().sum(-3, keepdim=True).sqrt()
    even = torch.full_like(maps, maps.shape[-3] ** -0.5)
    scaled = torch.where((norm - 1).abs() > 1e-5, maps / norm.clamp_min(torch.finfo(norm.dtype).tiny), maps)
    return torch.where(norm > 0, scaled, even)


class StoredMaps:
    """Coil maps in a file, read slice by slice: `maps[2:3]` is complex64 (1, C, H, W) with sum_c |S_c|^2 = 1."""

    def __init__(self, path: Path, dataset: StoredDataset | CflMaps, shape: Sequence[int]) -> None:
        self.path, self.shape = path, tuple(shape)
        self._dataset = dataset
        self.notes: list[str] = getattr(dataset, "notes", [])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, slices: slice) -> Tensor:
        """The maps of some slices. Errors: InputError for NaN or infinity, and for a damaged file."""
        numbers = range(len(self))[slices]
        whole: Any = () if self._dataset.ndim == 3 else None
        arrays = [self._dataset[number if whole is None else whole] for number in numbers]
        maps = torch.from_numpy(np.stack(arrays).astype(np.complex64))
        if not torch.isfinite(torch.view_as_real(maps)).all():
            raise InputError(f"{self.path}: coil maps contain NaN or infinity; make new ones with: mri-score maps")
        return normalise_maps(maps)


def read_maps(path: str | Path, shape: Sequence[int]) -> StoredMaps:
    """Open coil maps for k-space of `shape` (slices, C, H, W): HDF5 (dataset `maps` or `s_maps`), .npy or BART's .cfl.

    For a single slice the first axis may be missing. All slices are checked at once, one after the other.
    Errors: InputError for an unreadable file, no such data set, NaN, other values than numbers, or another shape.
    """
    path, shape = Path(path), tuple(shape)
    dataset: StoredDataset | CflMaps
    if path.suffix in (".cfl", ".hdr"):
        dataset = CflMaps(path)
    else:
        dataset = open_npy(path) if path.suffix == ".npy" else _find_maps(path)
    found = (1, *dataset.shape) if dataset.ndim == 3 and shape[0] == 1 else dataset.shape
    if found != shape or dataset.dtype.kind not in "fiuc":
        raise InputError(
            f"{path}: coil maps are {dataset.dtype} of shape {dataset.shape}, but the k-space has {shape}"
            " (slices, coils, rows, columns); make maps for this file with: mri-score maps"
        )
    maps = StoredMaps(path, dataset, shape)
    for number in range(len(maps)):
        maps[number : number + 1]
    return maps


def _find_maps(path: Path) -> StoredDataset:
    with reading(path), open_hdf5(path) as file:
        for name in ("maps", "s_maps"):
            if (dataset := plain_dataset(file, path, name)) is not None:
                return dataset
        raise InputError(f"{path} has no coil maps: it needs a dataset `maps` or `s_maps`, but has {sorted(file)}")


def write_maps(path: str | Path, maps: Tensor, eigenvalue: Tensor, attributes: Mapping[str, str | float]) -> None:
    """Write maps (slices, C, H, W) and eigenvalue (slices, H, W) to the HDF5 file `path`. attributes: their origin."""
    with new_hdf5(Path(path)) as file:
        file["maps"] = maps.cpu().numpy()
        file["eigenvalue"] = eigenvalue.cpu().numpy()
        file.attrs.update(attributes)


def finished_maps(path: Path, identity: str) -> bool:
    """Whether the file exists and has this attribute `identity`, from `write_maps`."""
    try:
        return open_hdf5(path).attrs.get("identity") == identity
    except InputError:
        return False


def cache_key(
    path: str | Path, mask: Tensor | None, *, axes: Sequence[str] = (), **parameters: str | float | bool | None
) -> str:
    """Cache name `<stem>-<hash>` of the maps made from this file, mask and parameters.

    The hash covers the name, size and modification time of the file, the names of its axes (arrays without a header),
    the mask, and the parameters in any order.
    """
    path = Path(path)
    status = path.stat()
    facts = [VERSION, path.name, status.st_size, status.st_mtime_ns, list(axes), sorted(parameters.items())]
    digest = hashlib.sha256(json.dumps(facts).encode())
    if mask is not None:
        digest.update(json.dumps(list(mask.shape)).encode() + mask.bool().cpu().numpy().tobytes())
    return f"{path.stem}-{digest.hexdigest()[:16]}"


def cached_maps(
    folder: str | Path, key: str, make: Callable[[], tuple[Tensor, Tensor]], **attributes: str | float
) -> tuple[Tensor, Tensor]:
    """Maps and eigenvalue from `<folder>/<key>.h5`; if that file is missing or damaged, from `make()`, and then saved.
    """
    path = Path(folder) / f"{key}.h5"
    try:
        return _read_cached(path)
    except InputError:
        maps, eigenvalue = make()
    write_maps(path, maps, eigenvalue, attributes)
    return maps, eigenvalue


def _read_cached(path: Path) -> tuple[Tensor, Tensor]:
    with reading(path), open_hdf5(path) as file:
        maps, eigenvalue = (plain_dataset(file, path, key) for key in ("maps", "eigenvalue"))
        if maps is None or eigenvalue is None:
            raise InputError(f"{path} is not a file of coil maps; remove it")
        if maps.dtype != np.complex64 or maps.ndim != 4 or eigenvalue.dtype != np.float32:
            raise InputError(f"{path} is not a file of coil maps; remove it")
        return torch.from_numpy(maps[()]), torch.from_numpy(eigenvalue[()])
