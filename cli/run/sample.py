"""The work of mri-score sample."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mri_score import generation
from mri_score.data.pixel_values import PixelValues, pixel_values, white_of
from mri_score.errors import InputError, unknown_name
from mri_score.evaluation.contact_sheet import colour_sheet, magnitude_sheet, phase_sheet
from mri_score.evaluation.panel import display_window, panel, picture, save_png
from mri_score.experiment import bind
from mri_score.files import make_folder
from mri_score.generation import GenerationOptions
from mri_score.methods import DEFAULT_FLOW, DEFAULT_INPAINTING, DEFAULT_WALK, INPAINTING, WALKS, Method
from mri_score.models.base import ScoreModel
from mri_score.models.precision import find_precision
from mri_score.priors.store import find_prior, image_channels, load_prior, read_record
from mri_score.progress import progress
from mri_score.readers.arrays import open_npy
from mri_score.readers.hdf5 import write_arrays
from mri_score.readers.pixels import PixelStack
from mri_score.reconstruction import GIVEN, classes_of, option_names
from mri_score.work import sample_work

from ..log import say
from ..options import base_line, chosen, take_precision

SHOWN = 4
"""Number of inpainted samples in the picture."""


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """The options of the command, named and typed as by click."""

    prior: str
    base: str | None
    border: float | None
    number: int
    size: str | None
    method: str | None
    steps: int | None
    changes: tuple[str, ...]
    mean: float | None
    image: Path | None
    keep: Path | None
    number_of_slice: int
    coarse: Path | None
    factor: int
    grey: Path | None
    noise_std: float | None
    pictures: bool
    interpolate: int | None
    precision: str
    seed: int
    batch_size: int
    device: str
    threads: int | None
    out: Path


@dataclass(frozen=True)
class Kind:
    """What a prior's record says about its images."""

    about: Mapping[str, Any]
    channels: int

    @property
    def dtype(self) -> torch.dtype:
        return torch.complex64 if self.channels == 2 else torch.float32

    @property
    def values(self) -> PixelValues:
        """The map of pixels of real images."""
        return pixel_values(self.about) or PixelValues()

    @property
    def colour(self) -> bool:
        return self.channels == 3

    def seen(self, image: Tensor) -> Tensor:
        """Pixels with white at 1 as the prior takes them."""
        if image.is_complex():
            return image
        return self.values.forward(image.clamp(0, 1) if self.values.logit else image)

    def pixels(self, image: Tensor) -> Tensor:
        """The inverse of `seen`."""
        return image if image.is_complex() else self.values.inverse(image)

    def noise(self, std: float) -> float:
        """A noise level of pixels with white at 1 as the prior takes them."""
        return 2 * std if self.values.centred else std

    def shape(self, size: str | None) -> tuple[int, ...]:
        """The shape of an image of this --size, by default that of the training images."""
        trained = (self.about.get("pixels") or {}).get("size") or (256, 256)
        side = (int(trained[0]), int(trained[1])) if size is None else _read_size(size)
        return (3, *side) if self.colour else side


def sample(given: SampleOptions) -> None:
    """Sample, interpolate or complete an image as the options ask; write the results and print their paths."""
    if given.threads:
        torch.set_num_threads(given.threads)
    _check_combinations(given)
    precision = take_precision(given.precision, given.device)
    out = given.out
    path = find_prior(given.prior)
    record = read_record(path)
    source = given.image or given.coarse or given.grey
    if source is None:
        prior, told = generation.bare_prior(path, given.base, given.border)
    else:
        prior, told = load_prior(path), {}
    prior = prior.in_precision(find_precision(precision))
    kind = Kind(record.get("about") or {}, image_channels(record["network"]))
    if kind.channels > 3:
        raise InputError(f"{path} is a prior of {kind.channels} channels; images have 1, 2 (complex) or 3 (RGB)")
    mean = given.mean if given.mean is not None else generation.prior_mean(path, kind.dtype.is_complex)

    table = INPAINTING if source else WALKS
    default = DEFAULT_FLOW if given.interpolate else DEFAULT_WALK
    name = given.method or (DEFAULT_INPAINTING if source else default)
    if name not in table:
        raise unknown_name("the method", name, table)
    walk = table[name]
    steps = given.steps or walk.steps
    options = _read_settings(given.changes, walk)
    attributes = {
        "prior": str(given.prior), "prior_sha256": record["sha256"], "sampler": name, "steps": steps, "mean": mean,
        **told, "seed": given.seed, "precision": precision, "sampler_options": ",".join(given.changes),
    }  # fmt: skip
    make_folder(out)
    if told:
        say(base_line(told, given.prior))
    count = given.interpolate or given.number
    shared = GenerationOptions(name, steps, options, given.seed, mean, given.batch_size, given.device)
    total = count * sample_work(shared, prior, source is not None) if walk.calls else None
    with progress(total, "call", name) as bar:
        if given.image is not None:
            draw = partial(generation.inpaint, prior, n=count, settings=shared, progress=bar.update)
            written = _inpaint(given, draw, kind, attributes)
        elif source is not None:
            written = _from_averages(given, prior, kind, shared, count, bar.update, attributes)
        else:
            make = generation.interpolate if given.interpolate else generation.sample_prior
            images = make(prior, count, kind.shape(given.size), shared, dtype=kind.dtype, progress=bar.update)
            written = _write(given, "interpolation" if given.interpolate else "samples", kind, images, attributes)
    for file in written:
        say(file)


def _write(
    given: SampleOptions, name: str, kind: Kind, images: Tensor, attributes: Mapping[str, Any]
) -> list[Path]:
    """Write the images as HDF5 and as contact sheets; an interpolation of up to 8 images is one row.

    Returns the paths.
    """
    out = given.out
    images = kind.pixels(images)
    columns = min(len(images), 8) if name == "interpolation" else None
    written = [write_arrays(out / f"{name}.h5", {"samples": images}, attributes), out / f"{name}.png"]
    save_png(written[-1], (colour_sheet if images.ndim == 4 else magnitude_sheet)(images, columns))
    if images.is_complex():
        written.append(out / f"{name}_phase.png")
        save_png(written[-1], phase_sheet(images, columns))
    return written + _pictures(given, images)


def _pictures(given: SampleOptions, images: Tensor) -> list[Path]:
    """With --png each image as a picture: magnitudes up to the 99.5th percentile of all, grey and RGB as they are."""
    if not given.pictures:
        return []
    folder = given.out / "images"
    make_folder(folder)
    window = display_window(images.flatten(0, 1)) if images.is_complex() else (0.0, 1.0)
    for number, image in enumerate(images):
        shown = image if image.is_complex() else image.clamp_min(0)
        content = colour_sheet(shown[None]) if image.ndim == 3 else picture(shown, window)
        save_png(folder / f"{number:05}.png", content)
    return [folder]


def _inpaint(
    given: SampleOptions, draw: Callable[..., Tensor], kind: Kind, attributes: Mapping[str, Any]
) -> list[Path]:
    """Inpaint an image in the prior's scale, which its known pixels determine; write results in its own units."""
    assert given.image is not None and given.keep is not None
    array = _read_image(given.image, given.number_of_slice, kind.colour)
    keep = _as_tensor(_read_image(given.keep, given.number_of_slice)).abs() > 0
    image = _as_tensor(array).to(kind.dtype)
    _check_mask(given, image, keep)
    white = white_of(kind.about, array, keep.numpy()) or 1.0
    noise_std = generation.NOISE_STD if given.noise_std is None else given.noise_std
    draws = draw(image=kind.seen(image / white), keep=keep, noise_std=kind.noise(noise_std))
    draws = white * kind.pixels(draws)
    facts = {**attributes, "noise_std": noise_std * white, "scale": white}
    return _write_completed(given, "inpainting", draws, {"image": image, "keep": keep}, image * keep, facts)


def _from_averages(
    given: SampleOptions,
    prior: ScoreModel,
    kind: Kind,
    shared: GenerationOptions,
    count: int,
    advance: Callable[[int], Any],
    attributes: Mapping[str, Any],
) -> list[Path]:
    """Super-resolution or colourisation of an image, whose values are averages of those that are drawn."""
    path = given.coarse or given.grey
    assert path is not None
    task = "--super-resolve" if given.coarse else "--colourise"
    if kind.values.logit:
        raise InputError(f"{task}: {given.prior} takes log(x / (1 - x)), in which averages of x are not linear")
    if given.grey and not kind.colour:
        raise InputError(f"{given.prior} is a prior of {kind.channels} channels; --colourise needs one of 3 (RGB)")
    array = _read_image(path, given.number_of_slice, kind.colour and given.grey is None)
    image = _as_tensor(array).to(kind.dtype)
    white = white_of(kind.about, array) or 1.0
    noise_std = generation.NOISE_STD if given.noise_std is None else given.noise_std
    seen = kind.seen(image / white)  # 2 x - 1 of a mean is the mean of 2 x - 1
    if given.coarse:
        draws = generation.super_resolve(
            prior, seen, given.factor, count, shared, noise_std=kind.noise(noise_std), progress=advance
        )
        shown = image.repeat_interleave(given.factor, -2).repeat_interleave(given.factor, -1)
    else:
        draws = generation.colourise(prior, seen, count, shared, noise_std=kind.noise(noise_std), progress=advance)
        shown = image.expand(3, *image.shape)
    draws = white * kind.pixels(draws)
    name = "super_resolution" if given.coarse else "colourisation"
    facts = {**attributes, "noise_std": noise_std * white, "scale": white}
    return _write_completed(given, name, draws, {"image": image}, shown, facts)


def _write_completed(
    given: SampleOptions,
    name: str,
    draws: Tensor,
    arrays: Mapping[str, Tensor],
    known: Tensor,
    facts: Mapping[str, Any],
) -> list[Path]:
    """Write draws, their mean and standard deviation, and a picture of them beside what was known."""
    mean, parts = draws.mean(0), torch.view_as_real(draws) if draws.is_complex() else draws[..., None]
    std = parts.var(0, correction=min(len(draws) - 1, 1)).mean(-1).sqrt()
    facts = {**facts, "image_file": str(given.image or given.coarse or given.grey)}
    white, keep = facts["scale"], arrays.get("keep")
    written = write_arrays(given.out / f"{name}.h5", {"samples": draws, "mean": mean, "std": std, **arrays}, facts)
    place = written.with_suffix(".png")
    if draws.ndim == 4:
        save_png(place, colour_sheet(torch.stack([known, *draws[:SHOWN], mean]) / white, SHOWN + 2))
    else:
        shown = {f"sample {number}": one for number, one in enumerate(draws[:SHOWN])}
        columns = {"known": known, **shown, f"mean of {len(draws)}": mean}
        truth, zoom = (None, None) if keep is None else (arrays["image"], _around_hole(keep))
        save_png(place, panel(columns, std=std, truth=truth, zoom=zoom))
    return [written, place, *_pictures(given, draws / white)]


def _around_hole(keep: Tensor) -> tuple[int, int, int] | None:
    """A square around the missing pixels, with a margin; None if it would be the whole image."""
    hidden = (~keep).nonzero()
    if not len(hidden):
        return None
    first, last = hidden.amin(0), hidden.amax(0)
    side = int((last - first).max() * 1.4) + 4
    if side >= min(keep.shape):
        return None
    corner = ((first + last) // 2 - side // 2).clamp(torch.zeros(2), torch.tensor(keep.shape) - side).long().tolist()
    return corner[0], corner[1], side


def _check_combinations(given: SampleOptions) -> None:
    """Refuse options that contradict each other."""
    if (given.image is None) != (given.keep is None):
        raise InputError(
            "--inpaint IMAGE and --keep MASK must be given together: the image, and the mask of its known pixels"
        )
    sources = {"--inpaint": given.image, "--super-resolve": given.coarse, "--colourise": given.grey}
    tasks = [option for option, path in sources.items() if path is not None]
    if len(tasks) > 1:
        raise InputError(f"{' and '.join(tasks)} are different tasks; give one of them")
    if tasks and (others := chosen("interpolate", "size", "base", "border")):
        raise InputError(f"{tasks[0]} cannot be combined with {', '.join(others)}; leave out one of them")
    if not tasks and (others := chosen("noise_std", "number_of_slice")):
        raise InputError(f"{', '.join(others)}: for --inpaint, --super-resolve and --colourise only; leave it out")
    if given.coarse is None and chosen("factor"):
        raise InputError("--factor: for --super-resolve only; leave it out")
    if given.interpolate is not None and (others := chosen("number")):
        raise InputError("--interpolate N sets the number of images; leave out --number")


def _check_mask(given: SampleOptions, image: Tensor, keep: Tensor) -> None:
    if keep.shape != image.shape[-2:]:
        raise InputError(
            f"--keep {given.keep} has shape {tuple(keep.shape)}, --inpaint {given.image} has"
            f" {tuple(image.shape)}; the mask needs one value for each pixel of the image"
        )
    if not bool(keep.any()):
        raise InputError(f"--keep {given.keep} is 0 at all pixels; known pixels are those that are not 0")
    if not bool(torch.isfinite(image[..., keep].abs()).all()):
        raise InputError(f"--inpaint {given.image} has known pixels that are not finite; set --keep to 0 there")
    image[..., ~keep] = image[..., ~keep].nan_to_num(0.0)


def _read_size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--size {text!r} should be a number of pixels such as 256, or rows x columns such as 256x192")
    return int(parts[0]), int(parts[-1])


def _read_settings(changes: tuple[str, ...], walk: Method) -> dict[str, Any]:
    """The options of a method from texts `key=value`, converted to the types in the signatures of its classes."""
    values = dict(change.partition("=")[::2] for change in changes)
    known = option_names(walk)
    for key, value in values.items():
        if key not in known or not value:
            raise unknown_name("the option of --set KEY=VALUE", key if value else f"{key} without a value", known)
    options: dict[str, Any] = {}
    for kind in classes_of(walk):
        own = {key: value for key, value in values.items() if key in inspect.signature(kind).parameters}
        call = bind("--set", kind, own, **dict.fromkeys(GIVEN))
        options |= {key: call.keywords[key] for key in own}  # type: ignore[attr-defined]
    return options


def _read_image(path: Path, number: int, colour: bool = False) -> np.ndarray:
    """Read an image (H, W), or with `colour` (H, W, 3), of a file of `PixelStack`, or a complex one of a .npy file.

    Errors: InputError for anything else.
    """
    if path.suffix == ".npy" and ((array := open_npy(path)).dtype.kind == "c" or array.ndim == 2):
        if array.ndim not in (2, 3) or not array.size or array.dtype.kind not in "buifc":
            raise InputError(
                f"{path} holds {array.dtype} of shape {array.shape}; an image has rows and columns of numbers"
            )
        if array.ndim == 3 and number >= len(array):
            raise InputError(f"--slice {number}: {path} has slices 0 to {len(array) - 1}")
        return np.asarray(array[()] if array.ndim == 2 else array[number])
    stack = PixelStack(path, colour)
    if number >= len(stack):
        raise InputError(f"--slice {number}: {path} has slices 0 to {len(stack) - 1}")
    image = stack[number]
    if colour and image.ndim == 2:
        image = np.repeat(image[..., None], 3, -1)
    if not colour and image.ndim == 3:
        raise InputError(f"{path} has colour images; a prior of 3 channels, or grey values, are needed here")
    return image


def _as_tensor(image: np.ndarray) -> Tensor:
    """(H, W), or (3, H, W) of (H, W, 3), complex64 or float32."""
    image = np.moveaxis(image, -1, 0) if image.ndim == 3 else image
    return torch.from_numpy(image.astype(np.complex64 if image.dtype.kind == "c" else np.float32))
