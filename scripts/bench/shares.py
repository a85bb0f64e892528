"""Shares of the time of a posterior draw and of a training step, by function."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from draw import SIDE, problem
from harness import Row, Spread
from volume import Clock

from mri_score.data.training_item import TrainingItem
from mri_score.losses import Denoising
from mri_score.methods import DEFAULT_METHOD
from mri_score.models.network import NetworkPrior
from mri_score.noise.schedules import LogNormal
from mri_score.operators.lines import LineSystems
from mri_score.operators.sense import Sense
from mri_score.priors.store import build_prior
from mri_score.training.batches import Batches
from mri_score.training.loop import train

NAME = "shares"
STEPS = {"quick": 4, "full": 20}
NETWORK = {"name": "unet", "widths": [64, 128, 256]}
PATCH, BATCH = 128, 9
"""The config of `brain` with images of noise, which take no time to prepare."""

Part = tuple[Any, str]
"""An object and the name of a function of it."""


class Noise:
    """Images that take no time to prepare."""

    def sample(self, random: torch.Generator) -> TrainingItem:
        return TrainingItem("noise", image=torch.randn(1, PATCH, PATCH, dtype=torch.complex64, generator=random))


def run(sizes: str, threads: int) -> list[Row]:
    asked = problem(SIDE[sizes])
    asked.draw(DEFAULT_METHOD, 2)
    parts: dict[str, Part] = {
        "network": (NetworkPrior, "denoise"),
        "exact solves": (Sense, "solve"),
        "of these, eigenvectors made once a slice": (LineSystems, "__init__"),
    }
    rows = [shares(f"draw, {SIDE[sizes]} x {SIDE[sizes]}, {DEFAULT_METHOD}", lambda: asked.draw(DEFAULT_METHOD), parts)]
    step: dict[str, Part] = {
        "forward": (Denoising, "__call__"),
        "backward": (torch.Tensor, "backward"),
        "batches": (Batches, "__getitem__"),
        "Adam": (torch.optim.Adam, "step"),
    }
    prior = build_prior(NETWORK, sd=0.3, sigma_min=0.004, sigma_max=100.0)
    with tempfile.TemporaryDirectory() as folder:

        def some_steps() -> None:
            train(
                prior, Denoising(LogNormal(0.004, 100.0)), Noise(), Path(folder) / str(time.monotonic_ns()),
                lambda *_: None, steps=STEPS[sizes], batch_size=BATCH, precision="bfloat16", workers=0, quiet=True,
                device="cpu",
            )  # fmt: skip

        some_steps()
        what = f"{STEPS[sizes]} training steps, U-Net of brain, {BATCH} x {PATCH} x {PATCH}, bfloat16"
        return [*rows, shares(what, some_steps, step)]


def shares(what: str, call: Callable[[], Any], parts: Mapping[str, Part]) -> Row:
    """Seconds of a call; the note gives the share of each part."""
    clocks = {name: Clock("cpu") for name in parts}
    with ExitStack() as stack:
        for name, (owner, function) in parts.items():
            stack.enter_context(patch.object(owner, function, clocks[name].timed(getattr(owner, function))))
        started = time.perf_counter()
        call()
        total = time.perf_counter() - started
    note = ", ".join(f"{name} {clock.seconds / total:.0%}" for name, clock in clocks.items())
    return Row(what, ours=Spread.exact(total), note=note)
