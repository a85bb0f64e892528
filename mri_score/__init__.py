"""mri_score: score-based MRI reconstruction, from k-space to an image with its uncertainty."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mri_score import _moved

__version__ = "0.1.0"  # the only place: setup.cfg reads it here, without importing the package

_moved.install()

# Names are resolved on first use, so that `mri-score --help` loads neither torch nor sigpy.
_HOMES = {
    "Acquisition": "mri_score.data.acquisition",
    "FastMRI": "mri_score.readers.fastmri",
    "InputError": "mri_score.errors",
    "load_prior": "mri_score.priors.store",
    "open_scan": "mri_score.readers",
    "phantom": "mri_score.simulation.phantom",
    "reconstruct": "mri_score.reconstruction",
    "undersample": "mri_score.data.masks",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"mri_score has no {name!r}; it has {', '.join(sorted(_HOMES))}")
