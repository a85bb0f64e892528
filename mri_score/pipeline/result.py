"""The result for a volume: images, baselines, ground truth, scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mri_score.evaluation.intervals import BOUNDS, TARGETS, Intervals, covered, predicted_std, relative_errors
from mri_score.evaluation.metrics import foreground, volume_scores
from mri_score.evaluation.report import IntervalCheck, MethodScores
from mri_score.evaluation.uncertainty import (
    EnsembleCalibration,
    block_means,
    calibration,
    pixel_std,
    whole_blocks,
)
from mri_score.pipeline.facts import counted
from mri_score.pipeline.held_out import Misfit
from mri_score.pipeline.result_file import MVUE, RSS
from mri_score.readers.base import Item
from mri_score.readers.geometry import Geometry


@dataclass
class Volume:
    """The result for one volume; images in the file's units divided by `unit`, cropped to the size that is written.

    name: of the file. slices: numbers of the reconstructed slices. facts: name -> text for the report. notes: warnings.
    intervals: conformal ones, if they are asked for. complex_nrmse: of each slice.
    """

    name: str
    slices: list[int]
    acceleration: float
    """True acceleration of all slices together."""
    facts: dict[str, str]
    notes: list[str]
    mask: Tensor | None = None
    """Bool (1 or S, 1, 1 or H, 1 or W): one mask, or one for each slice; None for a trajectory."""
    accelerations: list[float] = field(default_factory=list)
    """True acceleration of each slice, where they differ; empty: `acceleration`."""
    trajectory: Tensor | None = None
    """(M, 2), as `Acquisition.trajectory`, or (S, M, 2) where slices differ; None for a mask."""
    intervals: Intervals | None = None
    unit: float = 1.0
    """As `Scan.unit`."""
    geometries: Sequence[Geometry] = ()
    """The place of each slice in the patient; empty if the file does not state pixel sizes."""
    frames: Sequence[int] = ()
    """Number of the frame of each slice, see `frames_of`."""
    items: Sequence[Item] = ()
    """Which image of the scan each slice is."""
    header: bytes | None = None
    """The ISMRMRD header of the scan, see `header_of`."""
    images: list[Tensor] = field(default_factory=list)
    """For each slice the reconstructed image, (h, w) complex."""
    samples: list[Tensor] = field(default_factory=list)
    """For each slice its draws, (P, h, w) complex."""
    group: int = 1
    """Size of the groups of antithetic draws, see `pair_share`."""
    stds: list[Tensor] = field(default_factory=list)
    """For each slice the standard deviation of the draws, (h, w), each real component."""
    noise: list[float] = field(default_factory=list)
    """For each slice the noise level of k-space, each real component."""
    weight: list[Tensor] = field(default_factory=list)
    """For each slice (h, w): |image| times this is the RSS image, see `coil_weight`."""
    truth: list[Tensor] = field(default_factory=list)
    """For each slice the MVUE of full k-space, (h, w) complex."""
    truth_rss: list[Tensor] = field(default_factory=list)
    """For each slice the RSS image of full k-space, (h, w)."""
    projected: list[Tensor] = field(default_factory=list)
    """For each slice the fully sampled coil images, combined with the maps of the reconstruction, (h, w) complex."""
    complex_nrmse: list[float] = field(default_factory=list)
    baselines: dict[str, list[Tensor]] = field(default_factory=dict)
    """Title -> RSS magnitude (h, w) of each slice."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Title -> seconds for the volume."""
    held_out: dict[str, Misfit] = field(default_factory=dict)
    """Title -> misfit of the left-out samples, over all slices."""
    misfit_ratios: list[float] = field(default_factory=list)
    """Out-of-distribution score of each slice, mean over its samples; slices without a score are left out."""
    left_out: list[int] = field(default_factory=list)
    """Slices that were asked for and could not be reconstructed."""
    _scores: dict[str, dict[str, list[MethodScores]]] = field(default_factory=dict, repr=False)
    _calibration: list[EnsembleCalibration | None] = field(default_factory=list, repr=False)
    """What `calibration` found; file, report and command line all show it."""
    _interval_check: list[IntervalCheck] = field(default_factory=list, repr=False)
    """The same of `interval_check`."""

    @property
    def image(self) -> Tensor:
        """The reconstructed images, (S, h, w) complex."""
        return torch.stack(self.images)

    @property
    def rss(self) -> Tensor:
        """RSS magnitude as expected by fastMRI's tools: (S, h, w)."""
        return self.image.abs() * torch.stack(self.weight)

    @property
    def one_draw(self) -> Tensor:
        """RSS magnitude of the first draw, (S, h, w)."""
        return torch.stack([draws[0] for draws in self.samples]).abs() * torch.stack(self.weight)

    @property
    def std(self) -> Tensor:
        """Standard deviation of the draws, (S, h, w), each real component, in units of the RSS image; 0 for one draw.
        """
        return torch.stack(self.stds) * torch.stack(self.weight)

    @property
    def predicted(self) -> list[np.ndarray]:
        """For each slice the expected standard deviation of the error, (h, w), see `predicted_std`."""
        parts = zip(self.stds, self.noise, self._each_acceleration, strict=True)
        return [predicted_std(std, noise, acceleration) for std, noise, acceleration in parts]

    @property
    def _each_acceleration(self) -> list[float]:
        return self.accelerations or [self.acceleration] * len(self.stds)

    def interval(self, target: str) -> Tensor | None:
        """Half width of the conformal intervals, (S, h, w); None without intervals.

        target: one of `TARGETS`; "magnitude" has the units of the RSS image, "component" those of the complex image.
        """
        if self.intervals is None:
            return None
        factors = [getattr(self.intervals.at(one), target) for one in self._each_acceleration]
        half = torch.tensor(factors)[:, None, None] * torch.from_numpy(np.stack(self.predicted))
        return half * torch.stack(self.weight) if target == "magnitude" else half

    def interval_scores(self, target: str) -> list[np.ndarray]:
        """The errors inside the foreground divided by `predicted`, for each slice; empty without ground truth.

        target: "magnitude" or "component", the quantity that is compared.
        """
        if not self.truth:
            return []
        images, truths = self.images, self.projected
        if target == "magnitude":
            images, truths = [image.abs() for image in images], [truth.abs() for truth in truths]
        slices = zip(images, self.predicted, truths, self.foreground, strict=True)
        return [relative_errors(*one) for one in slices if one[-1].any()]

    def block_std(self, side: int) -> list[np.ndarray]:
        """For each slice the predicted error of the mean magnitude of blocks, (h // side, w // side), in RSS units.

        The standard deviation of the draws' means of such blocks, and the noise that only a full scan has, which
        averages out with the pixels. side: of the blocks, in pixels.
        """
        found = []
        parts = zip(self.samples, self.weight, self.noise, self._each_acceleration, strict=True)
        for draws, weight, noise, acceleration in parts:
            means = block_means(draws.abs() * weight, side)
            spread = pixel_std(means, self.group) if len(draws) > 1 else np.zeros(means.shape[1:])
            found.append(predicted_std(spread, noise * float(weight.median()) / side, acceleration))
        return found

    def block_scores(self, side: int) -> list[np.ndarray]:
        """Errors of the mean magnitude of blocks inside the foreground over `block_std`, for each slice.

        side: of the blocks, in pixels. Empty without ground truth.
        """
        if not self.truth:
            return []
        parts = zip(self.rss, self.block_std(side), self.projected, self.weight, self.foreground, strict=True)
        scores = []
        for image, std, truth, weight, inside in parts:
            chosen = whole_blocks(inside, side)
            if chosen.any():
                means = block_means(image, side), block_means(truth.abs() * weight, side)
                scores.append(relative_errors(means[0], std, means[1], chosen))
        return scores

    def predicted_scores(self) -> list[dict[str, float]]:
        """For each slice the PSNR (dB) and SSIM that its draws predict for its image, without a truth.

        PSNR from the mean predicted variance; SSIM between the image and the draws, its mean over them. Both inside
        the foreground of the image, against |MVUE|, for a slice alone.
        """
        found = []
        parts = zip(self.image.abs(), self.samples, self.predicted, self.rss, strict=True)
        for image, draws, std, rss in parts:
            inside = foreground(rss[None])
            peak = float(image.max())
            similar = [volume_scores(draw.abs()[None], image[None], inside)["ssim"] for draw in draws]
            error = float(np.mean(np.square(std)[inside[0]]))
            found.append({"psnr": 10 * float(np.log10(peak**2 / error)), "ssim": float(np.mean(similar))})
        return found

    def shortfalls(self) -> list[dict[str, float]]:
        """For each slice the predicted less the actual PSNR (dB) and SSIM; empty without ground truth."""
        if not self.truth:
            return []
        found = []
        for one, image, truth, inside in zip(
            self.predicted_scores(), self.image.abs(), self.projected, self.foreground, strict=True
        ):
            actual = volume_scores(truth.abs()[None], image[None], inside[None])
            found.append({name: one[name] - actual[name] for name in BOUNDS})
        return found

    def bounds(self) -> dict[str, list[float]]:
        """Score -> its lower bound for each slice, from the margins of the intervals; empty where there are none."""
        if self.intervals is None:
            return {}
        margins = [self.intervals.at(one).margins for one in self._each_acceleration]
        if not all(margins):
            return {}
        return {
            name: [one[name] - margin[name] for one, margin in zip(self.predicted_scores(), margins, strict=True)]
            for name in BOUNDS
        }

    def interval_check(self) -> IntervalCheck | None:
        """The conformal intervals and, with ground truth, their coverage; None without intervals."""
        if self.intervals is None:
            return None
        if not self._interval_check:
            self._interval_check.append(self._find_interval_check(self.intervals))
        return self._interval_check[0]

    def _find_interval_check(self, intervals: Intervals) -> IntervalCheck:
        factor = intervals.at(self.acceleration)
        factors = {target: getattr(factor, target) for target in TARGETS}
        scores = {target: self.interval_scores(target) for target in TARGETS if self.truth}
        for side, block_factor in factor.blocks.items():
            name = f"mean of {side} x {side} pixels"
            factors[name] = block_factor
            if self.truth:
                scores[name] = self.block_scores(int(side))
        fitted = f"{counted(intervals.slices, 'slice')} of {counted(intervals.volumes, 'volume')}"
        return IntervalCheck(
            intervals.level,
            factors,
            {target: covered(found, factors[target]) for target, found in scores.items()},
            f"{fitted} at acceleration {factor.acceleration:.2f}, {counted(factor.units, intervals.unit)}",
            self.bounds(),
        )

    @property
    def foreground(self) -> np.ndarray:
        """Bool (S, h, w): foreground of the ground truth."""
        return foreground(torch.stack(self.truth_rss))

    def scores(self, estimate: str) -> dict[str, list[MethodScores]]:
        """Target -> scores of all methods, for the complete volume; empty without ground truth.

        estimate: title of the reconstruction.
        """
        if not self.truth:
            return {}
        if estimate not in self._scores:
            self._scores[estimate] = self._find_scores(estimate)
        return self._scores[estimate]

    def _find_scores(self, estimate: str) -> dict[str, list[MethodScores]]:
        methods = {title: torch.stack(images) for title, images in self.baselines.items()}
        if len(self.samples[0]) > 1:
            methods["one draw"] = self.one_draw
        methods[estimate] = self.rss
        inside = self.foreground
        return {
            target: [
                MethodScores(
                    name, volume_scores(truth, image, inside), volume_scores(truth, image), self.seconds.get(name)
                )
                for name, image in methods.items()
            ]
            for target, truth in ((MVUE, torch.stack(self.truth).abs()), (RSS, torch.stack(self.truth_rss)))
        }

    def calibration(self) -> EnsembleCalibration | None:
        """Calibration of the draws inside the foreground; None without ground truth, or with a single draw."""
        if not self._calibration:
            self._calibration.append(self._find_calibration())
        return self._calibration[0]

    def _find_calibration(self) -> EnsembleCalibration | None:
        if not self.projected or len(self.samples[0]) < 2:
            return None
        samples, truth = torch.stack(self.samples, 1), torch.stack(self.projected)
        measured = None if self.mask is None else measured_points(self.mask[:, 0], truth.shape[-2:])
        return calibration(samples, truth, self.foreground, self.group, measured)


def measured_points(mask: Tensor, shape: Sequence[int]) -> Tensor:
    """The mask on the grid of the Fourier transform of a cropped image: (S, H, W), or 1 for an axis, -> same with h, w.

    A cropped image has a coarser grid in k-space over the same range: each of its points takes the nearest of the mask.
    """
    for axis, small in zip((-2, -1), shape, strict=True):
        large = mask.shape[axis]
        if large not in (1, small):
            nearest = ((torch.arange(small) - small // 2) * large / small).round().long() + large // 2
            mask = mask.index_select(axis, nearest.clamp(0, large - 1))
    return mask
