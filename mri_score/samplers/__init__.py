"""Samplers: walks of any score model from noise to an image. They know neither MRI nor networks."""

from __future__ import annotations

from mri_score.samplers.langevin import Langevin
from mri_score.samplers.renoise import Renoise

SAMPLERS = {"langevin": Langevin, "renoise": Renoise}
