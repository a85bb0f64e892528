"""Denoise, add a mixture of the former and of new noise, repeat."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.numerics.descent import lower_noise
from mri_score.numerics.noise import Random
from mri_score.samplers.base import Sampler


class DDIM(Sampler):
    """x <- z + sigma_next (sqrt(1 - zeta) e + sqrt(zeta) n),  z = D(x), e = (x - z) / sigma; the last z is the result.

    zeta: the share of new noise, in [0, 1]; 0 is Euler's method for the probability flow. The published code of DiffPIR
    uses 0.3; DDS denotes sqrt(zeta) by eta and uses 0.85. The share does not depend on the distance of the levels,
    unlike that of ancestral sampling.
    Errors: InputError for a zeta outside 0 to 1.
    Reference: Song et al., Denoising diffusion implicit models, ICLR 2021; Zhu et al., CVPRW 2023, algorithm 1.
    """

    def __init__(self, sigmas: Tensor, zeta: float = 0.3) -> None:
        super().__init__(sigmas)
        if not 0 <= zeta <= 1:
            raise InputError(f"zeta is {zeta}; it is a share of new noise, from 0 (none) to 1 (all)")
        self.zeta = zeta

    def step(
        self, model: ScoreModel, x: Tensor, sigma: float, sigma_next: float, random: Sequence[Random]
    ) -> Tensor:
        z = model.denoise(x, sigma)
        return lower_noise(z, x, sigma, sigma_next, self.zeta, random) if sigma_next else z


Ddim = DDIM  # the former name
