"""Score models: what knows the score of images at every noise level."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any

import torch
from torch import Generator, Tensor, nn

from mri_score.errors import InputError, unknown_name
from mri_score.numerics.channels import from_channels, per_item, to_channels
from mri_score.numerics.noise import noise_like, uniform

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""What a network computes in."""


def find_precision(name: str, place: str = "the precision") -> torch.dtype:
    """Errors: InputError for an unknown name."""
    if name not in PRECISIONS:
        raise unknown_name(place, name, PRECISIONS)
    return PRECISIONS[name]


class ScoreModel(nn.Module):
    """The law of x = x0 + sigma n at every sigma, n of unit variance in each real component.

    Tweedie's formula ties the two faces together, score = (denoised - x) / sigma^2: a subclass writes one of them.
    Shapes: x (B, *shape), real or complex; sigma () or (B,).
    """

    sd: float
    """Standard deviation of each real component of x0, about zero: sqrt(mean |x0|^2 / 2) for complex images."""
    sigma_min: float = 0.0
    """The smallest level that it knows."""
    about: Mapping[str, Any] = MappingProxyType({})
    """What the file of a prior says about it: its data, training, validation errors."""

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """The gradient of log p_sigma at x, by real components."""
        return (self.denoise(x, sigma) - x) / per_item(sigma, x) ** 2

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """E[x0 | x]."""
        return x + per_item(sigma, x) ** 2 * self.score(x, sigma)

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Generator]) -> Tensor:
        """One draw of x0 given x, or the method's approximation of it."""
        raise InputError(f"{type(self).__name__} has no draw of its own: walk it with a sampler that uses its score")

    def begin_walk(self) -> None:
        """Called as a walk begins: a model that gathers something along it starts anew."""

    def project(self, x: Tensor, sigma: Tensor | float, random: Sequence[Generator]) -> Tensor:
        """What the iterate must satisfy; nothing, for most models."""
        return x


Coefficients = tuple[Tensor, Tensor, Tensor, Tensor]


def ncsn(sigma: Tensor, sd: float) -> Coefficients:
    """NCSN and NCSNv2: the network, divided by sigma, is the score. Song and Ermon, NeurIPS 2019 and 2020."""
    return torch.ones_like(sigma), sigma, torch.ones_like(sigma), torch.log(sigma)


def score(sigma: Tensor, sd: float) -> Coefficients:
    """The network is the score itself, as in the first NCSN. Song and Ermon, NeurIPS 2019."""
    return torch.ones_like(sigma), sigma**2, torch.ones_like(sigma), torch.log(sigma)


def edm(sigma: Tensor, sd: float) -> Coefficients:
    """Unit variance at the network's input and target for every sigma. Karras et al., NeurIPS 2022, table 1."""
    total = torch.sqrt(sigma**2 + sd**2)
    return sd**2 / total**2, sigma * sd / total, 1 / total, torch.log(sigma) / 4


def vp(sigma: Tensor, sd: float) -> Coefficients:
    """Score SDE's VP: the network sees x_t = x / sqrt(1 + sigma^2) and 999 t, and tells the noise.

    t belongs to the published beta, 0.1 to 20: made for networks with a positional embedding.
    Reference: Karras et al., NeurIPS 2022, table 1.
    """
    return torch.ones_like(sigma), -sigma, 1 / torch.sqrt(1 + sigma**2), _label(torch.log1p(sigma**2))


def sub_vp(sigma: Tensor, sd: float) -> Coefficients:
    """Score SDE's sub-VP: as VP, with sigma = (1 - a^2) / a for the signal's share a. Song et al., ICLR 2021."""
    share = 2 / (sigma + torch.sqrt(4 + sigma**2))
    return torch.ones_like(sigma), -sigma, share, _label(2 * torch.asinh(sigma / 2))


def _label(integral: Tensor) -> Tensor:
    """999 t from -2 log a = 0.1 t + 19.9 t^2 / 2."""
    return 999 * 2 * integral / (0.1 + torch.sqrt(0.01 + 2 * 19.9 * integral))


def regression(noise_std: Tensor, sd: float) -> Coefficients:
    """No score model but a supervised network: what it adds to a reconstruction of k-space with this noise_std.

    An error of sd / 5 is what the network's output of 1 stands for, as for a denoiser at that level.
    """
    one = torch.ones_like(noise_std)
    return one, sd / 5 * one, one / sd, torch.log(noise_std) / 4


PRECONDITIONINGS: dict[str, Callable[[Tensor, float], Coefficients]] = {
    "edm": edm,
    "ncsn": ncsn,
    "regression": regression,
    "score": score,
    "sub-vp": sub_vp,
    "vp": vp,
}


class NetworkPrior(ScoreModel):
    """D(x, sigma) = c_skip x + c_out F(c_in x, c_noise): a network F with one row of the preconditioning table.

    sigma_min and sigma_max: the range that the network was trained on.
    precision: what the network computes in; everything around it keeps the precision of x. bfloat16 halves the time
    on hardware that has it and moves the denoised image by about 1 % of what the network takes away.
    """

    precision: torch.dtype = torch.float32

    def __init__(
        self,
        network: nn.Module,
        precondition: str = "edm",
        sd: float = 0.3,
        sigma_min: float = 0.004,
        sigma_max: float = 250.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.precondition = precondition
        self.sd, self.sigma_min, self.sigma_max = sd, sigma_min, sigma_max

    def learned(self, sigmas: Sequence[float]) -> tuple[float, ...]:
        """Those of some noise levels that it was trained on; the middle of its range where none is."""
        known = tuple(sigma for sigma in sigmas if self.sigma_min <= sigma <= self.sigma_max)
        return known or (float(f"{math.sqrt(self.sigma_min * self.sigma_max):.3g}"),)

    def denoise(self, x: Tensor, sigma: Tensor | float, extra: Tensor | None = None) -> Tensor:
        """E[x0 | x]; `extra` (B, channels, H, W) is what the network sees beside x, such as a sampling mask."""
        c_skip, output = self._parts(x, sigma, extra)
        return c_skip * x + output

    def score(self, x: Tensor, sigma: Tensor | float, extra: Tensor | None = None) -> Tensor:
        """(denoised - x) / sigma^2 with the digits that the sum with x would cost where sigma is small."""
        c_skip, output = self._parts(x, sigma, extra)
        return ((c_skip - 1) * x + output) / per_item(sigma, x) ** 2

    def _parts(self, x: Tensor, sigma: Tensor | float, extra: Tensor | None) -> tuple[Tensor, Tensor]:
        """c_skip and c_out F(c_in x, c_noise)."""
        sigma = torch.as_tensor(sigma, dtype=x.real.dtype, device=x.device).expand(len(x))
        c_skip, c_out, c_in, c_noise = PRECONDITIONINGS[self.precondition](sigma, self.sd)
        channels = to_channels(per_item(c_in, x) * x)
        wanted = getattr(self.network, "channels", channels.shape[1])
        if channels.shape[1] != wanted:
            raise InputError(
                f"the prior's network takes {wanted} channels, the images have {channels.shape[1]}: complex images need"
                " a prior of 2, e.g. brain"
            )
        reduced = self.precision != torch.float32
        with torch.autocast(x.device.type, self.precision) if reduced else nullcontext():
            output = self.network(channels, c_noise) if extra is None else self.network(channels, c_noise, extra)
        return per_item(c_skip, x), per_item(c_out, x) * from_channels(output.to(x.real.dtype), x)


class CountedPrior(ScoreModel):
    """A prior that counts what is asked of it, item by item: denoised images and vector-Jacobian products."""

    def __init__(self, prior: ScoreModel) -> None:
        super().__init__()
        self.prior, self.sd, self.sigma_min = prior, prior.sd, prior.sigma_min
        self.calls = self.products = 0

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        self.calls += len(x)
        denoised = self.prior.denoise(x, sigma)
        if denoised.requires_grad:
            denoised.register_hook(self._product)
        return denoised

    def _product(self, gradient: Tensor) -> None:
        self.products += len(gradient)


class GaussianPrior(ScoreModel):
    """x0 normal with a mean and a covariance: every question has a closed answer, so it is the tests' witness.

    Shapes: mean (*shape), covariance (n, n) Hermitian over the flattened shape. As everywhere the covariance counts
    each real component: E (x - m)(x - m)^H / 2 for complex x.
    """

    mean: Tensor
    variances: Tensor
    axes: Tensor

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        super().__init__()
        variances, axes = torch.linalg.eigh(covariance)
        self.register_buffer("mean", mean)
        self.register_buffer("variances", variances.clamp_min(0))
        self.register_buffer("axes", axes)
        components = 2 if mean.is_complex() else 1
        energy = mean.abs().square().mean() / components + self.variances.mean()
        self.sd = float(energy.sqrt())

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        gain = self.variances / (self.variances + _column(sigma, x) ** 2)
        return self._along_axes(x - self.mean, gain) + self.mean

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Generator]) -> Tensor:
        sigma = _column(sigma, x)
        spread = torch.sqrt(self.variances * sigma**2 / (self.variances + sigma**2))
        return self.denoise(x, sigma.reshape(-1)) + self._along_axes(noise_like(x, random), spread)

    def sample(self, random: Sequence[Generator]) -> Tensor:
        """One x0 for each generator."""
        noise = noise_like(self.mean.expand(len(random), *self.mean.shape), random)
        return self._along_axes(noise, self.variances.sqrt()[None]) + self.mean

    def _along_axes(self, x: Tensor, gain: Tensor) -> Tensor:
        coefficients = gain * (x.flatten(1) @ self.axes.conj())
        return (coefficients @ self.axes.T).reshape(x.shape)


class MixturePrior(ScoreModel):
    """x0 from a mixture of round Gaussians: the witness for several modes.

    Shapes: means (K, *shape), stds (K,) of each real component, weights (K,).
    """

    means: Tensor
    stds: Tensor
    weights: Tensor

    def __init__(self, means: Tensor, stds: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("means", means)
        self.register_buffer("stds", stds)
        self.register_buffer("weights", weights / weights.sum())
        self.components = 2 if means.is_complex() else 1
        energy = means.flatten(1).abs().square().mean(1) / self.components + stds**2
        self.sd = float((self.weights * energy).sum().sqrt())

    def responsibilities(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """p(component | x): (B, K)."""
        variance = self.stds**2 + _column(sigma, x) ** 2
        distance = (x.flatten(1)[:, None] - self.means.flatten(1)).abs().square().sum(-1)
        size = self.components * self.means[0].numel()
        return torch.softmax(self.weights.log() - distance / (2 * variance) - size / 2 * variance.log(), dim=1)

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        shares = self.responsibilities(x, sigma).to(x.dtype)
        return torch.einsum("bk,bkn->bn", shares, self._component_means(x, sigma)).reshape(x.shape)

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Generator]) -> Tensor:
        u = uniform(random).to(x.real.dtype)[:, None]
        chosen = (self.responsibilities(x, sigma).cumsum(1) < u).sum(1).clamp_max(len(self.stds) - 1)
        mean = self._component_means(x, sigma)[torch.arange(len(x)), chosen].reshape(x.shape)
        variance, noise = self.stds[chosen] ** 2, _column(sigma, x)[:, 0] ** 2
        return mean + per_item(torch.sqrt(variance * noise / (variance + noise)), x) * noise_like(x, random)

    def _component_means(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        gain = self.stds**2 / (self.stds**2 + _column(sigma, x) ** 2)
        means = self.means.flatten(1)
        return means + gain[:, :, None] * (x.flatten(1)[:, None] - means)


def _column(sigma: Tensor | float, x: Tensor) -> Tensor:
    """sigma as (B, 1), against flattened items."""
    return torch.as_tensor(sigma, dtype=x.real.dtype, device=x.device).expand(len(x))[:, None]
