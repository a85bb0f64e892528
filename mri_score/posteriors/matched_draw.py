"""The default: draws from the denoiser's covariance at high noise, from the scan's misfit below; a separate mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mri_score.numerics.channels import per_item, real_size, squared_norm
from mri_score.numerics.noise import Antithetic, Random, noise_like
from mri_score.numerics.orientation import random_orientations, turned, turned_back
from mri_score.posteriors.adaptive_draw import AdaptiveDraw
from mri_score.posteriors.base import TOLERANCE
from mri_score.posteriors.exact_draw import ExactDraw
from mri_score.posteriors.mmps import MMPSDraw

LARGEST = 1e-2
"""Largest relative residual of a solution, whatever the noise."""


@dataclass(eq=False, repr=False)
class MatchedDraw(AdaptiveDraw):
    """Three parts, chosen by noise level. `mean` is the reconstructed image; the draws show its uncertainty.

    Above `border`: one draw of `MMPSDraw`. At these levels a walk decides between different explanations of the data,
    and the denoiser's own covariance gives each of them its posterior odds. Few products with the Jacobian suffice.
    At `border` and below: one draw of `AdaptiveDraw` with `spread` times its r^2. The misfit is measured mostly where
    samples are dense and errors small, so that the estimate alone is too small for what no sample measures.
    Below `mean_below`, down to `mean_end`: beside each draw a second iterate, which takes conditional means with the
    r^2 of `Proximal` instead of draws. It starts from the draw, and its end is `mean`. It has less noise than the draw,
    and is closer to the posterior mean. `antithetic_generators` reduce the noise of the average of several such means.
    It is a fixed-point iteration that converges slowly where the samples hardly determine the image. Each step starts
    from m + `momentum` (m - the mean of the level before), which nears the same image in about half as many levels. It
    amplifies the noise of one mean, so that only the draws of a complete antithetic group do so, whose noises cancel.
    There, a prior of images of any orientation is asked at each level in another random orientation of each item, so
    that what its network prefers by direction averages out.
    spread: factor for the estimated r^2. border, mean_below, mean_end: noise levels, in the unit of images.
    iterations: option of `MMPSDraw` below the noise level `late`. Above it one iteration is taken: there x0 given x is
    far from Gaussian, and solutions that are exact for a Gaussian draw too few of the rare explanations.
    lanczos: option of `MMPSDraw`.
    solution_error: largest error of a solution z of (A^H A + w) z = b, in the norm of A^H A + w and relative to
    noise_std sqrt(n), the size in that norm of what a draw of n real components adds to its mean. Conjugate gradient
    then stops at what the noise of the level hides. 0.03 halves its iterations or more, but an item that stops one
    iteration earlier through rounding, as in a batch of another size, changes by more than rounding. 0 solves to
    TOLERANCE.
    References: Terris et al., Equivariant plug-and-play image reconstruction, CVPR 2024, for the orientations; Polyak,
    Some methods of speeding up the convergence of iteration methods, 1964, for the momentum.
    """

    spread: float = 1.5
    border: float = 0.3
    iterations: int = 4
    lanczos: int = 2
    late: float = 1.0
    mean_below: float = 0.1
    mean_end: float = 0.0
    momentum: float = 0.5
    solution_error: float = 0.0
    _step: Tensor | None = field(default=None, init=False)
    """m minus the mean of the level before, (B, *image); zero where there is none."""
    _beside: Tensor | None = field(default=None, init=False)
    """(B,): the items whose mean had an iterate of its own at the level before."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.prior, self.operator, self.kspace, self.noise_std
        self.early = MMPSDraw(*given, iterations=1, lanczos=self.lanczos)
        self.matched = MMPSDraw(*given, iterations=self.iterations, lanczos=self.lanczos)

    def begin_walk(self) -> None:
        super().begin_walk()
        self._step = self._beside = None

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        levels = torch.as_tensor(sigma, device=x.device).expand(len(x))
        highest = float(levels.max())
        if highest > 1.0001 * self.border:  # the levels above it are the same for all items of a walk
            matched = self.early if highest > self.late else self.matched
            self.mean = z = matched.draw(x, sigma, random)
            return z
        low = (levels < self.mean_below) & (levels >= self.mean_end)
        if not bool(low.any()):
            z = self.draw_about(self.prior.denoise(x, sigma), sigma, random)
            self.mean = self._kept(z, levels)
            return z
        beside = x[low] if self.mean is None else self._noisy_mean(levels, low, random)
        denoised, denoised_beside = self._denoise_both(x, beside, levels, low, random)
        z = self.draw_about(denoised, sigma, random)
        v = torch.zeros_like(x)
        v[low] = denoised_beside
        chosen = low.reshape(-1, *[1] * (x.ndim - 1))
        b = torch.where(chosen, self.backprojection, 0)  # a zero item is solved at once
        mean = self.solve_near(b, v, ExactDraw.variance(self, v, sigma))
        before, self.mean = self.mean, torch.where(chosen, mean, self._kept(z, levels))
        if before is None or self._beside is None:
            self._step = torch.zeros_like(x)
        else:  # the first of these means follows a draw, and their difference would be mostly noise
            self._step = torch.where((low & self._beside).reshape(chosen.shape), self.mean - before, 0)
        self._beside = low
        return z

    def _denoise_both(
        self, x: Tensor, beside: Tensor, levels: Tensor, low: Tensor, random: Sequence[Random]
    ) -> tuple[Tensor, Tensor]:
        """Denoised x (B, *shape), and `beside`, the iterates of the means of the items where `low` is true."""
        if not (self.prior.any_orientation and x.ndim == 3):
            both = self.prior.denoise(torch.cat([x, beside]), torch.cat([levels, levels[low]]))
            return both[: len(x)], both[len(x) :]
        chosen = low.nonzero()[:, 0].tolist()
        some = random_orientations(beside, [random[item] for item in chosen])
        x = x.clone()
        x[low] = turned(x[low], some)
        both = self.prior.denoise(torch.cat([x, turned(beside, some)]), torch.cat([levels, levels[low]]))
        denoised = both[: len(x)].clone()
        denoised[low] = turned_back(denoised[low], some)
        return denoised, turned_back(both[len(x) :], some)

    def tolerance(self, b: Tensor, weight: Tensor) -> Tensor | float:
        """The residual r that bounds the error by `solution_error`: |(A^H A + w)^(-1/2) r| is at most |r| / sqrt(w)."""
        if not self.solution_error:
            return TOLERANCE
        largest = self.solution_error * (per_item(self.noise_std, b) ** 2 * weight * real_size(b)).sqrt().reshape(-1)
        norm = squared_norm(b).sqrt()
        return (largest / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp(TOLERANCE, LARGEST)

    def _kept(self, z: Tensor, levels: Tensor) -> Tensor:
        """The means so far; the draw z for items whose mean does not have an iterate of its own yet."""
        if self.mean is None:
            return z
        return torch.where((levels >= self.mean_below).reshape(-1, *[1] * (z.ndim - 1)), z, self.mean)

    def _noisy_mean(self, levels: Tensor, low: Tensor, random: Sequence[Random]) -> Tensor:
        """The means of the items where `low` is true, with noise of their level; other items use no random numbers."""
        assert self.mean is not None
        mean = self.mean[low]
        chosen = [one for one, is_low in zip(random, low.tolist(), strict=True) if is_low]
        if self._step is not None:
            cancels = mean.real.new_tensor([isinstance(one, Antithetic) and one.complete for one in chosen])
            mean = mean + per_item(self.momentum * cancels, mean) * self._step[low]
        return mean + per_item(levels[low], mean) * noise_like(mean, chosen)
