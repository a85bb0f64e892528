"""The baselines by name, all called alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from mri_score.baselines.bart import bart_l1_wavelet, bart_total_variation
from mri_score.baselines.linear import cg_sense, zero_filled
from mri_score.baselines.plug_and_play import pnp_bm3d
from mri_score.baselines.variation import total_variation
from mri_score.baselines.wavelets import l1_wavelet

Key = tuple[int, str, int]
"""Seed, file name and slice: what random numbers depend on, and nothing else."""
Solve = Callable[..., Tensor]
"""From k-space, maps, mask, noise_std and, by name, the key (and a weight, where it is tunable) to an image (H, W)."""


class Baseline(NamedTuple):
    """What a baseline is called, how it is run, and whether it has a weight."""

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
    "pnp-bm3d": Baseline("plug-and-play BM3D", _fixed(pnp_bm3d)),
    "bart-l1-wavelet": Baseline("BART, L1-wavelet", _fixed(bart_l1_wavelet), tunable=True),
    "bart-tv": Baseline("BART, total variation", _fixed(bart_total_variation), tunable=True),
}
DEFAULT_BASELINES = ("zero-filled", "cg-sense", "l1-wavelet", "tv")
"""The others need a package or a program that does not come with this one, or minutes."""
