"""How unlike what a prior knows a scan looks: the denoiser's error on it, over that on validation images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

LEVELS = (0.03, 1.0)
"""The sigmas that count, both ends with them: below the noise decides, above the prior's mean."""


def expected_error(sigma: float, errors: Mapping[float, float], sd: float) -> float:
    """Mean square error of each real component of a denoised validation image, interpolated in log sigma.

    errors: at some sigmas, in units of sigma^2 sd^2 / (sigma^2 + sd^2), as validation logs them.
    """
    sigmas = sorted(errors)
    logs = np.interp(math.log(sigma), np.log(sigmas), np.log([errors[one] for one in sigmas]))
    return math.exp(logs) * sigma**2 * sd**2 / (sigma**2 + sd**2)


def misfit_ratio(
    levels: Sequence[tuple[float, Tensor, Tensor]], errors: Mapping[float, float], sd: float
) -> Tensor | None:
    """sum_l w_l r_l^2 / sum_l w_l e_l over the levels of a walk: near 1 for a scan such as the validation images.

    levels: sigma, r^2 and n, where r^2 is the denoiser's mean square error as the samples show it and n, in the same
    units, the noise of the samples that was taken off to find it. e is the error expected at that sigma, and
    w = 1 / (e + n): where the noise is far above the error, a slightly wrong noise level would be all that r^2 shows.
    Shapes: r^2, n and the ratio (B,). None where no level counts.
    """
    found, known = [], []
    for sigma, error, noise in levels:
        if LEVELS[0] <= sigma <= LEVELS[1]:
            expected = expected_error(sigma, errors, sd)
            found.append(error / (expected + noise))
            known.append(expected / (expected + noise))
    return torch.stack(found).sum(0) / torch.stack(known).sum(0) if found else None
