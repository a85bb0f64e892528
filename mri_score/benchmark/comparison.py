"""Comparison of methods with the same scans, masks, coil maps and noise levels, cell by cell."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mri_score.baselines import BASELINES, DEFAULT_BASELINES, supervised
from mri_score.benchmark.deepinv import RIVALS, Rival, sample_deepinv
from mri_score.benchmark.ledger import Ledger, identity
from mri_score.benchmark.subject import Subject, Subjects
from mri_score.benchmark.yardstick import BEST
from mri_score.data.masks import MASK_LAWS
from mri_score.data.scan import Undersampling
from mri_score.errors import InputError, unknown_name
from mri_score.files import sha256
from mri_score.memory.peak import PeakMemory
from mri_score.methods import DEFAULT_METHOD, METHODS, Method
from mri_score.models.base import ScoreModel
from mri_score.models.precision import check_precision, find_precision, resolved_precision
from mri_score.readers.base import Reader
from mri_score.reconstruction import Progress, Reconstruction, WalkOptions, Work, find_device, sample_posterior
from mri_score.work import draw_work

TUNED = {f"{name}-tuned": name for name, baseline in BASELINES.items() if baseline.tunable}
"""Name of a tuned baseline -> the baseline whose weight is tuned on the ground truth."""
REFERENCE, SUPERVISED = BEST, "supervised"
TITLES = {name: baseline.title for name, baseline in BASELINES.items()} | {
    **{name: f"{BASELINES[method].title}, weight tuned on the truth" for name, method in TUNED.items()},
    SUPERVISED: "supervised network",
}
"""Titles of methods that are not samplers, by name."""
SAMPLERS: dict[str, Method | Rival] = {**METHODS, **RIVALS}
"""All methods that need a prior, by name."""
COMPARED = (*DEFAULT_BASELINES, *(f"{name}-tuned" for name in DEFAULT_BASELINES if BASELINES[name].tunable))
"""The default baselines of a comparison."""
BASELINE_WORK = 20
"""Number of network evaluations that a baseline counts as in the estimate of the remaining time."""


@dataclass(frozen=True)
class Plan:
    """Settings of a comparison, the same for all scans. Errors: InputError for unknown names.

    methods, baselines: names of the compared methods. accelerations: nominal ones. laws: of the masks. mask_seeds: one
    mask for each. samples: draws of each slice. batch_size: walks at a time. precision: in which the network computes,
    float32, bfloat16 or auto. device: auto, cpu, cuda, ...
    """

    methods: Sequence[str] = (DEFAULT_METHOD,)
    baselines: Sequence[str] = COMPARED
    accelerations: Sequence[float] = (4.0, 8.0)
    laws: Sequence[str] = ("variable-density",)
    mask_seeds: Sequence[int] = (0, 1, 2)
    samples: int = 8
    steps: Mapping[str, int] = field(default_factory=dict)
    """Method -> number of noise levels, if not the default."""
    precision: str = "float32"
    seed: int = 0
    """Seed of the draws."""
    batch_size: int = 8
    device: str = "auto"

    def __post_init__(self) -> None:
        for place, names, known in (
            ("the method", [*self.methods, *self.steps], SAMPLERS),
            ("the baseline", self.baselines, TITLES),
            ("the mask law", self.laws, MASK_LAWS),
        ):
            for name in names:
                if name not in known:
                    raise unknown_name(place, name, known)
        check_precision(self.precision)

    @property
    def draws(self) -> list[int]:
        """Numbers of draws whose mean is scored: powers of two, and all draws."""
        return sorted({2**power for power in range(self.samples.bit_length())} | {self.samples})


@dataclass(frozen=True)
class Cell:
    """One method on one slice with one mask. Values that a baseline does not have are None.

    scan: name of the file. slice: its number. law, nominal, mask_seed: sampling law, nominal acceleration and seed of
    the mask. method: a sampler or a baseline. steps: noise levels. precision: of the network. seed: of the draws.
    """

    scan: str
    file: str
    """Start of its SHA-256."""
    slice: int
    law: str
    nominal: float
    mask_seed: int
    method: str
    steps: int | None = None
    prior: str | None = None
    """Start of the SHA-256 of the network's weights."""
    precision: str | None = None
    seed: int | None = None

    def __str__(self) -> str:
        return f"{self.scan}, slice {self.slice}, R = {self.nominal:g} {self.law}, mask {self.mask_seed}: {self.title}"

    @property
    def title(self) -> str:
        if self.steps is None:
            return TITLES[self.method]
        name = RIVALS[self.method].title if self.method in RIVALS else self.method
        return f"{name}, {self.steps} levels" + (", bfloat16" if self.precision == "bfloat16" else "")


@dataclass(frozen=True)
class Outcome:
    """Result of a cell: its rows, or an error message; neither if another process has done the cell."""

    cell: Cell
    rows: Sequence[dict[str, Any]] = ()
    error: str | None = None


@dataclass(frozen=True)
class Weights:
    """A network and the digest, the SHA-256, of its file."""

    network: ScoreModel
    digest: str


Scored = tuple[Tensor, float, dict[str, Any]]
"""An image in the file's units, its share of the measured time, and further columns of its row."""


class Comparison:
    """Runs those cells of a plan that are not in the ledger yet, and appends their rows to it.

    plan: methods, masks and accelerations. ledger: the file of rows. prior: of the methods that sample. supervised: the
    network of the supervised baseline; None leaves it out. maps: folder where coil maps are cached; None for no cache.
    """

    def __init__(
        self, plan: Plan, ledger: Ledger, prior: Weights, supervised: Weights | None = None, maps: Path | None = None
    ) -> None:
        self.plan, self.ledger, self.maps = plan, ledger, maps
        self.device = find_device(plan.device)
        self.precision = resolved_precision(plan.precision, device=self.device)
        network = prior.network.in_precision(find_precision(self.precision))
        self.prior, self.supervised = replace(prior, network=network), supervised
        self._warm: set[str] = set()
        self._evaluations: dict[tuple[str, int], int] = {}

    def cells(self, file: Reader, slices: Sequence[int]) -> list[Cell]:
        """All cells of a file, slice by slice and mask by mask, baselines first. slices: slice numbers."""
        plan, digest = self.plan, sha256(file.path)[:12]
        baselines: list[dict[str, Any]] = [{"method": name} for name in plan.baselines if name != SUPERVISED]
        if self.supervised is not None:
            baselines.append({"method": SUPERVISED, "prior": self.supervised.digest[:12]})
        samplers: list[dict[str, Any]] = [
            {
                "method": name,
                "steps": plan.steps.get(name, SAMPLERS[name].steps),
                "prior": self.prior.digest[:12],
                "precision": self.precision,
                "seed": plan.seed,
            }
            for name in plan.methods
        ]
        return [
            Cell(file.name, digest, number, law, acceleration, seed, **which)
            for number in slices
            for law in plan.laws
            for acceleration in plan.accelerations
            for seed in plan.mask_seeds
            for which in [*baselines, *samplers]
        ]

    def missing(self, cells: Sequence[Cell]) -> list[Cell]:
        """Those of `cells` of which the ledger lacks a row."""
        done = self._done()
        return [cell for cell in cells if not {identity(row) for row in self._wanted(cell)} <= done]

    def work(self, cell: Cell) -> int:
        """Network evaluations of a cell; for baselines, an equivalent number."""
        if cell.steps is None:
            return BASELINE_WORK
        if cell.method in RIVALS:
            return self.plan.samples * cell.steps * RIVALS[cell.method].calls
        if (cell.method, cell.steps) not in self._evaluations:
            options = WalkOptions(cell.method, cell.steps)
            self._evaluations[cell.method, cell.steps] = draw_work(options, self.prior.network).evaluations
        draws = self.plan.samples + sum(self._apart(cell.method))
        return draws * self._evaluations[cell.method, cell.steps]

    def _apart(self, method: str) -> list[int]:
        """The numbers of draws that need walks of their own: parts of an antithetic group, whose noises do not cancel.

        The default method walks them in another way.
        """
        plan, group = self.plan, METHODS[method].group
        return [count for count in plan.draws if count % group and count != plan.samples]

    def run(self, file: Reader, cells: Sequence[Cell], progress: Progress | None = None) -> Iterator[Outcome]:
        """Yield the outcome of each cell of a file, in order; a cell that fails does not stop the others.

        progress: called with the number of network evaluations of each level.
        """
        subjects = Subjects(file, self.maps)
        for cell in cells:
            with self.ledger.claim(*identity(asdict(cell))) as mine:
                if not mine or not self.missing([cell]):  # another process runs it, or has finished it meanwhile
                    yield Outcome(cell)
                    continue
                try:
                    subject = subjects.find(cell.slice, Undersampling(cell.nominal, cell.law, seed=cell.mask_seed))
                    rows = self._rows(cell, subject, progress)
                except Exception as error:  # a method under study may fail in any way, and the others go on
                    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
                    yield Outcome(cell, error=f"{kind}{error}")
                    continue
                done = self._done()
                self.ledger.append([row for row in rows if identity(row) not in done])
            yield Outcome(cell, rows)

    def _done(self) -> set[tuple]:
        return {identity(row) for row in self.ledger.rows()}

    def _wanted(self, cell: Cell) -> list[dict[str, Any]]:
        return [{**asdict(cell), "draws": count} for count in ([1] if cell.steps is None else self.plan.draws)]

    def _rows(self, cell: Cell, subject: Subject, progress: Progress | None) -> list[dict[str, Any]]:
        make = self._baseline if cell.steps is None else self._rival if cell.method in RIVALS else self._sampled
        found, about = make(cell, subject, progress)
        return [
            {
                **wanted,
                "title": cell.title,
                **subject.about,
                **subject.scores(image),
                **more,
                **about,
                "seconds": about["seconds"] * share,
            }
            for wanted, (image, share, more) in zip(self._wanted(cell), found, strict=True)
        ]

    def _baseline(self, cell: Cell, subject: Subject, progress: Progress | None) -> tuple[list[Scored], dict[str, Any]]:
        solve, device = self._solver(cell.method, subject)
        image, cost = _measured(device, lambda: solve(*subject.problem))
        return [(image.cpu() * subject.scale, 1.0, {})], cost

    def _solver(self, name: str, subject: Subject) -> tuple[Callable[..., Tensor], torch.device]:
        """The function of a baseline, and the device on which it runs."""
        cpu = torch.device("cpu")
        if name == SUPERVISED:
            assert self.supervised is not None
            return partial(supervised, network=self.supervised.network), cpu
        solve = partial(BASELINES[TUNED.get(name, name)].solve, key=subject.key)
        if name in TUNED:  # the search for the weight is not part of the measured time
            solve = partial(solve, weight=subject.tuned_weight(solve))
        return solve, cpu

    def _sampled(self, cell: Cell, subject: Subject, progress: Progress | None) -> tuple[list[Scored], dict[str, Any]]:
        if self.device.type == "cuda" and cell.method not in self._warm:
            steps = min(2, METHODS[cell.method].steps)
            self._walk(cell, subject, steps)  # the first walk on a GPU loads its kernels
            self._warm.add(cell.method)
        whole, cost = _measured(self.device, lambda: self._walk(cell, subject, cell.steps, progress))
        found: list[Scored] = []
        for count in self.plan.draws:
            apart = count in self._apart(cell.method)
            part = self._walk(cell, subject, cell.steps, progress, count) if apart else whole.first(count)
            more: dict[str, Any] = asdict(part.work)
            if count > 1 and METHODS[cell.method].draws:
                more |= subject.calibration(part.samples[:, 0], part.group)
            found.append((part.image[0], count / self.plan.samples, more))
        return found, cost

    def _rival(self, cell: Cell, subject: Subject, progress: Progress | None) -> tuple[list[Scored], dict[str, Any]]:
        rival, plan = RIVALS[cell.method], self.plan
        sample = partial(
            sample_deepinv, rival, self.prior.network, subject.acquisition, cell.slice,
            steps=cell.steps or rival.steps, samples=plan.samples, seed=plan.seed,
        )  # fmt: skip
        (images, works), cost = _measured(torch.device("cpu"), sample)
        found: list[Scored] = []
        for count in plan.draws:
            more: dict[str, Any] = asdict(sum(works[:count], start=Work()))
            if count > 1 and rival.draws:
                more |= subject.calibration(images[:count])
            found.append((images[:count].mean(0), count / plan.samples, more))
        return found, cost

    def _walk(
        self,
        cell: Cell,
        subject: Subject,
        steps: int | None,
        progress: Progress | None = None,
        samples: int | None = None,
    ) -> Reconstruction:
        """Draws of a cell's slice, as many as the plan has or `samples`."""
        return sample_posterior(
            subject.acquisition,
            self.prior.network,
            cell.method,
            steps=steps,
            samples=samples or self.plan.samples,
            seed=self.plan.seed,
            batch_size=self.plan.batch_size,
            device=self.plan.device,
            slices=[cell.slice],
            progress=progress,
        )


def _measured(device: torch.device, run: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """A result and its cost: seconds, peak memory in MiB (None if it cannot be measured), and the device."""
    with PeakMemory(device) as peak:
        started = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - started
    threads = torch.get_num_threads()
    cpu = f"{platform.machine()} CPU, {threads} thread{'s' if threads > 1 else ''}"
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
    return result, {"seconds": seconds, "memory_mib": peak.mib, "hardware": hardware}
