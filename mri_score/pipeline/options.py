"""How a volume is reconstructed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from mri_score.baselines import BASELINES, DEFAULT_BASELINES
from mri_score.errors import unknown_name
from mri_score.evaluation.intervals import Intervals
from mri_score.methods import METHODS
from mri_score.models.network import find_precision
from mri_score.operators.base import LinearOperator
from mri_score.operators.sense import Sense
from mri_score.operators.sigpy import sigpy_sense
from mri_score.reconstruction import WalkOptions

OPERATORS: dict[str, Callable[[Tensor, Tensor], LinearOperator]] = {"torch": Sense, "sigpy": sigpy_sense}
"""Forward operators of masks by name, made from maps and mask."""


@dataclass(frozen=True)
class Options(WalkOptions):
    """How a volume is reconstructed; the same for all volumes of a run."""

    precision: str = "float32"
    """What the prior's network computes in."""
    operator: str = "torch"
    baselines: Sequence[str] = DEFAULT_BASELINES
    keep_samples: bool = False
    check_lines: float | None = None
    """A number or share of sampled lines, left out of a second reconstruction that must predict them."""
    intervals: Intervals | None = None
    """What makes an interval of the standard deviation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.operator not in OPERATORS:
            raise unknown_name("the operator", self.operator, OPERATORS)
        find_precision(self.precision)
        for name in self.baselines:
            if name not in BASELINES:
                raise unknown_name("the baseline", name, BASELINES)

    @property
    def estimate(self) -> str:
        """What the mean of the results is called."""
        if not METHODS[self.method].draws:
            return f"{self.method} estimate" if self.samples == 1 else f"mean of {self.samples} {self.method} estimates"
        return "posterior mean of one walk" if self.samples == 1 else f"posterior mean of {self.samples} draws"
