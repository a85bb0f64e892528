"""What was found of a volume: images, what they are compared with, and their scores."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mri_score.evaluation.intervals import TARGETS, Intervals, covered, predicted_std, relative_errors
from mri_score.evaluation.metrics import foreground, volume_scores
from mri_score.evaluation.report import IntervalCheck, MethodScores
from mri_score.evaluation.uncertainty import EnsembleCalibration, calibration
from mri_score.pipeline.facts import counted
from mri_score.pipeline.held_out import Misfit

MVUE = "|MVUE|, maps from full k-space"
RSS = "RSS of full k-space"


@dataclass
class Volume:
    """What was found of one volume; images in the file's units, cropped to the written size."""

    name: str
    slices: list[int]
    acceleration: float
    """The true one."""
    facts: dict[str, str]
    notes: list[str]
    mask: Tensor | None = None
    """As `Scan.mask`, or in its place:"""
    trajectory: Tensor | None = None
    """(M, 2), as `Acquisition.trajectory`."""
    intervals: Intervals | None = None
    images: list[Tensor] = field(default_factory=list)
    """(h, w) complex, one a slice: what the reconstruction gives as its image."""
    samples: list[Tensor] = field(default_factory=list)
    """(P, h, w) complex, one a slice."""
    stds: list[Tensor] = field(default_factory=list)
    """(h, w): of each real component of the draws."""
    noise: list[float] = field(default_factory=list)
    """Of each real component of k-space, one a slice."""
    weight: list[Tensor] = field(default_factory=list)
    truth: list[Tensor] = field(default_factory=list)
    """(h, w) complex: the MVUE of full k-space."""
    truth_rss: list[Tensor] = field(default_factory=list)
    projected: list[Tensor] = field(default_factory=list)
    """(h, w) complex: the truth's coil images on the maps of the reconstruction."""
    complex_nrmse: list[float] = field(default_factory=list)
    baselines: dict[str, list[Tensor]] = field(default_factory=dict)
    """By title: (h, w) magnitudes in the file's coils, one a slice."""
    seconds: dict[str, float] = field(default_factory=dict)
    held_out: dict[str, Misfit] = field(default_factory=dict)
    """Of each method, over all slices."""
    misfit_ratios: list[float] = field(default_factory=list)
    """Out-of-distribution score of each slice, mean over its samples; slices without a score are left out."""
    _scores: dict[str, dict[str, list[MethodScores]]] = field(default_factory=dict, repr=False)

    @property
    def image(self) -> Tensor:
        """(S, h, w) complex."""
        return torch.stack(self.images)

    @property
    def rss(self) -> Tensor:
        """Magnitude as fastMRI's tools expect it: (S, h, w)."""
        return self.image.abs() * torch.stack(self.weight)

    @property
    def one_draw(self) -> Tensor:
        return torch.stack([draws[0] for draws in self.samples]).abs() * torch.stack(self.weight)

    @property
    def std(self) -> Tensor:
        """(S, h, w), of each real component, in units of the RSS image; zero for one draw."""
        return torch.stack(self.stds) * torch.stack(self.weight)

    @property
    def predicted(self) -> list[np.ndarray]:
        """(h, w) a slice: the standard deviation of the error against a full scan, as `predicted_std` defines it."""
        return [predicted_std(std, noise, self.acceleration) for std, noise in zip(self.stds, self.noise, strict=True)]

    def interval(self, target: str) -> Tensor | None:
        """(S, h, w): half the width of the intervals of one of `TARGETS`: magnitudes in units of the RSS image,
        components in those of the complex image.
        """
        if self.intervals is None:
            return None
        factor = getattr(self.intervals.at(self.acceleration), target)
        half = factor * torch.from_numpy(np.stack(self.predicted))
        return half * torch.stack(self.weight) if target == "magnitude" else half

    def interval_scores(self, target: str) -> list[np.ndarray]:
        """For each slice the errors inside the foreground, in units of `predicted`; none without a truth."""
        if not self.truth:
            return []
        images, truths = self.images, self.projected
        if target == "magnitude":
            images, truths = [image.abs() for image in images], [truth.abs() for truth in truths]
        slices = zip(images, self.predicted, truths, self.foreground, strict=True)
        return [relative_errors(*one) for one in slices if one[-1].any()]

    def interval_check(self) -> IntervalCheck | None:
        """The conformal intervals and, with ground truth, their coverage; None without intervals."""
        if self.intervals is None:
            return None
        factor = self.intervals.at(self.acceleration)
        factors = {target: getattr(factor, target) for target in TARGETS}
        scores = {target: self.interval_scores(target) for target in TARGETS if self.truth}
        fitted = f"{counted(self.intervals.slices, 'slice')} of {counted(self.intervals.volumes, 'volume')}"
        return IntervalCheck(
            self.intervals.level,
            factors,
            {target: covered(found, factors[target]) for target, found in scores.items()},
            f"{fitted} at acceleration {factor.acceleration:.2f}",
        )

    @property
    def foreground(self) -> np.ndarray:
        return foreground(torch.stack(self.truth_rss))

    def scores(self, estimate: str) -> dict[str, list[MethodScores]]:
        """For each target, the methods' scores, once all slices are there; nothing without a truth."""
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
        """Whether the draws spread as they err, inside the foreground."""
        if not self.projected or len(self.samples[0]) < 2:
            return None
        return calibration(torch.stack(self.samples, 1), torch.stack(self.projected), self.foreground)
