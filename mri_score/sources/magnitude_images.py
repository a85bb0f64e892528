"""Stacks of magnitude images as training data: HDF5 (`image`: slice, row, column) and NIfTI."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from mri_score.data.scale import percentile
from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError, unknown_name
from mri_score.readers.image_stack import finite_slices, read_stack
from mri_score.sources import acquisition_effects, augmentation

SUFFIXES = (".h5", ".hdf5", ".nii", ".nii.gz")
AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {
    one.__name__: one
    for one in (
        augmentation.tone,
        augmentation.warp,
        augmentation.shade,
        augmentation.smooth_phase,
        augmentation.susceptibility,
        augmentation.fat_shift,
        augmentation.coarsen,
        acquisition_effects.decimate,
        *acquisition_effects.EFFECTS,
        augmentation.flip_and_turn,
        augmentation.rescale,
    )
}
"""Steps from a magnitude to a complex image of a scan, in this order; a patch is cut out before the last step."""
EFFECT_NAMES = frozenset(effect.__name__ for effect in acquisition_effects.EFFECTS)
LEAST_BRIGHT = 0.05
"""The least 99th percentile that gives an image its scale, as a part of its maximum."""


class ImageStacks:
    """Slices of several files, drawn contrast by contrast, turned into complex images or patches of them.

    `exclude` leaves slices out by their labels, e.g. {"patient": ["patient19"]}.
    A file's `contrast` labels make the groups that are drawn equally often; a file without them is one group.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],              # files, or folders of them
        patch: int | None = None,                 # side of the square that is cut out; None: the whole image
        augment: bool = True,                     # False: magnitude with zero phase, nothing random but the choice
        exclude: Mapping[str, Sequence[str]] | None = None,
        least_resolution: float = 0.45,           # of the file's own; see augmentation.coarsen
        phase_strength: float = 1.0,              # times the smooth phase and its ramp
        phase_steps: float = 0.4,                 # share of images that have a region of another phase
        without: Sequence[str] = (),              # augmentations to leave out, by their names in AUGMENTATIONS
        matrix: tuple[int, int] | None = None,    # smallest and largest matrix: `decimate` in place of `coarsen`
        acquisition: bool = False,                # True: also what a scanner adds, with receiver noise
        plain_share: float = 0.0,                 # share of the images that a scanner adds nothing to
        noise: tuple[float, float] | None = None, # smallest and largest receiver noise; see receiver_noise
    ) -> None:  # fmt: skip
        for name in without:
            if name not in AUGMENTATIONS:
                raise unknown_name("data.without", name, AUGMENTATIONS)
        if phase_strength < 0 or not 0 <= phase_steps <= 1:
            raise InputError(
                f"data.phase_strength is {phase_strength} and data.phase_steps {phase_steps}; the first is a factor,"
                " 0 or more, the second a share, 0 to 1"
            )
        if matrix is not None and not 8 <= matrix[0] <= matrix[1]:
            raise InputError(f"data.matrix is {list(matrix)}; give the smallest and the largest side, e.g. [96, 288]")
        if not 0 <= plain_share <= 1:
            raise InputError(f"data.plain_share is {plain_share}; give a share, 0 to 1")
        if noise is not None and not 0 < noise[0] <= noise[1]:
            raise InputError(f"data.noise is {list(noise)}; give the smallest and the largest std, e.g. [0.002, 0.012]")
        self.patch, self.augment, self.plain_share = patch, augment, plain_share
        self.settings: dict[str, dict[str, Any]] = {
            "coarsen": {"least": least_resolution},
            "smooth_phase": {
                "strength": augmentation.PHASE * phase_strength,
                "slope": augmentation.RAMP * phase_strength,
                "steps": phase_steps,
            },
        }
        if noise is not None:
            self.settings["receiver_noise"] = {"low": noise[0], "high": noise[1]}
        unused = {*without, "decimate" if matrix is None else "coarsen"}
        if matrix is not None:
            self.settings["decimate"] = {"smallest": matrix[0], "largest": matrix[1]}
        if not acquisition:
            unused |= EFFECT_NAMES
        self.kept = [name for name in AUGMENTATIONS if name not in unused]
        self.any_orientation = augment and "flip_and_turn" in self.kept
        self.images: list[np.ndarray] = []
        self.notes: list[str] = []
        self.groups: dict[str, list[tuple[int, int]]] = {}
        unseen = {label: set(values) for label, values in (exclude or {}).items()}
        for path in (file for given in paths for file in _files(Path(given))):
            stack, labels = read_stack(path)
            keep = finite_slices(stack)
            self.notes += [
                f"left out: {path}: image {index} has NaN or infinity" for index in np.flatnonzero(~keep)
            ]
            keep &= np.array([not _nearly_empty(image) for image in stack])
            for label, values in (exclude or {}).items():
                found = labels.get(label, np.full(len(stack), ""))
                keep &= ~np.isin(found, list(values))
                unseen[label] -= set(found.tolist())
            names = labels.get("contrast", np.full(len(stack), path.stem))
            for index in np.flatnonzero(keep):
                self.groups.setdefault(str(names[index]), []).append((len(self.images), int(index)))
            self.images.append(stack)
        for label, absent in unseen.items():
            if absent:
                raise InputError(f"exclude: no slice has the {label} {', '.join(sorted(map(str, absent)))}")
        if not self.groups:
            raise InputError(f"{', '.join(map(str, paths))} hold no image that is not excluded or empty")

    def __len__(self) -> int:
        return sum(map(len, self.groups.values()))

    def image(self, number: int) -> Tensor:
        """Slice `number` of all that are kept, complex with zero phase, its 99th percentile at 1: (H, W)."""
        places = [place for group in self.groups.values() for place in group]
        return self._magnitude(places[number]).to(torch.complex64)

    def spread(self, count: int, first: float, last: float) -> list[int]:
        """The numbers of `count` slices, groups by turns, evenly spaced from the part `first` of a group to `last`."""
        sizes = [len(group) for group in self.groups.values()]
        starts = np.cumsum([0, *sizes])
        turns = [number % len(sizes) for number in range(count)]
        places = np.linspace(first, last, count)
        return [int(starts[turn]) + round(place * (sizes[turn] - 1)) for turn, place in zip(turns, places, strict=True)]

    def sample(self, random: Generator) -> TrainingItem:
        """One training item, keyed by its generator alone: image (1, H, W)."""
        names = sorted(self.groups)
        group = self.groups[names[int(torch.randint(len(names), (), generator=random))]]
        image = self._magnitude(group[int(torch.randint(len(group), (), generator=random))])
        if self.augment:
            image = self._augmented(image, random)
        image = image.to(torch.complex64)
        if self.patch is not None:
            image = augmentation.crop(image, random, (self.patch, self.patch))
        if self.augment and "rescale" in self.kept:
            image = augmentation.rescale(image, random)
        return TrainingItem(name="image", image=image[None])

    def _augmented(self, image: Tensor, random: Generator) -> Tensor:
        """All but the scale, which comes after the crop; some phase comes in any case, as no image has a right one."""
        plain = self.plain_share > 0 and acquisition_effects.happens(self.plain_share, random)
        for name in self.kept:
            if name != "rescale" and not (plain and name in EFFECT_NAMES):
                image = AUGMENTATIONS[name](image, random, **self.settings.get(name, {}))
        if "smooth_phase" not in self.kept:
            image = augmentation.global_phase(image, random)
        return image / percentile(image)

    def _magnitude(self, place: tuple[int, int]) -> Tensor:
        file, index = place
        image = torch.from_numpy(self.images[file][index].astype(np.float32))
        return image / percentile(image)


def _nearly_empty(image: np.ndarray) -> bool:
    """Whether hardly a hundredth of the pixels hold the object: such a slice has no scale."""
    magnitude = torch.from_numpy(image.astype(np.float32))
    return not bool(percentile(magnitude) > LEAST_BRIGHT * magnitude.max())


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise InputError(f"{path} does not exist; data.paths names image stacks (.h5 or NIfTI) or folders of them")
        return [path]
    files = sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES))
    if not files:
        raise InputError(f"{path} holds no image stack ({', '.join(SUFFIXES)})")
    return files
