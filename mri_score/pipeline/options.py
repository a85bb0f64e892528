"""Settings for the reconstruction of a volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from mri_score.baselines import BASELINES, DEFAULT_BASELINES
from mri_score.errors import unknown_name
from mri_score.evaluation.intervals import Intervals
from mri_score.methods import DEFAULT_METHOD
from mri_score.operators.base import LinearOperator
from mri_score.operators.sense import Sense
from mri_score.operators.sigpy import sigpy_sense
from mri_score.reconstruction import WalkOptions

OPERATORS: dict[str, Callable[[Tensor, Tensor], LinearOperator]] = {"torch": Sense, "sigpy": sigpy_sense}
"""Forward operators for masks, by name: functions of maps and mask."""


BAD_SLICES = ("skip", "refuse")


@dataclass(frozen=True)
class Options(WalkOptions):
    """Settings for the reconstruction of a volume, the same for all volumes of a run. Errors: as in `WalkOptions`.

    operator: a name of `OPERATORS`. baselines: names of `BASELINES`. keep_samples: write the draws to the output, too.
    """

    method: str = DEFAULT_METHOD
    precision: str = "float32"
    """Precision of the prior's network: float32, bfloat16 or auto."""
    operator: str = "torch"
    baselines: Sequence[str] = DEFAULT_BASELINES
    keep_samples: bool = False
    check_lines: float | None = None
    """Number or share of sampled lines to leave out of a second reconstruction, which is compared with them."""
    quick_check: bool = False
    """Without `check_lines`: one walk of half the levels without a fifth of the lines, on a few slices. It costs an
    eighth of four draws, and a note states whether the method predicts these lines worse than CG-SENSE.
    """
    intervals: Intervals | None = None
    """Conformal intervals to write."""
    bad_slices: str = "refuse"
    """What becomes of a volume with slices that cannot be reconstructed: refuse, or skip: leave them out with a note.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.operator not in OPERATORS:
            raise unknown_name("the operator", self.operator, OPERATORS)
        if self.bad_slices not in BAD_SLICES:
            raise unknown_name("bad_slices", self.bad_slices, BAD_SLICES)
        for name in self.baselines:
            if name not in BASELINES:
                raise unknown_name("the baseline", name, BASELINES)

    @property
    def of_check(self) -> Options:
        """The settings of the reconstruction without the left-out samples."""
        if self.check_lines is not None or not self.quick_check:
            return self
        steps = self.parts.steps if self.steps is None else self.steps
        return replace(self, samples=1, steps=max(min(steps, 2), steps // 2))

    @property
    def estimate(self) -> str:
        """Title of the mean of the results, for tables and pictures."""
        if not self.parts.draws:
            return f"{self.title} estimate" if self.samples == 1 else f"mean of {self.samples} {self.title} estimates"
        return "posterior mean of one walk" if self.samples == 1 else f"posterior mean of {self.samples} draws"
