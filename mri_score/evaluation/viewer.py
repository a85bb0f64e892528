"""The images of a report's viewer: slices with their draws, maps and baselines, packed for a page without a network."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mri_score.errors import InputError
from mri_score.evaluation.metrics import Images, as_numpy

BUDGET = 5_600_000
"""Largest number of bytes of all images; in base64 a third more, so that a page stays below 8 MB."""
QUALITIES: tuple[tuple[int | None, int | None], ...] = (
    (None, None), (None, 92), (95, 90), (90, 80), (80, 70), (60, 50), (30, 20),
)  # fmt: skip
"""WebP qualities of (images and maps, draws and baselines), tried in this order until the budget holds; None: exact."""
MAPS = {"error": "inferno", "std": "viridis"}
"""Colour maps of what is no image; both are ordered in lightness and safe for colour-blind readers."""
STOPS = 33


@dataclass(frozen=True)
class ShownSlice:
    """The images of one slice (or of one frame of it), each (H, W), complex or magnitude, in one unit.

    title: such as "Slice 3, repetition 2". slice, frame: numbers that order them. std: of each real component. truth:
    None for a scan without one. baselines: title -> image. draws: samples of the posterior.
    """

    title: str
    reconstruction: Images
    slice: int = 0
    frame: int = 0
    std: Images | None = None
    truth: Images | None = None
    baselines: Mapping[str, Images] = field(default_factory=dict)
    draws: Sequence[Images] = ()


@dataclass(frozen=True)
class Viewer:
    """What the page's viewer shows.

    slices: their images, all of one shape. estimate: title of the reconstruction, such as "mean of 4 draws". unit:
    factor to the unit of the scale bars. unit_name: of that unit. captions: title of an image -> short text, such as
    its scores. pixel: distance in mm of neighbouring rows and columns; None if it is not known. edges: letters of the
    patient's left, right, top and bottom in the image, such as "RLAP"; empty if they are not known.
    Errors: InputError for no slice, other shapes, and values that are not finite.
    """

    slices: Sequence[ShownSlice]
    estimate: str = "reconstruction"
    unit: float = 1.0
    unit_name: str = "file's units"
    captions: Mapping[str, str] = field(default_factory=dict)
    pixel: tuple[float, float] | None = None
    edges: str = ""

    def json(self) -> str:
        """The data of the viewer as JSON that may stand inside an HTML element.

        Images are stored by the root of their value, in 8 bits, so that dark parts keep their steps. Where all of them
        exceed BUDGET, they are compressed with loss, draws and baselines first; `quality` in the data says so.
        """
        greys = [_magnitudes(one) for one in self.slices]
        if not greys or len({image.shape for one in greys for image in one.values()}) > 1:
            raise InputError("a viewer needs at least one slice, and images of one shape")
        images = [image for one in greys for name, image in one.items() if name != "std"]
        white = max(float(np.percentile(np.stack([one["reconstruction"] for one in greys]), 99.5)), 1e-30)
        top = max(white, *(float(np.percentile(image, 99.95)) for image in images))
        spread = [one["std"] for one in greys if "std" in one]
        errors = [np.abs(one["reconstruction"] - one["truth"]) for one in greys if "truth" in one]
        tops = {"image": top, "std": _most(spread, 99.95, top)}
        packed, exact = _packed(greys, tops)
        places = [
            {"title": shown.title, "slice": shown.slice, "frame": shown.frame, "images": images}
            for shown, images in zip(self.slices, packed, strict=True)
        ]
        rows, cols = greys[0]["reconstruction"].shape
        data = {
            "rows": rows,
            "cols": cols,
            "places": places,
            "tops": tops,
            "white": white,
            "scales": {"std": _most(spread, 99.5, white), "error": _most(errors, 99.5, white)},
            "estimate": self.estimate,
            "unit": self.unit,
            "unit_name": self.unit_name,
            "captions": dict(self.captions),
            "pixel": self.pixel,
            "edges": self.edges,
            "exact": exact,
            "colours": {name: _stops(colours) for name, colours in MAPS.items()},
        }
        return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def _magnitudes(shown: ShownSlice) -> dict[str, NDArray[np.float64]]:
    """The images of a slice by the names that the page uses."""
    given: dict[str, Images | None] = {"reconstruction": shown.reconstruction, "std": shown.std, "truth": shown.truth}
    given |= {f"baseline {title}": image for title, image in shown.baselines.items()}
    given |= {f"draw {number}": image for number, image in enumerate(shown.draws, 1)}
    found = {name: np.abs(as_numpy(image)).astype(np.float64) for name, image in given.items() if image is not None}
    if any(image.ndim != 2 or not image.size or not np.isfinite(image).all() for image in found.values()):
        raise InputError(f"{shown.title}: a viewer needs images (rows, columns) of finite values")
    return found


def _most(images: Sequence[NDArray[np.float64]], share: float, otherwise: float) -> float:
    """A percentile of all of the images; a small part of `otherwise` at least, and that itself without images."""
    return max(float(np.percentile(np.stack(images), share)), 1e-6 * otherwise) if images else otherwise


def _packed(
    greys: Sequence[Mapping[str, NDArray[np.float64]]], tops: Mapping[str, float]
) -> tuple[list[dict[str, str]], bool]:
    """For each slice name -> data URL; and whether all of them are exact to their 8 bits."""
    tried = [greys[place] for place in sorted({0, len(greys) // 2, len(greys) - 1})]
    for main, other in QUALITIES:
        share = sum(map(len, tried)) / sum(map(len, greys))
        some = _files(tried, tops, main, other)
        if sum(len(file) for one in some for file in one.values()) > share * BUDGET and other != QUALITIES[-1][1]:
            continue  # a few slices say so without encoding all of them
        files = _files(greys, tops, main, other)
        if sum(len(file) for one in files for file in one.values()) <= BUDGET:
            break
    urls = [{name: "data:image/webp;base64," + b64encode(file).decode() for name, file in one.items()} for one in files]
    return urls, (main, other) == QUALITIES[0]


def _files(
    greys: Sequence[Mapping[str, NDArray[np.float64]]], tops: Mapping[str, float], main: int | None, other: int | None
) -> list[dict[str, bytes]]:
    """The images as WebP. main, other: qualities as in QUALITIES; names of draws and baselines have a space."""
    return [
        {
            name: _webp(image, tops["std" if name == "std" else "image"], other if " " in name else main)
            for name, image in one.items()
        }
        for one in greys
    ]


def _webp(image: NDArray[np.float64], top: float, quality: int | None) -> bytes:
    from PIL import Image  # slow to import

    grey = Image.fromarray((255 * np.sqrt(np.clip(image / top, 0, 1))).round().astype(np.uint8)).convert("RGB")
    buffer = BytesIO()
    how: dict[str, Any] = {"quality": quality, "method": 2}
    if quality is None:  # here, quality is the effort
        how = {"lossless": True, "quality": 20, "method": 1}
    grey.save(buffer, format="WEBP", **how)
    return buffer.getvalue()


def _stops(name: str) -> list[list[int]]:
    """Colours (red, green, blue) from the lowest to the highest value."""
    from matplotlib import colormaps  # slow to import

    return (255 * colormaps[name](np.linspace(0, 1, STOPS))[:, :3]).round().astype(int).tolist()
