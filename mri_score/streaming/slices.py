"""Reconstruction of the images of a stream."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mri_score.data.noncartesian import MeasuredScan
from mri_score.data.scan import Scan
from mri_score.errors import InputError
from mri_score.methods import METHODS
from mri_score.models.base import ScoreModel
from mri_score.models.one_channel import for_complex_images
from mri_score.numerics.fourier import resize_image
from mri_score.priors.store import find_prior, load_prior
from mri_score.readers.geometry import Geometry
from mri_score.readers.received import Received, open_received
from mri_score.reconstruction import sample_posterior
from mri_score.streaming.collect import Group
from mri_score.streaming.settings import StreamSettings


@dataclass(frozen=True)
class StreamedImage:
    """One reconstructed image, see `Found`."""

    magnitude: np.ndarray
    std: np.ndarray | None
    place: Geometry | None
    notes: Sequence[str]


class Slices:
    """The reconstruction of images. prior: name or path of the prior to load at once; others are loaded when asked for.

    one_channel: the use of a prior of one channel. Errors: InputError for an unknown prior, and for a use of a prior of
    two channels.
    """

    def __init__(self, prior: str, one_channel: str | None = None) -> None:
        torch.set_num_threads(1)  # the threads of a pool would not survive the fork that makes a connection's process
        self._priors: dict[tuple[str, str | None], ScoreModel] = {}
        self._prior(prior, one_channel)

    def __call__(self, header: str, group: Group, settings: StreamSettings) -> Iterator[StreamedImage | InputError]:
        """Reconstruct the images of a group. header: ISMRMRD header. settings: how. Yields images and errors."""
        torch.set_num_threads(settings.threads or len(os.sched_getaffinity(0)))
        try:
            headers = np.array([one.header for one in group.readouts])
            samples, positions = ([getattr(one, name) for one in group.readouts] for name in ("samples", "trajectory"))
            file = open_received(Received(header, headers, samples, positions))
            measured = file.coordinates(0) is not None
            scan = MeasuredScan(file, settings.coils) if measured else Scan(file, coils=settings.coils)
        except InputError as error:
            yield error
            return
        for number in range(scan.file.slices):
            try:
                yield self._one(scan, number, group.key["slice"] + number, settings)
            except InputError as error:
                yield error

    def _prior(self, name: str, one_channel: str | None) -> ScoreModel:
        if (name, one_channel) not in self._priors:
            self._priors[name, one_channel] = for_complex_images(load_prior(find_prior(name)), one_channel)
        return self._priors[name, one_channel]

    def _one(self, scan: Scan, number: int, seed_number: int, settings: StreamSettings) -> StreamedImage:
        found = sample_posterior(
            scan.acquisition(number),
            self._prior(settings.prior, settings.one_channel),
            settings.method,
            slices=[seed_number],
            steps=settings.steps,
            samples=settings.samples,
            seed=settings.seed,
            batch_size=settings.batch_size,
            device=settings.device,
        )
        spread = settings.samples > 1 and METHODS[settings.method].draws
        std = (found.std * found.weight)[0] if spread else None
        crop = scan.file.crop
        return StreamedImage(
            resize_image(found.rss[0], crop).numpy(),
            None if std is None else resize_image(std, crop).numpy(),
            scan.file.geometry(number),
            list(scan.notes),
        )
