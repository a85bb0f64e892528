"""Methods by name: what walks what, and down which noise levels. Without torch: the command line reads it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Method:
    """A posterior, the sampler that walks it, and how many levels of which schedule; all by name."""

    posterior: str | None
    """Of `POSTERIORS`; None for a walk over the bare prior."""
    sampler: str
    """Of `SAMPLERS`."""
    schedule: str
    """Of `WALK_SCHEDULES`."""
    steps: int
    """Noise levels."""
    calls: int
    """Network calls a level; 0 where a tolerance decides."""
    draws: bool = True
    """Whether its results are draws of a posterior, or point estimates."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What its posterior and sampler take, where not their defaults."""


METHODS = {
    # Draws of a posterior, one network call a level.
    "adaptive-draw": Method("adaptive-draw", "renoise", "karras", 50, 1),
    "exact-draw": Method("exact-draw", "renoise", "karras", 30, 1),
    # Draws through the Jacobian of the network.
    "mmps-draw": Method("mmps-draw", "renoise", "karras", 20, 1),
    "mmps": Method("mmps", "ancestral", "karras", 50, 1),
    "pigdm": Method("pigdm", "ancestral", "karras", 100, 1),
    "dps": Method("dps", "guided-ancestral", "geometric", 1000, 1),
    # Draws by many small steps.
    "langevin": Method("annealed", "langevin", "geometric", 334, 3),
    "langevin-norm-matched": Method("norm-matched", "langevin", "geometric", 334, 3),
    "pula": Method("unannealed", "preconditioned", "geometric", 100, 1),
    "daps": Method("daps", "renoise", "karras", 200, 5),
    "split-gibbs": Method("split-gibbs", "renoise", "geometric", 100, 10),
    "score-mri": Method("projected", "predictor-corrector", "geometric", 1000, 2),
    "score-mri-coils": Method("coil-projected", "predictor-corrector", "geometric", 1000, 2),
    # Point estimates: their spread says nothing.
    "proximal": Method("proximal", "renoise", "karras", 30, 1, False),
    "dds": Method("dds", "ddim", "karras", 50, 1, False, {"zeta": 0.85**2}),
    "diffpir": Method("diffpir", "ddim", "karras", 100, 1, False),
    "red-diff": Method("unannealed", "red-diff", "vp", 1000, 1, False),
}
"""Of reconstruction."""
DEFAULT_METHOD = "adaptive-draw"

WALKS = {
    "ancestral": Method(None, "ancestral", "karras", 200, 1),
    "ddim": Method(None, "ddim", "karras", 50, 1),
    "euler": Method(None, "ddim", "karras", 36, 1, options={"zeta": 0.0}),
    "heun": Method(None, "heun", "karras", 25, 2),
    "heun-churn": Method(None, "heun", "karras", 50, 2, options={"churn": 20.0}),
    "langevin": Method(None, "langevin", "geometric", 334, 3),
    "predictor-corrector": Method(None, "predictor-corrector", "geometric", 500, 2),
    "rk45": Method(None, "rk45", "karras", 4, 0),
}
"""Of generation, over the bare prior."""
DEFAULT_WALK = "heun-churn"
"""New noise along the way mends what a coarse step, or a network that errs, has done above it."""
DEFAULT_FLOW = "heun"
"""Of interpolations, whose walks may draw no more noise."""

INPAINTING = {
    "adaptive-draw": Method("adaptive-draw", "renoise", "karras", 50, 1),
    "exact-draw": Method("exact-draw", "renoise", "karras", 50, 1),
    "langevin": Method("annealed", "langevin", "geometric", 334, 3),
    "mmps": Method("mmps", "ancestral", "karras", 50, 1),
    "mmps-draw": Method("mmps-draw", "renoise", "karras", 20, 1),
    "pigdm": Method("pigdm", "ancestral", "karras", 100, 1),
}
"""They start where the bare prior's walks do: unlike k-space, known pixels say little of the others' mean."""
DEFAULT_INPAINTING = "mmps-draw"
