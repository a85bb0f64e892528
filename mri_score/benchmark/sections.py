"""Results of a comparison at one acceleration and mask law, with a line for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mri_score.benchmark.statistics import Estimate, Row, Unit

QUALITY = "mvue_foreground_psnr"
"""The quantity in the plot."""


@dataclass(frozen=True)
class Line:
    """One method with one number of draws, over all cells of a section."""

    title: str
    method: str
    draws: int
    cells: Mapping[tuple, Sequence[Row]]
    """The rows of each scan, slice and mask: more than one where draws have several seeds."""
    estimates: Mapping[str, Estimate]
    gains: Mapping[str, Mapping[tuple, float]]
    """Difference to the reference in each headline number, for each cell that both have; empty without a reference."""
    gain: Mapping[str, Estimate]
    """Mean gain over these cells."""

    @property
    def name(self) -> str:
        return self.title if self.draws == 1 else f"{self.title}, mean of {self.draws}"

    def values(self, quantity: str, scan: str) -> list[float]:
        """Mean over all cells of one scan."""
        return [row[quantity] for key, rows in self.cells.items() if key[0] == scan for row in rows]


@dataclass(frozen=True)
class Section:
    """All methods at one acceleration of one law."""

    law: str
    nominal: float
    true: float
    unit: Unit
    lines: Sequence[Line]
    reference: str | None
    """Title of the reference of the gains."""

    @property
    def title(self) -> str:
        return f"R = {self.nominal:g}, {self.law} (true R {self.true:.2f})"

    @property
    def scans(self) -> list[str]:
        return sorted({key[0] for key in self.unit.groups})
