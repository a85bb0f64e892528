"""Batches that depend on (seed, step) only, so that a resumed run gets the same batches."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Protocol

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from mri_score.data.acquisition import Acquisition
from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.numerics.noise import generators


class Source(Protocol):
    """A source of training items."""

    def sample(self, random: Generator) -> TrainingItem:
        """One random training item, of batch size 1, determined by the generator."""
        ...


class Batches(Dataset):
    """Batch number `step` has `batch_size` items, item i determined by (seed, step, i). share: use only these items."""

    def __init__(self, source: Source, batch_size: int, seed: int, share: range | None = None) -> None:
        self.source, self.seed = source, seed
        self.share = range(batch_size) if share is None else share

    def __getitem__(self, step: int) -> TrainingItem:
        random = generators(self.seed, "batch", step, self.share)
        return join([as_training_item(self.source.sample(one)) for one in random])

    def loader(self, first: int, last: int, workers: int) -> DataLoader:
        """Batches first to last - 1 in order, prepared ahead by `workers` processes."""
        return DataLoader(
            self,
            batch_size=None,
            sampler=range(first, last),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_quiet_worker,
        )


def join(items: Sequence[TrainingItem]) -> TrainingItem:
    """Join items of equal size to one batch: images, or kspace, maps and mask, and other parts that all items have.

    Errors: InputError for items of different sizes.
    """
    images = [item.image for item in items if item.image is not None]
    if len({image.shape[-2:] for image in images}) > 1:
        sizes = sorted({tuple(image.shape[-2:]) for image in images})
        raise InputError(f"training images have sizes {sizes}; set data.size (or data.patch) so that they are equal")
    return TrainingItem(
        name=items[0].name,
        **({"image": torch.cat(images)} if images else _samples(items)),
        noise_std=_joined([item.noise_std for item in items]),
        acceleration=_joined([item.acceleration for item in items]),
        estimate=_joined([item.estimate for item in items]),
    )


def as_training_item(item: TrainingItem | Acquisition) -> TrainingItem:
    """The parts of an acquisition that losses use; a training item itself."""
    if isinstance(item, TrainingItem):
        return item
    parts: dict[str, Any] = {one.name: getattr(item, one.name, None) for one in fields(TrainingItem)}
    return TrainingItem(**parts)


def _samples(items: Sequence[TrainingItem]) -> dict[str, Tensor | None]:
    """kspace, maps and mask of items of one size, joined. Errors: InputError for different sizes."""
    scans = [(item.kspace, item.mask) for item in items if item.kspace is not None and item.mask is not None]
    sizes = sorted({(*kspace.shape[1:], *mask.shape[-2:]) for kspace, mask in scans})
    if len(sizes) > 1:
        raise InputError(
            f"training scans have sizes {sizes} (coils, rows and columns; rows and columns of the mask); set data.size"
            " and data.coils so that they are equal, and do not mix masks of lines and of points"
        )
    return {key: _joined([getattr(item, key) for item in items]) for key in ("kspace", "maps", "mask")}


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    given = [torch.atleast_1d(part) for part in parts if part is not None]
    return torch.cat(given) if len(given) == len(parts) else None


def _quiet_worker(worker: int) -> None:
    """Use one thread, and ignore signals to the process group, because the parent still needs its batch."""
    torch.set_num_threads(1)
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.SIG_IGN)
