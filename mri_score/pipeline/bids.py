"""BIDS: raw scans by their names, and results as a derivative dataset."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mri_score import __version__
from mri_score.errors import InputError
from mri_score.files import write_text
from mri_score.pipeline.exports import Export
from mri_score.readers import ARRAYS, READERS
from mri_score.writers.base import OutputVolume
from mri_score.writers.nifti import check_nifti, write_nifti

VERSION = "1.10.0"
"""Version of BIDS that the derivative dataset follows."""
NAME = re.compile(r"(?P<entities>sub-(?P<sub>[A-Za-z0-9]+)(_ses-(?P<ses>[A-Za-z0-9]+))?(_[a-z]+-[A-Za-z0-9]+)*)"
                  r"_(?P<suffix>[A-Za-z0-9]+)")  # fmt: skip
"""File name of a scan, without its suffix."""
KINDS = {"part-mag": "part-mag_desc-mean", "part-phase": "part-phase_desc-mean"}
"""Kind of image -> entities of its name; kinds that are not here stay as they are, such as desc-std."""
IGNORED = "/mri_score\n"
"""Contents of .bidsignore: the folder of result files and reports."""
README = """Magnetic resonance images, reconstructed from the raw data of another dataset by mri_score.

part-mag_desc-mean   magnitude of the posterior mean
part-phase_desc-mean its phase
desc-std             standard deviation of the posterior draws, in the units of the magnitude
desc-interval        half width of conformal intervals of the magnitude, where they were asked for

Result files with all arrays and settings, and reports, are in the folder mri_score. Research use only.
"""


@dataclass(frozen=True)
class BidsScan:
    """A raw scan of a BIDS dataset."""

    path: Path
    """Path of the file."""
    folder: Path
    """Folder of the file, relative to the dataset, such as sub-01/anat."""
    source: str
    """BIDS URI of the file."""
    entities: str
    """The name up to its suffix, such as sub-01_acq-fast."""
    suffix: str
    """The last part of the name, such as T2w."""


def find_scans(folder: Path, participants: Sequence[str] = (), sessions: Sequence[str] = ()) -> list[BidsScan]:
    """The raw scans `sub-<label>/[ses-<label>/]<datatype>/sub-<label>_..._<suffix>.h5` of a dataset, sorted.

    folder: of the dataset; scans may lie in its folder sourcedata too. participants, sessions: labels, with or without
    sub- and ses-; all if empty. Errors: InputError for a folder that does not exist, a label without a scan, and names
    that occur twice.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder of a BIDS dataset")
    people = [label.removeprefix("sub-") for label in participants]
    visits = [label.removeprefix("ses-") for label in sessions]
    found: list[BidsScan] = []
    seen: set[str] = set()
    arrays: list[Path] = []
    for root in (folder, folder / "sourcedata"):
        for path in sorted(root.glob("sub-*/**/sub-*")):
            name, place = NAME.fullmatch(path.stem), path.parent.relative_to(root)
            if name is None or place.parts[0] != f"sub-{name['sub']}" or not path.is_file():
                continue
            if path.suffix.lower() not in READERS:
                arrays += [path] if path.suffix.lower() in ARRAYS else []
                continue
            seen.add(name["sub"])
            if (people and name["sub"] not in people) or (visits and name["ses"] not in visits):
                continue
            source = f"bids:raw:{path.relative_to(folder).as_posix()}"
            found.append(BidsScan(path, place, source, name["entities"], name["suffix"]))
    missing = [label for label in people if label not in seen]
    if missing or not found:
        who = ", ".join(f"sub-{label}" for label in missing) or "any participant"
        more = ""
        if arrays:
            more = f"; {arrays[0].name} is an array, without the pixel sizes that NIfTI needs: write an ISMRMRD file"
        raise InputError(
            f"{folder} has no scans of {who}; they are named as BIDS names images, for example"
            f" sub-01/anat/sub-01_T2w.h5 ({', '.join(READERS)}), in the dataset or its folder sourcedata{more}"
        )
    names = [scan.path.stem for scan in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"{folder} has more than one scan {min(twice)}; their results would have one name: remove one")
    return found


def write_description(out: Path, source: Path) -> None:
    """Write dataset_description.json, README and .bidsignore of a derivative dataset.

    out: its folder. source: the folder of the raw dataset.
    Errors: InputError without nibabel, for a folder that is the raw dataset itself, and where it cannot be written.
    """
    check_nifti()
    if out.resolve() == source.resolve():
        raise InputError(
            f"{out} is the raw dataset itself; give another folder, such as {source}/derivatives/mri_score"
        )
    description = {
        "Name": "mri_score: images with uncertainty from raw data",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "mri_score", "Version": __version__}],
        "DatasetLinks": {"raw": source.resolve().as_uri()},
    }
    write_text(out / "dataset_description.json", json.dumps(description, indent=2) + "\n")
    write_text(out / ".bidsignore", IGNORED)
    write_text(out / "README", README)


@dataclass(frozen=True)
class Derivative(Export):
    """The NIfTI files of one scan of a BIDS dataset. scan: the scan."""

    scan: BidsScan
    title = "bids"

    def write_files(self, volume: OutputVolume) -> list[Path]:
        more = {"Sources": [self.scan.source], "SkullStripped": False}
        return write_nifti(self.folder, volume, self._name, more)

    def _name(self, kind: str) -> str:
        return f"{self.scan.entities}_{KINDS.get(kind, kind)}_{self.scan.suffix}"
