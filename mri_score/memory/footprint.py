"""Prediction of the memory of a run, from shapes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdRef

from mri_score.data.acquisition import Acquisition
from mri_score.data.scan import LEAST_NOISE
from mri_score.data.training_item import TrainingItem
from mri_score.losses.base import Loss
from mri_score.memory.free import free_memory
from mri_score.memory.peak import resident
from mri_score.methods import DEFAULT_METHOD
from mri_score.models.base import ScoreModel, clamped
from mri_score.models.network import NetworkPrior
from mri_score.numerics.noise import Random, generators, noise_like
from mri_score.operators.lines import AT_A_TIME, direct_below
from mri_score.operators.sense import Sense
from mri_score.reconstruction import sample_posterior

MOST_WALKS = 32
"""Largest batch size that `fitting` returns; larger ones are hardly faster."""
SHARE = 0.5
"""Share of the free memory to use."""
SIDE = 64
"""Side of the small image on which sampling is measured."""
STATES = 3
"""Copies of the weights beside them while a network is trained: two moments of Adam and the weight average."""
FACTORING = 6
"""Matrices in memory, in LAPACK and its callers, for each matrix that is factored."""
HEAP = 1.4
"""Heap memory on a CPU per byte of live network tensors: slope of measured peaks."""
FIRST_CALLS = 30 << 20
"""Memory of libraries on a CPU after their first call: loaded code and compiled kernels, in bytes."""
COMPLEX = 8
"""Bytes of a complex64 number."""


class LiveMemory(TorchDispatchMode):
    """Bytes of the tensors that are made in a `with` block: `live` of those that are alive now, `peak` of the most.

    It counts storages at every call of torch, on meta tensors as on real ones, and adds what the CPU's kernels hold
    while they work: convolutions of tensors whose channels do not come last bring them into blocks, rolls along two
    axes have one in between.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[WeakIdRef, int] = {}
        self.live = self.peak = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False keeps torch from importing its compiler, which takes seconds and is not used here."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {id(storage) for storage in _storages((args, kwargs))}
        for storage in _storages(result):
            reference = WeakIdRef(storage, self._freed)
            if id(storage) not in given and reference not in self._sizes:
                self._sizes[reference] = storage.nbytes()
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live + _scratch(func, args, result))
        return result

    def _freed(self, reference: WeakIdRef) -> None:
        self.live -= self._sizes.pop(reference, 0)


def network_bytes(prior: ScoreModel, items: int, shape: tuple[int, int], gradient: bool = False) -> tuple[int, int]:
    """What one denoising of complex images takes: (what it leaves, the most while it runs), weights not counted.

    With `gradient` it leaves its graph, and the most is that of a product with the Jacobian. A network in bfloat16 is
    counted as one in float32: more than it takes.
    Errors: whatever a model raises that cannot run on meta tensors.
    """
    model = _on_meta(prior)
    with LiveMemory() as memory, torch.set_grad_enabled(gradient):
        x = torch.zeros(items, *shape, dtype=torch.complex64, device="meta", requires_grad=gradient)
        denoised = model.denoise(x, clamped(model, 1.0))
        left = memory.live
        if gradient:
            torch.autograd.grad(denoised, x, torch.zeros_like(denoised))
    return left, memory.peak


def walk_bytes(
    prior: ScoreModel,
    coils: int,
    shape: tuple[int, int],
    walks: int,
    method: str = DEFAULT_METHOD,
    line_axis: int | None = -1,
    options: dict[str, Any] | None = None,
) -> int:
    """The most that `sample_posterior` takes for one slice and one batch of `walks`, beside the scan and the prior.

    The walk is run on SIDE x SIDE pixels with a stand-in for the prior, and its memory is scaled with the pixels; that
    of the network comes from `network_bytes`, that of the factors of `LineSystems` from their size.
    line_axis: the axis along which the mask varies; None for a mask of points. options: as `sample_posterior` takes
    them.
    """
    stand_in, least = _StandIn(prior.sd, prior.generates), [math.inf]
    with stand_in.memory as memory:
        sample_posterior(
            _rehearsal(coils, line_axis), stand_in, method, steps=3, samples=walks, batch_size=walks, device="cpu",
            slices=[0], operator=lambda maps, mask: _Noted(maps, mask, least), options=options,
        )  # fmt: skip
    growth = math.prod(shape) / SIDE**2
    factors, most = 0, [growth * memory.peak]
    if line_axis is not None and least[0] < direct_below(coils, shape[line_axis], shape[line_axis] * math.prod(shape)):
        factors = 2 * COMPLEX * shape[line_axis] * math.prod(shape)
        most.append(growth * max(stand_in.calls.values()) + FACTORING * AT_A_TIME * 2 * COMPLEX * shape[line_axis] ** 2)
    for (items, gradient), live in stand_in.calls.items():
        left, taken = _prior_bytes(prior, items, shape, gradient)
        most += [growth * live + HEAP * taken, growth * memory.peak + HEAP * left * gradient]
    return factors + round(max(most))


def prepare_bytes(coils: int, shape: tuple[int, int], slices: int) -> int:
    """Approximate peak (bytes) of the preparation of a volume: noise level, coil maps and scale.

    shape: (H, W). slices: slices of the file.
    """
    coil_images = COMPLEX * coils * math.prod(shape)
    pixels = min(2 * COMPLEX * coils**2 * math.prod(shape), 1 << 25)
    return (min(slices, 8) + 14) * coil_images + 4 * pixels


def reconstruct_bytes(
    prior: ScoreModel,
    coils: int,
    shape: tuple[int, int],
    walks: int,
    method: str = DEFAULT_METHOD,
    line_axis: int | None = -1,
    slices: int = 1,
) -> int:
    """Peak memory (bytes) that the reconstruction of a volume adds to a process with a loaded prior.

    Arguments as in `walk_bytes`; slices: slices to reconstruct.
    """
    acquisition = 2 * COMPLEX * coils * math.prod(shape)
    images = slices * (walks + 4) * COMPLEX * math.prod(shape)
    walk = walk_bytes(prior, coils, shape, walks, method, line_axis)
    return FIRST_CALLS + images + max(prepare_bytes(coils, shape, slices), acquisition + walk)


def train_bytes(prior: NetworkPrior, loss: Loss, item: TrainingItem, batch_size: int) -> int:
    """The most that training steps add to a process that has built the prior: gradients, moments, average, one step.

    item: one training item, which gives the shapes. A loss that looks at its numbers cannot run without any; it then
    takes one step with that item, and what that takes beside the gradients counts `batch_size` times.
    """
    weights = sum(parameter.numel() * parameter.element_size() for parameter in prior.parameters())
    try:
        step = _step(_on_meta(prior), loss, _batch(item, batch_size, "meta"), batch_size)
    except RuntimeError:
        step = weights + batch_size * (_step(copy.deepcopy(prior), loss, _batch(item, 1, "cpu"), 1) - weights)
    return FIRST_CALLS + round(STATES * weights + HEAP * step)


def _step(prior: NetworkPrior, loss: Loss, batch: Callable[[], TrainingItem], size: int) -> int:
    """The peak of the second of two steps, which finds the gradients of the first."""
    prior.to(memory_format=torch.channels_last).train().requires_grad_()  # type: ignore[call-overload]
    with LiveMemory() as memory:
        for step in range(2):
            value = loss(prior, batch(), generators(0, "footprint", step, size), step).sum()
            prior.zero_grad(set_to_none=True)
            value.backward()
    return memory.peak


def _batch(item: TrainingItem, size: int, device: str) -> Callable[[], TrainingItem]:
    """A function that makes a batch of `size` items like this one."""
    parts = {one.name: value for one in fields(item) if isinstance(value := getattr(item, one.name), Tensor)}

    def make() -> TrainingItem:
        like = {name: torch.atleast_1d(part).to(device) for name, part in parts.items()}
        repeated = {name: part.repeat(size, *[1] * (part.ndim - 1)) for name, part in like.items()}
        return TrainingItem(item.name, **repeated)

    return make


def peak_text(work: int) -> str:
    """A sentence on the peak memory of this process. work: bytes that the work adds."""
    before = resident()
    now, more = before / 2**20, work / 2**20
    return f"{now + more:,.0f} MiB at the peak: {now:,.0f} now, {more:,.0f} for the work"


def line_axis(mask: Tensor) -> int | None:
    """The axis along which masks (1 or S, 1, 1 or H, 1 or W) of whole lines vary, -1 or -2; None for masks of points.
    """
    if bool((mask == mask[..., :1, :]).all()):
        return -1
    return -2 if bool((mask == mask[..., :1]).all()) else None


def available(device: torch.device) -> int:
    """Free memory in bytes: of the GPU, or of the machine within the limits of its control groups."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()


def fitting(needed: Callable[[int], int], room: float, most: int = MOST_WALKS) -> int:
    """The largest number of draws, 1 to `most`, that needs at most `room` bytes; 1 if none does.

    needed: function from the number of draws to bytes.
    """
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needed(middle) <= room else (low, middle - 1)
    return low


def _prior_bytes(prior: ScoreModel, items: int, shape: tuple[int, int], gradient: bool) -> tuple[int, int]:
    """`network_bytes`, or those of the images that go in and out for a denoiser that needs numbers, not only shapes."""
    try:
        return network_bytes(prior, items, shape, gradient)
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        images = 2 * COMPLEX * items * math.prod(shape)
        return images * gradient, images


Model = TypeVar("Model", bound=ScoreModel)


def _on_meta(prior: Model) -> Model:
    """A copy without numbers, in float32: it has shapes and computes nothing."""
    return copy.deepcopy(prior.in_precision(torch.float32)).to("meta")


class _StandIn(ScoreModel):
    """A linear denoiser that records the memory of its walk at each call: by number of items, and whether for a
    Jacobian.
    """

    def __init__(self, sd: float, generates: bool) -> None:
        super().__init__()
        self.sd, self.generates, self.memory = sd, generates, LiveMemory()
        self.calls: dict[tuple[int, bool], int] = {}

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        kind = (len(x), torch.is_grad_enabled() and x.requires_grad)
        self.calls[kind] = max(self.calls.get(kind, 0), self.memory.live)
        return x / 2

    def draw(self, x: Tensor, sigma: Tensor | float, random: Sequence[Random]) -> Tensor:
        return self.denoise(x, sigma)


class _Noted(Sense):
    """Iterates, and records the smallest weight of exact solutions, for which `auto` might use factors."""

    def __init__(self, maps: Tensor, mask: Tensor, least: list[float]) -> None:
        super().__init__(maps, mask, solver="cg")
        self._least = least

    def solve(
        self,
        b: Tensor,
        weight: Tensor | float,
        start: Tensor | None = None,
        tolerance: Tensor | float = 1e-6,
        max_iterations: int | None = None,
    ) -> Tensor:
        if max_iterations is None:
            self._least[0] = min(self._least[0], float(torch.as_tensor(weight).min()))
        return super().solve(b, weight, start, tolerance, max_iterations or 3)


def _rehearsal(coils: int, line_axis: int | None) -> Acquisition:
    """A scan of SIDE x SIDE pixels of noise."""
    noise = noise_like(torch.zeros(1, coils, SIDE, SIDE, dtype=torch.complex64), generators(0, "footprint"))
    lines = torch.arange(SIDE) % 4 == 0
    mask = lines[:, None] & lines if line_axis is None else lines[:, None] if line_axis == -2 else lines[None]
    maps = torch.full_like(noise, coils**-0.5)
    noise_std, scale = torch.tensor([LEAST_NOISE]), torch.ones(1)
    return Acquisition("footprint", noise * mask, maps, mask[None, None], noise_std=noise_std, scale=scale)


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in tree_leaves(values) if isinstance(value, Tensor)]


def _scratch(func: Any, args: Sequence[Any], result: Any) -> int:
    """Bytes of temporary memory of a kernel that torch does not show."""
    if func is torch.ops.aten.roll.default:
        return result.nbytes if len(args[2]) > 1 else 0
    if func is torch.ops.aten.convolution.default:
        given, other = args[0], result
    elif func is torch.ops.aten.convolution_backward.default:
        given, other = args[1], args[0]
    else:
        return 0
    weight = args[1] if func is torch.ops.aten.convolution.default else args[2]
    if any(one.is_contiguous(memory_format=torch.channels_last) for one in (given, weight)):
        return 0
    largest = max(given.nbytes, other.nbytes)
    return largest if func is torch.ops.aten.convolution.default else given.nbytes + other.nbytes + largest
