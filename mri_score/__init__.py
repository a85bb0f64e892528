"""mri_score: score-based MRI reconstruction, from k-space to an image with its uncertainty."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mri_score import _moved

if TYPE_CHECKING:
    from mri_score.data.acquisition import Acquisition as Acquisition
    from mri_score.data.masks import undersample as undersample
    from mri_score.data.training_item import TrainingItem as TrainingItem
    from mri_score.errors import InputError as InputError
    from mri_score.generation import inpaint as inpaint
    from mri_score.generation import sample_prior as sample_prior
    from mri_score.methods import Method as Method
    from mri_score.models.base import ScoreModel as ScoreModel
    from mri_score.models.denoiser import as_prior as as_prior
    from mri_score.models.network import NetworkPrior as NetworkPrior
    from mri_score.models.preconditioning import EpsilonPrecondition as EpsilonPrecondition
    from mri_score.noise.schedules import Karras as Karras
    from mri_score.numerics.noise import generators as generators
    from mri_score.numerics.noise import noise_like as noise_like
    from mri_score.operators.base import LinearOperator as LinearOperator
    from mri_score.operators.sense import Sense as Sense
    from mri_score.posteriors.base import Posterior as Posterior
    from mri_score.posteriors.exact_draw import ExactDraw as ExactDraw
    from mri_score.priors.store import load_prior as load_prior
    from mri_score.readers import open_scan as open_scan
    from mri_score.readers.base import Reader as Reader
    from mri_score.readers.fastmri import FastMRI as FastMRI
    from mri_score.reconstruction import Reconstruction as Reconstruction
    from mri_score.reconstruction import reconstruct as reconstruct
    from mri_score.reconstruction import sample_posterior as sample_posterior
    from mri_score.samplers.base import Sampler as Sampler
    from mri_score.samplers.base import WalkResult as WalkResult
    from mri_score.samplers.renoise import Renoise as Renoise
    from mri_score.simulation.phantom import phantom as phantom

__version__ = "0.1.0"  # the only place: setup.cfg reads it here, without importing the package

_moved.install()

# Names are resolved on first use, so that `mri-score --help` loads neither torch nor sigpy.
_HOMES = {
    "Acquisition": "mri_score.data.acquisition",
    "EpsilonPrecondition": "mri_score.models.preconditioning",
    "ExactDraw": "mri_score.posteriors.exact_draw",
    "FastMRI": "mri_score.readers.fastmri",
    "InputError": "mri_score.errors",
    "Karras": "mri_score.noise.schedules",
    "LinearOperator": "mri_score.operators.base",
    "Method": "mri_score.methods",
    "NetworkPrior": "mri_score.models.network",
    "Posterior": "mri_score.posteriors.base",
    "Reader": "mri_score.readers.base",
    "Reconstruction": "mri_score.reconstruction",
    "Renoise": "mri_score.samplers.renoise",
    "Sampler": "mri_score.samplers.base",
    "ScoreModel": "mri_score.models.base",
    "Sense": "mri_score.operators.sense",
    "TrainingItem": "mri_score.data.training_item",
    "WalkResult": "mri_score.samplers.base",
    "as_prior": "mri_score.models.denoiser",
    "generators": "mri_score.numerics.noise",
    "inpaint": "mri_score.generation",
    "load_prior": "mri_score.priors.store",
    "noise_like": "mri_score.numerics.noise",
    "open_scan": "mri_score.readers",
    "phantom": "mri_score.simulation.phantom",
    "reconstruct": "mri_score.reconstruction",
    "sample_posterior": "mri_score.reconstruction",
    "sample_prior": "mri_score.generation",
    "undersample": "mri_score.data.masks",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"mri_score has no {name!r}; it has {', '.join(sorted(_HOMES))}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
