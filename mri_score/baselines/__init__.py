"""Methods for comparison: classical methods, a supervised network, and other toolkits.

Each function reconstructs one slice. kspace is (C, H, W) complex with zeros where nothing was sampled, maps (C, H, W)
complex, mask (bool or real) broadcastable to kspace, each a tensor or an array; the image is a complex64 tensor (H, W).
Data are scaled: the 99th percentile of the image's magnitude is about 1.
"""

from mri_score.baselines.linear import cg_sense, supervised, zero_filled
from mri_score.baselines.plug_and_play import pnp_bm3d
from mri_score.baselines.table import BASELINES, DEFAULT_BASELINES, Baseline
from mri_score.baselines.variation import total_variation
from mri_score.baselines.wavelets import l1_wavelet
from mri_score.baselines.weights import Tuned, tune_weight, weight_by_rule

__all__ = [
    "BASELINES",
    "DEFAULT_BASELINES",
    "Baseline",
    "Tuned",
    "cg_sense",
    "l1_wavelet",
    "pnp_bm3d",
    "supervised",
    "total_variation",
    "tune_weight",
    "weight_by_rule",
    "zero_filled",
]
