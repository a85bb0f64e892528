"""DICOM templates in the reading process. Called through `untrusted.read_apart` only."""

from __future__ import annotations

from pathlib import Path

from mri_score.errors import parsing


def study_of(path: Path) -> str:
    """The StudyInstanceUID of a DICOM file, "" without one; everything but its pixels is read.

    path: the file. Errors: InputError for a file that is not DICOM.
    """
    import pydicom

    with parsing(f"{path} cannot be read as DICOM", "it is damaged or has another format"):
        return str(pydicom.dcmread(path, stop_before_pixels=True).get("StudyInstanceUID", ""))
