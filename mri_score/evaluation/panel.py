"""Pictures of one slice: a panel that compares methods, and single grey images for the report."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mri_score.errors import InputError
from mri_score.evaluation.metrics import Images, as_numpy
from mri_score.files import whole_file

if TYPE_CHECKING:  # matplotlib, Pillow and scipy are slow to import, and most of a run needs no pictures
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Magnitude = NDArray[np.float64]
Zoom = tuple[int, int, int]

GROUND, INK, QUIET, ACCENT = "#14171a", "#e8eaed", "#9aa3ad", "#f2b84b"
COLOURS = "inferno"
GAINS = (1, 2, 5, 10, 20, 50, 100)
COLUMN = 2.1
"""Width of one image of the panel, in inches."""
DPI = 130


def display_window(image: Images) -> tuple[float, float]:
    """Black and white level (low, high) of a picture of `image` (H, W): 0 and its magnitude's 99.5th percentile."""
    return 0.0, float(np.percentile(_magnitude("the image", image), 99.5)) or 1.0


def picture(image: Images, window: tuple[float, float] | None = None) -> bytes:
    """The magnitude of an image (H, W) as a grey PNG of the same size. window: black and white level.

    Errors: InputError for another shape, or values that are not finite.
    """
    from PIL import Image

    image = _magnitude("the image", image)
    low, high = window or display_window(image)
    grey = np.clip((image - low) / (high - low), 0, 1) * 255
    buffer = BytesIO()
    Image.fromarray(grey.round().astype(np.uint8)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def thumbnail(image: Images, side: int = 160) -> bytes:
    """A small grey PNG of an image (H, W), at most `side` pixels wide and high. Errors: as in `picture`."""
    from PIL import Image

    small = Image.open(BytesIO(picture(image)))
    small.thumbnail((side, side))
    buffer = BytesIO()
    small.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def panel(
    images: Mapping[str, Images],
    *,
    truth: Images | None = None,
    std: Images | None = None,
    captions: Mapping[str, str] | None = None,
    zoom: Zoom | None = None,
    gain: float | None = None,
) -> bytes:
    """A PNG of one slice: truth, each of `images`, |error| of the last of them, std; below, a part of each enlarged.

    images: title -> (H, W), the reconstruction last. truth, std: (H, W) in the same units. captions: title ("truth"
    included) -> a second line, such as PSNR and SSIM. zoom: (first row, first column, side) of the enlarged square, by
    default from `choose_zoom`. gain: magnification of the error, by default the largest of GAINS that clips at most
    0.5 % of the pixels.
    All images share black = 0 and white = 99.5th percentile of the truth, or of the last image if there is no truth.
    Error (of magnitudes) and std share a colour bar from 0 to white / gain, in % of white, so that they can be
    compared.
    Errors: InputError for no image, or images of different shapes.
    """
    if not images:
        raise InputError("a panel needs at least one image")
    titled = {**({} if truth is None else {"truth": truth}), **images}
    greys = {title: _magnitude(title, image) for title, image in titled.items()}
    maps = {} if std is None else {"std": _magnitude("std", std)}
    shapes = {title: (image.shape[0], image.shape[1]) for title, image in {**greys, **maps}.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"the images of a panel need one shape; got {shapes}")
    last = list(greys)[-1]
    if truth is not None:
        maps = {"|error|": np.abs(greys[last] - greys["truth"]), **maps}
    _, white = display_window(greys[last if truth is None else "truth"])
    gain = gain or _gain(maps, white)
    zoom = zoom or choose_zoom(greys[last], maps.get("std"))
    columns = [(title, image, "gray", white) for title, image in greys.items()]
    columns += [(title, image, COLOURS, white / gain) for title, image in maps.items()]

    figure, grid, bar = _canvas(len(columns), shapes[last], captions=bool(captions), with_bar=bool(maps))
    for (whole, part), (title, image, colours, top) in zip(grid, columns, strict=True):
        _draw(whole, image, colours, top)
        _draw(part, zoomed(image, zoom), colours, top)
        _write(whole, title, captions.get(title, "") if captions else None)
        _frame(whole, zoom)
    if bar is not None:
        _colour_bar(figure, bar, gain)
    return _png(figure)


def save_png(path: str | Path, png: bytes) -> None:
    """Write png, the bytes of `panel` or `picture`, to the file `path`; it appears complete or not at all."""
    with whole_file(path) as part:
        part.write_bytes(png)


def _gain(maps: Mapping[str, Magnitude], white: float) -> float:
    top = max((float(np.percentile(one, 99.5)) for one in maps.values()), default=0.0)
    return max((gain for gain in GAINS if top * gain <= white), default=GAINS[0])


def choose_zoom(image: Images, std: Images | None = None) -> Zoom:
    """A square (first row, first column, side), a third of the image wide: where the mean square of std is largest.

    Without std, around the middle of the object. Shapes: image and std (H, W).
    """
    from scipy.ndimage import uniform_filter

    image = _magnitude("the image", image)
    side = max(min(image.shape) // 3, 1)
    last = np.array(image.shape) - side
    if std is not None:
        power = uniform_filter(_magnitude("std", std) ** 2, side, mode="constant")
        half = side // 2  # the mean of a square is stored `half` after its first pixel
        inside = power[half : half + last[0] + 1, half : half + last[1] + 1]
        row, column = np.unravel_index(int(inside.argmax()), inside.shape)
        return int(row), int(column), side
    bright = np.argwhere(image > 0.15 * np.percentile(image, 99))
    centre = bright.mean(0) if len(bright) else np.array(image.shape) / 2
    row, column = np.clip(np.round(centre - side / 2), 0, last).astype(int)
    return int(row), int(column), side


def zoomed(image: NDArray, zoom: Zoom) -> NDArray:
    """The square of an image (H, W)."""
    row, column, side = zoom
    return image[row : row + side, column : column + side]


def _canvas(
    count: int, shape: tuple[int, int], *, captions: bool, with_bar: bool
) -> tuple[Figure, list[tuple[Axes, Axes]], Axes | None]:
    """A dark figure laid out in inches: for each column a whole image above a square one, and the colour bar."""
    from matplotlib.figure import Figure

    gap, head, right = 0.06, 0.46 if captions else 0.28, 0.68 if with_bar else 0.0
    tall = COLUMN * shape[0] / shape[1]
    width, height = count * (COLUMN + gap) + gap + right, head + tall + gap + COLUMN + gap
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=GROUND)

    def place(left: float, bottom: float, wide: float, high: float) -> Axes:
        return figure.add_axes((left / width, bottom / height, wide / width, high / height))

    lefts = [gap + column * (COLUMN + gap) for column in range(count)]
    above = COLUMN + 2 * gap
    grid = [(place(left, above, COLUMN, tall), place(left, gap, COLUMN, COLUMN)) for left in lefts]
    return figure, grid, place(count * (COLUMN + gap) + gap, above, 0.09, tall) if with_bar else None


def _draw(axes: Axes, image: Magnitude, colours: str, top: float) -> None:
    axes.imshow(image, cmap=colours, vmin=0, vmax=top, aspect="auto")
    axes.set_axis_off()


def _write(axes: Axes, title: str, caption: str | None) -> None:
    """Write the title above an image, and the caption below the title in grey."""
    style: dict[str, Any] = {"xy": (0, 1), "xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom"}
    axes.annotate(title, xytext=(0, 4 if caption is None else 17), color=INK, fontsize=10.5, **style)
    if caption is not None:
        axes.annotate(caption, xytext=(0, 4), color=QUIET, fontsize=9, **style)


def _frame(axes: Axes, zoom: Zoom) -> None:
    from matplotlib.patches import Rectangle

    row, column, side = zoom
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), side, side, fill=False, edgecolor=ACCENT, linewidth=0.8))


def _colour_bar(figure: Figure, axes: Axes, gain: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(ScalarMappable(Normalize(0, 100 / gain), COLOURS), cax=axes)
    bar.set_label(f"% of white, shown × {gain:g}", color=QUIET, fontsize=9)
    axes.spines["outline"].set_visible(False)
    axes.tick_params(colors=QUIET, labelsize=8.5, length=2)


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", facecolor=GROUND)
    return buffer.getvalue()


def _magnitude(name: str, image: Images) -> Magnitude:
    image = as_numpy(image)
    if image.ndim != 2 or not image.size or not np.isfinite(image).all():
        raise InputError(f"{name} has shape {image.shape}; a picture needs one slice (rows, columns) of finite values")
    return np.abs(image).astype(np.float64)
