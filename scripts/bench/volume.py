"""A whole volume in one call, from file to results, against a loop over slices; and the share outside the network."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import torch
from harness import Row, Spread, compare
from torch import Tensor

from mri_score.data.scan import Scan
from mri_score.models.network import NetworkPrior
from mri_score.operators.sense import Sense
from mri_score.pipeline.derived import Page, Panels
from mri_score.pipeline.options import Options
from mri_score.pipeline.output import write_volume
from mri_score.pipeline.volume import reconstruct_volume
from mri_score.priors.store import load_prior
from mri_score.readers.fastmri import FastMRI
from mri_score.reconstruction import find_device, sample_posterior
from mri_score.simulation.simulate import simulate

NAME = "volume"
SHAPES = {"quick": (4, 4, 96), "full": (36, 15, 320)}
"""Slices, coils, side."""
WALKS = {"cpu": {"quick": (2, 50), "full": (1, 50)}, "cuda": {"quick": (4, 50), "full": (4, 50)}}
"""Draws per slice and levels per draw; on a CPU fewer draws than by default, so that a volume takes minutes."""
BATCH = 32
WANTED = {"cpu": 0.95, "cuda": 1.5}
"""One walk uses the whole CPU, so that there the volume must only not take longer than the loop."""
OUTSIDE = 0.1
"""The allowed share of a call outside network and operator."""
INSIDE = [(NetworkPrior, "denoise"), *((Sense, name) for name in ("forward", "adjoint", "normal", "solve"))]


def run(sizes: str, threads: int) -> list[Row]:
    slices, coils, side = SHAPES[sizes]
    place = find_device("auto").type
    samples, steps = WALKS[place][sizes]
    options = Options(steps=steps, samples=samples, batch_size=BATCH, baselines=())
    prior = load_prior()
    what = f"volume, {slices} slices, {coils} x {side} x {side}, {samples} draws of {steps} levels, {place}"
    with tempfile.TemporaryDirectory() as folder:
        (path,) = simulate(folder, volumes=1, slices=slices, size=side, coils=coils, undersample=4.0)
        row = compare(
            what, "a loop over slices", partial(together, path, prior, options),
            partial(one_by_one, path, prior, options), sizes=sizes, wanted=WANTED[place], bound=1e-4,
        )  # fmt: skip
        total, inside = shares(partial(together, path, prior, options, pictures=True), place)
    note = f"{inside / total:.0%} of {total:.3g} s in network and operator; with panels and report"
    spent, allowed = Spread.exact(total - inside), Spread.exact(OUTSIDE * total)
    return [row, Row("of it outside network and operator", f"{OUTSIDE:.0%} of it", spent, allowed, 1, note=note)]


def together(path: Path, prior: NetworkPrior, options: Options, pictures: bool = False) -> Tensor:
    """The work of `mri-score reconstruct`, optionally with panels and report."""
    volume = reconstruct_volume(Scan(FastMRI(path)), prior, options)
    out = path.parent / "together"
    result = write_volume(out, volume, options, {})
    if pictures:
        for one in (Panels(out / "panels"), Page(out / "report")):
            one.write(result)
    return volume.image


def one_by_one(path: Path, prior: NetworkPrior, options: Options) -> Tensor:
    """A loop as a user of the library would write it: slice after slice, then the file."""
    scan, images = Scan(FastMRI(path)), []
    for number in range(scan.file.slices):
        found = sample_posterior(
            scan.acquisition(number), prior, steps=options.steps, samples=options.samples, slices=[number],
            batch_size=options.batch_size,
        )  # fmt: skip
        images.append(found.image[0])
    volume = torch.stack(images)
    with h5py.File(path.parent / "one-by-one.h5", "w") as file:
        file["reconstruction"] = volume.abs().numpy()
    return volume


def shares(call: Callable[[], Any], place: str) -> tuple[float, float]:
    """Seconds of a call, and of its part in network and operator in this thread."""
    clock = Clock(place)
    with ExitStack() as stack:
        for owner, name in INSIDE:
            stack.enter_context(patch.object(owner, name, clock.timed(getattr(owner, name))))
        started = time.perf_counter()
        call()
        return time.perf_counter() - started, clock.seconds


class Clock:
    """Sums the seconds of some functions in the main thread; nested calls count once."""

    def __init__(self, place: str) -> None:
        self.seconds, self.running, self.place = 0.0, False, place

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if self.running or threading.current_thread() is not threading.main_thread():
                return function(*args, **kwargs)
            with self.measure():
                return function(*args, **kwargs)

        return wrapper

    @contextmanager
    def measure(self) -> Iterator[None]:
        self.running, started = True, self.now()
        try:
            yield
        finally:
            self.running = False
            self.seconds += self.now() - started

    def now(self) -> float:
        if self.place == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()
