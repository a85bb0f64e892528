"""A dataset class of the user's as a source of training items."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError

_allowed: ContextVar[bool] = ContextVar("_allowed", default=False)


@contextmanager
def code_allowed() -> Iterator[None]:
    """Within the block a config may name a class of the user's, whose module is then imported and run."""
    token = _allowed.set(True)
    try:
        yield
    finally:
        _allowed.reset(token)


class Settings(dict):
    """A dict whose keys are attributes too; a key that is not there is an empty one, as in DotMap."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = self.get(name, {})
        return Settings(found) if isinstance(found, Mapping) else found

    def __reduce__(self) -> tuple[Any, ...]:
        return Settings, (dict(self),)


def own_class(name: str) -> Callable[..., Any]:
    """The class that `package.module:Class` names; the module may lie in the current folder.

    Errors: InputError where code is not allowed, see `code_allowed`, and for a module or class that is not there.
    """
    module, _, attribute = name.partition(":")
    if not _allowed.get():
        raise InputError(
            f"data.name is {name!r}, a class outside mri_score, whose code would run; if you trust the config and the"
            " module, give --allow-code"
        )
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise InputError(f"data.name is {name!r}: {error}; give an installed module or one in {here}") from error
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise InputError(f"data.name is {name!r}: the module {module} has no class {attribute}")
    return found


class OwnImages:
    """Training items from a dataset with `__len__` and `__getitem__`, as torch has them, all equally often.

    A sample is an image, or a dict of which `key` names the image: complex (H, W), or real with channels first, (2, H,
    W) being the real and imaginary part, (1, H, W) and (3, H, W) grey and RGB; NumPy arrays too. The images are used as
    they are: scale and augment them in the dataset, in units in which noise levels are meant.
    noise_std: of each real component of the images, for losses that use their noise; by default the sample's `sigma_w`
    if it has one.
    Errors: InputError for an empty dataset, and for samples that are no images.
    """

    def __init__(self, dataset: Any, key: str | None = None, noise_std: float | None = None, name: str = "own") -> None:
        if noise_std is not None and not noise_std > 0:
            raise InputError(f"data.noise_std is {noise_std}; it must be positive")
        self.dataset, self.key, self.noise_std, self.name = dataset, key, noise_std, name
        if not len(dataset):
            raise InputError(f"{name} has no images")

    def __len__(self) -> int:
        return len(self.dataset)

    def sample(self, random: Generator) -> TrainingItem:
        """One training item, determined by the generator if the dataset has nothing random of its own.

        Its image is (1, H, W), or (1, 3, H, W) in RGB. Errors: InputError for a sample that is no image.
        """
        number = int(torch.randint(len(self.dataset), (), generator=random))
        found = self.dataset[number]
        if isinstance(found, Mapping) and self.key is None:
            raise InputError(f"{self.name} gives samples with {', '.join(map(str, found))}: name the image by data.key")
        if isinstance(found, Mapping) and self.key not in found:
            raise InputError(
                f"{self.name}, sample {number} has {', '.join(map(str, found))}, but no {self.key} (data.key)"
            )
        level = self.noise_std
        if level is None and isinstance(found, Mapping) and "sigma_w" in found:
            level = float(np.asarray(found["sigma_w"]).reshape(-1)[0])
        value = found[self.key] if isinstance(found, Mapping) else found
        image = _image(value, f"{self.name}, sample {number}")
        return TrainingItem(
            name=f"{self.name}:{number}", image=image, noise_std=None if level is None else torch.tensor([level])
        )


def _image(value: Any, place: str) -> Tensor:
    """An image as training has it: (1, H, W) complex or real, or (1, 3, H, W)."""
    try:
        found = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{place} is {type(value).__name__}, which is no image") from error
    found = found.to(torch.complex64 if found.is_complex() else torch.float32)
    if not bool(torch.isfinite(found.abs()).all()):
        raise InputError(f"{place} has values that are not finite")
    if found.ndim == 3 and not found.is_complex() and found.shape[0] == 2:
        return torch.complex(found[0], found[1])[None]
    if found.ndim == 2 or (found.ndim == 3 and found.shape[0] == 1):
        return found.reshape(1, *found.shape[-2:])
    if found.ndim == 3 and found.shape[0] == 3 and not found.is_complex():
        return found[None]
    raise InputError(
        f"{place} has shape {tuple(found.shape)}; give (H, W) complex, or (channels, H, W) real with 1, 2 or 3 channels"
    )


def own_source(values: Mapping[str, Any]) -> Any:
    """The source of a section whose name is `package.module:Class`.

    values: the section. `config`, if there, is the class's only argument, with its keys as attributes, as the loaders
    of score-diffusion-training take it; otherwise all keys but key and noise_std are its keyword arguments. A class
    with a method `sample` is a source itself; any other is a dataset, see `OwnImages`.
    Errors: InputError for a class that fails, and as in `own_class` and `OwnImages`.
    """
    arguments = dict(values)
    name = arguments.pop("name")
    make = own_class(name)
    wrapped = {key: arguments.pop(key) for key in ("key", "noise_std") if key in arguments}
    try:
        made = make(Settings(arguments["config"])) if "config" in arguments else make(**arguments)
    except InputError:
        raise
    except Exception as error:  # code of the user's may fail in any way
        raise InputError(f"{name} cannot be made of {arguments}: {type(error).__name__}: {error}") from error
    return made if hasattr(made, "sample") else OwnImages(made, name=name, **wrapped)
