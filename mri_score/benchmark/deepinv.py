"""deepinv's diffusion solvers, for comparison: their algorithms and defaults with our prior, operator, noise and scale.

deepinv is not a dependency: it is imported when one of these methods is used.
Reference: Tachella et al., DeepInverse: a Python package for solving imaging inverse problems, JOSS 2025.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mri_score.data.acquisition import Acquisition
from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.numerics.noise import key
from mri_score.operators.sense import Sense
from mri_score.reconstruction import SIGMA_START, Work

LARGEST = 2.0
"""DiffPIR clamps images to [0, 1]: real and imaginary parts from -LARGEST to LARGEST are mapped to that range."""


@dataclass(frozen=True)
class Rival:
    """One of deepinv's solvers: its steps, network calls per step, and whether it draws from a posterior."""

    title: str
    steps: int
    run: Callable[[Any, ScoreModel, Acquisition, int], Tensor]
    calls: int = 1
    draws: bool = True


def sample_deepinv(
    rival: Rival, prior: ScoreModel, scan: Acquisition, number: int, *, steps: int, samples: int, seed: int
) -> tuple[Tensor, list[Work]]:
    """Images (samples, H, W) of one slice in the file's units, and the work of each.

    scan: one slice, scaled. number: of the slice. Each image depends only on (seed, file name, slice, its own number).
    Errors: InputError if deepinv is not installed.
    """
    deepinv = _load()
    images, works = [], []
    for draw in range(samples):
        counted = _Counted(prior)
        with torch.random.fork_rng(devices=[]):  # its solvers draw from torch's global generator
            torch.manual_seed(key(seed, scan.name, number, draw))
            images.append(rival.run(deepinv, counted, scan, steps) * scan.scale[0])
        works.append(Work(calls=counted.calls, products=counted.products))
    return torch.stack(images), works


def _load() -> Any:
    try:
        import deepinv
        import deepinv.sampling
    except ImportError as error:
        raise InputError(f"this method needs the package deepinv ({error}); run: pip install 'deepinv>=0.5'") from error
    return deepinv


class _Counted(ScoreModel):
    """The prior on two real channels, within its noise levels; it counts calls and vector-Jacobian products."""

    def __init__(self, prior: ScoreModel) -> None:
        super().__init__()
        self.prior, self.sd = prior, prior.sd
        self.sigma_min, self.sigma_max = prior.sigma_min, prior.sigma_max
        self.calls = self.products = 0

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """(B, 2, H, W) real -> the same."""
        self.calls += len(x)
        levels = torch.as_tensor(sigma, dtype=x.dtype).flatten().clamp(self.sigma_min, self.sigma_max)
        return to_real(self.prior.denoise(to_complex(_Products.apply(x, self)), levels.expand(len(x))))


class _Products(torch.autograd.Function):
    """The identity; its gradients are counted, those of autograd and of torch.func."""

    @staticmethod
    def forward(x: Tensor, counter: _Counted) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, _Counted], output: Tensor) -> None:
        ctx.counter = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.counter.products += len(gradient)
        return gradient, None


def to_complex(x: Tensor) -> Tensor:
    """(B, 2 C, H, W) real, real parts first -> (B, C, H, W) complex, and (B, H, W) for one channel."""
    pair = torch.complex(*x.chunk(2, 1))
    return pair[:, 0] if pair.shape[1] == 1 else pair


def to_real(x: Tensor) -> Tensor:
    """(B, C, H, W) or (B, H, W) complex -> (B, 2 C, H, W) real."""
    x = x if x.ndim == 4 else x.unsqueeze(1)
    return torch.cat([x.real, x.imag], 1)


def _physics(deepinv: Any, scan: Acquisition, noise_std: float) -> Any:
    """SENSE on real channels, for which deepinv's sigma is the noise of each real component."""
    _, maps, mask, _ = scan.cartesian
    A, coils = Sense(maps, mask), maps.shape[1]

    def adjoint(y: Tensor, **unused: Any) -> Tensor:
        parts = to_complex(y).reshape(len(y), coils, *y.shape[-2:])
        return to_real(A.adjoint(parts.to(torch.complex64))).to(y.dtype)

    return deepinv.physics.LinearPhysics(
        A=lambda x, **unused: to_real(A(to_complex(x).to(torch.complex64))).to(x.dtype),
        A_adjoint=adjoint,
        noise_model=deepinv.physics.GaussianNoise(sigma=noise_std),
    )


def _denoiser(deepinv: Any, function: Callable[[Tensor, Tensor], Tensor]) -> Any:
    class Wrapped(deepinv.models.Denoiser):
        def forward(self, x: Tensor, sigma: Tensor, **unused: Any) -> Tensor:
            return function(x, sigma)

    return Wrapped()


def _posterior(fidelity: str) -> Callable[[Any, ScoreModel, Acquisition, int], Tensor]:
    """The reverse diffusion of deepinv: variance-exploding, from sigma 5 like our walks, with its ancestral solver."""

    def run(deepinv: Any, prior: ScoreModel, scan: Acquisition, steps: int) -> Tensor:
        noise_std = float(scan.noise_std)
        lowest = max(min(0.01, noise_std), prior.sigma_min)
        denoiser = _denoiser(deepinv, prior.denoise)
        sampling = deepinv.sampling
        model = sampling.PosteriorDiffusion(
            data_fidelity=getattr(sampling, fidelity)(denoiser=denoiser),
            denoiser=denoiser,
            sde=sampling.VarianceExplodingDiffusion(
                sigma_min=lowest, sigma_max=SIGMA_START, alpha=1.0, minus_one_one=False
            ),
            solver=sampling.AncestralSolver(timesteps=torch.linspace(1, 0, steps + 1, dtype=torch.float64)),
            minus_one_one=False,
        )
        shape = (1, 2, *scan.kspace.shape[-2:])
        image = model(to_real(scan.kspace), _physics(deepinv, scan, noise_std), x_init=shape)
        return to_complex(image.detach().float())[0]

    return run


def _dps(deepinv: Any, prior: ScoreModel, scan: Acquisition, steps: int) -> Tensor:
    """`deepinv.sampling.DPS` with its defaults, without its clamp of denoised images to [-1, 1]."""
    model = deepinv.sampling.DPS(_denoiser(deepinv, prior.denoise), num_steps=steps, minus_one_one=False)
    model.data_fidelity.clip = None
    shape = (1, 2, *scan.kspace.shape[-2:])
    physics = _physics(deepinv, scan, float(scan.noise_std))
    return to_complex(model(to_real(scan.kspace), physics, x_init=shape).detach().float())[0]


def _diffpir(deepinv: Any, prior: ScoreModel, scan: Acquisition, steps: int) -> Tensor:
    """`deepinv.sampling.DiffPIR` with its defaults, on v = x / (2 LARGEST) + 1/2, within [0, 1] for all our images.

    A x = 2 LARGEST A v - LARGEST A 1, so that v has the samples (y + LARGEST A 1) / (2 LARGEST), and their noise.
    """
    noise_std = float(scan.noise_std) / (2 * LARGEST)
    physics = _physics(deepinv, scan, noise_std)
    ones = torch.ones(1, 2, *scan.kspace.shape[-2:])
    y = (to_real(scan.kspace) + LARGEST * physics.A(ones)) / (2 * LARGEST)

    def denoise(v: Tensor, sigma: Tensor) -> Tensor:
        return prior.denoise(2 * LARGEST * (v - 0.5), 2 * LARGEST * sigma) / (2 * LARGEST) + 0.5

    model = deepinv.sampling.DiffPIR(
        _denoiser(deepinv, denoise), deepinv.optim.data_fidelity.L2(), sigma=noise_std, max_iter=steps
    )
    return to_complex(2 * LARGEST * (model(y, physics).detach() - 0.5))[0]


RIVALS: dict[str, Rival] = {
    "deepinv-pigdm": Rival("deepinv, PiGDM", 100, _posterior("PiGDMDataFidelity")),
    "deepinv-mmps": Rival("deepinv, MomentMatching", 50, _posterior("MomentMatchingDataFidelity")),
    "deepinv-dps": Rival("deepinv, DPS", 1000, _dps),
    "deepinv-diffpir": Rival("deepinv, DiffPIR", 100, _diffpir, draws=False),
}
