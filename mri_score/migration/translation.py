"""Configs of other projects in the words of this one, with what became of each key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mri_score.errors import InputError
from mri_score.migration.keys import Keys, Translation, Translator
from mri_score.migration.ncsn_family import NCSNFamily
from mri_score.migration.published_configs import PublishedConfig
from mri_score.migration.score_diffusion import ScoreDiffusion
from mri_score.migration.score_sde import REWRITE, UPSTREAM, ScoreSDE

TRANSLATIONS: dict[str, tuple[type[Translator], Callable[[Any], None]]] = {
    "score-diffusion-training": (ScoreDiffusion, ScoreDiffusion.score_diffusion),
    "ncsnv2": (NCSNFamily, NCSNFamily.ncsnv2),
    "ncsn": (NCSNFamily, NCSNFamily.ncsn),
    "csgm-mri-langevin": (NCSNFamily, NCSNFamily.csgm),
    "score-sde": (ScoreSDE, ScoreSDE.score_sde),
}
"""What translates the configs of each project."""


def is_foreign(sections: Mapping[str, Any], path: Path) -> bool:
    """Whether the sections of a config at `path` are those of another project, and not of this one."""
    return path.suffix in (".py", ".json") or _system(sections) is not None


def _system(sections: Mapping[str, Any]) -> str | None:
    """The project that a config is of, by its sections and keys."""
    if "langevin_config" in sections:
        return "csgm-mri-langevin"
    parts = {name: value for name, value in sections.items() if isinstance(value, Mapping)}
    model, data, training = (parts.get(name, {}) for name in ("model", "data", "training"))
    if "nf" in model or "ch_mult" in model or "sde_type" in model or "sde" in training:
        return "score-sde"
    if "dataloader" in data or "depth" in model:
        return "score-diffusion-training"
    if "algo" in training:
        return "ncsn"
    if "sigma_begin" in model:
        return "ncsnv2"
    return None


def translate(
    published: PublishedConfig, images: int | None = None, data: str | None = None, loader: str | None = None
) -> Translation:
    """The config of this project that trains what `published` describes, and what became of every key.

    images: number of training images, for configs that count epochs. data: file or folder of the training data.
    loader: module of the class that data.dataloader names. Errors: InputError for a config of an unknown project.
    """
    system = _system(published.sections)
    if system is None:
        raise InputError(
            f"{published.path} is no config of {', '.join(TRANSLATIONS)}: it has {', '.join(published.sections)}"
        )
    sections = published.sections
    if (
        system == "score-sde"
        and "color_channels" not in sections.get("data", {})
        and "num_channels" not in sections.get("data", {})
    ):
        published.notes.append("keys of its base config that it does not set have the documented values")
        sections = _merged(UPSTREAM if "sde" in sections.get("training", {}) else REWRITE, sections)
    keys = Keys(sections)
    found = Translation(system, {}, notes=list(published.notes))
    try:
        kind, translation = TRANSLATIONS[system]
        translation(kind(keys, found, published.path, images, data, loader))
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:  # values of another kind than documented
        raise InputError(f"{published.path} has a value that {system} does not document: {error}") from error
    found.became, found.lost = keys.became, keys.lost
    for key in sorted(keys.left()):
        found.lost.append((key, keys.values[key], "no key of the documented config"))
    return found


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in changes.items():
        old = found.get(key)
        found[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return found
