"""Volumes: slices that share batches and are prepared ahead come out as slices alone do."""

from __future__ import annotations

import csv
import threading

import h5py
import numpy as np
import pytest
import torch
from command import mri_score, refused

from mri_score.cli.run import reconstruct as reconstructing
from mri_score.data.scan import Scan, Undersampling
from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import generators, noise_like
from mri_score.pipeline import volume as volumes
from mri_score.pipeline.options import Options
from mri_score.pipeline.volume import ahead, reconstruct_volume
from mri_score.readers.fastmri import FastMRI
from mri_score.reconstruction import walk_end
from mri_score.simulation.simulate import simulate

SLICES = 5


class White(ScoreModel):
    """White images of a given sd; it notes how many come at once, and gives NaN below `breaks` if that is said."""

    sd = 0.3
    about = {"denoising_errors": {"0.01": 1.0, "1.0": 1.0}}

    def __init__(self, breaks: float = 0.0) -> None:
        super().__init__()
        self.breaks, self.sizes = breaks, []

    def denoise(self, x, sigma):
        self.sizes.append(len(x))
        sigma = per_item(sigma, x).expand(len(x), 1, 1) if isinstance(sigma, torch.Tensor) else per_item(sigma, x)
        return torch.where(sigma < self.breaks, torch.nan, x / (1 + sigma**2 / self.sd**2))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Slices of one head at other brightness, so that each has its own noise level and end of its walks."""
    (path,) = simulate(tmp_path_factory.mktemp("scan"), volumes=1, slices=SLICES, size=(40, 45), coils=4, noise=45.0)
    with h5py.File(path, "r+") as file:
        file["kspace"][...] *= np.linspace(0.5, 1.5, SLICES, dtype=np.float32).reshape(-1, 1, 1, 1)
    return path


@pytest.fixture
def gpu(monkeypatch):
    """The way of a GPU, on this CPU."""
    monkeypatch.setattr(volumes, "on_gpu", lambda options: True)
    monkeypatch.setattr(reconstructing, "on_gpu", lambda options: True)


def reconstruct(path, prior, **options):
    settings = {"steps": 6, "samples": 2, "batch_size": 4, "baselines": ("cg-sense",), "device": "cpu", **options}
    return reconstruct_volume(Scan(FastMRI(path), Undersampling(3.0)), prior, Options(**settings))


def difference(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, {4, 2, 8}),  # below `mean_below` a mean is walked beside each draw
        ({"method": "adaptive-draw"}, {4, 2}),
        ({"method": "exact-draw"}, {4, 2}),
        ({"method": "langevin", "steps": 3}, {2}),  # its walks know no levels of an item's own
        ({"batch_size": 1}, {1, 2}),
        ({"batch_size": 99, "check_lines": 2}, {10, 20}),
        ({"warm_start": 0.3}, {4, 2, 8}),
    ],
)
def test_slices_that_share_batches_are_slices_alone(path, options, sizes, monkeypatch):
    alone = reconstruct(path, White(), **options)
    monkeypatch.setattr(volumes, "on_gpu", lambda options: True)
    prior = White()
    found = reconstruct(path, prior, **options)
    assert set(prior.sizes) == sizes
    for name in ("images", "samples", "stds", "baselines"):
        one, other = getattr(found, name), getattr(alone, name)
        if name == "baselines":
            one, other = one["CG-SENSE"], other["CG-SENSE"]
        assert len(one) == SLICES and difference(torch.stack(one), torch.stack(other)) < 1e-4
    assert found.noise == alone.noise and found.facts == alone.facts and set(found.seconds) == set(alone.seconds)
    assert found.misfit_ratios == pytest.approx(alone.misfit_ratios, rel=1e-4)
    for title, misfit in alone.held_out.items():
        assert found.held_out[title].misfit == pytest.approx(misfit.misfit, rel=1e-4)


def test_each_item_of_a_batch_ends_where_its_noise_says(path, gpu):
    """The test above would be empty if all slices had one ladder."""
    seen = []

    class Watching(White):
        def denoise(self, x, sigma):
            seen.append(sigma)
            return super().denoise(x, sigma)

    found = reconstruct(path, Watching(), samples=1, batch_size=SLICES)
    scan = Scan(FastMRI(path), Undersampling(3.0))
    ends = [walk_end(White(), float(scan.acquisition(number).noise_std)) for number in range(SLICES)]
    assert len(set(ends)) == SLICES == len(found.images)
    assert seen[-1].tolist() == pytest.approx(2 * ends, rel=1e-5) and seen[0].tolist() == [5.0] * SLICES


def test_a_walk_that_breaks_in_a_batch_names_its_slice(path, gpu):
    scan = Scan(FastMRI(path), Undersampling(3.0))
    ends = [walk_end(White(), float(scan.acquisition(number).noise_std)) for number in range(SLICES)]
    lowest = int(np.argmin(ends))
    between = sum(sorted(ends)[:2]) / 2
    message = rf"slice {lowest}, draw 0: not finite any more at level 5 \(sigma {ends[lowest]:.4g}\)"
    with pytest.raises(InputError, match=message):
        reconstruct(path, White(breaks=between), samples=1, batch_size=SLICES)


def test_items_are_made_ahead_and_their_errors_come_in_their_place():
    started, seen = {number: threading.Event() for number in range(4)}, []

    def make(number):
        started[number].set()
        if number == 2:
            raise InputError("no 2")
        return 10 * number, threading.current_thread()

    with pytest.raises(InputError, match="no 2"):
        for made, thread in ahead(make, range(4)):
            assert thread is not threading.current_thread()
            seen.append(made)
            assert started[made // 10 + 1].wait(10)  # the next one is made meanwhile, whatever becomes of it
    assert seen == [0, 10]
    assert list(ahead(str, [])) == [] and list(ahead(str, [1])) == ["1"]


QUICK = ["--accel", "3", "--steps", "2", "--samples", "2", "--threads", "1", "--baselines", "zero-filled"]


@pytest.mark.slow
def test_a_folder_is_written_beside_the_walks_as_it_is_after_them(tmp_path, monkeypatch):
    scans = simulate(tmp_path / "scans", volumes=2, slices=2, size=48, coils=3, noise=45.0)
    broken = tmp_path / "scans" / "sim_T2_0000.h5"
    broken.write_bytes(b"no HDF5")
    refused("reconstruct", tmp_path / "scans", *QUICK, "--out", tmp_path / "after", code=1)
    monkeypatch.setattr(volumes, "on_gpu", lambda options: True)
    monkeypatch.setattr(reconstructing, "on_gpu", lambda options: True)
    output = refused("reconstruct", tmp_path / "scans", *QUICK, "--out", tmp_path / "beside", code=1)
    assert f"{broken.name}: skipped" in output and output.count("posterior mean of 2 draws") == 4  # two targets
    rows = []
    for out in ("after", "beside"):
        with open(tmp_path / out / "metrics.csv", newline="") as file:
            rows.append([{**row, "seconds": None} for row in csv.DictReader(file)])
    assert len(rows[0]) == len(rows[1]) > 0 and rows[0][0].keys() == rows[1][0].keys()
    for scan in scans:
        with (
            h5py.File(tmp_path / "after" / "reconstructions" / scan.name) as one,
            h5py.File(tmp_path / "beside" / "reconstructions" / scan.name) as other,
        ):
            a, b = one["reconstruction_complex"][()], other["reconstruction_complex"][()]
            assert np.linalg.norm(a - b) < 1e-4 * np.linalg.norm(a)
            assert one.attrs["identity"] == other.attrs["identity"]
    again = refused("reconstruct", tmp_path / "scans", *QUICK, "--out", tmp_path / "beside", code=1)
    assert again.count("finished before") == 2


def test_a_volume_that_cannot_be_written_is_named(tmp_path, gpu, monkeypatch):
    scans = simulate(tmp_path / "scans", volumes=2, slices=1, size=48, coils=3)
    write = reconstructing.write_volume

    def full(out, volume, *more):
        if volume.name == scans[0].name:
            raise InputError(f"cannot write {volume.name}: is the disk full?")
        return write(out, volume, *more)

    monkeypatch.setattr(reconstructing, "write_volume", full)
    output = refused("reconstruct", tmp_path / "scans", *QUICK, "--out", tmp_path / "out", code=1)
    assert f"{scans[0].name}: skipped: cannot write" in output and f"1 of 2 files failed: {scans[0].name}" in output
    assert {path.name for path in (tmp_path / "out" / "reconstructions").iterdir()} == {scan.name for scan in scans[1:]}
    alone = refused("reconstruct", scans[0], *QUICK, "--out", tmp_path / "one")
    assert "is the disk full?" in alone and "skipped" not in alone


def test_a_dry_run_counts_the_batches_of_a_gpu(path, tmp_path, gpu, monkeypatch):
    dry = ["reconstruct", path, "--accel", "3", "--samples", "2", "--device", "cpu", "--out", tmp_path, "--dry-run"]
    told = mri_score(*dry, "--batch-size", "4", "--steps", "3")
    assert "3 of 4 draws at most" in told  # 2 and 2 and 1 slices
    assert "5 of 2 draws" in mri_score(*dry, "--batch-size", "3", "--steps", "3")
    assert "1 of 10 draws" in mri_score(*dry, "--batch-size", "auto", "--steps", "3")


def test_noise_does_not_depend_on_the_threads_that_draw_it():
    x = torch.zeros(5, 3, 40, dtype=torch.complex64)
    one = [noise_like(x, random) for random in (generators(1, draws=5), [generators(2)[0]] * 5)]
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        several = [noise_like(x, random) for random in (generators(1, draws=5), [generators(2)[0]] * 5)]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one[0], several[0]) and torch.equal(one[1], several[1])  # a shared generator keeps its order
