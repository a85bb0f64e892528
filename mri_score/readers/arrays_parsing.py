"""NumPy files, NIfTI volumes and pictures in the reading process. Called through `untrusted.read_apart` only."""

from __future__ import annotations

import math
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mri_score.errors import InputError, parsing
from mri_score.readers.raw_samples import identity_of

LONGEST_HEADER = 1 << 16
LARGEST_VOLUME = 1 << 27
"""Most voxels of a NIfTI volume: 512 x 512 x 512."""
LARGEST_PICTURE = 1 << 26
"""Most pixels of a picture: 8192 x 8192."""
PICTURES = ("PNG", "JPEG")


def npy_contents(path: Path) -> dict[str, Any]:
    """Shape, dtype (a text for numpy.dtype), stored bytes, start and identity of a .npy file; no samples are read.

    start: as in `hdf5_parsing.contents`.

    Errors: InputError for another format, Python objects, and a file whose length is not the declared one.
    """
    with parsing(f"cannot read {path} as a .npy file", "write it with numpy.save"), open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"its format version is {version}")
        name = "read_array_header_1_0" if version == (1, 0) else "read_array_header_2_0"
        read = getattr(np.lib.format, name)  # by name: the type stubs of NumPy 2.2 lack max_header_size
        shape, fortran, dtype = read(file, max_header_size=LONGEST_HEADER)
        start, status = file.tell(), os.fstat(file.fileno())
    if dtype.hasobject or dtype.fields is not None:
        raise InputError(f"{path} holds {dtype}, not an array of numbers; write it again as numbers, with numpy.save")
    declared, stored = math.prod(shape) * dtype.itemsize, status.st_size - start
    if declared != stored or min(shape, default=0) < 0:
        raise InputError(
            f"{path} declares {declared} bytes, shape {shape}, but {stored} are stored; the file is incomplete or"
            " forged: write it again"
        )
    plain = dtype.kind in "fiuc" and not fortran
    return {
        "shape": shape,
        "dtype": dtype.str,
        "chunks": None,
        "stored": stored,
        "start": start if plain else None,
        "identity": identity_of(status),
    }


def npy_samples(path: Path, key: str, index: tuple[int | tuple[int, int, int], ...]) -> np.ndarray:
    """Part of the array, as `hdf5_parsing.samples`; only this part of the file is read. key: not used."""
    npy_contents(path)
    array = np.load(path, mmap_mode="r", allow_pickle=False, max_header_size=LONGEST_HEADER)
    part = np.array(array[tuple(slice(*one) if isinstance(one, tuple) else one for one in index)])
    if part.dtype.itemsize > (16 if part.dtype.kind == "c" else 8) and part.dtype.kind in "fiuc":
        return part.astype(np.complex128 if part.dtype.kind == "c" else np.float64)
    return part.astype(part.dtype.newbyteorder("="), copy=False)


def nifti(path: Path) -> np.ndarray:
    """The magnitude of a NIfTI volume of three axes, float32, third axis first. Errors: InputError."""
    import nibabel

    damaged = f"{path} cannot be read as NIfTI", "export it again"
    with parsing(*damaged):
        image: Any = nibabel.load(path)
        shape = image.shape
    if len(shape) != 3:
        raise InputError(f"{path} has shape {shape}; an image stack needs three axes")
    if not 0 < math.prod(shape) <= LARGEST_VOLUME or min(shape) < 1:
        raise InputError(f"{path} declares the shape {shape}; at most {LARGEST_VOLUME} voxels are read: split it")
    with parsing(*damaged):
        volume = np.asarray(image.dataobj, dtype=np.float32)
    return np.ascontiguousarray(np.abs(np.moveaxis(volume, 2, 0)))


def picture(path: Path, colour: bool = False) -> np.ndarray:
    """A picture (H, W): colours become grey by luminance, grey pictures keep their bit depth; or RGB (H, W, 3), 8 bits.

    Errors: InputError.
    """
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = LARGEST_PICTURE
    with parsing(f"cannot read {path} as one of {', '.join(PICTURES)}", "save it again"), warnings.catch_warnings():
        warnings.simplefilter("error")  # such as Pillow's warning of a decompression bomb
        with Image.open(path, formats=PICTURES) as image:
            grey = image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;")
            array = np.asarray(image.convert("RGB") if colour else image if grey else image.convert("L"))
    return array.astype(array.dtype.newbyteorder("="))


LARGEST_FEATURES = 1 << 13
"""Most features of statistics; Inception has 2048."""


def statistics(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """`mu` (D,) and `sigma` (D, D) of an .npz file, float64. Errors: InputError."""
    wanted = "it needs `mu` (D,) and `sigma` (D, D), as FID tools write them with numpy.savez"
    with parsing(f"cannot read {path} as statistics of features", wanted):
        with zipfile.ZipFile(path) as archive:
            declared = sum(part.file_size for part in archive.infolist() if part.filename in ("mu.npy", "sigma.npy"))
        if declared > 16 * LARGEST_FEATURES**2:
            raise ValueError(f"it declares {declared} bytes")
        with np.load(path, allow_pickle=False, max_header_size=LONGEST_HEADER) as found:
            mu, sigma = (np.asarray(found[key], dtype=np.float64) for key in ("mu", "sigma"))
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or not np.isfinite(sigma).all() or not np.isfinite(mu).all():
        raise InputError(f"{path} has mu {mu.shape} and sigma {sigma.shape}; finite (D,) and (D, D) are needed")
    return mu, sigma
