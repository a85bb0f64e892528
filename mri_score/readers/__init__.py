"""Readers of scans, coil maps and images. A new format of scans is one file here and one row of `READERS`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mri_score.errors import InputError
from mri_score.readers.base import Reader
from mri_score.readers.fastmri import FastMRI
from mri_score.readers.hdf5 import open_hdf5
from mri_score.readers.ismrmrd import ISMRMRD, find_group

READERS: dict[str, Callable[[Path], Reader]] = {".h5": FastMRI, ".mrd": ISMRMRD}
"""File suffix -> reader. Files with any other suffix are read as fastMRI files, HDF5 files by what they hold."""


def open_scan(path: str | Path, *, ignore_mask: bool = False) -> Reader:
    """Open the volume of k-space in a file, with the reader for its suffix.

    ignore_mask: take all samples of a fastMRI file, whatever its dataset `mask` says.
    Errors: InputError with the name of the file, if it is no readable scan, or if its format has no such mask.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower(), FastMRI)
    if reader is FastMRI and _is_ismrmrd(path):
        reader = ISMRMRD
    if not ignore_mask:
        return reader(path)
    if reader is not FastMRI:
        raise InputError(f"{path} has no dataset mask that could be ignored; leave out --ignore-mask")
    return FastMRI(path, ignore_mask=True)


def _is_ismrmrd(path: Path) -> bool:
    file = open_hdf5(path)
    return "kspace" not in file and find_group(file) is not None


def scan_files(path: str | Path) -> list[Path]:
    """The paths of all scans in a folder, sorted; for the path of a file, that path alone.

    Errors: InputError if the path does not exist, or the folder has no scan.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path} does not exist; give a fastMRI file or a folder of them")
    files = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in READERS and file.is_file() and not file.name.startswith(".")
    )
    if not files:
        kinds = " or ".join(f"*{suffix}" for suffix in READERS)
        raise InputError(f"{path} has no {kinds} files; give a fastMRI file or a folder of them")
    return files
