"""Readers of scans, coil maps and images. A new format of scans is one file here and one row of `READERS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mri_score.errors import InputError
from mri_score.readers.array_scan import open_array
from mri_score.readers.base import Reader
from mri_score.readers.fastmri import FastMRI
from mri_score.readers.hdf5 import open_hdf5
from mri_score.readers.ismrmrd import CARTESIAN, ISMRMRD
from mri_score.readers.ismrmrd_readouts import Readouts, find_group
from mri_score.readers.trajectory import BartTrajectory, ISMRMRDTrajectory


def open_ismrmrd(path: Path) -> Reader:
    """Open an ISMRMRD file with the reader for its trajectory. path: of the file. Errors: InputError."""
    if Readouts(path).encoding.trajectory in CARTESIAN:
        return ISMRMRD(path)
    return ISMRMRDTrajectory(path)


READERS: dict[str, Callable[[Path], Reader]] = {".h5": FastMRI, ".mrd": open_ismrmrd, ".cfl": open_array}
"""File suffix -> reader. Files with any other suffix are read as fastMRI files, HDF5 files by what they hold."""
ARRAYS = (".npy", ".mat", ".cfl", ".hdr")
"""Suffixes of files that hold an array without a header; NumPy's and MATLAB's are read if the axes are named."""
VENDORS = {
    ".dat": ("Siemens", "siemens_to_ismrmrd -f {0} -o {1}.h5"),
    ".rda": ("Siemens", "siemens_to_ismrmrd, from the .dat file of the scan"),
    ".7": ("GE", "ge_to_ismrmrd -v {0} -o {1}.h5"),
    ".lab": ("Philips", "philips_to_ismrmrd -f {1} -o {1}.h5"),
    ".raw": ("Philips", "philips_to_ismrmrd -f {1} -o {1}.h5"),
    ".sin": ("Philips", "philips_to_ismrmrd -f {1} -o {1}.h5"),
    ".list": ("Philips", "philips_to_ismrmrd -f {1} -o {1}.h5"),
    ".data": ("Philips", "philips_to_ismrmrd -f {1} -o {1}.h5"),
    ".fid": ("Bruker or Agilent", "bruker_to_ismrmrd"),
}
"""Suffix of scanners' own raw data -> vendor, and the converter to ISMRMRD with its arguments: file, name."""


def open_scan(
    path: str | Path, *, ignore_mask: bool = False, axes: Sequence[str] | None = None,
    trajectory: Path | None = None,
) -> Reader:
    """Open the volume of k-space in a file, with the reader for its suffix, or for what it holds.

    ignore_mask: take all samples of a fastMRI file, whatever its dataset `mask` says. axes: names of the axes of a
    NumPy, MATLAB or BART array, see `AXES` of `array_scan`. trajectory: BART's file of the positions of samples that
    a .cfl file holds.
    Errors: InputError with the name of the file, if it is no readable scan, or if its format has no such mask or axes.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in VENDORS or path.name in ("fid", "rawdata.job0"):
        vendor, converter = VENDORS.get(suffix, VENDORS[".fid"])
        raise InputError(
            f"{path} looks like raw data of {vendor}, which are read as ISMRMRD files: convert them with"
            f" {converter.format(path.name, path.stem)} (docs/formats.md names where the converters are)"
        )
    if trajectory is not None:
        return BartTrajectory(path, trajectory)
    reader = READERS.get(suffix, FastMRI)
    if suffix in ARRAYS and (axes is not None or suffix not in READERS):
        return open_array(path, axes)
    if axes is not None:
        raise InputError(f"{path} names its axes itself; leave out --axes")
    if reader is FastMRI and _is_ismrmrd(path):
        reader = open_ismrmrd
    if not ignore_mask:
        return reader(path)
    if reader is not FastMRI:
        raise InputError(f"{path} has no dataset mask that could be ignored; leave out --ignore-mask")
    return FastMRI(path, ignore_mask=True)


def _is_ismrmrd(path: Path) -> bool:
    file = open_hdf5(path)
    return "kspace" not in file and find_group(file) is not None


def scan_files(path: str | Path, *, axes: Sequence[str] | None = None) -> list[Path]:
    """The paths of all scans in a folder, sorted; for the path of a file, that path alone.

    path: a folder, a file, or a pair of BART files without their suffix. axes: as in `open_scan`; with them, a folder's
    NumPy and MATLAB arrays are scans, and nothing else.
    Errors: InputError if the path does not exist, or the folder has no scan.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        if (pair := path.with_name(f"{path.name}.cfl")).is_file():
            return [pair]
        raise InputError(f"{path} does not exist; give a scan, or a folder of scans")
    suffixes = list(READERS) if axes is None else [suffix for suffix in ARRAYS if suffix != ".hdr"]
    files = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in suffixes and file.is_file() and not file.name.startswith(".")
    )
    if not files:
        kinds = " or ".join(f"*{suffix}" for suffix in suffixes)
        raise InputError(f"{path} has no {kinds} files; give a scan, or a folder of scans")
    return files
