"""Half-quadratic splitting: the denoised image, then its proximal point to the data, at a published weight."""

from __future__ import annotations

from torch import Tensor

from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import per_item
from mri_score.operators.base import LinearOperator
from mri_score.posteriors.exact_draw import Proximal


class DiffPIR(Proximal):
    """denoise(x) = argmin_z |y - A z|^2 + w |z - D(x, sigma)|^2,    w = weight noise_std^2 / sigma^2, solved exactly.

    Walked by `DDIM` with zeta 0.3, both as the release has them for noisy deblurring.
    Bias: no posterior; at 100 levels of a Gaussian problem the results spread with 1.35 of its variance, four times
    too much where samples see the image, as data of weight 1/7 leave noise there. With weight 1 it is 0.85 all over.
    weight: lambda of the paper.
    Errors: InputError for a weight that is not positive.
    Reference: Zhu et al., Denoising diffusion models for plug-and-play image restoration, CVPRW 2023.
    """

    def __init__(
        self,
        prior: ScoreModel,
        operator: LinearOperator,
        kspace: Tensor,
        noise_std: Tensor | float,
        weight: float = 7.0,
    ) -> None:
        super().__init__(prior, operator, kspace, noise_std)
        if not weight > 0:
            raise InputError(f"the weight of DiffPIR is {weight}; it must be positive, published are 1 to 10")
        self.weight = weight

    def variance(self, v: Tensor, sigma: Tensor | float) -> Tensor:
        return per_item(sigma, v) ** 2 / self.weight


DiffPir = DiffPIR  # the former name
