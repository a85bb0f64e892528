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
from mri_score.data.scale import percentile
from mri_score.errors import InputError, unknown_name
from mri_score.evaluation.contact_sheet import colour_sheet, magnitude_sheet, phase_sheet
from mri_score.evaluation.panel import panel, save_png
from mri_score.experiment import bind
from mri_score.files import make_folder
from mri_score.generation import GenerationOptions
from mri_score.methods import DEFAULT_FLOW, DEFAULT_INPAINTING, DEFAULT_WALK, INPAINTING, WALKS, Method
from mri_score.models.precision import find_precision
from mri_score.priors.store import find_prior, image_channels, load_prior, read_record
from mri_score.progress import progress
from mri_score.readers.arrays import open_npy, read_picture
from mri_score.readers.hdf5 import write_arrays
from mri_score.readers.image_stack import read_stack
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
    size: str
    method: str | None
    steps: int | None
    changes: tuple[str, ...]
    mean: float | None
    image: Path | None
    keep: Path | None
    number_of_slice: int
    noise_std: float | None
    interpolate: int | None
    precision: str
    seed: int
    batch_size: int
    device: str
    threads: int | None
    out: Path


def sample(given: SampleOptions) -> None:
    """Sample, inpaint or interpolate as the options ask; write the results and print their paths."""
    if given.threads:
        torch.set_num_threads(given.threads)
    _check_combinations(given)
    precision = take_precision(given.precision, given.device)
    out = given.out
    path = find_prior(given.prior)
    record = read_record(path)
    if given.image is None:
        prior, told = generation.bare_prior(path, given.base, given.border)
    else:
        prior, told = load_prior(path), {}
    prior = prior.in_precision(find_precision(precision))
    channels = image_channels(record["network"])
    if channels > 2 and (channels != 3 or given.image is not None):
        task = "sample" if given.image is None else "--inpaint"
        raise InputError(
            f"{path} is a prior of {channels} channels, which {task} does not support; complex images have 2"
        )
    dtype = torch.complex64 if channels == 2 else torch.float32
    mean = given.mean if given.mean is not None else generation.prior_mean(path, dtype.is_complex)

    table = INPAINTING if given.image else WALKS
    default = DEFAULT_FLOW if given.interpolate else DEFAULT_WALK
    name = given.method or (DEFAULT_INPAINTING if given.image else default)
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
    total = count * sample_work(shared, prior, given.image is not None) if walk.calls else None
    with progress(total, "call", name) as bar:
        if given.image is not None:
            draw = partial(generation.inpaint, prior, n=count, settings=shared, progress=bar.update)
            written = _inpaint(given, draw, dtype, attributes)
        else:
            make = generation.interpolate if given.interpolate else generation.sample_prior
            shape = (3,) * (channels == 3) + _read_size(given.size)
            images = make(prior, count, shape, shared, dtype=dtype, progress=bar.update)
            written = _write(out, "interpolation" if given.interpolate else "samples", images, attributes)
    for file in written:
        say(file)


def _write(out: Path, name: str, images: Tensor, attributes: Mapping[str, Any]) -> list[Path]:
    """Write the images as HDF5 and as contact sheets; an interpolation of up to 8 images is one row.

    Returns the paths.
    """
    columns = min(len(images), 8) if name == "interpolation" else None
    written = [write_arrays(out / f"{name}.h5", {"samples": images}, attributes), out / f"{name}.png"]
    save_png(written[-1], (colour_sheet if images.ndim == 4 else magnitude_sheet)(images, columns))
    if images.is_complex():
        written.append(out / f"{name}_phase.png")
        save_png(written[-1], phase_sheet(images, columns))
    return written


def _inpaint(
    given: SampleOptions, draw: Callable[..., Tensor], dtype: torch.dtype, attributes: Mapping[str, Any]
) -> list[Path]:
    """Inpaint an image scaled by the 99th percentile of its known pixels; write results in its own units."""
    assert given.image is not None and given.keep is not None
    image, keep = (_read_image(path, given.number_of_slice) for path in (given.image, given.keep))
    image, keep = image.to(dtype), keep.abs() > 0
    _check_mask(given, image, keep)
    scale = float(percentile(image[keep][None])) or 1.0
    noise_std = generation.NOISE_STD if given.noise_std is None else given.noise_std
    draws = scale * draw(image=image / scale, keep=keep, noise_std=noise_std)
    mean, parts = draws.mean(0), torch.view_as_real(draws) if draws.is_complex() else draws[..., None]
    std = parts.var(0, correction=min(len(draws) - 1, 1)).mean(-1).sqrt()
    arrays = {"samples": draws, "mean": mean, "std": std, "image": image, "keep": keep}
    facts = {**attributes, "noise_std": noise_std * scale, "scale": scale, "image_file": str(given.image)}
    written = write_arrays(given.out / "inpainting.h5", arrays, facts)
    shown = {f"sample {number}": one for number, one in enumerate(draws[:SHOWN])}
    columns = {"known": image * keep, **shown, f"mean of {len(draws)}": mean}
    save_png(written.with_suffix(".png"), panel(columns, truth=image, std=std, zoom=_around_hole(keep)))
    return [written, written.with_suffix(".png")]


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
    if given.image is not None and (others := chosen("interpolate", "size", "base", "border")):
        raise InputError(f"--inpaint cannot be combined with {', '.join(others)}; leave out one of them")
    if given.image is None and (others := chosen("noise_std", "number_of_slice")):
        raise InputError(f"{', '.join(others)}: for --inpaint only; leave it out")
    if given.interpolate is not None and (others := chosen("number")):
        raise InputError("--interpolate N sets the number of images; leave out --number")


def _check_mask(given: SampleOptions, image: Tensor, keep: Tensor) -> None:
    if keep.shape != image.shape:
        raise InputError(
            f"--keep {given.keep} has shape {tuple(keep.shape)}, --inpaint {given.image} has"
            f" {tuple(image.shape)}; the mask needs one value for each pixel of the image"
        )
    if not bool(keep.any()):
        raise InputError(f"--keep {given.keep} is 0 at all pixels; known pixels are those that are not 0")
    if not bool(torch.isfinite(image[keep].abs()).all()):
        raise InputError(f"--inpaint {given.image} has known pixels that are not finite; set --keep to 0 there")
    image[~keep] = image[~keep].nan_to_num(0.0)


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


def _read_image(path: Path, number: int) -> Tensor:
    """Read an image (H, W) from .npy, PNG, JPEG or an HDF5 stack. Errors: InputError for anything else."""
    if path.suffix.lower() in (".h5", ".hdf5"):
        array = read_stack(path)[0]
    else:
        array = open_npy(path)[()] if path.suffix == ".npy" else read_picture(path)
    if array.ndim == 3:
        if number >= len(array):
            raise InputError(f"--slice {number}: {path} has slices 0 to {len(array) - 1}")
        array = array[number]
    if array.ndim != 2 or not array.size or array.dtype.kind not in "buifc":
        raise InputError(f"{path} holds {array.dtype} of shape {array.shape}; an image has rows and columns of numbers")
    return torch.from_numpy(array.astype(np.complex64 if array.dtype.kind == "c" else np.float32))
