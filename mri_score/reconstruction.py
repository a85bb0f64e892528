"""Reconstruction: acquisition -> operator -> posterior -> walks -> images with their uncertainty."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from mri_score.data.acquisition import Acquisition
from mri_score.data.scale import safe_unit
from mri_score.data.scan import coil_weight, from_arrays, from_operator
from mri_score.errors import InputError, unknown_name
from mri_score.evaluation.out_of_distribution import misfit_ratio
from mri_score.evaluation.uncertainty import pair_share
from mri_score.methods import DEFAULT_METHOD, METHODS, Method
from mri_score.models.base import ScoreModel, Work, on_device
from mri_score.models.counted import CountedPrior
from mri_score.models.one_channel import for_complex_images
from mri_score.models.precision import check_precision, find_precision
from mri_score.noise.schedules import WALK_SCHEDULES
from mri_score.numerics.noise import Random, antithetic_generators, generators
from mri_score.operators.base import LinearOperator
from mri_score.operators.sense import Sense
from mri_score.posteriors import POSTERIORS
from mri_score.posteriors.base import Posterior
from mri_score.priors.store import DEFAULT, load_prior
from mri_score.samplers import SAMPLERS
from mri_score.samplers.base import Diverged, Sampler, Watch

if TYPE_CHECKING:
    from sigpy.linop import Linop
    from typing_extensions import Unpack
    from xarray import Dataset

    from mri_score.array_results import ReportPage
    from mri_score.evaluation.metrics import Images
    from mri_score.readers.geometry import Geometry
    from mri_score.writers.base import OutputVolume

SIGMA_START = 5.0
"""First level of posterior walks: the first data step replaces higher levels."""

SIGMA_END = 0.01
"""Last level of walks, or half of noise_std if that is less."""


OperatorFactory = Callable[[Tensor, Tensor], "LinearOperator | Linop"]
"""A function that makes a forward operator from coil maps (B, C, H, W) and a mask that broadcasts against them."""

Progress = Callable[[int], None]
"""Called after each level with its number of network evaluations, as `Work.evaluations` counts them."""


@dataclass(frozen=True)
class Reconstruction:
    """Draws of the posterior of some slices, in the units of the k-space that came in."""

    samples: Tensor
    """(P, B, H, W) complex, or (P, B, *image) of a given operator's images, as all images here."""
    weight: Tensor
    """(B, H, W): |image| times this is the root-sum-of-squares image in the file's own coils; 1 without coil maps."""
    maps: Tensor | None
    """(B, C, H, W): the maps that were used; None for a forward operator that was given ready."""
    acquisition: Acquisition
    """The scaled scan that was reconstructed."""
    work: Work
    """Summed over all draws of all slices."""
    means: Tensor | None = None
    """(P, B, H, W) complex: what each walk found of the posterior mean, where it finds more than its draw."""
    misfit_ratios: Tensor | None = None
    """(P, B): out-of-distribution score (`misfit_ratio`) of each sample, near 1 for scans like the prior's validation
    images; NaN for samples without a noise level to judge by. None for methods that do not compute it, and for priors
    without validation errors.
    """
    group: int = 1
    """Size of the groups of antithetic draws, whose noises sum to zero; 1 for independent draws."""

    @property
    def unlike(self) -> Tensor | None:
        """The former name of `misfit_ratios`."""
        return self.misfit_ratios

    def first(self, count: int) -> Reconstruction:
        """The same with only the first `count` draws; its work is that share of the whole."""
        part = Work(*(round(number * count / len(self.samples)) for number in astuple(self.work)))
        means = None if self.means is None else self.means[:count]
        ratios = None if self.misfit_ratios is None else self.misfit_ratios[:count]
        return replace(self, samples=self.samples[:count], means=means, work=part, misfit_ratios=ratios)

    @property
    def image(self) -> Tensor:
        """The posterior mean as the walks estimate it, or the mean of the draws: (B, H, W) complex."""
        return (self.samples if self.means is None else self.means).mean(0)

    @property
    def std(self) -> Tensor:
        """Standard deviation of the draws, of each real component: (B, H, W); zero for one draw."""
        if len(self.samples) == 1:
            return torch.zeros_like(self.weight)
        unit = safe_unit(self.samples)  # squares of very small or large images leave single precision
        variance = torch.view_as_real(self.samples / unit).var(0) / pair_share(len(self.samples), self.group)
        return unit * variance.mean(-1).sqrt()

    @property
    def rss(self) -> Tensor:
        """The magnitude image that fastMRI's tools expect: (B, H, W)."""
        return self.image.abs() * self.weight

    def show(self, truth: Images | None = None, baselines: Mapping[str, Images] | None = None) -> ReportPage:
        """The viewer of the report, for a notebook: the last line of a cell shows it; its `save(path)` writes it.

        truth: (B, H, W), for maps of errors. baselines: title -> (B, H, W), for comparison. Both in the units of the
        result. Errors: InputError for other shapes, and for images that are no slices.
        """
        from mri_score.array_results import page_of

        return page_of(self._output(), self._draws, truth, baselines)

    def to_xarray(self) -> Dataset:
        """An xarray dataset of image, std and samples, over draw, slice, row and col; the extra `xarray` is needed.

        Errors: InputError without xarray, and for images that are no slices.
        """
        from mri_score.array_results import dataset_of

        return dataset_of(self._output(), self._draws)

    def save(
        self, path: str | Path, format: str | None = None, *, geometries: Sequence[Geometry] = ()
    ) -> list[Path]:
        """Write the result in one format, see `save_result`; return the paths.

        path: such as out.h5, out.nii.gz, out.cfl, out.html, or a folder for DICOM. format: hdf5, nifti, dicom, cfl or
        html; None: by the suffix. geometries: the place of each slice in the patient, which NIfTI and DICOM need.
        Errors: InputError for an unknown format, missing geometries, and where a file cannot be written.
        """
        from mri_score.array_results import save_result

        return save_result(path, self._output(geometries), self._draws, format)

    @property
    def _draws(self) -> np.ndarray:
        """(P, B, H, W) complex, whose magnitude is the RSS image of each draw."""
        return (self.samples * self.weight).numpy()

    def _output(self, geometries: Sequence[Geometry] = ()) -> OutputVolume:
        from mri_score.array_results import output_volume

        facts = {"draws": len(self.samples)}
        image, std = (self.image * self.weight).numpy(), (self.std * self.weight).numpy()
        return output_volume(self.acquisition.name, image, std, facts, geometries)


class WalkChanges(TypedDict, total=False):
    """Fields of `WalkOptions` as keyword arguments of `sample_posterior`."""

    steps: int | None
    samples: int
    seed: int
    batch_size: int
    device: str
    warm_start: float | None
    options: Mapping[str, Any] | None
    precision: str | None


class MethodChanges(WalkChanges, total=False):
    """Fields of `WalkOptions` as keyword arguments of `reconstruct`; `sampler` is the former name of `method`."""

    method: str | Method
    sampler: str | Method | None


def reconstruct(
    kspace: Tensor | np.ndarray,
    maps: Tensor | np.ndarray | None = None,
    mask: Tensor | np.ndarray | None = None,
    *,
    noise_std: float | None = None,
    prior: str | Path | ScoreModel = DEFAULT,
    name: str = "k-space",
    operator: LinearOperator | Linop | OperatorFactory | None = None,
    progress: Progress | None = None,
    **walk: Unpack[MethodChanges],
) -> Reconstruction:
    """Reconstruct undersampled k-space from arrays; what is not given is estimated from the data.

    kspace: (slices, coils, rows, cols) or (coils, rows, cols), complex, in any unit, DC at index N // 2, unsampled
    points zero, readout oversampling removed. With a ready `operator`: (slices, *samples).
    maps: coil sensitivities, shaped like kspace, or of one slice for all; they are normalised to a unit sum of squares.
    None: estimated by ESPIRiT from the calibration region.
    mask: True where sampled; (cols,), (rows, cols) or broadcastable to kspace. None: where kspace is not zero.
    noise_std: standard deviation of the real and of the imaginary part of a sample, in the unit of kspace. None:
    measured in outer k-space. A given one that is far from the measured one is warned of.
    prior: a score model, a bundled prior's name, a run folder, or a .safetensors file; `as_prior` makes one of a
    denoiser.
    name: keys the random numbers, and is named in errors.
    operator: in place of SENSE. A ready `LinearOperator` or SigPy linop for all slices, with images of any shape; it
    requires noise_std, and neither maps nor mask may be given. Or a function that makes either from coil maps
    (B, C, H, W) and mask.
    progress: called with the number of network evaluations that each level took.
    walk: any of the following keywords, which are the fields of `WalkOptions`.

    - method: a name of `METHODS`, or a `Method` of your own posterior or walk; `sampler` is its former name.
    - steps: noise levels of the walk. None: the method's own number.
    - samples: draws for each slice, 4 by default.
    - seed: of the draws, which depend on (seed, name, slice, draw) only.
    - batch_size: walks at a time, 8 by default.
    - device: auto (the GPU where there is one), cpu, cuda, cuda:1, ...
    - options: further arguments of the method's posterior and sampler, such as {"zeta": 0.5}.
    - precision: in which the prior's network computes: float32, bfloat16, or auto, which is bfloat16 on devices with
      instructions for it and float32 on others. None: as the prior is.
    - warm_start: the noise level at or below which walks start, about the CG-SENSE image. None: from noise.

    Returns: a `Reconstruction`: `image` (slices, rows, cols), the posterior mean; `std`, the standard deviation of each
    real component; and `samples` (draws, slices, rows, cols); all in the unit of kspace.
    Errors: InputError for what cannot be reconstructed, with the reason.
    Reference: the method's own, see its class; the default is `MatchedDraw`.
    """
    model = prior if isinstance(prior, ScoreModel) else _load(prior)
    walks = WalkOptions().changed(walk)
    make: OperatorFactory | None = None
    if operator is not None:
        from mri_score.operators.sigpy import as_operator, is_operator  # SigPy takes seconds to import

        if is_operator(operator) or not callable(operator):
            ready = as_operator(operator)
            scan = from_operator(_samples(kspace, ready, maps, mask), ready, noise_std, name)
            return sample_posterior(scan, model, walks, slices=list(range(len(scan.kspace))), progress=progress)
        make = _Factory(operator, as_operator)
    y = _complex(kspace)
    y = y[None] if y.ndim == 3 else y
    s = None if maps is None else _complex(maps)
    s = s[None] if s is not None and s.ndim == 3 else s
    m = None if mask is None else mask if isinstance(mask, Tensor) else torch.from_numpy(np.asarray(mask) != 0)
    scan = from_arrays(y, m, s, noise_std, name)
    return sample_posterior(scan, model, walks, slices=list(range(len(y))), operator=make, progress=progress)


def _load(prior: Any) -> ScoreModel:
    """The prior of a name or a path."""
    if not isinstance(prior, str | Path):
        raise InputError(
            f"the prior is {type(prior).__name__}; it needs a score model, a bundled prior's name or a path:"
            " make a score model of a denoiser with as_prior(denoiser, sd=...)"
        )
    return for_complex_images(load_prior(prior))


def _samples(kspace: Tensor | np.ndarray, operator: LinearOperator, maps: object, mask: object) -> Tensor:
    """k-space (B, *samples) for an operator that is ready."""
    if maps is not None or mask is not None:
        raise InputError("a ready operator takes neither maps nor mask: give a function that makes it of maps and mask")
    y, shape = _complex(kspace), getattr(operator, "sample_shape", None)
    return y[None] if shape == tuple(y.shape) else y


class _Factory:
    """A function of maps and mask whose result is converted to a LinearOperator."""

    def __init__(self, make: OperatorFactory, convert: Callable[[Any], LinearOperator]) -> None:
        self.make, self.convert = make, convert

    def __call__(self, maps: Tensor, mask: Tensor) -> LinearOperator:
        return self.convert(self.make(maps, mask))


@dataclass(frozen=True)
class WalkOptions:
    """Settings of the walks over a posterior.

    method: a name of `METHODS`, or a `Method` of your own. steps: noise levels; None: the method's own. samples: draws
    of each slice. seed: of the draws. batch_size: walks at a time. device: auto, cpu, cuda, ... warm_start: the sigma
    at or below which walks start, about CG-SENSE; None for walks from noise. options: more arguments of the method's
    posterior and sampler. precision: what the prior's network computes in, float32, bfloat16 or auto; None: as the
    prior is.
    Errors: InputError for an unknown method, option, or precision, and for numbers below 1.
    """

    method: str | Method = DEFAULT_METHOD
    steps: int | None = None
    samples: int = 4
    seed: int = 0
    batch_size: int = 8
    device: str = "auto"
    warm_start: float | None = None
    options: Mapping[str, Any] | None = None
    precision: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.method, Method) and self.method not in METHODS:
            raise unknown_name("the method", self.method, METHODS)
        if self.samples < 1 or self.batch_size < 1:
            raise InputError(f"samples and batch size must be at least 1; got {self.samples} and {self.batch_size}")
        if self.precision is not None:
            check_precision(self.precision)
        if self.parts.schedule == "single" and (self.steps not in (None, 1) or self.warm_start is not None):
            raise InputError(f"the method {self.title} has one noise level and no walk: leave out steps and warm start")
        check_options(self.title, self.parts, self.options)

    def changed(self, changes: WalkChanges | MethodChanges) -> WalkOptions:
        """The same with `changes`, other values for some fields. Errors: InputError for an unknown field."""
        values: dict[str, Any] = {**changes}
        former = values.pop("sampler", None)
        values |= {} if former is None else {"method": former}
        if unknown := set(values) - (known := {one.name for one in fields(self)}):
            raise unknown_name("the argument", min(unknown), known)
        return replace(self, **values)

    @property
    def parts(self) -> Method:
        """The method's posterior, sampler, schedule and options."""
        return self.method if isinstance(self.method, Method) else METHODS[self.method]

    @property
    def title(self) -> str:
        """The method's name, or that of its posterior's class."""
        if isinstance(self.method, str):
            return self.method
        return getattr(self.method.posterior, "__name__", str(self.method.posterior))


def sample_posterior(
    scan: Acquisition,
    prior: ScoreModel,
    method: str | Method | WalkOptions = DEFAULT_METHOD,
    *,
    slices: list[int],
    operator: OperatorFactory | None = None,
    progress: Progress | None = None,
    **changes: Unpack[WalkChanges],
) -> Reconstruction:
    """Draws of each slice of a scaled acquisition, at most `batch_size` walks at a time.

    scan: kspace (B, coils, rows, cols), maps, mask or trajectory, noise_std and scale, as `from_arrays` prepares them.
    prior: a score model; it is not changed. method: a name of `METHODS`, a `Method`, or `WalkOptions`; `changes` are
    fields of `WalkOptions`. slices: B numbers that key the random draws. operator: makes the forward operator from maps
    and mask; None: the scan's own. progress: called with the number of network evaluations that each level took.
    Returns: a `Reconstruction` in the unit of the file, the scan's times its scale.
    A batch holds all draws of as many slices as fit, or a part of one slice's. A draw follows from (seed, scan name,
    slice, draw) alone, whatever shares its batch: where a GPU's memory runs out, batches are halved.
    Errors: InputError for an acquisition that is not prepared, and for a walk that is not finite any more.
    """
    options = (method if isinstance(method, WalkOptions) else WalkOptions(method)).changed(changes)
    known = scan.forward is not None or (scan.maps is not None and not (scan.mask is None is scan.trajectory))
    if not known or not bool((scan.noise_std > 0).all()):
        raise InputError(f"{scan.name} is not prepared: it needs maps, mask or trajectory, and noise_std above 0")
    run = _Run(scan, prior, options, slices, operator, progress)
    remaining = list(_batches(run.samplers, options.samples, options.batch_size))
    while remaining:
        batch = remaining.pop(0)
        try:
            run.walk(batch)
        except Diverged as error:
            index, draw = batch[error.item]
            raise InputError(
                f"{scan.name}, slice {slices[index]}, draw {draw}: not finite any more at {error.where} of"
                f" {options.title}; the prior may be hardly trained or unfit for this scan: take another --prior, or"
                " more --steps"
            ) from error
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise InputError(
                    f"{scan.name}: {run.device} has no memory for a single walk; take --device cpu, or fewer --coils"
                ) from error
            remaining = [half for one in (batch, *remaining) for half in _halves(one)]
    return run.result()


Walks = list[tuple[int, int]]
"""(place of the slice in the acquisition, draw) of walks that go together."""


class _Run:
    """The walks of an acquisition: what they share, and what came of them so far."""

    def __init__(
        self,
        scan: Acquisition,
        prior: ScoreModel,
        options: WalkOptions,
        slices: Sequence[int],
        make_operator: OperatorFactory | None,
        progress: Progress | None,
    ) -> None:
        self.scan, self.kspace, self.options, self.slices = scan, scan.kspace, options, slices
        self.make_operator, self.progress = make_operator, progress
        self.device = find_device(options.device)
        if options.precision is not None:
            prior = prior.in_precision(find_precision(options.precision, device=self.device))
        self.prior = on_device(prior, self.device)
        self.count = count = len(scan.kspace)
        self.maps = None if scan.maps is None else scan.maps.expand(count, -1, -1, -1)
        self.noise_stds = scan.noise_std.expand(count)
        self.samplers = [self._sampler(float(noise_std)) for noise_std in self.noise_stds]
        # The copy counts its iterations; the one that was given is not changed.
        self.operator = None if scan.forward is None else copy(on_device(scan.forward, self.device))
        self.operator_of: list[int] = []
        self.shape = _image_shape(self.scan, self.operator, self.device)
        self.images = scan.kspace.new_empty(options.samples, count, *self.shape)
        self.means, self.work = torch.empty_like(self.images), Work()
        self.misfit_ratios = torch.full((options.samples, count), torch.nan)
        errors = prior.about.get("denoising_errors", {})
        self.expected = {float(sigma): float(error) for sigma, error in errors.items()}

    def _sampler(self, noise_std: float) -> Sampler:
        """The sampler from noise, or from the warm start, to the last level for this noise_std."""
        options = self.options
        end = walk_end(self.prior, noise_std)
        sampler = make_sampler(options.parts, self.prior, end, options.steps, options.options)
        return sampler if options.warm_start is None else sampler.below(options.warm_start)

    def walk(self, batch: Walks) -> None:
        """Walk a batch, and keep what comes of it."""
        options, place = self.options, self.device
        sampler = _joined([self.samplers[index] for index, _ in batch], place)
        items, draws = torch.tensor(batch).T
        kspace, noise_std = self.kspace[items].to(place), self.noise_stds[items].to(place)
        operator = self._operator(items)
        counted = CountedPrior(self.prior.for_scan(operator, kspace))
        posterior = _make_posterior(options, counted, operator, kspace, noise_std)
        name, numbers = self.scan.name, self.slices
        random = _random(options, name, [(numbers[index], draw) for index, draw in batch])
        like = torch.zeros(len(batch), *self.shape, dtype=kspace.dtype, device=place)
        guess = like if options.warm_start is None else operator.cg_sense(kspace)
        watch = reports(counted, self.progress)
        found = sampler.walk(posterior, posterior.expand(like), random, watch, posterior.expand(guess))
        self.images[draws, items] = posterior.combine(found.x).cpu()
        self.means[draws, items] = self.images[draws, items] if found.mean is None else found.mean.cpu()
        ratio = misfit_ratio(found.errors, self.expected, self.prior.sd) if self.expected else None
        if ratio is not None:
            self.misfit_ratios[draws, items] = ratio.float().cpu()
        self.work += found.work or Work()

    def _operator(self, items: Tensor) -> LinearOperator:
        """The forward operator of some items; batches of one slice share it, and with it its factors."""
        if self.maps is None:
            assert self.operator is not None
            return self.operator
        unique = items.unique()
        if self.operator is None or len(unique) > 1 or unique.tolist() != self.operator_of:
            maps = self.maps[unique] if len(unique) == 1 else self.maps[items]
            scan = replace(self.scan, maps=maps.to(self.device))
            self.operator = _operator(scan, items, self.make_operator)
        self.operator_of = unique.tolist()
        return self.operator

    def result(self) -> Reconstruction:
        """Everything, in the units of the k-space that came in."""
        scale = self.scan.scale.reshape(-1, *[1] * len(self.shape))
        images = self.images[0]
        weight = torch.ones_like(images.real) if self.maps is None else coil_weight(self.scan).expand_as(images)
        ratios = None if bool(self.misfit_ratios.isnan().all()) else self.misfit_ratios
        images, means, group = self.images * scale, self.means * scale, self.options.parts.group
        return Reconstruction(images, weight, self.maps, self.scan, self.work, means, ratios, group)


def reports(counted: CountedPrior, progress: Progress | None) -> Watch | None:
    """A watch that calls `progress` after each level with the network evaluations that it took."""
    return None if progress is None else (lambda level, sigma, x: progress(counted.new_evaluations()))


def _random(options: WalkOptions, name: str, walks: Walks) -> list[Random]:
    """The random numbers of some walks, (number of the slice, draw)."""
    size = options.parts.group
    if size == 1:
        return [generators(options.seed, name, number, draws=[draw])[0] for number, draw in walks]
    shared = {
        number: antithetic_generators(options.seed, name, number, range(options.samples), size)
        for number, _ in walks
    }
    return [shared[number][draw] for number, draw in walks]


def _image_shape(scan: Acquisition, operator: LinearOperator | None, device: torch.device) -> torch.Size:
    """The shape of one image: that of the coil maps, or of what the operator's adjoint makes of samples."""
    if operator is None:
        return scan.coil_maps.shape[-2:]
    return operator.adjoint(torch.zeros_like(scan.kspace[:1], device=device)).shape[1:]


def _operator(scan: Acquisition, items: Tensor, make: OperatorFactory | None) -> LinearOperator:
    """The forward operator of some items of a scan, whose maps are theirs already."""
    if scan.mask is None:
        return scan.operator()
    maps = scan.coil_maps
    mask = scan.mask if len(scan.mask) == 1 else scan.mask[items]
    operator = (make or Sense)(maps, mask.to(maps.device))
    assert isinstance(operator, LinearOperator)
    return operator


def _batches(samplers: Sequence[Sampler], samples: int, batch_size: int) -> Iterator[Walks]:
    """Whole slices, whose factors are then made once, or part of one.

    All items of a batch have the same number of levels, and the same levels if the sampler has no `own_levels`.
    """
    kinds: dict[Any, list[int]] = {}
    for index, sampler in enumerate(samplers):
        kind = len(sampler.sigmas) if sampler.own_levels else tuple(sampler.sigmas.tolist())
        kinds.setdefault(kind, []).append(index)
    together = max(1, batch_size // samples)
    for alike in kinds.values():
        for start in range(0, len(alike), together):
            walks = [(index, draw) for index in alike[start : start + together] for draw in range(samples)]
            yield from (walks[first : first + batch_size] for first in range(0, len(walks), batch_size))


def _joined(samplers: Sequence[Sampler], place: torch.device) -> Sampler:
    """One sampler for the items of a batch, each down its own levels."""
    if all(torch.equal(sampler.sigmas, samplers[0].sigmas) for sampler in samplers):
        return samplers[0]
    return samplers[0].with_levels(torch.stack([sampler.sigmas for sampler in samplers], 1).to(place))


def _halves(batch: Walks) -> list[Walks]:
    """A batch as two, of which the first is the larger; one walk stays."""
    middle = (len(batch) + 1) // 2
    return [half for half in (batch[:middle], batch[middle:]) if half]


def walk_end(prior: ScoreModel, noise_std: float) -> float:
    """The smallest sigma of a walk: what the noise level asks for, within the prior's range."""
    end = min(SIGMA_END, noise_std / 2)
    return max(end, prior.sigma_min)


def make_sampler(
    method: str | Method, prior: ScoreModel, end: float, steps: int | None, options: Mapping[str, Any] | None = None
) -> Sampler:
    """The sampler of a method from SIGMA_START, or the prior's sigma_max if that is less, down to `end`."""
    chosen = method if isinstance(method, Method) else METHODS[method]
    return sampler_of(chosen, (end, min(SIGMA_START, prior.sigma_max)), steps, options)


def sampler_of(
    method: Method, ends: tuple[float, float], steps: int | None = None, options: Mapping[str, Any] | None = None
) -> Sampler:
    """The sampler of a method between the smallest and the largest of its levels."""
    kind = class_of(method.sampler, SAMPLERS)
    levels = class_of(method.schedule, WALK_SCHEDULES)(*ends).levels(method.steps if steps is None else steps)
    return kind(levels, **accepted(kind, {**method.options, **(options or {})}))


def _make_posterior(
    options: WalkOptions, prior: ScoreModel, operator: LinearOperator, kspace: Tensor, noise_std: Tensor
) -> Posterior:
    kind = class_of(options.parts.posterior or "", POSTERIORS)
    more = accepted(kind, {**options.parts.options, **(options.options or {})})
    return kind(prior, operator, kspace, noise_std, **more)


GIVEN = ("self", "sigmas", "prior", "operator", "kspace", "noise_std")
"""Arguments that all samplers and posteriors get; they are not options."""


def classes_of(method: Method) -> list[Callable[..., Any]]:
    """The sampler and the posterior of a method: their further arguments are its options."""
    posterior = [class_of(method.posterior, POSTERIORS)] if method.posterior else []
    return [class_of(method.sampler, SAMPLERS), *posterior]


def class_of(chosen: str | Callable[..., Any], known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """A class that was given, or the one of this name."""
    return known[chosen] if isinstance(chosen, str) else chosen


def option_names(method: Method) -> list[str]:
    """The further arguments of a method's posterior and sampler."""
    return sorted({name for kind in classes_of(method) for name in inspect.signature(kind).parameters} - set(GIVEN))


def check_options(name: str, method: Method, options: Mapping[str, Any] | None) -> None:
    """Errors: InputError for an option that the method `name` does not have."""
    if options and (unknown := set(options) - set(known := option_names(method))):
        raise unknown_name(f"the option of {name}", min(unknown), known)


def method_options(name: str) -> list[str]:
    """The further arguments of the method of this name of `METHODS`."""
    return option_names(METHODS[name])


def accepted(kind: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that this class takes."""
    return {key: value for key, value in options.items() if key in inspect.signature(kind).parameters}


def find_device(device: str) -> torch.device:
    """The torch device of a name such as auto, cpu, cuda or cuda:1; auto is the GPU where there is one.

    Errors: InputError for an unknown device, and for a GPU that torch does not see.
    """
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
    if not isinstance(array, Tensor):
        array = torch.from_numpy(native(np.ascontiguousarray(array)))
    if not (array.is_complex() or array.is_floating_point()):
        return array
    single = array.to(torch.complex64)
    if bool(array.isfinite().all() & array.any() & ~(single.isfinite().all() & single.any())):
        raise InputError(
            f"the largest sample is {float(array.abs().max()):.3g}, outside the range of single precision; divide"
            " k-space by it"
        )
    return single


def native(array: np.ndarray) -> np.ndarray:
    """The array in the byte order of this machine and at most double precision, as torch takes it."""
    if array.dtype.kind == "c" and array.dtype.itemsize > 16:
        return array.astype(np.complex128)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
