"""Out-of-distribution score of a scan: the denoiser's error on it relative to the error on validation images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mri_score.errors import InputError

LEVELS = (0.03, 1.0)
"""Range of sigma used for the score, ends included. Below it the noise dominates, above it the prior's mean."""

MARGIN = 1.35
"""Factor by which an acceleration may lie outside those of the training: true ones of equispaced masks are lower than
their nominal ones.
"""

LARGEST_POWER = 4.0
"""Upper bound of the power of the matrix size in a threshold; measured ones are near 0.9."""


def expected_error(sigma: Any, errors: Mapping[float, float], sd: float) -> Any:
    """Mean squared error of a denoised validation image, each real component, interpolated in log sigma.

    sigma: noise levels, any shape. errors: noise level -> error at that level in units of
    sigma^2 sd^2 / (sigma^2 + sd^2), as logged in validation. sd: the prior's standard deviation. Returns the shape of
    sigma.
    """
    sigmas = sorted(errors)
    logs = np.interp(np.log(sigma), np.log(sigmas), np.log([errors[one] for one in sigmas]))
    return np.exp(logs) * sigma**2 * sd**2 / (sigma**2 + sd**2)


def misfit_ratio(
    levels: Sequence[tuple[Tensor | float, Tensor, Tensor]], errors: Mapping[float, float], sd: float
) -> Tensor | None:
    """Out-of-distribution score: sum_l w_l r_l^2 / sum_l w_l e_l over noise levels l; near 1 for validation images.

    levels: for each level (sigma, r^2, n). r^2 is the denoiser's mean squared error estimated from k-space, n the noise
    variance, in the same units, that was subtracted to get it. e_l is the `expected_error` at that sigma. The weight
    w = 1 / (e + n) is small where n is far above e, since there a slightly wrong noise level would dominate r^2.
    errors, sd: as in `expected_error`. Shapes: sigma () or (B,); r^2, n and the result (B,).
    Returns None if no level lies within `LEVELS`; NaN for single items without such a level.
    """
    found, reference = [], []
    for sigma, error, noise in levels:
        sigmas = torch.as_tensor(sigma).double().cpu().expand(len(error))
        counts = (sigmas >= LEVELS[0]) & (sigmas <= LEVELS[1])
        if bool(counts.any()):
            expected = torch.as_tensor(expected_error(sigmas.numpy(), errors, sd)).to(error)
            weight = counts.to(error) / (expected + noise)
            found.append(weight * error)
            reference.append(weight * expected)
    return torch.stack(found).sum(0) / torch.stack(reference).sum(0) if found else None


def unlike_training(scans: Mapping[str, Any] | None, acceleration: float, law: str | None) -> str | None:
    """A warning if the mask of a scan is unlike those of a generator's training; None if it is alike.

    scans: `laws` and nominal `accelerations` of the training, None for priors that were not trained on masks.
    acceleration, law: of the scan; no law, None, if it came undersampled: then the acceleration alone is compared.
    """
    if scans is None:
        return None
    laws, folds = scans["laws"], scans["accelerations"]
    if law is not None and law not in laws:
        return (
            f"the generator was trained with {' and '.join(laws)} masks, not {law}: neither its image nor its standard"
            " deviation can be relied on"
        )
    if not min(folds) / MARGIN <= acceleration <= max(folds) * MARGIN:
        return (
            f"the generator was trained at accelerations {min(folds):g} to {max(folds):g}, the scan has"
            f" {acceleration:.2f}: neither its image nor its standard deviation can be relied on"
        )
    return None


def threshold_at(
    acceleration: float,
    thresholds: Mapping[str, float] | None,
    side: int | None = None,
    basis: Mapping[str, Any] | None = None,
) -> float | None:
    """The out-of-distribution score above which a scan gets a warning, at this acceleration; None if not calibrated.

    thresholds: acceleration R -> score, as written by `scripts/out_of_distribution.py --write`;
    interpolated in log R, constant beyond both ends. They rise with R, because with fewer lines the iterates differ
    more from a noisy ground truth, for which the expected errors were measured. side: the longer side of the image
    matrix. basis: the data of the calibration; with `matrix` and `power` the threshold is multiplied by
    (matrix / side)^power, as a head on a smaller matrix has more detail per pixel and is harder to denoise. None: the
    threshold as it is. Errors: InputError for malformed thresholds.
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
            " such as {'4': 4.6}: write it with scripts/out_of_distribution.py --write, or remove it"
        )
    factors, ratios = zip(*known, strict=True)
    threshold = float(np.interp(np.log(acceleration), np.log(factors), ratios))
    if side is None or not {"matrix", "power"} <= set(basis or {}):
        return threshold
    assert basis is not None
    matrix, power = basis["matrix"], basis["power"]
    if not all(type(one) in (int, float) and 0 <= one < math.inf for one in (matrix, power)) or matrix == 0:
        raise InputError(
            f"the prior's record has about.ood_basis with matrix {matrix!r} and power {power!r}; they should be"
            " positive numbers: write them with scripts/out_of_distribution.py --write, or remove them"
        )
    return threshold * (matrix / side) ** min(power, LARGEST_POWER)
