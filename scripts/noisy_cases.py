"""The cases of the experiment on priors from noisy or undersampled scans, and its protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import click

LAW, CALIBRATION = "fastmri-random", 10
"""Law of training masks: independent lines, for which the losses' weights are exact."""
LEVELS = (0.03, 0.06, 0.12, 0.25, 0.5)
"""Levels at which priors denoise validation images."""
LEAST, LARGEST = 0.01, 5.0
"""Levels of training. For priors that use the noise level, levels and walks end there, except with `below`."""
ACCELERATIONS = (4, 8)


@dataclass(frozen=True)
class Method:
    """The training data and the loss of a case."""

    images: str | None
    """A row of IMAGES; None: samples."""
    loss: str = "denoising"
    options: Mapping[str, Any] = field(default_factory=dict)
    undersampled: bool = False
    below: bool = False
    """Whether score matching on denoised images continues below the noise, down to LEAST."""
    after: str | None = None
    """The method whose prior draws the training images from the undersampled scans."""

    @property
    def knows_noise(self) -> bool:
        return self.loss not in ("denoising", "ambient")


MASKS = {"law": LAW, "calibration_lines": CALIBRATION}
METHODS = {
    "clean": Method("clean"),
    "naive": Method("noisy"),
    "denoise-first": Method("non-local means"),
    "sure": Method("noisy", "sure"),
    "sure-below": Method("noisy", "sure", below=True),
    "sure_score": Method("noisy", "sure_score"),
    "sure_score-published": Method("noisy", "sure_score", {"published": True}),
    "noisy_score": Method("noisy", "noisy_score"),
    "zero-filled": Method("zero-filled", undersampled=True),
    "l1-wavelet": Method("l1-wavelet", undersampled=True),
    "ambient": Method(None, "ambient", {"keep": 0.8, "centre": 8}, True),
    "gsure": Method(None, "gsure", MASKS, True),
    "splitting": Method(None, "splitting", {"centre": 8, "score_weight": 1.0, **MASKS}, True),
    "redrawn": Method("draws", undersampled=True, after="l1-wavelet"),
    "re-estimated": Method("estimates", undersampled=True, after="l1-wavelet"),
    "re-estimated-twice": Method("estimates", undersampled=True, after="re-estimated"),
}
NOISY = ("sure", "sure-below", "sure_score", "sure_score-published", "noisy_score")
UNDERSAMPLED = tuple(name for name, method in METHODS.items() if method.undersampled)
RIVALS = {"noisy": ("naive", "denoise-first"), "undersampled": ("zero-filled", "l1-wavelet")}
"""Methods that ignore noise or undersampling of their data; the others should be better."""


@dataclass(frozen=True)
class Change:
    """A change of the protocol for a case."""

    told: float = 1.0
    """The noise level given to the method, divided by the true one."""
    uneven: bool = False
    """The noise is three times stronger in the middle of the image than in its corners; the method gets its mean power.
    """
    patients: int | None = None
    """Only scans of this many patients, with the same number of scans."""
    seed: int = 0


CHANGES = {
    "": Change(),
    "noise+20": Change(told=1.2),
    "noise-20": Change(told=0.8),
    "uneven": Change(uneven=True),
    "patients1": Change(patients=1),
    "patients3": Change(patients=3),
    "seed1": Change(seed=1),
    "seed2": Change(seed=2),
}


@dataclass(frozen=True)
class Case:
    """One training: METHOD[@SNR][:CHANGE]; clean images have no SNR."""

    method: str
    snr: float | None
    change: str = ""

    @classmethod
    def of(cls, text: str) -> Case:
        front, _, change = text.partition(":")
        method, _, snr = front.partition("@")
        if method not in METHODS or change not in CHANGES:
            raise click.UsageError(
                f"{text!r} is no case; methods: {', '.join(METHODS)}; changes: {', '.join(filter(None, CHANGES))}"
            )
        if (method == "clean") == bool(snr):
            raise click.UsageError(f"{text!r}: noisy scans have an SNR, as in sure@22, and clean images have none")
        try:
            return cls(method, float(snr) if snr else None, change)
        except ValueError as error:
            raise click.UsageError(f"{text!r}: the SNR is a number of dB") from error

    def __str__(self) -> str:
        snr = "" if self.snr is None else f"@{self.snr:g}"
        return self.method + snr + (f":{self.change}" if self.change else "")

    @property
    def row(self) -> str:
        """Name in a table, in which seeds are averaged."""
        return str(replace(self, change="")) if self.change.startswith("seed") else str(self)


TIERS = (22.0, 12.0, 32.0)
ALL = [
    "clean",
    *(f"{method}@{snr:g}" for snr in TIERS for method in (*RIVALS["noisy"], *NOISY)),
    *(f"{method}@32" for method in UNDERSAMPLED),
    *(f"sure@22:{change}" for change in ("noise+20", "noise-20", "uneven", "patients1", "patients3")),
    "clean:patients1",
    "clean:patients3",
]
"""The full run, the most important cases first."""


def chosen(patterns: Sequence[str]) -> list[Case]:
    """The cases that match patterns; a case outside the full run needs its whole name."""
    names: list[str] = []
    for pattern in patterns or ALL:
        names.extend([name for name in ALL if fnmatchcase(name, pattern)] or [pattern])
    return [Case.of(name) for name in dict.fromkeys(names)]


@dataclass(frozen=True)
class Settings:
    """Settings of the protocol; with a GPU these numbers can be larger."""

    size: int = 128
    band: int = 64
    """Rows of a training item, which has all columns."""
    scans: int = 200
    coils: int = 8
    acceleration: float = 4.0
    widths: tuple[int, ...] = (32, 64, 128)
    steps: int = 1500
    batch_size: int = 8
    learning_rate: float = 1e-3
    walk_steps: int = 30
    samples: int = 2
    validation: int = 12
    masks: int = 3
    scan_snr: float = 32.0


QUICK: dict[str, Any] = {
    "size": 96, "band": 48, "scans": 3, "widths": (8, 12), "steps": 3, "batch_size": 2, "walk_steps": 3, "samples": 1,
    "validation": 2, "masks": 1,
}  # fmt: skip
