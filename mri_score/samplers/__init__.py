"""Samplers: walks of any score model from noise to an image. They depend on neither MRI nor networks."""

from __future__ import annotations

from mri_score.samplers.ancestral import Ancestral, GuidedAncestral
from mri_score.samplers.ddim import DDIM
from mri_score.samplers.langevin import Langevin
from mri_score.samplers.preconditioned import Preconditioned
from mri_score.samplers.predictor_corrector import PredictorCorrector
from mri_score.samplers.probability_flow import Heun, RungeKutta45
from mri_score.samplers.red_diff import RedDiff
from mri_score.samplers.renoise import Renoise

Ddim = DDIM  # the former name

SAMPLERS = {
    "ancestral": Ancestral,
    "ddim": DDIM,
    "guided-ancestral": GuidedAncestral,
    "heun": Heun,
    "langevin": Langevin,
    "preconditioned": Preconditioned,
    "predictor-corrector": PredictorCorrector,
    "red-diff": RedDiff,
    "renoise": Renoise,
    "rk45": RungeKutta45,
}
