"""Images of a stream: pixels of 12 bits, headers with geometry, attributes for the scanner's viewer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mri_score import __version__
from mri_score.readers.geometry import Geometry
from mri_score.streaming.wire import Client

LARGEST = 4095
"""Largest pixel: 12 bits."""
FIRST_WHITE = 2048
"""Pixel of the brightest value of the first image of a series; brighter images that follow still fit."""
MAGNITUDE = 1
"""MRD's number for magnitude images."""
COPIED = ("measurement_uid", "acquisition_time_stamp", "physiology_time_stamp", "user_int", "user_float",
          "patient_table_position")  # fmt: skip


@dataclass
class Series:
    """Images of one kind, sent one after the other.

    number: of the series. name: suffix of the series description. role: DataRole of MRD's attributes. history:
    ImageProcessingHistory. comment: ImageComment. float_pixels: send float32 instead of 12 bits.
    """

    number: int
    name: str
    role: str
    history: tuple[str, ...]
    comment: str
    float_pixels: bool = False
    sent: int = 0
    slope: float = 0.0
    """Value of a pixel step, from the first image."""

    def send(
        self, client: Client, image: np.ndarray, readout: np.void, place: Geometry | None, counters: dict[str, int]
    ) -> None:
        """Send one image.

        client: gets it. image: (rows, cols), not negative, rows along the readout. readout: header of one of its
        readouts, whose times and identifiers are copied. place: its geometry; None copies position and directions of
        the readout. counters: slice, contrast, phase, repetition, set.
        """
        image = np.nan_to_num(image, nan=0, posinf=0, neginf=0)
        largest = float(image.max(initial=0))
        self.slope = self.slope or (largest or 1.0) / FIRST_WHITE
        slope = max(self.slope, largest / LARGEST)  # a pixel times its slope is right, also in a brighter image
        pixels = image.astype("<f4") if self.float_pixels else np.rint(image / slope).astype("<i2")
        self.sent += 1
        fields: dict[str, Any] = {name: readout[name] for name in COPIED} | counters | _placed(image, readout, place)
        fields |= {"image_type": MAGNITUDE, "image_index": self.sent, "image_series_index": self.number}
        client.image(pixels.T[None, None], fields, self._attributes(fields, pixels, slope))

    def _attributes(self, fields: dict[str, Any], pixels: np.ndarray, slope: float) -> dict[str, str | list[str]]:
        white = max(float(np.percentile(pixels, 99.5)), float(np.finfo(np.float32).tiny))
        attributes: dict[str, str | list[str]] = {
            "DataRole": self.role,
            "ImageProcessingHistory": [*self.history, f"mri_score {__version__}"],
            "WindowCenter": f"{white / 2:.6g}",
            "WindowWidth": f"{white:.6g}",
            "SeriesDescriptionAdditional": f"_{self.name}",
            "SequenceDescriptionAdditional": f"_{self.name}",
            "ImageComment": self.comment,
            "ImageRowDir": [f"{value:.9f}" for value in fields["read_dir"]],
            "ImageColumnDir": [f"{value:.9f}" for value in fields["phase_dir"]],
            "Keep_image_geometry": "1",
        }
        if not self.float_pixels:
            attributes |= {"RescaleSlope": f"{slope:.9g}", "RescaleIntercept": "0"}
        return attributes


def _placed(image: np.ndarray, readout: np.void, place: Geometry | None) -> dict[str, Any]:
    """Position, directions and field of view; x runs along the readout, y along the phase encoding."""
    if place is None:
        return {name: readout[name] for name in ("position", "read_dir", "phase_dir", "slice_dir")} | {
            "field_of_view": (*image.shape, 1.0)
        }
    return {
        "position": place.centre,
        "read_dir": place.row_direction,
        "phase_dir": place.column_direction,
        "slice_dir": place.slice_direction,
        "field_of_view": place.field_of_view,
    }
