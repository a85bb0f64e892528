"""Reading: seconds per slice from fastMRI files into training batches, against the pattern of fastMRI's loader."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import h5py
import torch
from harness import Row, Spread, compare, timed
from torch.utils.data import DataLoader, Dataset

from mri_score.readers import scan_files
from mri_score.simulation.simulate import simulate
from mri_score.sources.full_scans import Slices
from mri_score.training.batches import Batches

NAME = "reading"
SCANS = {"quick": {"volumes": 1, "slices": 4}, "full": {"volumes": 4, "slices": 8}}
BATCHES = {"quick": 8, "full": 64}
BATCH = 4
SHAPE, COILS, SIZE = (320, 368), 15, 320
"""The readout is oversampled twice: 640 x 368 in the files."""


class VolumeSlices(Dataset):
    """Like fastMRI's SliceDataset with a transform that keeps k-space: open, read a slice, convert it to a real tensor.
    """

    def __init__(self, folder: Path) -> None:
        self.examples = []
        for path in scan_files(folder):
            with h5py.File(path) as file:
                self.examples += [(path, slice) for slice in range(len(file["kspace"]))]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        path, slice = self.examples[number % len(self.examples)]
        with h5py.File(path) as file:
            kspace, target = file["kspace"][slice], file["reconstruction_rss"][slice]
        return torch.view_as_real(torch.from_numpy(kspace)).contiguous(), torch.from_numpy(target)


def run(sizes: str, threads: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        scans, cache = Path(folder) / "scans", Path(folder) / "cache"
        simulate(scans, size=SHAPE, coils=COILS, **SCANS[sizes])
        # memory=0: every slice is read again, as for a data set larger than memory
        seconds, source = timed(lambda: Slices([scans], size=SIZE, cache=cache, memory=0, quiet=True))
        rows = [row(sizes, source, VolumeSlices(scans), workers) for workers in (0, 1, 2)]
        note = f"coils combined once beforehand, {seconds / len(source):.2f} s a slice"
        return [replace(rows[0], note=note), *rows[1:]]


def row(sizes: str, source: Slices, theirs: VolumeSlices, workers: int) -> Row:
    """An epoch of this many batches, including the start of workers, as in every run."""
    count = BATCHES[sizes]
    numbers = range(count * BATCH)
    found = compare(
        f"{COILS} x {2 * SHAPE[0]} x {SHAPE[1]}, batches of {BATCH}, {workers} workers",
        "fastMRI's pattern",
        lambda: consume(Batches(source, BATCH, seed=0).loader(0, count, workers)),
        lambda: consume(DataLoader(theirs, BATCH, sampler=numbers, num_workers=workers)),
        sizes=sizes,
        wanted=3,
    )
    return replace(found, ours=a_slice(found.ours, len(numbers)), theirs=a_slice(found.theirs, len(numbers)))


def consume(loader: Iterable) -> int:
    return sum(1 for _ in loader)


def a_slice(spread: Spread | None, slices: int) -> Spread | None:
    return spread and Spread(spread.median / slices, spread.low / slices, spread.high / slices)
