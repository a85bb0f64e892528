"""DICOM: a derived MR series of magnitudes; each map as a parametric map and as a series that any viewer shows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mri_score import __version__
from mri_score.errors import InputError
from mri_score.files import whole_file
from mri_score.readers.geometry import Geometry
from mri_score.untrusted.process import read_apart
from mri_score.writers.base import OutputVolume

if TYPE_CHECKING:
    from pydicom import Dataset

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
LARGEST = 4095
"""Largest stored value: 12 bits, which every viewer shows."""
MANUFACTURER, SERIAL = "mri_score", "0"
LARGEST_TEMPLATE = 1 << 28
"""Bytes of the largest template file."""


def check_dicom() -> None:
    """Errors: InputError where highdicom is not installed."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise InputError("writing DICOM needs highdicom: pip install 'mri-score[dicom]'") from error


def read_template(path: Path) -> Dataset:
    """The attributes, without the pixels, of a DICOM file whose patient and study the results are to have.

    path: the file. Errors: InputError without highdicom, for a file that is not DICOM, and for one without a study.
    """
    check_dicom()
    import pydicom

    try:
        if path.stat().st_size > LARGEST_TEMPLATE:
            raise InputError(f"{path} is larger than {LARGEST_TEMPLATE >> 20} MiB, too large for one slice")
        # compressed attributes could inflate without end: first where memory is limited
        read_apart("mri_score.writers.dicom_parsing:study_of", path, memory=512 << 20)
        template = pydicom.dcmread(path, stop_before_pixels=True)
    except InputError as error:
        raise InputError(f"--dicom-like {error}; name a file of the exam") from error
    except Exception as error:  # pydicom raises many kinds for a broken file
        raise InputError(f"--dicom-like {path} cannot be read as DICOM: {error}; name a file of the exam") from error
    if not template.get("StudyInstanceUID"):
        raise InputError(f"--dicom-like {path} has no StudyInstanceUID; name a file of the exam")
    return template


def write_dicom(folder: Path, volume: OutputVolume, like: Dataset | None = None) -> list[Path]:
    """Write the magnitude as a derived MR series, and of each map a parametric map and a rescaled series.

    Series numbers are 9001 for the magnitude, then two for each map. Patient and study are empty unless `like` is
    given; the frame of reference is that of `like` if the scan states its orientation, else a new one. Equal results
    with equal facts have equal UIDs, so that a repetition replaces them in an archive.
    folder: where the files go, one folder a series. volume: what to write. like: a dataset of `read_template`.
    Returns the paths. Errors: InputError without highdicom, and where a file cannot be written.
    """
    check_dicom()
    study = _Study(volume, like)
    series = study.images(volume.magnitude, 9001, "magnitude", ["DERIVED", "PRIMARY", "M"])
    written = [_save(folder / "magnitude", one) for one in series]
    for place, (name, array) in enumerate(volume.maps.items()):
        number, kind = 9002 + 2 * place, ["DERIVED", "SECONDARY", "OTHER", name.upper()]
        written += [_save(folder / name, one) for one in study.images(array, number, name, kind)]
        for frame, numbers in enumerate(volume.by_frame()):
            source = [series[one] for one in numbers]
            made = study.parametric_map(source, array[numbers], number + 1, name, frame)
            written.append(_save(folder / f"{name}_map", made))
    return written


@dataclass(frozen=True)
class _Study:
    """Everything that the files of one volume share."""

    volume: OutputVolume
    like: Dataset | None

    def uid(self, *parts: object) -> str:
        """A UID derived from the volume, its facts and these parts."""
        study = None if self.like is None else str(self.like.StudyInstanceUID)
        facts = repr((study, self.volume.name, sorted(self.volume.facts.items()), parts)).encode()
        digest = hashlib.sha256(facts + self.volume.image.tobytes()).digest()
        return f"2.25.{int.from_bytes(digest[:16], 'big')}"

    @property
    def derivation(self) -> str:
        """How the volume was made, as text of at most 1024 characters."""
        facts = "; ".join(f"{name} {value}" for name, value in self.volume.facts.items())
        assumed = "" if self.volume.oriented else "; orientation assumed, not stated by the scan"
        return f"mri_score {__version__}, research use only; {facts}{assumed}"[:1024]

    def images(self, array: np.ndarray, number: int, name: str, kind: list[str]) -> list[Dataset]:
        """One MR image a slice, with one slope for the series."""
        largest = float(array.max(initial=0)) or 1.0
        slope = float(f"{largest / LARGEST:.8e}")  # a decimal string of DICOM has at most 16 characters
        stored = np.rint(np.clip(array / slope, 0, LARGEST)).astype(np.uint16)
        return [
            self._image(stored[place], self.volume.places[place], place, slope, number, name, kind)
            for place in range(len(array))
        ]

    def _image(
        self, stored: np.ndarray, place: Geometry, index: int, slope: float, number: int, name: str, kind: list[str]
    ) -> Dataset:
        from highdicom.base import SOPClass

        one = SOPClass(
            study_instance_uid=self.uid("study") if self.like is None else self.like.StudyInstanceUID,
            series_instance_uid=self.uid("series", name),
            series_number=number,
            sop_instance_uid=self.uid("image", name, index),
            sop_class_uid=MR_IMAGE,
            instance_number=index + 1,
            modality="MR",
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MANUFACTURER,
            software_versions=__version__,
            device_serial_number=SERIAL,
            series_description=f"mri_score {name}",
            transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN,
            content_qualification=None,
            patient_id="",
            patient_name="",
            patient_sex="",
            patient_birth_date="",
            accession_number="",
            study_id="",
            specific_character_set="ISO_IR 192",
        )
        if self.like is not None:
            one.copy_patient_and_study_information(self.like)
        for keyword, value in {**self._plane(place), **_pixels(stored, slope), **_mr(kind)}.items():
            setattr(one, keyword, value)
        if len(frames := sorted(set(self.volume.frames))) > 1:
            one.TemporalPositionIdentifier = frames.index(self.volume.frames[index]) + 1
            one.NumberOfTemporalPositions = len(frames)
        one.DerivationDescription = self.derivation
        one.PixelData = stored.tobytes()
        return one

    def _plane(self, place: Geometry) -> dict[str, Any]:
        """The module Image Plane and the frame of reference. DICOM's first direction is that of columns' numbers."""
        frame = None if self.like is None or not place.oriented else self.like.get("FrameOfReferenceUID")
        position = None if frame is None or self.like is None else self.like.get("PatientPosition")
        down, across, thickness = place.voxel_size
        return {
            "FrameOfReferenceUID": frame or self.uid("frame"),
            "PositionReferenceIndicator": "",
            "PatientPosition": position or "",
            "PixelSpacing": _decimals(down, across),
            "SliceThickness": _decimals(thickness)[0],
            "ImageOrientationPatient": _decimals(*place.column_direction, *place.row_direction),
            "ImagePositionPatient": _decimals(*place.position),
        }

    def parametric_map(self, series: list[Dataset], array: np.ndarray, number: int, name: str, frame: int) -> Dataset:
        """All slices of a frame as one parametric map of float pixels, which refers to their magnitudes."""
        from highdicom import VOILUTTransformation
        from highdicom.pm import ParametricMap, RealWorldValueMapping
        from pydicom.sr.codedict import codes

        largest = float(array.max(initial=0)) or 1.0
        mapping = RealWorldValueMapping(
            lut_label=name[:16].upper(),
            lut_explanation=f"{name} in the units of the image",
            unit=codes.UCUM.NoUnits,
            value_range=(0.0, largest),
            slope=1.0,
            intercept=0.0,
        )
        made = ParametricMap(
            source_images=series,
            pixel_array=array.astype(np.float32),
            series_instance_uid=self.uid("series", name, "map"),
            series_number=number,
            sop_instance_uid=self.uid("map", name, frame),
            instance_number=frame + 1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MANUFACTURER,
            software_versions=__version__,
            device_serial_number=SERIAL,
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[VOILUTTransformation(window_center=largest / 2, window_width=largest)],
            content_description=self.derivation[:64],
            content_label=name[:16].upper(),
            series_description=f"mri_score {name}, float",
        )
        made.DerivationDescription = self.derivation
        return made


def _pixels(stored: np.ndarray, slope: float) -> dict[str, Any]:
    """The modules Image Pixel, VOI LUT and Modality LUT."""
    white = max(1.0, float(np.percentile(stored, 99.5)))
    return {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "RescaleIntercept": "0",
        "RescaleSlope": f"{slope:.8e}",
        "RescaleType": "US",
        "WindowCenter": _decimals(white * slope / 2)[0],
        "WindowWidth": _decimals(white * slope)[0],
    }


def _mr(kind: list[str]) -> dict[str, Any]:
    """The module MR Image; RM is DICOM's term for a research sequence; unknown entries are empty."""
    return {
        "ImageType": kind,
        "ScanningSequence": "RM",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "",
        "EchoTime": None,
        "RepetitionTime": None,
        "EchoTrainLength": None,
        "BurnedInAnnotation": "NO",
    }


def _decimals(*values: float) -> list[str]:
    """Numbers as decimal strings of DICOM, at most 16 characters each."""
    return [f"{value:.9g}" if len(f"{value:.9g}") <= 16 else f"{value:.8e}" for value in values]


def _save(folder: Path, one: Dataset) -> Path:
    path = folder / f"{int(one.InstanceNumber):04d}.dcm"
    with whole_file(path) as part:
        one.save_as(part)
    return path
