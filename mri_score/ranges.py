"""Ranges of the numbers in configs and in the arguments of constructors."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, ClassVar

from mri_score.errors import InputError

RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "training": {
        "steps": (1, 1e9), "batch_size": (1, 65536), "learning_rate": (1e-12, 10), "warmup": (0, 1e9), "decay": (0, 1),
        "betas": (0, 1 - 1e-9), "epsilon": (1e-30, 1), "clip": (1e-12, 1e12), "workers": (0, 256), "seed": (0, 2**63),
        "log_every": (1, 1e9), "save_every": (1, 1e9), "keep_every": (1, 1e9),
    },
    "data": {
        "size": (1, 65536), "crop": (1, 65536), "patch": (1, 65536), "band": (1, 65536), "matrix": (8, 65536),
        "memory": (0, 1e6),
        "least_resolution": (0.01, 1), "phase_strength": (0, 100), "phase_steps": (0, 1), "accelerations": (1, 1000),
        "acceleration": (1, 1000), "coils": (1, 1024), "noise_std": (1e-12, 1e6), "calibration_lines": (1, 65536),
        "mask_seed": (0, 2**32 - 1),
    },
    "network": {
        "widths": (1, 65536), "width": (1, 65536), "blocks": (0, 1000), "unshuffle": (1, 64), "embedding": (1, 65536),
        "channels": (1, 1024), "extra_channels": (0, 1024), "levels": (0, 1e6), "multipliers": (1, 1024),
        "attention": (0, 64), "dropout": (0, 1 - 1e-9), "sigma_min": (1e-12, 1e12), "sigma_max": (1e-12, 1e12),
    },
    "prior": {"sd": (1e-12, 1e12), "sigma_min": (0, 1e12), "sigma_max": (1e-12, 1e12)},
    "calibration": {
        "overlap": (1e-3, 0.99), "repeats": (1, 10000), "sigma_min": (1e-12, 1e12), "count": (2, 1e6),
        "subsample": (2, 1e5),
    },
    "schedule": {
        "sigma": (1e-12, 1e12),
        "sigma_min": (1e-12, 1e12), "sigma_max": (1e-12, 1e12), "count": (2, 1e6), "rho": (0.1, 1000),
        "overlap": (1e-6, 1), "centre": (1e-12, 1e12), "spread": (1e-6, 1000), "share": (0, 1), "dimension": (5, 1e12),
        "noise_std": (1e-12, 1e12), "beta_min": (1e-12, 1e3), "beta_max": (1e-12, 1e3), "t_min": (1e-12, 1),
        "t_max": (1e-12, 10), "beta_first": (1e-12, 1 - 1e-9), "beta_last": (1e-12, 1 - 1e-9),
    },
    "loss": {
        "anneal_power": (-10, 10), "keep": (1e-6, 1), "centre": (0, 65536), "score_weight": (0, 1e6),
        "acceleration": (1, 1000), "calibration_lines": (1, 65536), "step": (1e-9, 1e3), "probes": (1, 10000),
        "sure_share": (0, 1), "consistency": (0, 1e6), "projections": (1, 10000), "rise": (1, 1e9),
    },
    "sampler": {
        "repeats": (0, 1e6), "step_size": (1e-12, 1e6), "snr": (1e-9, 1e6), "weight": (0, 1e6), "rate": (1e-12, 1e6),
        "churn": (0, 1e6), "start_std": (1e-12, 1e12),
    },
}  # fmt: skip
"""The smallest and the largest number that a key of a section may have; of a list, each of its numbers."""
RANGES["validation"] = RANGES["data"]


def check_range(place: str, section: str, key: str, value: Any) -> None:
    """Check a number, or each number of a list, against RANGES; one that is not there only has to be a number.

    place: where it was given, for the message: a section or a class. section, key: of RANGES.
    Errors: InputError for a number outside its range, and for NaN.
    """
    least, most = RANGES.get(section, {}).get(key, (-math.inf, math.inf))
    for number in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(number, Real) and not isinstance(number, bool) and not least <= float(number) <= most:
            raise InputError(f"{place}.{key} is {value!r}; allowed are numbers from {least:g} to {most:g}")


class Ranged:
    """A class whose constructor takes no number outside its range: base of samplers, schedules and losses.

    The constructor of a subclass runs first, because its own messages say more; whatever it accepts, or fails at, is
    compared with RANGES by the names of its arguments. Errors: InputError, as in `check_range`.
    """

    ranges: ClassVar[str]
    """The section of RANGES."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in cls.__dict__:
            cls.__init__ = _checked(cls.__init__)  # type: ignore[method-assign]

    def check_numbers(self, given: Mapping[str, Any]) -> None:
        """Check values by the names of arguments or fields."""
        for key, value in given.items():
            check_range(type(self).__name__, self.ranges, key, value)


def _checked(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checked(self: Ranged, *args: Any, **kwargs: Any) -> None:
        given = signature.bind_partial(self, *args, **kwargs).arguments
        try:
            init(self, *args, **kwargs)
        except InputError:
            raise
        except Exception:
            self.check_numbers(given)
            raise
        self.check_numbers(given)

    return checked
