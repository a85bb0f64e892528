"""How unlike what a prior knows a scan looks: the denoiser's error on it, over that on validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mri_score.errors import InputError

LEVELS = (0.03, 1.0)
"""The sigmas that count, both ends with them: below the noise decides, above the prior's mean."""


def expected_error(sigma: Any, errors: Mapping[float, float], sd: float) -> Any:
    """Mean square error of each real component of a denoised validation image, interpolated in log sigma.

    errors: at some sigmas, in units of sigma^2 sd^2 / (sigma^2 + sd^2), as validation logs them.
    """
    sigmas = sorted(errors)
    logs = np.interp(np.log(sigma), np.log(sigmas), np.log([errors[one] for one in sigmas]))
    return np.exp(logs) * sigma**2 * sd**2 / (sigma**2 + sd**2)


def misfit_ratio(
    levels: Sequence[tuple[Tensor | float, Tensor, Tensor]], errors: Mapping[float, float], sd: float
) -> Tensor | None:
    """sum_l w_l r_l^2 / sum_l w_l e_l over the levels of a walk: near 1 for truth plus noise on validation images.

    levels: sigma, r^2 and n, where r^2 is the denoiser's mean square error as the samples show it and n, in the same
    units, the noise of the samples that was taken off to find it. e is the error expected at that sigma, and
    w = 1 / (e + n): where the noise is far above the error, a slightly wrong noise level would be all that r^2 shows.
    Shapes: sigma () or (B,), r^2, n and the ratio (B,). None where no level counts, NaN for items of which none does.
    """
    found, known = [], []
    for sigma, error, noise in levels:
        sigmas = torch.as_tensor(sigma).double().cpu().expand(len(error))
        counts = (sigmas >= LEVELS[0]) & (sigmas <= LEVELS[1])
        if bool(counts.any()):
            expected = torch.as_tensor(expected_error(sigmas.numpy(), errors, sd)).to(error)
            weight = counts.to(error) / (expected + noise)
            found.append(weight * error)
            known.append(weight * expected)
    return torch.stack(found).sum(0) / torch.stack(known).sum(0) if found else None


def threshold_at(acceleration: float, thresholds: Mapping[str, float] | None) -> float | None:
    """The ratio above which a scan is unlike what the prior knows, at this acceleration; None where none is known.

    thresholds: by acceleration, as `scripts/calibrate_ood.py` writes them; interpolated in log R, and beyond both ends
    the nearest. They rise with R: the fewer the lines, the farther a walk is from the truth plus noise that the
    denoiser's expected errors are of. Errors: InputError where they are something else.
    """
    if not thresholds:
        return None
    try:
        known = sorted((float(factor), float(ratio)) for factor, ratio in thresholds.items())
    except (AttributeError, TypeError, ValueError):
        known = []
    if not known or known[0][0] <= 0:
        raise InputError(
            f"the prior's record has about.ood_thresholds {thresholds!r}; it should give a ratio for each acceleration,"
            " such as {'4': 4.6}: write it with scripts/calibrate_ood.py, or take it out"
        )
    factors, ratios = zip(*known, strict=True)
    return float(np.interp(np.log(acceleration), np.log(factors), ratios))
