"""Simulated undersampled scans of training images, for supervised training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Generator, Tensor

from mri_score.data.coils import coil_maps
from mri_score.data.masks import LINE_LAWS, default_calibration_lines, make_mask, true_acceleration
from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError, unknown_name
from mri_score.numerics.noise import noise_like
from mri_score.operators.sense import Sense
from mri_score.sources.augmentation import between, crop, log_between
from mri_score.sources.magnitude_images import ImageStacks


class UndersampledImages:
    """Training source: images of `ImageStacks` with a simulated scan: random coils, mask and noise, then CG-SENSE.

    CG-SENSE uses the true coil maps, or with `calibrated` ESPIRiT maps from the calibration lines of the mask, whose
    errors are then those of a reconstruction; the image is then the combination of the true coil images by these maps.
    With a mask of lines the rows are independent; if an image has more rows than the patch, only a band of rows is
    simulated, over the whole width. Images smaller than the patch are zero-padded after the simulation.
    Errors: InputError for invalid arguments.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],                    # files, or folders of them
        patch: tuple[int, int] | None = None,           # rows and columns of patches; None: whole images
        augment: bool = True,                           # False: magnitude with zero phase
        exclude: Mapping[str, Sequence[str]] | None = None,
        least_resolution: float = 0.45,                 # augment to least_resolution: as in ImageStacks
        accelerations: Sequence[float] = (4, 8),        # all equally often
        law: str | Sequence[str] = "variable-density",  # one, or several equally often
        coils: tuple[int, int] = (4, 16),               # range of the number of coils, log-uniform
        noise_std: tuple[float, float] = (0.005, 0.05),  # range, log-uniform, in scaled units
        calibrated: bool = False,                       # maps from calibration lines, in place of the true ones
    ) -> None:  # fmt: skip
        self.images = ImageStacks(paths, None, augment, exclude, least_resolution)
        self.patch, self.accelerations, self.calibrated = patch, tuple(accelerations), calibrated
        self.laws = (law,) if isinstance(law, str) else tuple(law)
        self.coils, self.noise_std = coils, noise_std
        for one in self.laws or ("",):
            if one not in LINE_LAWS:
                raise unknown_name("data.law", one, LINE_LAWS)
        if not self.accelerations:
            raise InputError("data.accelerations is empty; give at least one, e.g. [4, 8]")
        if not 1 <= coils[0] <= coils[1]:
            raise InputError(f"data.coils is {list(coils)}; give the fewest (at least 1) and the most, e.g. [4, 16]")
        if not 0 < noise_std[0] <= noise_std[1]:
            raise InputError(f"data.noise_std is {list(noise_std)}; give two positive levels, e.g. [0.005, 0.05]")

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, random: Generator) -> TrainingItem:
        """One random training item, determined by the generator: image, simulated scan and CG-SENSE estimate."""
        (image,) = self.images.sample(random).parts("image")
        shape = (image.shape[-2], image.shape[-1])
        rows = shape[0] if self.patch is None else min(self.patch[0], shape[0])
        first = int(torch.randint(shape[0] - rows + 1, (), generator=random))
        band = slice(first, first + rows)
        maps = random_maps(shape, round(log_between(*self.coils, random)), random, band)
        acceleration = self.accelerations[int(torch.randint(len(self.accelerations), (), generator=random))]
        seed = int(torch.randint(2**31, (), generator=random))
        law = self.laws[0]
        if len(self.laws) > 1:  # one law takes no random number, so that items are those of earlier versions
            law = self.laws[int(torch.randint(len(self.laws), (), generator=random))]
        # The maps need 10 lines; the default of fastMRI's laws is fewer for small images.
        lines = default_calibration_lines(shape[1], acceleration) if self.calibrated else None
        mask = make_mask(law, shape, acceleration, lines, seed)[None, None]
        item = scan(image[:, band], maps, mask, log_between(*self.noise_std, random), random, self.calibrated)
        if self.patch is None:
            return item
        both = crop(torch.cat(item.parts("image", "estimate")), random, self.patch)
        return TrainingItem(
            item.name, noise_std=item.noise_std, acceleration=item.acceleration, image=both[:1], estimate=both[1:]
        )


def scan(
    image: Tensor, maps: Tensor, mask: Tensor, noise_std: float, random: Generator, calibrated: bool = False
) -> TrainingItem:
    """A simulated scan y = mask (F(maps image) + noise_std n) of image (1, H, W) with maps (1, C, H, W).

    calibrated: the item has maps that are estimated from the calibration lines of y, and as its image the combination
    of the true coil images by these maps.
    """
    operator = Sense(maps, mask)
    kspace = operator(image)
    kspace = kspace + noise_std * mask * noise_like(kspace, [random])
    if calibrated:
        coils = maps * image[:, None]
        maps = coil_maps(kspace, mask)[0]
        image = (maps.conj() * coils).sum(1)
        operator = Sense(maps, mask)
    return TrainingItem(
        "image",
        image,
        kspace,
        maps,
        mask,
        noise_std=torch.tensor([noise_std]),
        acceleration=torch.tensor([true_acceleration(mask)]),
        estimate=operator.cg_sense(kspace),
    )


def random_maps(shape: tuple[int, int], coils: int, random: Generator, band: slice = slice(None)) -> Tensor:
    """Random smooth coil maps (1, C, H, W) of unit sum of squares, of coils around the image.

    Each map is (1 + d^2 / w^2)^(-3/2) e^(i phase) before normalisation, with the distance d to the centre of the coil
    and a linear phase. Coils are evenly spaced around the image, with jitter. Their distance from the middle and width
    w (in half fields of view) have a random common value and a random variation by coil. shape: (H, W). coils: their
    number. band: rows to return.
    """
    rows, cols = shape
    y = torch.linspace(-1, 1, rows)[band, None]
    x = torch.linspace(-1, 1, cols)[None]

    def vary(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(coils, generator=random))[:, None, None]

    turn = between(-math.pi, math.pi, random)
    angle = turn + 2 * math.pi * (torch.arange(coils)[:, None, None] + vary(-0.3, 0.3)) / coils
    distance = between(0.8, 1.4, random) * vary(0.85, 1.15)
    width = between(0.4, 1.0, random) * vary(0.8, 1.25)
    square = (y - distance * angle.sin()) ** 2 + (x - distance * angle.cos()) ** 2
    phase = vary(-math.pi, math.pi) + vary(-1.5, 1.5) * y + vary(-1.5, 1.5) * x
    profiles = torch.polar((1 + square / width**2) ** -1.5, phase)
    return (profiles / profiles.abs().square().sum(0).sqrt())[None]
