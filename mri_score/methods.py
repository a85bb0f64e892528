"""Tables of methods by name: posterior, sampler and noise levels. Imports no torch, for the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Method:
    """A posterior, its sampler, and the number and schedule of noise levels: by name, or as classes of your own."""

    posterior: str | Callable[..., Any] | None
    """A name of `POSTERIORS`, or a `Posterior` class; None for a walk over the bare prior."""
    sampler: str | Callable[..., Any]
    """A name of `SAMPLERS`, or a `Sampler` class."""
    schedule: str | Callable[..., Any]
    """A name of `WALK_SCHEDULES`, or a `Schedule` class made from sigma_min and sigma_max."""
    steps: int
    """Number of noise levels."""
    calls: int
    """Network calls per level, for information; 0 if a tolerance decides. `mri_score.work` counts them exactly."""
    draws: bool = True
    """Whether the results are draws of a posterior; else point estimates."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of posterior and sampler that differ from their defaults."""
    group: int = 1
    """Size of the groups of antithetic draws, whose noises sum to zero; 1 for independent draws."""


METHODS = {
    "matched-draw": Method("matched-draw", "renoise", "two-parts", 30, 1, group=4),
    # Draws of a posterior, one network call per level.
    "adaptive-draw": Method("adaptive-draw", "renoise", "karras", 50, 1),
    "exact-draw": Method("exact-draw", "renoise", "karras", 30, 1),
    # Draws of a trained generator, which is the prior.
    "one-step": Method("one-step", "renoise", "single", 1, 1),
    # Draws that use the Jacobian of the network.
    "mmps-draw": Method("mmps-draw", "renoise", "karras", 20, 1),
    "mmps": Method("mmps", "ancestral", "karras", 50, 1),
    "pigdm": Method("pigdm", "ancestral", "karras", 100, 1),
    "dps": Method("dps", "guided-ancestral", "geometric", 1000, 1),
    # Draws with many small steps.
    "langevin": Method("annealed", "langevin", "geometric", 334, 3),
    "langevin-norm-matched": Method("norm-matched", "langevin", "geometric", 334, 3),
    "pula": Method("unannealed", "preconditioned", "geometric", 100, 1),
    "daps": Method("daps", "renoise", "karras", 200, 5),
    "split-gibbs": Method("split-gibbs", "renoise", "geometric", 100, 10),
    "score-mri": Method("projected", "predictor-corrector", "geometric", 1000, 2),
    "score-mri-coils": Method("coil-projected", "predictor-corrector", "geometric", 1000, 2),
    # Point estimates: their spread does not measure uncertainty.
    "proximal": Method("proximal", "renoise", "karras", 30, 1, False),
    "dds": Method("dds", "ddim", "karras", 50, 1, False, {"zeta": 0.85**2}),
    "diffpir": Method("diffpir", "ddim", "karras", 100, 1, False),
    "red-diff": Method("unannealed", "red-diff", "vp", 1000, 1, False),
}
"""Methods of reconstruction."""
DEFAULT_METHOD = "matched-draw"
ONE_CHANNEL_USES = ("parts", "magnitude")
"""What a prior of one channel may be for complex images: the names of `models.one_channel.ONE_CHANNEL`."""

WALKS = {
    "ancestral": Method(None, "ancestral", "karras", 200, 1),
    "ddim": Method(None, "ddim", "karras", 50, 1),
    "ddpm": Method(None, "ancestral", "ddpm", 1000, 1, options={"variance": "beta"}),
    "euler": Method(None, "ddim", "karras", 36, 1, options={"zeta": 0.0}),
    "heun": Method(None, "heun", "karras", 25, 2),
    "heun-churn": Method(None, "heun", "karras", 50, 2, options={"churn": 20.0}),
    "langevin": Method(None, "langevin", "geometric", 334, 3),
    "plain-langevin": Method(
        None, "langevin", "single", 1, 1000,
        options={"repeats": 1000, "step_size": 0.2, "denoise": False, "start_std": 0.29},
    ),  # fmt: skip
    "predictor-corrector": Method(None, "predictor-corrector", "geometric", 500, 2),
    "rk45": Method(None, "rk45", "karras", 4, 0),
}
"""Samplers of a prior, without data. `plain-langevin` is the baseline of NCSN: one level, the smallest."""
DEFAULT_WALK = "heun-churn"
"""Noise added at each level corrects errors of earlier coarse steps and of the network."""
DEFAULT_FLOW = "heun"
"""Default for interpolation, which needs a deterministic sampler."""

INPAINTING = {
    "adaptive-draw": Method("adaptive-draw", "renoise", "karras", 50, 1),
    "exact-draw": Method("exact-draw", "renoise", "karras", 50, 1),
    "langevin": Method("annealed", "langevin", "geometric", 334, 3),
    "mmps": Method("mmps", "ancestral", "karras", 50, 1),
    "mmps-draw": Method("mmps-draw", "renoise", "karras", 20, 1),
    "pigdm": Method("pigdm", "ancestral", "karras", 100, 1),
}
"""Methods of inpainting. They start at the noise level of unconditional sampling, because known pixels, unlike
k-space, determine little about the mean of the others.
"""
DEFAULT_INPAINTING = "mmps-draw"
