"""One complete draw of the posterior with the default method and with annealed Langevin, with the same prior."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from harness import Row, interleave
from torch import Tensor

from mri_score.data.acquisition import Acquisition
from mri_score.data.masks import make_mask
from mri_score.data.scan import from_arrays
from mri_score.evaluation.metrics import magnitude_psnr
from mri_score.methods import DEFAULT_METHOD
from mri_score.models.base import ScoreModel
from mri_score.priors.store import load_prior
from mri_score.reconstruction import sample_posterior
from mri_score.simulation.phantom import phantom

NAME = "draw"
SIDE = {"quick": 128, "full": 256}
CALLS = {3465: 50, 1003: 10}
"""Network calls of Langevin as published (1155 levels, 3 a level) and of ours (334, and the last), and the goals."""
FEW = 100
"""Network calls from which `quick` extrapolates the time; its images are not meaningful."""


@dataclass(frozen=True)
class Problem:
    """A scan at R = 4 with its truth, and the prior."""

    scan: Acquisition
    truth: Tensor
    prior: ScoreModel

    def draw(self, method: str, steps: int | None = None) -> Tensor:
        return sample_posterior(
            self.scan, self.prior, method, steps=steps, samples=1, slices=[0], device="cpu"
        ).samples[0]

    def psnr(self, image: Tensor) -> float:
        """PSNR of the magnitude inside the foreground, dB."""
        return magnitude_psnr(self.truth, image)


def problem(side: int) -> Problem:
    head = phantom(side)
    mask = make_mask("variable-density", tuple(head.image.shape[-2:]))
    scan = from_arrays(head.kspace * mask, mask, head.maps, float(head.noise_std), "phantom")
    return Problem(scan, head.image, load_prior())


def run(sizes: str, threads: int) -> list[Row]:
    asked = problem(SIDE[sizes])
    asked.draw(DEFAULT_METHOD, 2)
    langevin = {calls: (FEW if sizes == "quick" else calls) // 3 for calls in CALLS}
    walks = {calls: partial(asked.draw, "langevin", levels) for calls, levels in langevin.items()}
    if sizes == "quick":
        walks = {FEW: walks[3465]}
    spreads, images = interleave(
        {"ours": lambda: asked.draw(DEFAULT_METHOD), **{str(n): w for n, w in walks.items()}}, 0, 1, 1
    )
    rows = []
    for calls, wanted in CALLS.items():
        done = str(calls) if sizes == "full" else str(FEW)
        theirs, quality = spreads[done], f"PSNR {asked.psnr(images['ours']):.2f} dB"
        if sizes == "full":
            quality += f" against {asked.psnr(images[done]):.2f} dB"
        else:
            share = calls / (3 * (FEW // 3) + 1)
            theirs = replace(theirs, median=theirs.median * share, low=theirs.low * share, high=theirs.high * share)
            quality += f"; theirs extrapolated from {FEW} calls, their PSNR not measured"
        against = f"annealed Langevin, {calls} calls"
        rows.append(
            Row(
                f"draw, {SIDE[sizes]} x {SIDE[sizes]}, {DEFAULT_METHOD}",
                against,
                spreads["ours"],
                theirs,
                wanted,
                note=quality,
            )
        )
    return rows
