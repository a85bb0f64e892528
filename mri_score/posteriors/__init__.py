"""Posteriors: priors that have seen k-space, and so score models too. One idea a file."""

from __future__ import annotations

from mri_score.posteriors.adaptive_draw import AdaptiveDraw
from mri_score.posteriors.annealed import AnnealedLikelihood
from mri_score.posteriors.daps import DAPS
from mri_score.posteriors.dds import DDS
from mri_score.posteriors.diffpir import DiffPIR
from mri_score.posteriors.dps import DPS
from mri_score.posteriors.exact_draw import ExactDraw, Proximal
from mri_score.posteriors.matched_draw import MatchedDraw
from mri_score.posteriors.mmps import MMPS, MMPSDraw
from mri_score.posteriors.norm_matched import NormMatched
from mri_score.posteriors.one_step import OneStep
from mri_score.posteriors.pigdm import PiGDM
from mri_score.posteriors.projected import CoilProjected, Projected
from mri_score.posteriors.split_gibbs import SplitGibbs
from mri_score.posteriors.unannealed import Unannealed

Daps, Dds, DiffPir = DAPS, DDS, DiffPIR  # the former names

POSTERIORS = {
    "adaptive-draw": AdaptiveDraw,
    "annealed": AnnealedLikelihood,
    "coil-projected": CoilProjected,
    "daps": DAPS,
    "dds": DDS,
    "diffpir": DiffPIR,
    "dps": DPS,
    "exact-draw": ExactDraw,
    "matched-draw": MatchedDraw,
    "mmps": MMPS,
    "mmps-draw": MMPSDraw,
    "norm-matched": NormMatched,
    "one-step": OneStep,
    "pigdm": PiGDM,
    "projected": Projected,
    "proximal": Proximal,
    "split-gibbs": SplitGibbs,
    "unannealed": Unannealed,
}
