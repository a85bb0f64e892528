"""Losses: (model, batch, random, step) -> one number an item. They know no sampler and no posterior."""

from __future__ import annotations

from mri_score.losses.denoising import Denoising
from mri_score.losses.regression import Regression
from mri_score.losses.sure import Sure

LOSSES = {"denoising": Denoising, "regression": Regression, "sure": Sure}
