"""One undersampled slice, the input of all methods, and its ground truth, which is used for scores only."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mri_score.baselines import tune_weight
from mri_score.data.noise_rings import whiten
from mri_score.data.scan import Scan, Undersampling, coil_weight
from mri_score.errors import InputError
from mri_score.evaluation.metrics import complex_nrmse, foreground, volume_scores
from mri_score.evaluation.uncertainty import calibration
from mri_score.numerics.fourier import resize_image
from mri_score.readers.base import Reader


class Subject:
    """A slice of a scan with its truth: an image (H, W) and coil images (C, H, W), in the file's units.

    The slice is scored by itself: the range of PSNR and SSIM is its maximum, the foreground that of its RSS image.
    Errors: InputError for a slice that cannot be prepared.
    """

    def __init__(self, scan: Scan, number: int, truth: tuple[Tensor, Tensor]) -> None:
        self.scan, self.number, self.acquisition = scan, number, scan.acquisition(number)
        self.truth, coil_images = truth
        self.rss = coil_images.abs().square().sum(0).sqrt()
        mixing = self.acquisition.whitening
        self.mixed = coil_images if mixing is None else whiten(coil_images, mixing)
        self.weight = coil_weight(self.acquisition)[0]

    @property
    def about(self) -> dict[str, Any]:
        """Columns of a row that describe the slice."""
        inside = self.inside[0]
        return {
            "patient": str(self.scan.file.attributes.get("patient_id") or self.scan.file.name),
            "true": self.scan.acceleration_of([self.number]),
            "noise_std": self.problem[3],
            "mvue_over_rss": float(np.median(self._written(self.truth.abs() / self.rss)[0][inside])),
        }

    @property
    def problem(self) -> tuple[Tensor, Tensor, Tensor, float]:
        """k-space, maps, mask and noise_std, the arguments of a classical method, in scaled units."""
        kspace, maps, mask, noise_std = self.acquisition.cartesian
        return kspace[0], maps[0], mask[0], float(noise_std)

    @property
    def scale(self) -> Tensor:
        """The value in the file's units that is 1 in scaled units."""
        return self.acquisition.scale[0]

    @cached_property
    def inside(self) -> np.ndarray:
        """(1, h, w) bool: the foreground."""
        return foreground(self._written(self.rss))

    @property
    def key(self) -> tuple[int, str, int]:
        """Key of the random numbers of a classical method: seed 0, file name and slice."""
        return 0, self.scan.file.name, self.number

    def tuned_weight(self, method: Callable[..., Tensor]) -> float:
        """The weight with the best PSNR against the ground truth, interpolated between tried weights."""
        truth = self.truth / self.scale / self.weight
        inside = foreground(self.rss[None])[0]
        tuned = tune_weight(method, *self.problem, truth=truth, foreground=inside)
        return tuned.between

    def scores(self, image: Tensor) -> dict[str, float]:
        """PSNR, SSIM and NMSE against both targets in both regions, and complex NRMSE, of a complex image (H, W)."""
        magnitude = self._written(image.abs() * self.weight)
        found = {
            f"{target}_{region}_{metric}": score
            for target, truth in (("mvue", self.truth.abs()), ("rss", self.rss))
            for region, inside in (("foreground", self.inside), ("whole", None))
            for metric, score in volume_scores(self._written(truth), magnitude, inside).items()
            if metric != "mse"
        }
        return {**found, "complex_nrmse": complex_nrmse(self.mixed[None], self._maps[None], image[None])}

    def calibration(self, samples: Tensor, group: int = 1) -> dict[str, float]:
        """Spread over skill, of pixels and of the means of blocks, and coverage of draws (P, H, W), in the foreground.

        group: as in `pair_share`.
        """
        projected = (self._maps.conj() * self.mixed).sum(0)
        draws = torch.stack([self._written(draw) for draw in samples])
        found = calibration(draws, self._written(projected), self.inside, group)
        shares = {f"coverage_{100 * level:.0f}": share for level, share in found.coverage.items()}
        blocks = {f"spread_skill_{side}": ratio for side, ratio in found.blocks.items() if side > 1}
        return {"spread_skill": found.spread_skill, **blocks, **shares}

    @property
    def _maps(self) -> Tensor:
        return self.problem[1]

    def _written(self, image: Tensor) -> Tensor:
        """(1, h, w): the image, cropped to the size that is written."""
        return resize_image(image, self.scan.file.crop)[None]


class Subjects:
    """The subjects of one file, prepared on demand; its scans and the last ground truth and subject are kept in memory.
    """

    def __init__(self, file: Reader, maps: Path | None = None) -> None:
        self.file, self.maps = file, maps
        self._scans: dict[Undersampling, Scan] = {}
        self._truths: dict[int, tuple[Tensor, Tensor]] = {}
        self._subjects: dict[tuple[int, Undersampling], Subject] = {}

    def find(self, number: int, sampling: Undersampling) -> Subject:
        """Slice `number`, undersampled by `sampling`. Errors: InputError for a scan that was acquired undersampled."""
        if (number, sampling) not in self._subjects:
            if self.file.mask is not None:
                raise InputError(f"{self.file.path} was acquired undersampled: it has no ground truth to compare with")
            if sampling not in self._scans:
                self._scans[sampling] = Scan(self.file, sampling, cache=self.maps)
            scan = self._scans[sampling]
            if number not in self._truths:
                self._truths = {number: scan.truth(number)}
            self._subjects = {(number, sampling): Subject(scan, number, self._truths[number])}
        return self._subjects[number, sampling]
