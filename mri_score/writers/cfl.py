"""BART's pairs of files: name.hdr, a text with the dimensions, and name.cfl, complex64 in column-major order."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mri_score.files import whole_file, write_text
from mri_score.writers.base import OutputVolume

DIMENSIONS = 16
FRAMES, SLICES = 10, 13
"""BART's dimensions of frames and slices; 0 and 1 are readout and phase encoding."""


def write_cfl(stem: Path, array: np.ndarray) -> list[Path]:
    """Write an array of up to 16 axes in BART's order as `<stem>.cfl` and `<stem>.hdr`; return both paths.

    stem: the path without a suffix. array: converted to complex64. Errors: InputError where a file cannot be written.
    """
    sizes = [*array.shape, *[1] * (DIMENSIONS - array.ndim)]
    data, header = stem.with_name(f"{stem.name}.cfl"), stem.with_name(f"{stem.name}.hdr")
    with whole_file(data) as part:
        part.write_bytes(array.astype("<c8").tobytes(order="F"))
    write_text(header, f"# Dimensions\n{' '.join(map(str, sizes))}\n")
    return [data, header]


def write_cfl_volume(folder: Path, volume: OutputVolume) -> list[Path]:
    """Write `<name>`, the complex images, and `<name>_<map>` of each map as pairs of files.

    Slices are dimension 13, frames dimension 10.
    folder: where the files go. volume: what to write. Returns the paths. Errors: as in `write_cfl`.
    """
    frames = volume.by_frame()
    stems = {volume.name: volume.image} | {f"{volume.name}_{name}": array for name, array in volume.maps.items()}
    return [path for stem, array in stems.items() for path in write_cfl(folder / stem, in_bart_order(array[frames]))]


def in_bart_order(array: np.ndarray) -> np.ndarray:
    """Images (F, S, h, w) as BART's (h, w, 1, ..., F, 1, 1, S)."""
    frames, slices, *image = array.shape
    between = [1] * (SLICES - FRAMES - 1)
    return array.transpose(2, 3, 0, 1).reshape(*image, *[1] * (FRAMES - 2), frames, *between, slices)
