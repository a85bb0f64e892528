"""Posteriors: priors that have seen k-space, and so score models too. One idea a file."""

from __future__ import annotations

from mri_score.posteriors.adaptive_draw import AdaptiveDraw
from mri_score.posteriors.annealed import AnnealedLikelihood
from mri_score.posteriors.exact_draw import ExactDraw, Proximal
from mri_score.posteriors.norm_matched import NormMatched

POSTERIORS = {
    "adaptive-draw": AdaptiveDraw,
    "annealed": AnnealedLikelihood,
    "exact-draw": ExactDraw,
    "norm-matched": NormMatched,
    "proximal": Proximal,
}
