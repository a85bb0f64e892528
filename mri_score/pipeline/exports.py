"""Results in other formats, made from a result file: NIfTI, DICOM and BART's cfl."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from mri_score.errors import InputError, unknown_name
from mri_score.files import sha256, write_text
from mri_score.pipeline.derived import Derived
from mri_score.pipeline.placement import frames_of, geometries_of, read_placement
from mri_score.readers.base import Reader
from mri_score.readers.hdf5 import reading
from mri_score.writers.base import OutputVolume
from mri_score.writers.cfl import write_cfl_volume
from mri_score.writers.dicom import check_dicom, read_template, write_dicom
from mri_score.writers.nifti import check_nifti, write_nifti

FORMATS = ("hdf5", "nifti", "dicom", "cfl")
"""The values of --write. The result file, HDF5, is always written, and the others are made from it."""
FACTS = {"method": str, "prior": str, "prior_sha256": str, "true_acceleration": float, "draws": int, "seed": int}
"""Attributes of result files that other formats carry on, and their types."""


def read_result(path: Path) -> OutputVolume:
    """The volume of a result file for writers: maps are std and interval where the result has them.

    path: the result file. Errors: InputError for a damaged file.
    """
    with reading(path), h5py.File(path) as file:
        phase = np.angle(file["reconstruction_complex"][()])
        image = (file["reconstruction"][()] * np.exp(1j * phase)).astype(np.complex64)
        maps = {name: file[name][()] for name in ("std", "interval") if name in file}
        maps = {name: values for name, values in maps.items() if values.any()}  # a single draw has no spread
        facts = {name: kind(file.attrs[name]) for name, kind in FACTS.items() if name in file.attrs}
        numbers, frames = (file[name][()].tolist() if name in file else [] for name in ("slices", "frame"))
        return OutputVolume(path.stem, image, maps, read_placement(file), facts, numbers, frames)


@dataclass(frozen=True)
class Export(Derived):
    """The files of one format, made from a result file.

    folder: where the files of all volumes go. records: where a note of each volume goes, by default there too.
    """

    folder: Path
    records: Path | None = field(default=None, kw_only=True)

    @property
    def key(self) -> str:
        """Text for what else decides on the files."""
        return ""

    def write_files(self, volume: OutputVolume) -> list[Path]:
        """Write the files of a volume; return their paths. Errors: InputError."""
        raise NotImplementedError

    def current(self, result: Path) -> bool:
        of, names = self._recorded(result)
        return of == self._of(result) and all((self.folder / name).is_file() for name in names)

    def write(self, result: Path) -> list[Path]:
        volume = read_result(result)
        for name in self._recorded(result)[1]:  # a volume of fewer slices leaves no files of another behind
            (self.folder / name).unlink(missing_ok=True)
        paths = self.write_files(volume)
        names = [path.relative_to(self.folder).as_posix() for path in paths]
        write_text(self._record(result), json.dumps({"of": self._of(result), "files": names}))
        return paths

    def _recorded(self, result: Path) -> tuple[str, list[str]]:
        """What the files were made from, and their names; none where there is no readable note."""
        try:
            record = json.loads(self._record(result).read_text(encoding="utf-8"))
            names = [
                name for name in record["files"] if (self.folder / name).resolve().is_relative_to(self.folder.resolve())
            ]
            return str(record["of"]), names
        except (OSError, ValueError, KeyError, TypeError):
            return "", []

    def _record(self, result: Path) -> Path:
        """The path of a note that states what was written from which result."""
        return (self.records or self.folder) / f".{result.stem}.json"

    def _of(self, result: Path) -> str:
        with reading(result), h5py.File(result) as file:
            return f"{file.attrs['identity']} {self.key}"


class Nifti(Export):
    """NIfTI files with JSON sidecars, see `write_nifti`."""

    title = "nifti"

    def write_files(self, volume: OutputVolume) -> list[Path]:
        return write_nifti(self.folder, volume)


class Cfl(Export):
    """Pairs of files for BART, see `write_cfl_volume`."""

    title = "cfl"

    def write_files(self, volume: OutputVolume) -> list[Path]:
        return write_cfl_volume(self.folder, volume)


@dataclass(frozen=True)
class Dicom(Export):
    """DICOM series, one folder a volume, see `write_dicom`. like: a file of the exam, see `read_template`; or None."""

    like: Path | None = None
    title = "dicom"

    @property
    def key(self) -> str:
        return "" if self.like is None else sha256(self.like)

    def write_files(self, volume: OutputVolume) -> list[Path]:
        return write_dicom(self.folder / volume.name, volume, None if self.like is None else read_template(self.like))


def exports(out: Path, formats: Sequence[str], like: Path | None = None) -> list[Derived]:
    """What is made from results for --write, each in its folder of `out`.

    out: the output folder. formats: of FORMATS. like: a DICOM file whose patient and study the results get.
    Errors: InputError for an unknown format, a missing package, and for a template that is no DICOM file, or without
    the format dicom.
    """
    for name in formats:
        if name not in FORMATS:
            raise unknown_name("--write", name, FORMATS)
    if like is not None and "dicom" not in formats:
        raise InputError("--dicom-like needs --write dicom; add it, or leave out --dicom-like")
    found: list[Derived] = []
    if "nifti" in formats:
        check_nifti()
        found.append(Nifti(out / "nifti"))
    if "dicom" in formats:
        check_dicom()
        if like is not None:
            read_template(like)
        found.append(Dicom(out / "dicom", like))
    if "cfl" in formats:
        found.append(Cfl(out / "cfl"))
    return found


def check_placement(file: Reader, slices: Sequence[int], formats: Sequence[str]) -> None:
    """Refuse, before anything is computed, a scan whose result could not be written in these formats.

    file: the scan. slices: those that will be reconstructed. Errors: InputError without pixel sizes, for
    frames of unequal slices, and for NIfTI for slices that are not evenly spaced.
    """
    if not {"nifti", "dicom", "cfl"} & set(formats):
        return
    places = geometries_of(file, slices)
    frames = frames_of(file, slices)
    volume = OutputVolume(str(file.path), np.zeros((len(slices), *file.crop), np.complex64), {}, places, frames=frames)
    volume.by_frame()
    if "nifti" in formats:
        volume.affine()
    if "dicom" in formats:
        assert volume.places
