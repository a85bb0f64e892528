"""What posterior samples are compared with: zero-filled, CG-SENSE, L1-wavelet, total variation, a supervised network.

One slice in, one image out. kspace is (C, H, W) complex with zeros where nothing was sampled, maps (C, H, W) complex,
mask (bool or real) broadcastable to kspace, each a tensor or an array; the image is a complex64 tensor (H, W).
Units are the scaled ones: the 99th percentile of the image's magnitude is about 1. Nothing here is random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import sigpy
import sigpy.app
import sigpy.mri.linop
import torch
from sigpy.linop import Linop
from torch import Tensor

from mri_score.errors import InputError

Array = Tensor | np.ndarray

TYPICAL_EDGE = 0.05
"""The jump between neighbours at an edge, in scaled units: sets how fast total variation converges, not where to."""

INNER_ITERATIONS = 4
"""Conjugate gradient steps in each round of the alternating direction method."""


def zero_filled(kspace: Array, maps: Array, mask: Array) -> Tensor:
    """A^H y, the adjoint of the samples."""
    y, A = _problem(kspace, maps, mask)
    return torch.from_numpy(A.H(y))


def cg_sense(kspace: Array, maps: Array, mask: Array, iterations: int = 15) -> Tensor:
    """argmin_x |A x - y|^2 by conjugate gradient from zero; its only regularisation is to stop early.

    Reference: Pruessmann et al., Advances in sensitivity encoding with arbitrary k-space trajectories, MRM 2001.
    """
    y, A = _problem(kspace, maps, mask)
    return torch.from_numpy(_conjugate_gradient(y, A, iterations))


def l1_wavelet(
    kspace: Array,
    maps: Array,
    mask: Array,
    noise_std: float | Tensor,
    weight: float | str = "rule",
    iterations: int = 100,
    wavelet: str = "db4",
) -> Tensor:
    """argmin_x |A x - y|^2 / 2 + weight |W x|_1 by FISTA from CG-SENSE; weight "rule" is `weight_by_rule`.

    Reference: Lustig, Donoho and Pauly, Sparse MRI, MRM 2007; Beck and Teboulle, SIAM J. Imaging Sci. 2009.
    """
    y, A = _problem(kspace, maps, mask)
    x, W = _conjugate_gradient(y, A), sigpy.linop.Wavelet(A.ishape, wave_name=wavelet)
    weight = _weight(weight, x, W, noise_std)
    shrink = sigpy.prox.UnitaryTransform(sigpy.prox.L1Reg(W.oshape, weight), W)
    step = 1 / _largest_eigenvalue(maps, mask)
    return _run(A, y, x, proxg=shrink, alpha=step, max_iter=iterations)


def total_variation(
    kspace: Array,
    maps: Array,
    mask: Array,
    noise_std: float | Tensor,
    weight: float | str = "rule",
    iterations: int = 100,
) -> Tensor:
    """argmin_x |A x - y|^2 / 2 + weight |D x|_1, D the differences along both axes; weight as in `l1_wavelet`.

    By the alternating direction method, `iterations` counting its conjugate gradient steps. SigPy's default, a
    primal-dual method, is 4 dB or more below its limit after 100 iterations.
    Reference: Block, Uecker and Frahm, Undersampled radial MRI with multiple coils, MRM 2007.
    """
    y, A = _problem(kspace, maps, mask)
    x, D = _conjugate_gradient(y, A), sigpy.linop.FiniteDifference(A.ishape)
    weight = _weight(weight, x, D, noise_std)
    return _run(
        A,
        y,
        x,
        proxg=sigpy.prox.L1Reg(D.oshape, weight),
        G=D,
        solver="ADMM",
        rho=weight / TYPICAL_EDGE,
        max_iter=-(-iterations // INNER_ITERATIONS),
        max_cg_iter=INNER_ITERATIONS,
    )


class Restorer(Protocol):
    """A network that restores CG-SENSE images, trained for noise levels from sigma_min to sigma_max."""

    sigma_min: float
    sigma_max: float

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor: ...


@torch.no_grad()
def supervised(kspace: Array, maps: Array, mask: Array, noise_std: float | Tensor, network: Restorer) -> Tensor:
    """f(CG-SENSE image, noise_std), the image that a network trained on pairs makes of it: its posterior mean.

    `network` comes from `priors.store.load_supervised`; a noise_std outside its range counts as the nearest within.
    Reference: Jin et al., Deep convolutional neural network for inverse problems in imaging, IEEE TIP 2017.
    """
    image = cg_sense(kspace, maps, mask)
    return network.denoise(image[None], min(max(float(noise_std), network.sigma_min), network.sigma_max))[0]


def weight_by_rule(image: Array, transform: Linop, noise_std: float | Tensor) -> float:
    """The weight noise_std^2 / b, where b is the most likely scale of a density exp(-|T x|_1 / b) for this image.

    With N complex pixels b = |T x|_1 / (2 N). The image is that of CG-SENSE: no truth, and nothing to tune.
    Reference: Pereyra, Bioucas-Dias and Figueiredo, Maximum-a-posteriori estimation with unknown regularisation
    parameters, EUSIPCO 2015.
    """
    image, variance = _array(image), float(noise_std) ** 2
    scale = float(np.abs(transform(image)).sum()) / (2 * image.size)
    return variance / max(scale, variance)  # at most 1, which leaves nothing of an image: for empty slices


class Tuned(NamedTuple):
    """What `tune_weight` found, and the curve that it saw."""

    weight: float
    psnr: float
    weights: list[float]
    psnrs: list[float]

    @property
    def between(self) -> float:
        """The top of the parabola through the best weight and its neighbours, which lies between tried weights."""
        best = self.weights.index(self.weight)  # never at an end
        near = slice(best - 1, best + 2)
        curvature, slope, _ = np.polyfit(np.log(self.weights[near]), self.psnrs[near], 2)
        return float(np.exp(-slope / (2 * curvature))) if curvature < 0 else self.weight


def tune_weight(
    method: Callable[..., Tensor],
    kspace: Array,
    maps: Array,
    mask: Array,
    noise_std: float | Tensor,
    *,
    truth: Array,
    foreground: Array | None = None,
    iterations: int = 100,
    widenings: int = 20,
) -> Tuned:
    """The oracle, for studies only: the weight of `method` with the best PSNR of magnitude inside the foreground.

    Ten weights from 0.01 to 5 times noise_std, evenly spaced in the logarithm, then more on either side until the
    optimum lies inside. The foreground is where |truth| exceeds 0.15 of its 99th percentile, unless given.
    Errors: InputError where the optimum has not come inside after `widenings` more weights.
    """
    target = np.abs(_array(truth))
    inside = target > 0.15 * np.percentile(target, 99) if foreground is None else np.asarray(foreground, dtype=bool)

    def quality(weight: float) -> float:
        image = method(kspace, maps, mask, noise_std, weight=weight, iterations=max(100, iterations)).abs().numpy()
        return float(10 * np.log10(target[inside].max() ** 2 / np.mean((image - target)[inside] ** 2)))

    weights = [float(weight) for weight in float(noise_std) * np.geomspace(0.01, 5, 10)]
    psnrs = [quality(weight) for weight in weights]
    ratio = weights[1] / weights[0]
    for _ in range(widenings):
        best = int(np.argmax(psnrs))
        if 0 < best < len(weights) - 1:
            return Tuned(weights[best], psnrs[best], weights, psnrs)
        end, new = (0, weights[0] / ratio) if best == 0 else (len(weights), weights[-1] * ratio)
        weights.insert(end, new)
        psnrs.insert(end, quality(new))
    raise InputError(
        f"the best weight of {method.__name__} is at the edge of {weights[0]:.1e} ... {weights[-1]:.1e} even after"
        f" {widenings} more weights; check that the truth has the scale of kspace and that noise_std is right"
    )


def _problem(kspace: Array, maps: Array, mask: Array) -> tuple[np.ndarray, Linop]:
    """Samples y and operator A, in complex64."""
    y, maps, mask = _array(kspace), _array(maps), _weights(mask)
    if y.ndim != 3 or maps.shape != y.shape:
        raise InputError(
            f"kspace has shape {y.shape} and maps {maps.shape}; pass one slice: (coils, rows, cols) for both"
        )
    if mask.ndim > 3 or any(m not in (1, n) for m, n in zip(mask.shape[::-1], y.shape[::-1], strict=False)):
        raise InputError(
            f"a mask of shape {mask.shape} does not fit kspace of shape {y.shape}; for a slice of a batch pass mask[0]"
        )
    mask = mask.reshape((1,) * (3 - mask.ndim) + mask.shape)
    return y, sigpy.mri.linop.Sense(maps, weights=mask**2)  # SigPy samples with the square root of its weights


def _array(value: Array) -> np.ndarray:
    value = value.detach().cpu().resolve_conj().numpy() if isinstance(value, Tensor) else value
    return np.ascontiguousarray(value, dtype=np.complex64)


def _weights(mask: Array) -> np.ndarray:
    return np.asarray(mask.cpu() if isinstance(mask, Tensor) else mask, dtype=np.float32)


def _conjugate_gradient(y: np.ndarray, A: Linop, iterations: int = 15) -> np.ndarray:
    x, b = np.zeros(A.ishape, np.complex64), A.H(y)
    # One coil converges at once: what follows would be rounding, blown up.
    steps = sigpy.alg.ConjugateGradient(A.N, b, x, max_iter=iterations, tol=1e-6 * float(np.linalg.norm(b)))
    while not steps.done():
        steps.update()
    return x


def _largest_eigenvalue(maps: Array, mask: Array) -> float:
    """A bound of A^H A that needs no random start, unlike SigPy's power iteration: 1 for maps of unit norm."""
    return float((np.abs(_array(maps)) ** 2).sum(0).max() * (_weights(mask) ** 2).max())


def _weight(weight: float | str, x: np.ndarray, transform: Linop, noise_std: float | Tensor) -> float:
    if weight == "rule":
        if not float(noise_std) > 0:
            raise InputError(f"noise_std is {float(noise_std)}, not positive: measure it, or pass a weight")
        return weight_by_rule(x, transform, noise_std)
    if isinstance(weight, str) or not 0 < weight < np.inf:
        raise InputError(f'the weight of a baseline is {weight!r}; pass "rule" or a positive number')
    return float(weight)


def _run(A: Linop, y: np.ndarray, x: np.ndarray, **settings: Any) -> Tensor:
    return torch.from_numpy(sigpy.app.LinearLeastSquares(A, y, x=x, show_pbar=False, **settings).run())
