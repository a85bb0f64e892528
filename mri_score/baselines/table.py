"""The baselines by name, with one signature for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from mri_score.baselines.bart import bart_l1_wavelet, bart_total_variation
from mri_score.baselines.linear import cg_sense, zero_filled
from mri_score.baselines.partial_fourier import pocs
from mri_score.baselines.plug_and_play import pnp_bm3d
from mri_score.baselines.variation import total_variation
from mri_score.baselines.wavelets import l1_wavelet

Key = tuple[int, str, int]
"""Seed, file name and slice; random numbers depend on nothing else."""
Solve = Callable[..., Tensor]
"""A function of k-space, maps, mask, noise_std and, as keywords, key (and weight, if tunable) that returns (H, W)."""


class Baseline(NamedTuple):
    """The title of a baseline, its function, and whether it has a weight that can be tuned."""

    title: str
    solve: Solve
    tunable: bool = False


def _plain(method: Solve) -> Solve:
    """A method without noise level and random numbers."""
    return lambda kspace, maps, mask, noise_std, *, key: method(kspace, maps, mask)


def _fixed(method: Solve) -> Solve:
    """A method without random numbers."""
    return lambda kspace, maps, mask, noise_std, *, key, **options: method(kspace, maps, mask, noise_std, **options)


BASELINES: dict[str, Baseline] = {
    "zero-filled": Baseline("zero-filled", _plain(zero_filled)),
    "cg-sense": Baseline("CG-SENSE", _plain(cg_sense)),
    "l1-wavelet": Baseline("L1-wavelet", l1_wavelet, tunable=True),
    "tv": Baseline("total variation", _fixed(total_variation), tunable=True),
    "pocs": Baseline("POCS", _plain(pocs)),
    "pnp-bm3d": Baseline("plug-and-play BM3D", _fixed(pnp_bm3d)),
    "bart-l1-wavelet": Baseline("BART, L1-wavelet", _fixed(bart_l1_wavelet), tunable=True),
    "bart-tv": Baseline("BART, total variation", _fixed(bart_total_variation), tunable=True),
}
DEFAULT_BASELINES = ("zero-filled", "cg-sense", "l1-wavelet", "tv")
"""The other baselines need another package or program, or take minutes."""
