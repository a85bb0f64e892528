"""Image metrics as fastMRI defines them, over the whole volume or inside the foreground."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mri_score.errors import InputError

Array = NDArray[np.float64]
Images = ArrayLike | Tensor

WINDOW = 7
"""Side of SSIM's uniform window, in pixels."""


REGIONS = {"whole": "whole image", "foreground": "inside the foreground"}
"""Regions of scores, and their names in tables."""
AIR = "SSIM of the whole image is lower: it counts air, where the truth is noise that no reconstruction should repeat."


def mse(truth: Images, prediction: Images, inside: Images | None = None) -> float:
    """mean |truth - prediction|^2 over the volume or over the pixels `inside`, in the truth's units squared.

    Shapes and errors as in `volume_scores`.
    """
    truth, prediction, inside = _volumes(truth, prediction, inside)
    return float(np.mean(np.square(truth - prediction)[inside]))


def nmse(truth: Images, prediction: Images, inside: Images | None = None) -> float:
    """||truth - prediction||^2 / ||truth||^2 over the volume or over the pixels `inside`.

    Shapes and errors as in `volume_scores`.
    """
    truth, prediction, inside = _volumes(truth, prediction, inside)
    return float(np.sum(np.square(truth - prediction)[inside]) / np.sum(np.square(truth)[inside]))


def psnr(truth: Images, prediction: Images, inside: Images | None = None) -> float:
    """10 log10(max(truth)^2 / mse) in dB, with the mse over the volume or over the pixels `inside`.

    The maximum is always that of the whole volume. Equal images give inf. Shapes and errors as in `volume_scores`.
    """
    truth, prediction, inside = _volumes(truth, prediction, inside)
    error = np.mean(np.square(truth - prediction)[inside])
    return float(10 * np.log10(truth.max() ** 2 / error)) if error else float("inf")


def magnitude_psnr(truth: Images, image: Images) -> float:
    """PSNR (dB) of the magnitudes of images (H, W) or (S, H, W), inside the `foreground` of the truth."""
    target, found = (np.abs(as_numpy(one)) for one in (truth, image))
    target, found = (one[None] if one.ndim == 2 else one for one in (target, found))
    return psnr(target, found, foreground(target))


def ssim(truth: Images, prediction: Images, inside: Images | None = None) -> float:
    """Mean structural similarity of the slices: 7 x 7 uniform window, sample covariance, range = volume maximum.

    With `inside`, the mean of the similarity map over those pixels. Pixels whose window is not completely inside the
    slice are left out in both cases. Shapes as in `volume_scores`.
    Errors: InputError as in `volume_scores`, and for slices smaller than the window.
    Reference: Wang et al., Image quality assessment, IEEE TIP 2004; Zbontar et al., fastMRI, arXiv 1811.08839.
    """
    truth, prediction, inside = _volumes(truth, prediction, inside)
    if min(truth.shape[1:]) < WINDOW:
        rows, columns = truth.shape[1:]
        raise InputError(f"slices of {rows} x {columns} pixels are too small for SSIM; it needs {WINDOW} x {WINDOW}")
    from skimage.metrics import structural_similarity  # slow to import, as scipy's rooms are

    options = {"win_size": WINDOW, "data_range": truth.max(), "full": True}
    maps = [structural_similarity(*pair, **options)[1] for pair in zip(truth, prediction, strict=True)]
    core = (slice(None), *[slice(WINDOW // 2, -(WINDOW // 2))] * 2)
    if not inside[core].any():
        raise InputError("the foreground touches only the border of the slices, where SSIM has no whole window")
    return float(np.stack(maps)[core][inside[core]].mean())


METRICS = {"psnr": psnr, "ssim": ssim, "nmse": nmse, "mse": mse}


def volume_scores(truth: Images, prediction: Images, inside: Images | None = None) -> dict[str, float]:
    """PSNR (dB), SSIM, NMSE and MSE of one volume.

    truth, prediction: (S, H, W), real or complex (then the magnitude is scored), in the same units. inside: bool
    (S, H, W), the pixels to score; None means all. Arrays of different H, W are cropped about the centre to the common
    size, from (N - n) // 2 as in fastMRI. Equal images give PSNR inf, SSIM 1, NMSE 0.
    Errors: InputError for other numbers of axes or slices, values that are not finite, a truth that is zero
    everywhere, and an empty foreground.
    """
    return {name: metric(truth, prediction, inside) for name, metric in METRICS.items()}


def foreground(rss: Images) -> NDArray[np.bool_]:
    """Mask (S, H, W) of the object: RSS > 0.15 of the volume's 99th percentile, holes filled slice by slice.

    rss: (S, H, W), any units. Errors: InputError for another shape, or values that are not finite.
    """
    from scipy.ndimage import binary_fill_holes

    rss = _magnitude("the RSS image", rss)
    return np.stack([binary_fill_holes(one) for one in rss > 0.15 * np.percentile(rss, 99)])


def complex_nrmse(coil_images: Images, maps: Images, prediction: Images, inside: Images | None = None) -> float:
    """||prediction - t|| / ||t|| of complex images, phase included, with t = sum_c conj(maps_c) coil_images_c.

    The fully sampled coil images are combined with the maps of the reconstruction, because maps from fewer calibration
    lines have a different phase. `prediction` has the units of `coil_images`.
    Shapes: coil_images, maps (S, C, H, W), prediction and inside (S, H, W); different sizes are cropped as in
    `volume_scores`.
    Errors: InputError where shapes do not fit, values are not finite, or the projected truth is zero.
    """
    coil_images, maps, prediction = (as_numpy(x) for x in (coil_images, maps, prediction))
    if coil_images.shape != maps.shape or coil_images.ndim != 4:
        raise InputError(f"coil images have shape {coil_images.shape} but maps {maps.shape}; both need (S, C, H, W)")
    truth = np.sum(maps.conj() * coil_images, axis=1)
    truth, prediction, chosen = _same_size(truth, prediction, inside)
    error, norm = np.linalg.norm((prediction - truth)[chosen]), np.linalg.norm(truth[chosen])
    if not norm or not np.isfinite(error + norm):
        raise InputError("complex NRMSE is undefined: the projected truth is zero or a value is not finite")
    return float(error / norm)


def bootstrap_interval(
    values: Sequence[float] | Array,
    groups: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 10_000,
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of the mean of values, one per volume.

    groups: a label for each value, such as the patient; then whole groups are resampled, because volumes of one patient
    are not independent. level: of the interval. seed: of the resampling. resamples: their number.
    A single volume or group gives (nan, nan).
    Errors: InputError for values that are not finite or groups of another number.
    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    values = np.asarray(values, dtype=float)
    groups = range(len(values)) if groups is None else groups
    if len(groups) != len(values) or not np.isfinite(values).all():
        raise InputError(f"the bootstrap needs finite values, one group each; got {values.tolist()} and {groups}")
    members: dict[Hashable, list[float]] = {}
    for group, value in zip(groups, values, strict=True):
        members.setdefault(group, []).append(value)
    if len(members) < 2:
        return float("nan"), float("nan")
    sums = np.array([sum(one) for one in members.values()])
    counts = np.array([len(one) for one in members.values()])
    chosen = np.random.default_rng(seed).integers(len(members), size=(resamples, len(members)))
    means = sums[chosen].sum(1) / counts[chosen].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def centre_crop(image: NDArray, shape: Sequence[int]) -> NDArray:
    """The central (rows, columns) of the last two axes, from (N - n) // 2 as in fastMRI."""
    rows, columns = ((large - small) // 2 for large, small in zip(image.shape[-2:], shape, strict=True))
    return image[..., rows : rows + shape[0], columns : columns + shape[1]]


def _volumes(truth: Images, prediction: Images, inside: Images | None) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Magnitudes of both and the mask of pixels to score, checked and cropped to one size."""
    truth, prediction = _magnitude("the truth", truth), _magnitude("the prediction", prediction)
    truth, prediction, chosen = _same_size(truth, prediction, inside)
    if truth.max() <= 0:
        raise InputError("the truth is zero everywhere: the metrics need its maximum as their range")
    if not truth[chosen].any():
        raise InputError("the truth is zero at every pixel of the foreground; give another foreground")
    return truth, prediction, chosen


def _same_size(truth: NDArray, prediction: NDArray, inside: Images | None) -> tuple[NDArray, NDArray, NDArray]:
    chosen = np.ones(truth.shape, bool) if inside is None else as_numpy(inside).astype(bool)
    shapes = [truth.shape, prediction.shape, chosen.shape]
    if {len(one) for one in shapes} != {3} or len({one[0] for one in shapes}) != 1:
        raise InputError(
            f"the truth has shape {shapes[0]}, the prediction {shapes[1]} and the foreground {shapes[2]};"
            " each must be (slices, rows, columns), with one number of slices"
        )
    common = np.min([one[1:] for one in shapes], axis=0)
    return centre_crop(truth, common), centre_crop(prediction, common), centre_crop(chosen, common)


def _magnitude(name: str, image: Images) -> Array:
    """Complex -> magnitude; real values keep their sign, as in fastMRI."""
    image = as_numpy(image)
    image = (np.abs(image) if np.iscomplexobj(image) else image).astype(np.float64)
    if image.ndim != 3 or not image.size:
        raise InputError(f"{name} has shape {image.shape}; metrics need a volume (slices, rows, columns)")
    if not np.isfinite(image).all():
        raise InputError(f"{name} holds {np.count_nonzero(~np.isfinite(image))} values that are not finite")
    return image


def as_numpy(image: Images) -> NDArray:
    """A NumPy array or torch tensor, on any device, as a NumPy array."""
    return image.detach().cpu().resolve_conj().numpy() if isinstance(image, Tensor) else np.asarray(image)
