"""Reconstruction: acquisition -> operator -> posterior -> walks -> images with their uncertainty."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mri_score.data.acquisition import Acquisition
from mri_score.data.scan import coil_weight, from_arrays
from mri_score.errors import InputError, unknown_name
from mri_score.evaluation.out_of_distribution import misfit_ratio
from mri_score.models.base import ScoreModel
from mri_score.models.counted import CountedPrior
from mri_score.models.network import NetworkPrior
from mri_score.noise.schedules import VP, Geometric, Karras, Schedule
from mri_score.numerics.noise import generators
from mri_score.operators.base import LinearOperator
from mri_score.operators.sense import Sense
from mri_score.posteriors import POSTERIORS
from mri_score.posteriors.base import Posterior
from mri_score.priors.store import DEFAULT, load_prior
from mri_score.samplers import SAMPLERS
from mri_score.samplers.base import Diverged, Sampler

SIGMA_START = 5.0
"""Where posterior walks start: the first data step supplies what lies above."""

SIGMA_END = 0.01
"""Where walks end, or at half of noise_std if that is less."""


@dataclass(frozen=True)
class Method:
    """A posterior, the sampler that walks it, and how many levels of which schedule."""

    posterior: str
    sampler: str
    schedule: Callable[[float, float], Schedule]
    steps: int
    calls: int
    """Network calls a level."""
    draws: bool
    """Whether its results are draws of a posterior, or point estimates."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What its posterior and sampler take, where not their defaults."""


METHODS = {
    # Draws of a posterior, one network call a level.
    "adaptive-draw": Method("adaptive-draw", "renoise", Karras, 50, 1, True),
    "exact-draw": Method("exact-draw", "renoise", Karras, 30, 1, True),
    # Draws through the Jacobian of the network.
    "mmps-draw": Method("mmps-draw", "renoise", Karras, 20, 1, True),
    "mmps": Method("mmps", "ancestral", Karras, 50, 1, True),
    "pigdm": Method("pigdm", "ancestral", Karras, 100, 1, True),
    "dps": Method("dps", "guided-ancestral", Geometric, 1000, 1, True),
    # Draws by many small steps.
    "langevin": Method("annealed", "langevin", Geometric, 334, 3, True),
    "langevin-norm-matched": Method("norm-matched", "langevin", Geometric, 334, 3, True),
    "pula": Method("unannealed", "preconditioned", Geometric, 100, 1, True),
    "daps": Method("daps", "renoise", Karras, 200, 5, True),
    "split-gibbs": Method("split-gibbs", "renoise", Geometric, 100, 10, True),
    "score-mri": Method("projected", "predictor-corrector", Geometric, 1000, 2, True),
    "score-mri-coils": Method("coil-projected", "predictor-corrector", Geometric, 1000, 2, True),
    # Point estimates: their spread says nothing.
    "proximal": Method("proximal", "renoise", Karras, 30, 1, False),
    "dds": Method("dds", "ddim", Karras, 50, 1, False, {"zeta": 0.85**2}),
    "diffpir": Method("diffpir", "ddim", Karras, 100, 1, False),
    "red-diff": Method("unannealed", "red-diff", VP.between, 1000, 1, False),
}
DEFAULT_METHOD = "adaptive-draw"

Progress = Callable[[int], None]
"""Called with the number of network evaluations (items times calls) that a level took."""


@dataclass(frozen=True)
class Work:
    """What some walks cost, summed over them."""

    calls: int = 0
    """Network evaluations."""
    products: int = 0
    """Vector-Jacobian products of the network, each about two evaluations."""
    iterations: int = 0
    """Of conjugate gradient, one application of A^H A each."""

    def __add__(self, other: Work) -> Work:
        return Work(self.calls + other.calls, self.products + other.products, self.iterations + other.iterations)


@dataclass(frozen=True)
class Reconstruction:
    """Draws of the posterior of some slices, in the units of the k-space that came in."""

    samples: Tensor
    """(P, B, H, W) complex."""
    weight: Tensor
    """(B, H, W): |image| times this is the root-sum-of-squares image in the file's own coils."""
    maps: Tensor
    """(B, C, H, W): the maps that were used."""
    acquisition: Acquisition
    work: Work
    """Of all draws of all slices."""
    means: Tensor | None = None
    """(P, B, H, W) complex: what each walk found of the posterior mean, where it finds more than its draw."""
    unlike: Tensor | None = None
    """(P, B): `misfit_ratio` of each walk, near 1 for scans such as the prior's validation images; NaN where no level
    of it tells. None from methods that do not look, and priors without validation errors.
    """

    def first(self, count: int) -> Reconstruction:
        """The same with only the first `count` draws; its work is that share of the whole."""
        part = Work(*(round(number * count / len(self.samples)) for number in astuple(self.work)))
        means = None if self.means is None else self.means[:count]
        unlike = None if self.unlike is None else self.unlike[:count]
        return replace(self, samples=self.samples[:count], means=means, work=part, unlike=unlike)

    @property
    def image(self) -> Tensor:
        """The posterior mean as the walks estimate it, or the mean of the draws: (B, H, W) complex."""
        return (self.samples if self.means is None else self.means).mean(0)

    @property
    def std(self) -> Tensor:
        """Standard deviation of the draws, of each real component: (B, H, W); zero for one draw."""
        if len(self.samples) == 1:
            return torch.zeros_like(self.weight)
        parts = torch.view_as_real(self.samples)
        return parts.var(0).mean(-1).sqrt()

    @property
    def rss(self) -> Tensor:
        """The magnitude image that fastMRI's tools expect: (B, H, W)."""
        return self.image.abs() * self.weight


def reconstruct(
    kspace: Tensor | np.ndarray,
    maps: Tensor | np.ndarray | None = None,
    mask: Tensor | np.ndarray | None = None,
    *,
    noise_std: float | None = None,
    prior: str | Path | ScoreModel = DEFAULT,
    sampler: str = DEFAULT_METHOD,
    steps: int | None = None,
    samples: int = 4,
    seed: int = 0,
    batch_size: int = 8,
    device: str = "auto",
    name: str = "k-space",
) -> Reconstruction:
    """Reconstruct undersampled k-space from arrays; what is not given is found in the data.

    Shapes: kspace (slices, coils, rows, cols) or (coils, rows, cols), complex, DC at N // 2, unsampled points zero,
    readout oversampling removed; maps like kspace, or of one slice for all; mask (cols,), (rows, cols) or broadcastable
    to kspace. noise_std: of the real and of the imaginary part of a sample, measured in outer k-space if not given.
    Errors: InputError for what cannot be reconstructed, with the reason.
    """
    y = _complex(kspace)
    y = y[None] if y.ndim == 3 else y
    s = None if maps is None else _complex(maps)
    s = s[None] if s is not None and s.ndim == 3 else s
    m = None if mask is None else torch.as_tensor(np.asarray(mask))
    scan = from_arrays(y, m, s, noise_std, name)
    model = prior if isinstance(prior, ScoreModel) else load_prior(prior)
    return sample_posterior(
        scan,
        model,
        sampler,
        steps=steps,
        samples=samples,
        seed=seed,
        batch_size=batch_size,
        device=device,
        slices=list(range(len(y))),
    )


def sample_posterior(
    scan: Acquisition,
    prior: ScoreModel,
    method: str = DEFAULT_METHOD,
    *,
    steps: int | None = None,
    samples: int = 4,
    seed: int = 0,
    batch_size: int = 8,
    device: str = "auto",
    slices: list[int],                                                       # the numbers that key the random draws
    operator: Callable[[Tensor, Tensor], LinearOperator] | None = None,      # from maps and mask; None: the scan's own
    progress: Progress | None = None,
    options: dict[str, Any] | None = None,                                   # more arguments of posterior and sampler
    warm_start: float | None = None,                                         # sigma to start from, about CG-SENSE
) -> Reconstruction:  # fmt: skip
    """`samples` draws of each slice of a scaled acquisition, at most `batch_size` walks at a time.

    A batch holds all draws of as many slices as fit, or a part of one slice's. A draw follows from (seed, scan name,
    slice, draw) alone, whatever shares its batch: where a GPU's memory runs out, batches are halved.
    """
    if method not in METHODS:
        raise unknown_name("the sampler", method, METHODS)
    if samples < 1 or batch_size < 1:
        raise InputError(f"samples and batch size must be at least 1; got {samples} and {batch_size}")
    if scan.kspace is None or scan.maps is None or scan.noise_std is None or scan.scale is None:
        raise InputError(f"{scan.name} is not prepared: it needs kspace, maps, mask or trajectory, noise_std, scale")
    if unknown := set(options or {}) - set(method_options(method)):
        raise unknown_name(f"the option of {method}", min(unknown), method_options(method))
    place = find_device(device)
    prior = prior.to(place)
    count = len(scan.kspace)
    all_maps, levels = scan.maps.expand(count, -1, -1, -1), scan.noise_std.expand(count)
    ladders = [make_sampler(method, prior, walk_end(prior, float(level)), steps, options) for level in levels]
    ladders = ladders if warm_start is None else [walk.below(warm_start) for walk in ladders]
    shape = scan.maps.shape[-2:]
    images = scan.kspace.new_empty(samples, count, *shape)
    means, work = torch.empty_like(images), Work()
    unlike = torch.full((samples, count), torch.nan)
    expected = {float(sigma): float(error) for sigma, error in prior.about.get("denoising_errors", {}).items()}
    model: LinearOperator | None = None
    last: list[int] = []
    remaining = list(_batches(ladders, samples, batch_size))
    while remaining:
        walks = remaining.pop(0)
        try:
            walk = _joined([ladders[index] for index, _ in walks], place)
            items, draws = torch.tensor(walks).T
            unique = items.unique()
            maps = all_maps[unique] if len(unique) == 1 else all_maps[items]
            kspace, noise_std = scan.kspace[items].to(place), levels[items].to(place)
            if model is None or len(unique) > 1 or unique.tolist() != last:  # batches of one slice share its factors
                model = _operator(replace(scan, kspace=None, maps=maps.to(place)), items, operator)
            last, before = unique.tolist(), model.iterations
            counted = CountedPrior(prior)
            posterior = _make_posterior(method, counted, model, kspace, noise_std, options)
            random = [generators(seed, scan.name, slices[index], draws=[draw])[0] for index, draw in walks]
            like = torch.zeros(len(walks), *shape, dtype=kspace.dtype, device=place)
            calls = METHODS[method].calls * len(walks)
            watch = None if progress is None else (lambda level, sigma, x, calls=calls: progress(calls))
            guess = like if warm_start is None else model.cg_sense(kspace)
            x = walk(posterior, posterior.expand(like), random, watch, posterior.expand(guess))
        except Diverged as error:
            index, draw = walks[error.item]
            raise InputError(
                f"{scan.name}, slice {slices[index]}, draw {draw}: not finite any more at {error.where} of {method};"
                " take more --steps, or look for NaN in the scan with: mri-score info"
            ) from error
        except torch.OutOfMemoryError as error:
            if len(walks) == 1:
                raise InputError(
                    f"{scan.name}: {place} has no memory for a single walk; take --device cpu, or fewer --coils"
                ) from error
            remaining = [half for batch in (walks, *remaining) for half in _halves(batch)]
            continue
        images[draws, items] = posterior.combine(x).cpu()
        means[draws, items] = images[draws, items] if posterior.mean is None else posterior.mean.cpu()
        if (ratio := misfit_ratio(posterior.errors, expected, prior.sd) if expected else None) is not None:
            unlike[draws, items] = ratio.float().cpu()
        work += Work(counted.calls, counted.products, model.iterations - before)
    weight = coil_weight(scan).expand(count, -1, -1)
    scale = scan.scale.reshape(-1, 1, 1)
    known = None if bool(unlike.isnan().all()) else unlike
    return Reconstruction(images * scale, weight, all_maps, scan, work, means * scale, known)


def _operator(
    scan: Acquisition, items: Tensor, make: Callable[[Tensor, Tensor], LinearOperator] | None
) -> LinearOperator:
    """The forward operator of some items of a scan, whose maps are theirs already."""
    if scan.mask is None:
        return scan.operator()
    assert scan.maps is not None
    mask = scan.mask if len(scan.mask) == 1 else scan.mask[items]
    return (make or Sense)(scan.maps, mask.to(scan.maps.device))


def _batches(ladders: list[Sampler], samples: int, batch_size: int) -> Iterator[list[tuple[int, int]]]:
    """(slice, draw) of the walks that go together: whole slices, whose factors are then made once, or part of one.

    A batch has one number of levels, and where its sampler knows no levels of an item's own, one ladder.
    """
    kinds: dict[Any, list[int]] = {}
    for index, walk in enumerate(ladders):
        kind = len(walk.sigmas) if walk.own_levels else tuple(walk.sigmas.tolist())
        kinds.setdefault(kind, []).append(index)
    together = max(1, batch_size // samples)
    for alike in kinds.values():
        for start in range(0, len(alike), together):
            walks = [(index, draw) for index in alike[start : start + together] for draw in range(samples)]
            yield from (walks[first : first + batch_size] for first in range(0, len(walks), batch_size))


def _joined(walks: list[Sampler], place: torch.device) -> Sampler:
    """One walk for the items of a batch, each down its own levels."""
    if all(torch.equal(walk.sigmas, walks[0].sigmas) for walk in walks):
        return walks[0]
    return walks[0].with_levels(torch.stack([walk.sigmas for walk in walks], 1).to(place))


def _halves(batch: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """A batch as two, of which the first is the larger; one walk stays."""
    middle = (len(batch) + 1) // 2
    return [half for half in (batch[:middle], batch[middle:]) if half]


def walk_end(prior: ScoreModel, noise_std: float) -> float:
    """The smallest sigma of a walk: what the noise level asks for, within the prior's range."""
    end = min(SIGMA_END, noise_std / 2)
    return max(end, prior.sigma_min) if isinstance(prior, NetworkPrior) else end


def make_sampler(
    method: str, prior: ScoreModel, end: float, steps: int | None, options: dict[str, Any] | None = None
) -> Sampler:
    """The walk of a method from SIGMA_START, or what the prior knows, down to `end`."""
    chosen = METHODS[method]
    start = min(SIGMA_START, prior.sigma_max) if isinstance(prior, NetworkPrior) else SIGMA_START
    kind = SAMPLERS[chosen.sampler]
    levels = chosen.schedule(end, start).levels(chosen.steps if steps is None else steps)
    return kind(levels, **_for(kind, {**chosen.options, **(options or {})}))


def _make_posterior(
    method: str,
    prior: ScoreModel,
    operator: LinearOperator,
    kspace: Tensor,
    noise_std: Tensor,
    options: dict[str, Any] | None,
) -> Posterior:
    chosen = METHODS[method]
    kind = POSTERIORS[chosen.posterior]
    return kind(prior, operator, kspace, noise_std, **_for(kind, {**chosen.options, **(options or {})}))


GIVEN = ("self", "sigmas", "prior", "operator", "kspace", "noise_std")
"""What `sample_posterior` gives to samplers and posteriors itself."""


def method_options(method: str) -> list[str]:
    """The further arguments of a method's posterior and sampler."""
    kinds: tuple[type, ...] = (POSTERIORS[METHODS[method].posterior], SAMPLERS[METHODS[method].sampler])
    return sorted({name for kind in kinds for name in inspect.signature(kind).parameters} - set(GIVEN))


def _for(kind: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that this class takes."""
    return {key: value for key, value in options.items() if key in inspect.signature(kind).parameters}


def find_device(device: str) -> torch.device:
    """`auto` is the GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device!r} is unknown; known: auto, cpu, cuda, cuda:0, ...") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device!r}: torch sees no GPU here; use --device cpu")
    return place


def _complex(array: Tensor | np.ndarray) -> Tensor:
    tensor = array if isinstance(array, Tensor) else torch.as_tensor(np.ascontiguousarray(array))
    return tensor.to(torch.complex64) if tensor.is_complex() or tensor.is_floating_point() else tensor
