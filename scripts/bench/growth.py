"""Growth: time and memory of reconstruct against slices, coils and draws; the fitted exponent should be 1 at most.

Time is processor time of all threads, because wall time depends on the load of the machine.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from harness import Row, Spread

from mri_score.data.masks import make_mask
from mri_score.memory.peak import PeakMemory
from mri_score.models.network import NetworkPrior
from mri_score.priors.store import build_prior
from mri_score.reconstruction import reconstruct
from mri_score.simulation.phantom import phantom

NAME = "growth"
SIDE = {"quick": 96, "full": 256}
STEPS = {"quick": 3, "full": 10}
COUNTS = {"slices": (2, 4, 8), "coils": (4, 8, 16), "draws": (4, 8, 16)}
BASE = {"slices": 1, "coils": 4, "draws": 4}
LIMIT = 1.1
REPEATS = 3


def run(sizes: str, threads: int) -> list[Row]:
    prior = build_prior({"name": "unet", "widths": [32, 64]})
    cost(prior, sizes, **BASE)  # libraries allocate memory at their first call
    return [row for what in COUNTS for row in rows(prior, sizes, what)]


def rows(prior: NetworkPrior, sizes: str, what: str) -> list[Row]:
    """Two exponents: log cost = exponent * log count + constant, by least squares."""
    counts = COUNTS[what]
    costs = np.array([cost(prior, sizes, **{**BASE, what: count}) for count in counts])
    found = []
    for name, unit, values in zip(("time", "memory"), ("s", "MiB"), costs.T, strict=True):
        slope = float(np.polyfit(np.log(counts), np.log(np.maximum(values, 1e-3)), 1)[0])
        note = ", ".join(f"{count}: {value:.3g} {unit}" for count, value in zip(counts, values, strict=True))
        ours, limit = Spread.exact(max(slope, 1e-3), "exponent"), Spread.exact(LIMIT, "exponent")
        found.append(Row(f"{name} against {what}", "linear", ours, limit, wanted=1, note=note))
    return found


def cost(prior: NetworkPrior, sizes: str, slices: int, coils: int, draws: int) -> tuple[float, float]:
    """The least processor seconds of a few calls with given maps, and the most MiB."""
    scan = phantom(SIDE[sizes], coils=coils, slices=slices)
    mask = make_mask("variable-density", (SIDE[sizes], SIDE[sizes]), 4.0, seed=0)

    def work() -> None:
        reconstruct(
            scan.kspace * mask, scan.maps, mask, noise_std=float(scan.noise_std.flatten()[0]), prior=prior,
            steps=STEPS[sizes], samples=draws, batch_size=4, device="cpu",
        )  # fmt: skip

    seconds, peaks = [], []
    for _ in range(REPEATS):
        with PeakMemory(torch.device("cpu")) as peak:
            start = time.process_time()
            work()
            seconds.append(time.process_time() - start)
        peaks.append(peak.mib or 0.0)
    return min(seconds), max(peaks)
