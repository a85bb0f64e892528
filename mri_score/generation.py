"""Generation without k-space: samples of a prior, interpolations, inpainting, super-resolution and colourisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from mri_score.data.pixel_values import PixelValues, pixel_values
from mri_score.errors import InputError, unknown_name
from mri_score.methods import DEFAULT_FLOW, DEFAULT_INPAINTING, DEFAULT_WALK, INPAINTING, WALKS, Method
from mri_score.models.base import ScoreModel, on_device
from mri_score.models.counted import CountedPrior
from mri_score.models.network import NetworkPrior
from mri_score.noise.parameters import read_parameters
from mri_score.numerics.noise import Random, generators, noise_like
from mri_score.operators.averages import LUMINANCE, BlockMeans, Grey
from mri_score.operators.base import LinearOperator
from mri_score.operators.pixels import Pixels
from mri_score.posteriors import POSTERIORS
from mri_score.priors.store import find_prior, join_experts, load_prior, read_record
from mri_score.reconstruction import Progress, accepted, check_options, class_of, find_device, reports, sampler_of
from mri_score.samplers import DDIM, Ancestral, Heun, RungeKutta45
from mri_score.samplers.base import Diverged, Sampler

NOISE_STD = 0.01
"""Noise of known pixels, each real component: 1 % of a bright pixel, about that of a clinical scan at 36 dB."""


def bare_prior(
    name: str | Path, base: str | Path | None = None, border: float | None = None
) -> tuple[NetworkPrior, dict[str, Any]]:
    """The prior for walks without data, and a description of its parts (base and border).

    A prior trained on patches has no information on the position of tissue. Its record may therefore name a base: a
    prior for whole images, which is used above the noise level `border`. Walks with data do not need it.
    name: of the prior. base: in place of the record's, or "none".
    Errors: InputError if only one of `base` and `border` is known, and as in `join_experts`.
    """
    path = find_prior(name)
    known = (read_record(path).get("about") or {}).get("base")
    if known is not None and not (isinstance(known, Mapping) and {"prior", "border"} <= set(known)):
        raise InputError(f"{path.with_suffix('.json')}: about.base is {known!r}; it should name a prior and a border")
    if base is None and known is not None:
        base, border = str(known["prior"]), float(known["border"] if border is None else border)
        beside = path.parent / base
        base = beside if beside.exists() else base
    if base in (None, "none") and border is None:
        return load_prior(path), {}
    if base in (None, "none") or border is None:
        raise InputError("--base PRIOR and --border SIGMA go together: which prior goes first, and down to where")
    try:
        digest = read_record(find_prior(base))["sha256"]
    except InputError as error:
        raise InputError(f"{error}; it is the base of {name}: give another --base, or --base none") from error
    return join_experts(path, base, border)[0], {"base": str(base), "base_sha256": digest, "border": border}


@dataclass(frozen=True)
class GenerationOptions:
    """Settings of walks over a prior without k-space.

    method: a name of `WALKS`, or of `INPAINTING` if pixels are known; None: the default of either. steps: number of
    noise levels; None: the method's own. options: further arguments of its sampler and posterior. seed: of the random
    numbers. mean: of the data, about which walks start. batch_size: walks at a time. device: auto, cpu, cuda, ...
    """

    method: str | None = None
    steps: int | None = None
    options: Mapping[str, Any] | None = None
    seed: int = 0
    mean: float | Sequence[float] = 0.0
    batch_size: int = 8
    device: str = "auto"

    def changed(self, changes: Mapping[str, Any]) -> GenerationOptions:
        """The same with `changes` of fields; `sampler` is the former name of `method`."""
        return replace(self, **{"method" if name == "sampler" else name: value for name, value in changes.items()})


DEFAULTS = GenerationOptions()


def sample_prior(
    prior: ScoreModel,
    n: int,
    shape: Sequence[int],
    settings: GenerationOptions = DEFAULTS,
    *,
    dtype: torch.dtype = torch.complex64,
    progress: Progress | None = None,
    **changes: Any,
) -> Tensor:
    """`n` images of the prior: (n, *shape), on the CPU, in the prior's scale. `changes` are fields of the settings.

    prior: a score model; it is not changed. dtype: complex64, or float32 for priors of real images. progress: called
    with the number of network evaluations that each level took.

    Image i depends on (seed, i) only, not on its batch. Walks cover the prior's range of noise levels; for a prior
    without a range, from 100 to 0.01 times its sd.
    Errors: InputError for unknown names, and for an image that is not finite.
    """
    settings = settings.changed(changes)
    walk = make_walk(WALKS, settings.method or DEFAULT_WALK, prior, settings.steps, settings.options)
    start = _mean_image(settings.mean, shape, dtype).expand(n, *shape)
    return _images(walk, prior, start, sample_streams(settings.seed, range(n)), settings, progress)


def interpolate(
    prior: ScoreModel,
    n: int,
    shape: Sequence[int],
    settings: GenerationOptions = DEFAULTS,
    *,
    between: tuple[int, int] = (0, 1),
    dtype: torch.dtype = torch.complex64,
    progress: Progress | None = None,
    **changes: Any,
) -> Tensor:
    """`n` images between two samples of `sample_prior` with this method, including both: (n, *shape).

    Walks start from cos(t) n1 + sin(t) n2, with t evenly spaced in [0, pi / 2], which is Gaussian noise for every t; n1
    and n2 are the initial noise of the two samples. The walk must not draw further noise: heun, euler, rk45. `changes`
    are fields of the settings.
    Errors: InputError for fewer than 2 images, and for a method that draws noise during the walk.
    """
    settings = settings.changed(changes)
    name = settings.method or DEFAULT_FLOW
    if n < 2:
        raise InputError(f"an interpolation of {n} images has no two ends; take 2 or more")
    walk = make_walk(WALKS, name, prior, settings.steps, settings.options)
    if draws_noise(walk):
        raise InputError(
            f"{name} draws noise on its way, so that its first noise does not decide the image; interpolate with"
            " heun, euler or rk45, or set the share of new noise to 0 (zeta=0, eta=0, churn=0)"
        )
    first, second = noise_like(torch.zeros(2, *shape, dtype=dtype), sample_streams(settings.seed, between))
    t = torch.linspace(0, math.pi / 2, n).reshape(-1, *[1] * len(shape))
    # Each walk draws n1 again and adds it to its start.
    mean = _mean_image(settings.mean, shape, dtype)
    start = mean + float(walk.sigmas[0]) * ((t.cos() - 1) * first + t.sin() * second)
    return _images(walk, prior, start, sample_streams(settings.seed, [between[0]] * n), settings, progress)


def inpaint(
    prior: ScoreModel,
    image: Tensor,
    keep: Tensor,
    n: int,
    settings: GenerationOptions = DEFAULTS,
    *,
    noise_std: float = NOISE_STD,
    progress: Progress | None = None,
    **changes: Any,
) -> Tensor:
    """`n` draws of an image (*shape) given its pixels where `keep` is true: (n, *shape), on the CPU.

    image: in the prior's scale, with its 99th percentile near 1; (3, H, W) for colours. keep: (*shape), or (H, W) for
    all channels alike. noise_std: that of each real component of a known pixel. Draw i depends on (seed, i) only.
    `changes` are fields of the settings. progress: as in `sample_prior`.
    Errors: InputError for a mask of another shape or without known pixels; otherwise as in `sample_prior`.
    """
    if keep.shape not in (image.shape, image.shape[-2:]) or not bool((keep != 0).any()):
        raise InputError(
            f"the mask has shape {tuple(keep.shape)} and {int((keep != 0).sum())} known pixels, the image has shape"
            f" {tuple(image.shape)}; they need one shape, and at least one known pixel"
        )
    operator = Pixels((keep != 0).expand(image.shape)[None])
    measured = operator(image[None])[0]
    return conditional(
        prior, operator, measured, image, n, settings, noise_std=noise_std, progress=progress, **changes
    )


def super_resolve(
    prior: ScoreModel,
    image: Tensor,
    factor: int,
    n: int,
    settings: GenerationOptions = DEFAULTS,
    *,
    noise_std: float = NOISE_STD,
    progress: Progress | None = None,
    **changes: Any,
) -> Tensor:
    """`n` draws of an image whose blocks of factor x factor pixels have the means `image`.

    image: (H, W) or (3, H, W), in the prior's scale. Returns (n, factor H, factor W), or (n, 3, factor H, factor W).
    Other arguments and errors as in `inpaint`.
    """
    like = image.new_empty(*image.shape[:-2], *(factor * side for side in image.shape[-2:]))
    return conditional(
        prior, BlockMeans(factor), image, like, n, settings, noise_std=noise_std, progress=progress, **changes
    )


def colourise(
    prior: ScoreModel,
    image: Tensor,
    n: int,
    settings: GenerationOptions = DEFAULTS,
    *,
    shares: Sequence[float] = LUMINANCE,
    noise_std: float = NOISE_STD,
    progress: Progress | None = None,
    **changes: Any,
) -> Tensor:
    """`n` draws of a colour image with the grey values `image` (H, W): (n, 3, H, W).

    image: sum_c shares_c x_c of the colours x, in the prior's scale. Other arguments and errors as in `inpaint`.
    """
    like = image.new_empty(len(shares), *image.shape)
    return conditional(prior, Grey(shares), image, like, n, settings, noise_std=noise_std, progress=progress, **changes)


def conditional(
    prior: ScoreModel,
    operator: LinearOperator,
    measured: Tensor,
    like: Tensor,
    n: int,
    settings: GenerationOptions = DEFAULTS,
    *,
    noise_std: float = NOISE_STD,
    progress: Progress | None = None,
    **changes: Any,
) -> Tensor:
    """`n` draws of an image (*shape) of which a linear operator gave `measured` (*samples) with noise: (n, *shape).

    operator: of one image, or of batches. like: any tensor of the shape and type of an image. noise_std: that of each
    real component of `measured`. The walk starts at the noise level of unconditional sampling. Draw i depends on
    (seed, i) only. `changes` are fields of the settings.
    Errors: InputError for a noise level that is not positive; otherwise as in `sample_prior`.
    """
    settings = settings.changed(changes)
    name = settings.method or DEFAULT_INPAINTING
    if not noise_std > 0:
        raise InputError(f"the noise of known pixels is {noise_std}; it must be above 0, e.g. {NOISE_STD}")
    walk = make_walk(INPAINTING, name, prior, settings.steps, settings.options)
    kind = class_of(INPAINTING[name].posterior or "", POSTERIORS)
    chosen = accepted(kind, settings.options or {})
    place = find_device(settings.device)
    operator, known = on_device(operator, place), measured[None].to(place)

    def given(bare: ScoreModel, count: int) -> ScoreModel:
        return kind(bare, operator, known.expand(count, *measured.shape), torch.tensor(noise_std), **chosen)

    start = _mean_image(settings.mean, like.shape, like.dtype).expand(n, *like.shape)
    return _images(walk, prior, start, sample_streams(settings.seed, range(n)), settings, progress, given)


def _mean_image(mean: float | Sequence[float], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The image (*shape) with one value, or one a channel. Errors: InputError for another number of channels."""
    values = torch.as_tensor(mean, dtype=dtype)
    if values.ndim and (len(shape) != 3 or len(values) not in (1, shape[0])):
        raise InputError(f"the mean has {len(values)} channels, the images have the shape {tuple(shape)}")
    return (values[:, None, None] if values.ndim else values).expand(*shape).clone()


def sample_streams(seed: int, numbers: Sequence[int]) -> list[Generator]:
    """The random numbers of samples, keyed by (seed, "sample", number)."""
    return generators(seed, "sample", draws=numbers)


def make_walk(
    known: Mapping[str, Method],
    name: str,
    prior: ScoreModel,
    steps: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Sampler:
    """The walk `name` of WALKS or INPAINTING over all noise levels of the prior."""
    if name not in known:
        raise unknown_name("the method", name, known)
    check_options(name, known[name], options)
    return sampler_of(known[name], noise_range(prior), steps, options)


def draws_noise(walk: Sampler) -> bool:
    """Whether a walk draws more noise than that of its first iterate."""
    shares = {Ancestral: "eta", DDIM: "zeta", Heun: "rise"}
    return not isinstance(walk, RungeKutta45) and bool(getattr(walk, shares.get(type(walk), ""), 1))


def noise_range(prior: ScoreModel) -> tuple[float, float]:
    """The smallest and the largest sigma of a walk over a prior: its range, or 0.01 and 100 times its sd."""
    return prior.sigma_min or 0.01 * prior.sd, 100 * prior.sd if math.isinf(prior.sigma_max) else prior.sigma_max


def _bare(prior: ScoreModel, count: int) -> ScoreModel:
    return prior


def _images(
    walk: Sampler,
    prior: ScoreModel,
    start: Tensor,
    random: Sequence[Random],
    settings: GenerationOptions,
    progress: Progress | None,
    make: Callable[[ScoreModel, int], ScoreModel] = _bare,
) -> Tensor:
    """One walk about each image of `start`, at most `batch_size` at a time, over the model that `make` returns for a
    prior.
    """
    batch_size = settings.batch_size
    if not len(start) or batch_size < 1:
        raise InputError(f"samples and batch size must be at least 1; got {len(start)} and {batch_size}")
    place = find_device(settings.device)
    prior, images = on_device(prior, place), torch.empty_like(start)
    for first in range(0, len(start), batch_size):
        batch = slice(first, first + batch_size)
        counted, about = CountedPrior(prior), start[batch].to(place)
        try:
            model, watch = make(counted, len(about)), reports(counted, progress)
            images[batch] = walk(model, about, random[batch], watch, about).cpu()
        except Diverged as error:
            raise InputError(
                f"sample {first + error.item}: not finite any more at {error.where} of {type(walk).__name__};"
                " take more --steps, or another --method"
            ) from error
    return images


# The mean of the data.


def prior_mean(path: Path, complex_images: bool = True) -> float | list[float]:
    """The mean of the data of a prior's .safetensors, one number or one a channel: where walks start.

    path: the .safetensors file. complex_images: whether the images are complex.
    From `mean` of its JSON's `about`; else 0 for complex images, whose phase is random; else from parameters.txt beside
    the file, or the bundled numbers of its dataset; else the middle of images in [0, 1].
    """
    about = read_record(path).get("about") or {}
    if "mean" in about:
        mean = about["mean"]
        return list(map(float, mean)) if isinstance(mean, list) else float(mean)
    if complex_images:
        return 0.0
    bundled = Path(str(files("mri_score.parameters"))) / f"{about.get('dataset')}.txt"
    for candidate in (path.with_name("parameters.txt"), bundled):
        if candidate.is_file():
            found = read_parameters(candidate)
            if found.channel_means is not None:
                return list(found.channel_means)
            if found.mean is not None:
                return found.mean
    return float((pixel_values(about) or PixelValues()).forward(torch.tensor(0.5)))
