"""Regularisation weights: from a rule without ground truth, and tuned on the ground truth, for studies only."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mri_score.baselines.problem import Array
from mri_score.errors import InputError

WIDENINGS = 20
"""Largest number of weights that `tune_weight` adds to the first ten."""

Transform = Callable[[Tensor], Tensor]


def weight_by_rule(image: Tensor, transform: Transform, noise_std: float | Tensor) -> float:
    """The weight noise_std^2 / b, where b is the maximum-likelihood scale of a density exp(-|T x|_1 / b) for the image.

    With N complex pixels b = |T x|_1 / (2 N). image: that of CG-SENSE, (B, H, W), so that no ground truth is needed.
    transform: T. noise_std: standard deviation of the real and of the imaginary part of a sample.
    Reference: Pereyra, Bioucas-Dias and Figueiredo, Maximum-a-posteriori estimation with unknown regularisation
    parameters, EUSIPCO 2015.
    """
    variance = float(noise_std) ** 2
    scale = float(transform(image).abs().sum(dtype=torch.float64)) / (2 * image.numel())
    return variance / max(scale, variance)  # at most 1, for empty slices


def find_weight(
    weight: float | str, image: Callable[[], Tensor], transform: Transform, noise_std: float | Tensor
) -> float:
    """The given weight, or for "rule" that of `weight_by_rule`.

    image: computes the CG-SENSE image for the rule. transform, noise_std: as in `weight_by_rule`.
    Errors: InputError for another word, a number that is not positive and finite, and for "rule" without noise.
    """
    if weight == "rule":
        if not float(noise_std) > 0:
            raise InputError(f"noise_std is {float(noise_std)}, not positive: measure it, or pass a weight")
        return weight_by_rule(image(), transform, noise_std)
    if isinstance(weight, str) or not 0 < weight < float("inf"):
        raise InputError(f'the weight of a baseline is {weight!r}; pass "rule" or a positive number')
    return float(weight)


class Tuned(NamedTuple):
    """The result of `tune_weight`: the best weight, its PSNR (dB), and all weights that were tried with theirs."""

    weight: float
    psnr: float
    weights: list[float]
    psnrs: list[float]

    @property
    def between(self) -> float:
        """The maximum of the parabola through the best weight and its neighbours."""
        best = self.weights.index(self.weight)  # never at an end
        near = slice(best - 1, best + 2)
        curvature, slope, _ = np.polyfit(np.log(self.weights[near]), self.psnrs[near], 2)
        return float(np.exp(-slope / (2 * curvature))) if curvature < 0 else self.weight


def tune_weight(
    method: Callable[..., Tensor],
    kspace: Array,
    maps: Array,
    mask: Array,
    noise_std: float | Tensor,
    *,
    truth: Array,
    foreground: Array | None = None,
    iterations: int = 100,
) -> Tuned:
    """The weight of `method` with the best PSNR against the ground truth: an upper bound, for studies only.

    Tries ten weights from 0.01 to 5 times noise_std, evenly spaced in the logarithm, then more at either end until the
    best one is not at an end.
    method: a baseline with a weight. kspace, maps, mask, noise_std: as the method takes them. truth: (H, W), in the
    scale of the method's images; magnitudes are compared. foreground: (H, W) bool, where they are compared; by default
    where |truth| exceeds 0.15 of its 99th percentile. iterations: of the method, at least 100.
    Errors: InputError if the best weight is still at an end after WIDENINGS more weights.
    """
    target = np.abs(np.asarray(truth))
    inside = target > 0.15 * np.percentile(target, 99) if foreground is None else np.asarray(foreground, dtype=bool)

    def quality(weight: float) -> float:
        image = method(kspace, maps, mask, noise_std, weight=weight, iterations=max(100, iterations)).abs().numpy()
        return float(10 * np.log10(target[inside].max() ** 2 / np.mean((image - target)[inside] ** 2)))

    weights = [float(weight) for weight in float(noise_std) * np.geomspace(0.01, 5, 10)]
    psnrs = [quality(weight) for weight in weights]
    ratio = weights[1] / weights[0]
    for _ in range(WIDENINGS):
        best = int(np.argmax(psnrs))
        if 0 < best < len(weights) - 1:
            return Tuned(weights[best], psnrs[best], weights, psnrs)
        end, new = (0, weights[0] / ratio) if best == 0 else (len(weights), weights[-1] * ratio)
        weights.insert(end, new)
        psnrs.insert(end, quality(new))
    name = getattr(method, "__name__", "the method")
    raise InputError(
        f"the best weight of {name} is at the edge of {weights[0]:.1e} ... {weights[-1]:.1e} even after"
        f" {WIDENINGS} more weights; check that the truth has the scale of kspace and that noise_std is right"
    )
