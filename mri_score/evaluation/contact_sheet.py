"""Many images on one sheet: magnitudes in grey, phases in colour, colour images as they are."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from mri_score.errors import InputError
from mri_score.evaluation.metrics import Images, as_numpy
from mri_score.evaluation.panel import display_window, picture

GAP = 2
"""Black pixels between the images of a sheet."""


def tiled(images: Images, columns: int | None = None) -> NDArray:
    """Arrange images (N, H, W), complex or real, row by row on one sheet, with `GAP` black pixels between them.

    columns: images per row; by default about sqrt(N). Returns (rows (H + GAP) - GAP, columns (W + GAP) - GAP).
    Errors: InputError for no images, and for another number of axes.
    """
    stack = as_numpy(images)
    if stack.ndim != 3 or not stack.size:
        raise InputError(f"a sheet needs images (N, rows, columns), one or more; got shape {stack.shape}")
    columns = min(columns or math.ceil(len(stack) ** 0.5), len(stack))
    rows = math.ceil(len(stack) / columns)
    blank = np.zeros((rows * columns - len(stack), *stack.shape[1:]), stack.dtype)
    padded = np.pad(np.concatenate([stack, blank]), ((0, 0), (0, GAP), (0, GAP)))
    high, wide = padded.shape[1:]
    sheet = padded.reshape(rows, columns, high, wide).swapaxes(1, 2).reshape(rows * high, columns * wide)
    return sheet[:-GAP, :-GAP]


def magnitude_sheet(images: Images, columns: int | None = None) -> bytes:
    """The magnitudes of images (N, H, W) as a grey PNG; black is 0, white the 99.5th percentile of all images.

    columns: images in a row; None makes the sheet nearly square.
    """
    return picture(tiled(images, columns), _window(images))


def phase_sheet(images: Images, columns: int | None = None) -> bytes:
    """The phases of images (N, H, W) as a colour PNG: hue is phase (red 0, cyan pi), brightness is magnitude.

    columns: images in a row; None makes the sheet nearly square.
    """
    from matplotlib.colors import hsv_to_rgb  # slow to import

    sheet = tiled(images, columns)
    white = _window(images)[1]
    hue = np.angle(sheet) / (2 * np.pi) % 1
    bright = np.clip(np.abs(sheet) / white, 0, 1) ** 0.5  # the root makes the phase of dark regions visible
    return _colours(hsv_to_rgb(np.stack([hue, np.full_like(bright, 0.75), bright], -1)))


def colour_sheet(images: Images, columns: int | None = None) -> bytes:
    """A colour PNG of images (N, 3, H, W) with values in [0, 1].

    columns: images in a row; None makes the sheet nearly square.
    """
    return _colours(np.stack([tiled(one, columns) for one in as_numpy(images).swapaxes(0, 1)], -1))


def _colours(sheet: NDArray) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray((sheet.clip(0, 1) * 255).round().astype(np.uint8)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _window(images: Images) -> tuple[float, float]:
    """Black and white levels of all images together, without the gaps."""
    stack = as_numpy(images)
    return display_window(stack.reshape(-1, stack.shape[-1]))
