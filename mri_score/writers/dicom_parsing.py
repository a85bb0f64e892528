"""DICOM templates in the reading process. Called through `untrusted.read_apart` only."""

from __future__ import annotations

from pathlib import Path

from mri_score.errors import InputError


def study_of(path: Path) -> str:
    """The StudyInstanceUID of a DICOM file, "" without one; everything but its pixels is read.

    path: the file. Errors: InputError for a file that is not DICOM.
    """
    import pydicom

    try:
        return str(pydicom.dcmread(path, stop_before_pixels=True).get("StudyInstanceUID", ""))
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises many kinds for a broken file
        raise InputError(f"{path} cannot be read as DICOM: {error}") from error
