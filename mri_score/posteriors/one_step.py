"""One network call a draw: a trained conditional generator, then an exact data step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mri_score.errors import InputError
from mri_score.models.generator import expected_error
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import Random
from mri_score.operators.sense import Sense
from mri_score.posteriors.adaptive_draw import LEAST, AdaptiveDraw


@dataclass(eq=False, repr=False)
class OneStep(AdaptiveDraw):
    """v = G(r, level, z), then z* = v + (A^H A + w)^(-1) A^H (y + noise_std n - A v),    w = noise_std^2 / r^2.

    G is a `Generator`, r the CG-SENSE image of the scan, and z white noise. The second step is Matheron's rule: if v
    were a draw of a white Gaussian of variance r^2, z* would be an exact draw of its posterior given y. What no
    sample measures stays as G made it. r^2 is half of the mean square misfit of v to the samples, because two draws
    of one distribution differ by twice its variance, and at least LEAST level^2.
    Bias: G depends on the samples too, by r, so that the data count twice in the directions where they are measured.
    There the spread is at most noise_std. Elsewhere the calibration is that of G, for scans like those of its training.
    Reference: Shen and Meinshausen, Engression, JRSS B 2024, for G; Wilson et al., Pathwise conditioning of Gaussian
    processes, JMLR 2021, for Matheron's rule.
    Errors: InputError for a prior that is not a generator, and for an operator other than `Sense`.
    """

    needs_generator: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.operator, Sense):
            raise InputError(
                f"one-step has generators for Cartesian scans only, and the operator is {type(self.operator).__name__};"
                " take another method, e.g. matched-draw"
            )

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        estimate = self.operator.cg_sense(self.kspace).expand_as(x)
        level = self.level.expand(len(x))
        v = self.prior.draw(estimate, level, random)
        least = LEAST * per_item(level, v) ** 2
        variance = torch.maximum(per_item(self.misfit(v, sigma), v) / 2, least)
        return self.solve_near(self.backprojection + self.noise(x, random), v, variance)

    @property
    def level(self) -> Tensor:
        """The level of the scan for the generator, see `expected_error`: () or (B,)."""
        sampled = (self.kspace != 0).any(1).flatten(1).float().mean(1)
        return expected_error(torch.as_tensor(self.noise_std), 1 / sampled)
