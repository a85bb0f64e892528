"""Losses: (model, batch, random, step) -> one number per item. They depend on no sampler and no posterior."""

from __future__ import annotations

from mri_score.losses.ambient import Ambient
from mri_score.losses.denoising import Denoising
from mri_score.losses.energy import EnergyScore
from mri_score.losses.gsure import Gsure
from mri_score.losses.noisy_score import NoisyScore
from mri_score.losses.regression import Regression
from mri_score.losses.sliced import Sliced
from mri_score.losses.splitting import Splitting
from mri_score.losses.sure import Sure
from mri_score.losses.sure_score import SureScore

LOSSES = {
    "ambient": Ambient,
    "denoising": Denoising,
    "energy": EnergyScore,
    "gsure": Gsure,
    "noisy_score": NoisyScore,
    "regression": Regression,
    "sliced": Sliced,
    "splitting": Splitting,
    "sure": Sure,
    "sure_score": SureScore,
}
