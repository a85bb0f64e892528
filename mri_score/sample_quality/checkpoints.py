"""The priors at the checkpoints of a training run, and samples of a prior."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mri_score.data.pixel_values import pixel_values
from mri_score.errors import InputError
from mri_score.generation import DEFAULTS, GenerationOptions, prior_mean, sample_prior
from mri_score.models.network import NetworkPrior
from mri_score.priors.store import build_prior, find_prior, image_channels, load_prior, read_record
from mri_score.reconstruction import Progress
from mri_score.training import checkpoint


def checkpoints(folder: Path) -> Iterator[tuple[str, NetworkPrior]]:
    """`step <n>` and the averaged prior of each checkpoint of a run, oldest first.

    These are its last checkpoints, and those kept by training.keep_every.
    folder: of the training run.
    Errors: InputError for a folder without checkpoints, and for a checkpoint of another network.
    """
    record = read_record(find_prior(folder))
    kept = checkpoint.kept(folder)
    paths = checkpoint.found(folder)
    if not paths and not kept:
        raise InputError(f"{folder} has no checkpoint-*.pt; evaluate its prior with: --prior {folder}")
    last = {step: path for path in paths if (step := int(path.stem.removeprefix("checkpoint-"))) not in kept}
    for step, path in sorted((kept | last).items()):
        yield f"step {step}", _averaged(path, record) if step in last else load_prior(path)


def _averaged(path: Path, record: Mapping[str, Any]) -> NetworkPrior:
    """The averaged prior of a checkpoint. record: the JSON of the run's prior, which describes the network."""
    prior = build_prior(record["network"], **record["prior"])
    try:
        prior.load_state_dict(checkpoint.load(path)["ema"])
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the network of {path.parent / 'prior.json'}: {error}") from error
    return prior.eval().requires_grad_(False)


def draw(
    name: str | Path,
    prior: NetworkPrior,
    count: int,
    shape: Sequence[int],
    settings: GenerationOptions = DEFAULTS,
    progress: Progress | None = None,
) -> Tensor:
    """`sample_prior` with the mean and the number type of the prior's file: (count, *shape), (count, 3, *shape) in RGB.

    name: the prior's name, run folder or file. prior: the loaded prior. count: number of samples. shape: rows and
    columns. settings: the walk. progress: called with the number of network evaluations of each level. Real images are
    given as pixels, whatever map of them the prior takes.
    Errors: InputError for priors of more than three channels, and as in `sample_prior`.
    """
    path = find_prior(name)
    record = read_record(path)
    channels = image_channels(record["network"])
    if channels > 3:
        raise InputError(f"{name} is a prior of {channels}-channel images; images have 1, 2 (complex) or 3 (RGB)")
    shape = (3, *shape) if channels == 3 else shape
    dtype = torch.complex64 if channels == 2 else torch.float32
    settings = replace(settings, mean=prior_mean(path, channels == 2))
    images = sample_prior(prior, count, shape, settings, dtype=dtype, progress=progress)
    values = pixel_values(record.get("about") or {})
    return images if values is None else values.inverse(images)
