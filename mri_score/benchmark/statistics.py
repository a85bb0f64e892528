"""Bootstrap intervals of means over cells, and the choice of the resampled unit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from scipy.stats import norm, t

from mri_score.evaluation.metrics import bootstrap_interval

LEAST_VOLUMES = 5
"""With fewer volumes the resampled unit is a slice block or a mask, which the interval states."""
LEAST_GROUPS = 3
"""Smallest number of groups for an interval."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval; nan for unknown ends."""

    mean: float
    low: float
    high: float

    def text(self, form: Callable[[float], str] = "{:+.2f}".format) -> str:
        """The mean and, if it is known, its interval: +0.12 [-0.02, +0.24]."""
        ends = "" if np.isnan(self.low) else f" [{form(self.low)}, {form(self.high)}]"
        return form(self.mean) + ends


@dataclass(frozen=True)
class Unit:
    """The unit that is drawn with replacement: its name, and the group of each cell."""

    name: str
    groups: Mapping[tuple, Hashable]

    @property
    def count(self) -> int:
        return len(set(self.groups.values()))

    def __str__(self) -> str:
        if self.count < LEAST_GROUPS:
            return f"none ({self.count} {self.name}; at least {LEAST_GROUPS} are needed)"
        small = ", too few for the full 95 %" if self.count < LEAST_VOLUMES else ""
        return f"95 % bootstrap over {self.count} {self.name}{small}"


def mean_interval(values: Sequence[float], groups: Sequence[Hashable], level: float = 0.95) -> Estimate:
    """The mean with its expanded percentile bootstrap interval; whole groups are resampled.

    Percentile intervals of n groups are too narrow by sqrt((n - 1) / n), and because the normal quantile is smaller
    than Student's; the expanded percentiles correct both. There is no interval for fewer than LEAST_GROUPS groups, or
    for values that are not finite.
    Reference: Hesterberg, What teachers should know about the bootstrap, Am. Stat. 2015, section 3.
    """
    mean, count = float(np.mean(values)), len(set(groups))
    if count < LEAST_GROUPS or not np.isfinite(values).all():
        return Estimate(mean, float("nan"), float("nan"))
    reach = sqrt(count / (count - 1)) * t.ppf((1 + level) / 2, count - 1)
    return Estimate(mean, *bootstrap_interval(values, groups, level=1 - 2 * norm.sf(reach)))


def cell_key(row: Row) -> tuple:
    """The key under which cells of two methods are compared: scan, slice, mask and content of the file."""
    return row["scan"], row["slice"], row["mask_seed"], row.get("file")


def resampling_unit(rows: Sequence[Row]) -> Unit:
    """The largest unit of which there are enough: volumes (patients, if files name them), slice blocks, mask seeds.

    Neighbouring slices are similar, so that n slices of a volume form about sqrt(n) blocks.
    """
    patients = {cell_key(row): row["patient"] for row in rows}
    volumes = Unit(
        "volumes" if len(set(patients.values())) == len({row["scan"] for row in rows}) else "patients", patients
    )
    if volumes.count >= LEAST_VOLUMES:
        return volumes
    block = _blocks(rows)
    blocks = Unit("slice blocks", {cell_key(row): block[row["scan"], row["slice"]] for row in rows})
    if blocks.count >= LEAST_GROUPS and blocks.count > len({row["scan"] for row in rows}):
        return blocks
    return Unit("mask seeds of these scans", {cell_key(row): row["mask_seed"] for row in rows})


def _blocks(rows: Sequence[Row]) -> dict[tuple[str, int], Hashable]:
    """(scan, slice) -> its run of neighbouring slices."""
    slices = defaultdict(set)
    for row in rows:
        slices[row["scan"]].add(row["slice"])
    return {
        (scan, int(number)): (scan, place)
        for scan, numbers in slices.items()
        for place, run in enumerate(np.array_split(sorted(numbers), round(sqrt(len(numbers)))))
        for number in run
    }
