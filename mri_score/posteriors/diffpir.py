"""Half-quadratic splitting: the denoised image, then its proximal point to the data with a published weight."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mri_score.errors import InputError
from mri_score.numerics.channels import per_item
from mri_score.posteriors.exact_draw import Proximal


@dataclass(eq=False, repr=False)
class DiffPIR(Proximal):
    """denoise(x) = argmin_z |y - A z|^2 + w |z - D(x, sigma)|^2,    w = weight noise_std^2 / sigma^2, solved exactly.

    Sampler: `DDIM` with zeta 0.3; weight and zeta are those of the published code for noisy deblurring.
    weight: lambda of the paper.
    Bias: not a posterior. At 100 levels of a Gaussian problem the results have 1.35 times the posterior's variance,
    and four times its variance in directions that the samples measure, because data that count only 1/7 leave noise
    there. With weight 1 the factor is 0.85 in all directions.
    Errors: InputError if weight is not positive.
    Reference: Zhu et al., Denoising diffusion models for plug-and-play image restoration, CVPRW 2023.
    """

    weight: float = 7.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.weight > 0:
            raise InputError(f"the weight of DiffPIR is {self.weight}; it must be positive, published are 1 to 10")

    def variance(self, v: Tensor, sigma: Tensor | float) -> Tensor:
        return per_item(sigma, v) ** 2 / self.weight


DiffPir = DiffPIR  # the former name
