"""The keys of a config of another project, each of which is accounted for, and the steps that translations share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mri_score.errors import InputError

NO_CLIPPING = 1.0e9
"""A largest norm of the gradient that is never reached: these projects do not clip it."""


@dataclass
class Translation:
    """A config of this project made from another one.

    system: its project. config: sections and keys, as `config_file.read_config` gives them. became: (key, value,
    what it became) of each key that has a place; lost: (key, value, why it has none). commands: how to train, sample
    and reconstruct with it. notes: what to look at.
    """

    system: str
    config: dict[str, Any]
    became: list[tuple[str, Any, str]] = field(default_factory=list)
    lost: list[tuple[str, Any, str]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Keys:
    """The keys of a config, `section.key`, each of which is to be accounted for."""

    def __init__(self, sections: Mapping[str, Any]) -> None:
        self.values = dict(flat(sections))
        self.became: list[tuple[str, Any, str]] = []
        self.lost: list[tuple[str, Any, str]] = []

    def take(self, key: str, became: str = "", lost: str = "", default: Any = None) -> Any:
        """The value of a key, and a line on what became of it; the default where the config lacks it."""
        if key not in self.values:
            return default
        value = self.values[key]
        if key not in {one[0] for one in self.became + self.lost}:
            (self.lost if lost else self.became).append((key, value, lost or became))
        return value

    def left(self) -> set[str]:
        return set(self.values) - {one[0] for one in self.became + self.lost}


def flat(sections: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(section.key, value) of all nested sections, behind a prefix."""
    found: list[tuple[str, Any]] = []
    for key, value in sections.items():
        if isinstance(value, Mapping):
            found.extend(flat(value, f"{prefix}{key}."))
        else:
            found.append((f"{prefix}{key}", value))
    return found


def number(value: Any, key: str) -> float:
    """The value of a key as a number. Errors: InputError for anything else."""
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{key} is {value!r}; it must be a number") from error


class Translator:
    """One pass over a config. A subclass translates the configs of a project.

    keys: of the config. found: what is made of them. path: of the config. images: number of training images. data: file
    or folder of the training data. loader: module of the class that data.dataloader names.
    """

    def __init__(
        self, keys: Keys, found: Translation, path: Path, images: int | None, data: str | None, loader: str | None
    ) -> None:
        self.keys, self.found, self.path, self.images, self.given, self.loader = keys, found, path, images, data, loader
        self.config = found.config

    def sections(self, seed: int, network: dict, precondition: str, schedule: dict, loss: dict) -> None:
        given = {"seed": seed, "dataset": self.config.get("dataset"), "data": self.config.get("data")}
        given |= {"network": network, "prior": {"precondition": precondition}, "schedule": schedule, "loss": loss}
        self.config.clear()
        self.config.update(given)

    def training(self, prefix: str, ema: float, steps: int | None = None) -> None:
        take = self.keys.take
        optimiser = take(f"{prefix}optim.optimizer", "Adam is the optimiser", default="Adam")
        if optimiser != "Adam":
            self.found.notes.append(f"optim.optimizer is {optimiser}; training here uses Adam")
        for key, default in (("weight_decay", 0), ("amsgrad", False)):
            if take(f"{prefix}optim.{key}", lost=f"training has none, which is {default}", default=default):
                self.found.notes.append(f"optim.{key} is not {default}; training here has none")
        training: dict[str, Any] = {
            "steps": int(steps or take(f"{prefix}training.n_iters", "training.steps", default=200_000)),
            "batch_size": int(take(f"{prefix}training.batch_size", "training.batch_size", default=128)),
            "learning_rate": number(take(f"{prefix}optim.lr", "training.learning_rate", default=1e-4), "optim.lr"),
            "warmup": int(take(f"{prefix}optim.warmup", "training.warmup", default=0)),
            "decay": 0.0,
            "betas": [number(take(f"{prefix}optim.beta1", "training.betas", default=0.9), "optim.beta1"), 0.999],
            "epsilon": number(take(f"{prefix}optim.eps", "training.epsilon", default=1e-8), "optim.eps"),
            "clip": number(take(f"{prefix}optim.grad_clip", "training.clip", default=NO_CLIPPING), "grad_clip"),
            "ema_decay": number(ema, "ema_rate"),
            "workers": int(take(f"{prefix}data.num_workers", "training.workers", default=4)),
            "save_every": int(take(f"{prefix}training.snapshot_freq", "training.save_every", default=5000)),
        }
        if training["clip"] <= 0:
            training["clip"] = NO_CLIPPING
        take(f"{prefix}training.n_epochs", lost="training ends after n_iters steps, which come first")
        take(f"{prefix}training.snapshot_sampling", "samples at each checkpoint are always written: figures/")
        take(f"{prefix}training.log_all_sigmas", "the validation error of several levels is in log.jsonl")
        self.config["training"] = training
