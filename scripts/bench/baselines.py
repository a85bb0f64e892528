"""L1-wavelet and total variation beside SigPy and BART: processor time of one slice, and applications of A^H A.

The processor time includes child processes, because BART runs as a program; its time includes reading and writing
files. The three implementations are interleaved in one run, with equal iterations: of FISTA for L1-wavelet; for total
variation of FISTA (ours), 25 rounds of 4 conjugate gradient steps (SigPy), 100 rounds of up to 10 (BART). The note
gives the distance of each from the optimum.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import numpy as np
import sigpy.app
import sigpy.linop
import sigpy.mri.linop
import sigpy.prox
import torch
from harness import LEAST, Row, Spread
from torch import Tensor

from mri_score.baselines import l1_wavelet, total_variation
from mri_score.baselines.bart import bart_l1_wavelet, bart_total_variation
from mri_score.data.masks import undersample
from mri_score.operators.sense import Sense
from mri_score.simulation.phantom import phantom

NAME = "baselines"
SIZES = {"quick": [(8, 128)], "full": [(8, 256), (16, 320)]}
WEIGHT = 0.002
ITERATIONS = 100
LONG = 1000
"""Iterations of the reference solution."""


def run(sizes: str, threads: int) -> list[Row]:
    return [row for coils, size in SIZES[sizes] for row in rows(coils, size)]


def rows(coils: int, size: int) -> list[Row]:
    scan = undersample(phantom(size, coils), acceleration=4)
    problem = (scan.kspace[0], scan.maps[0], scan.mask[0], float(scan.noise_std))
    what = f"{coils} x {size} x {size}, {ITERATIONS} iterations"
    wavelet = race(
        {
            "ours": lambda: l1_wavelet(*problem, weight=WEIGHT, iterations=ITERATIONS),
            "SigPy": lambda: sigpy_l1_wavelet(*problem[:3]),
            "BART": lambda: bart_l1_wavelet(*problem, weight=WEIGHT, iterations=ITERATIONS),
        }
    )
    variation = race(
        {
            "ours": lambda: total_variation(*problem, weight=WEIGHT, iterations=ITERATIONS),
            "SigPy": lambda: sigpy_total_variation(*problem[:3]),
            "BART": lambda: bart_total_variation(*problem, weight=WEIGHT, iterations=ITERATIONS),
        }
    )
    best = total_variation(*problem, weight=WEIGHT, iterations=LONG, inner_iterations=20)
    found = []
    for name, times in (("L1-wavelet", wavelet), ("total variation", variation)):
        ours, image, applied = times["ours"]
        for rival in ("SigPy", "BART"):
            if rival not in times:
                note = "bart is not installed (Debian package bart)"
                found.append(Row(f"{name}, {what}", f"{rival}, processor time", wanted=1, note=note))
                continue
            theirs, other, _ = times[rival]
            note = f"A^H A applied {applied} times by ours"
            if name == "total variation":
                note += f"; off the optimum by {off(image, best):.1e} (ours), {off(other, best):.1e} ({rival})"
            found.append(Row(f"{name}, {what}", f"{rival}, processor time", ours, theirs, wanted=1, note=note))
    return found


Result = tuple[Spread, Tensor, int]
"""Processor times, the image, and how often our operator applied A^H A."""


def race(contestants: dict[str, Callable[[], Tensor]]) -> dict[str, Result]:
    """All interleaved; BART only if it is installed."""
    if shutil.which("bart") is None:
        contestants = {name: run for name, run in contestants.items() if name != "BART"}
    images, counts = {}, {}
    for name, solve in contestants.items():  # warm-up, and counting
        with counted() as count:
            images[name] = solve()
        counts[name] = count.applied
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(LEAST):
        for name, solve in contestants.items():
            started = processor_time()
            solve()
            times[name].append(processor_time() - started)
    return {name: (Spread.of(times[name]), images[name], counts[name]) for name in contestants}


class counted:
    """Counts applications of A^H A by our operator."""

    def __enter__(self) -> counted:
        self.applied, self._method = 0, Sense.apply_normal

        def apply(operator: Sense, x: Tensor) -> Tensor:
            self.applied += 1
            return self._method(operator, x)

        Sense.apply_normal = apply  # type: ignore[method-assign]
        return self

    def __exit__(self, *unused: object) -> None:
        Sense.apply_normal = self._method  # type: ignore[method-assign]


def processor_time() -> float:
    """Processor time of this process and of its finished children."""
    return sum(os.times()[:4])


def off(image: Tensor, best: Tensor) -> float:
    return float(torch.linalg.vector_norm(image - best) / torch.linalg.vector_norm(best))


def sigpy_l1_wavelet(kspace: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
    A = _operator(maps, mask)
    W = sigpy.linop.Wavelet(A.ishape, wave_name="db2")
    shrink = sigpy.prox.UnitaryTransform(sigpy.prox.L1Reg(W.oshape, WEIGHT), W)
    return _run(A, kspace, proxg=shrink, alpha=1.0, max_iter=ITERATIONS)


def sigpy_total_variation(kspace: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
    """SigPy's alternating direction method, 25 rounds of 4 steps; its default, primal-dual, is far from converged then.

    SigPy's penalty sums the magnitudes of both differences; here they share one norm, as in our implementation.
    """
    A = _operator(maps, mask)
    D = sigpy.linop.FiniteDifference(A.ishape)
    options = {"solver": "ADMM", "rho": WEIGHT / 0.05, "max_iter": ITERATIONS // 4, "max_cg_iter": 4}
    return _run(A, kspace, proxg=_Group(D.oshape, WEIGHT), G=D, **options)


class _Group(sigpy.prox.Prox):
    def __init__(self, shape: tuple[int, ...], weight: float) -> None:
        self.weight = weight
        super().__init__(shape)

    def _prox(self, alpha: float, pairs: np.ndarray) -> np.ndarray:
        size = np.sqrt((np.abs(pairs) ** 2).sum(0))
        return pairs * np.maximum(size - alpha * self.weight, 0) / np.maximum(size, 1e-30)


def _operator(maps: Tensor, mask: Tensor) -> sigpy.linop.Linop:
    weights = np.broadcast_to(mask.numpy().astype(np.float32), maps.shape)
    return sigpy.mri.linop.Sense(maps.numpy(), weights=weights)


def _run(A: sigpy.linop.Linop, kspace: Tensor, **options: object) -> Tensor:
    return torch.from_numpy(sigpy.app.LinearLeastSquares(A, kspace.numpy(), show_pbar=False, **options).run())
