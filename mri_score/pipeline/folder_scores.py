"""Scores of a folder of reconstructions against a folder of targets, as in fastMRI's evaluate script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mri_score.errors import InputError
from mri_score.evaluation.metrics import METRICS, centre_crop, foreground, volume_scores
from mri_score.readers.hdf5 import open_hdf5, plain_dataset, read_whole

ATTRIBUTES = ("acquisition", "acceleration")

LARGEST_VOLUME = 1 << 30
"""Largest volume that is scored, in bytes: the metrics need its maximum and its foreground, so it is held in memory."""


@dataclass(frozen=True)
class FolderScores:
    """PSNR (dB), SSIM, NMSE and MSE of each volume, by file name: of the whole image, and inside the foreground."""

    volumes: Mapping[str, Mapping[str, float]]
    foreground: Mapping[str, Mapping[str, float]]

    def summary(self, region: str = "whole") -> dict[str, tuple[float, float]]:
        """Metric -> (mean over volumes, twice their sample standard deviation; nan for a single volume).

        region: whole or foreground.
        """
        scores = {"whole": self.volumes, "foreground": self.foreground}[region]
        return {name: _mean_and_two_std([one[name] for one in scores.values()]) for name in METRICS}


def score_folders(
    target_dir: str | Path,
    predictions_dir: str | Path,
    *,
    target: str = "reconstruction_rss",
    acceleration: float | None = None,
    acquisition: str | None = None,
) -> FolderScores:
    """Score every target_dir/*.h5 against the file of the same name in predictions_dir.

    target: dataset of the target files, "reconstruction_rss", or "reconstruction_esc" for single-coil files. It is
    compared with the dataset `reconstruction` of the predictions; both are (slices, rows, columns) and are cropped
    about the centre to W x W, where W is the number of columns of the target. acquisition, acceleration: score only
    files whose attribute of that name is equal; the acceleration comes from the prediction if the target file has none,
    as in fastMRI's training set.
    Errors: InputError for a missing prediction, a broken file, wrong shapes, and if no file is left to score.
    """
    target_dir, predictions_dir = Path(target_dir), Path(predictions_dir)
    volumes: dict[str, dict[str, float]] = {}
    inside: dict[str, dict[str, float]] = {}
    seen: set[str] = set()
    for path in sorted(target_dir.glob("*.h5")):
        truth, attributes = _read(path, target)
        seen.add(f"acquisition {attributes.get('acquisition')}")
        if acquisition is not None and attributes.get("acquisition") != acquisition:
            continue
        prediction_path = predictions_dir / path.name
        if not prediction_path.is_file():
            raise InputError(f"{predictions_dir} has no prediction for {path.name}; reconstruct it first")
        prediction, prediction_attributes = _read(prediction_path, "reconstruction")
        found = attributes.get("acceleration", prediction_attributes.get("acceleration"))
        seen.add(f"acceleration {found}")
        if acceleration is not None and not _equals(found, acceleration):
            continue
        volumes[path.name], inside[path.name] = _scores(prediction_path, truth, prediction)
    if not volumes:
        known = f"the files have {', '.join(sorted(seen))}" if seen else "it has no *.h5 file"
        raise InputError(f"{target_dir} has no volume to score; {known}")
    return FolderScores(volumes, inside)


def _mean_and_two_std(column: list[float]) -> tuple[float, float]:
    if len(column) < 2 or not np.isfinite(column).all():  # identical images have an infinite PSNR
        return float(np.mean(column)), float("nan")
    return float(np.mean(column)), 2 * float(np.std(column, ddof=1))


def _equals(found: str | None, number: float) -> bool:
    """Whether an attribute, which some files hold as text, is this number."""
    try:
        return found is not None and float(found) == number
    except ValueError:
        return False


def _scores(path: Path, truth: NDArray, prediction: NDArray) -> tuple[dict[str, float], dict[str, float]]:
    """The scores of one volume, of the whole image and inside the foreground."""
    columns = truth.shape[-1]
    square = (min(truth.shape[-2], columns), columns)
    if len(prediction) != len(truth) or prediction.shape[-2] < square[0] or prediction.shape[-1] < square[1]:
        raise InputError(
            f"{path}: reconstruction has shape {prediction.shape} but the target {truth.shape};"
            f" it needs {len(truth)} slices of at least {square[0]} x {square[1]}"
        )
    try:
        truth, prediction = centre_crop(truth, square), centre_crop(prediction, square)
        return volume_scores(truth, prediction), volume_scores(truth, prediction, foreground(truth))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read(path: Path, name: str) -> tuple[NDArray, dict[str, str]]:
    """Read one real volume of an HDF5 file, and its ATTRIBUTES."""
    with open_hdf5(path) as file:
        dataset = plain_dataset(file, path, name)
        if dataset is None:
            raise InputError(f"{path} has no dataset {name!r}; it has {', '.join(sorted(file)) or 'none'}")
        if dataset.ndim != 3 or dataset.dtype.kind not in "fiu" or not dataset.size:
            raise InputError(
                f"{path}: {name!r} is {dataset.dtype} of shape {dataset.shape}; it needs real (slices, rows, columns)"
            )
        if dataset.nbytes > LARGEST_VOLUME:
            raise InputError(
                f"{path}: {name!r} has {dataset.nbytes} bytes; volumes of up to {LARGEST_VOLUME} are scored: split it"
            )
        return read_whole(dataset), {key: str(file.attrs[key]) for key in ATTRIBUTES if key in file.attrs}
