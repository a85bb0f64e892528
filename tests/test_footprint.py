"""What runs will need of memory: closed forms, the peaks that were measured, and what follows from them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from mri_score.cli import main
from mri_score.data.acquisition import Acquisition
from mri_score.data.training_item import TrainingItem
from mri_score.losses.denoising import Denoising
from mri_score.memory import footprint, free
from mri_score.memory.peak import STATM, PeakMemory
from mri_score.models.base import ScoreModel
from mri_score.noise.schedules import LogNormal
from mri_score.numerics.noise import generators, noise_like
from mri_score.priors.store import build_prior
from mri_score.reconstruction import sample_posterior
from mri_score.simulation.simulate import simulate
from mri_score.training.loop import train

CPU = torch.device("cpu")
MIB = 2**20
measured = pytest.mark.skipif(not STATM.exists(), reason="the resident memory is read from /proc")


def unet():
    return build_prior({"name": "unet", "widths": [32, 64]})


def ncsn():
    return build_prior({"name": "ncsnv2", "depth": "low", "width": 16}, precondition="ncsn")


def scan(coils, shape, slices=1):
    y = noise_like(torch.zeros(slices, coils, *shape, dtype=torch.complex64), generators(1, draws=slices))
    mask = (torch.arange(shape[1]) % 4 == 0).reshape(1, 1, 1, -1)
    maps, one = torch.full_like(y, coils**-0.5), torch.ones(slices)
    return Acquisition("scan", y * mask, maps, mask, noise_std=0.01 * one, scale=one)


class Small(ScoreModel):
    """A Gaussian's denoiser that has room for so many items; it counts its refusals."""

    sd = 1.0

    def __init__(self, most):
        super().__init__()
        self.most, self.refused = most, 0

    def denoise(self, x, sigma):
        if len(x) > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError("no room")
        return x / (1 + torch.as_tensor(sigma) ** 2)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_live_memory_counts_storages_while_they_live(device):
    with footprint.LiveMemory() as memory:
        x = torch.zeros(1000, device=device)
        y = x.view(10, 100) + 1  # a view holds nothing of its own
        del x
        assert memory.live == 4000
        z = y.mT.contiguous()
        assert memory.live == memory.peak == 8000
        del y, z
    assert memory.live == 0 and memory.peak == 8000


@pytest.mark.parametrize("make", [unet, ncsn])
def test_a_network_without_numbers_holds_what_it_holds_with_them(make):
    prior, x = make(), torch.zeros(3, 40, 56, dtype=torch.complex64)
    with torch.no_grad(), footprint.LiveMemory() as memory:
        prior.denoise(x, 1.0)
    assert footprint.network_bytes(prior, 3, (40, 56))[1] == pytest.approx(memory.peak + x.nbytes, rel=0.2)


def test_a_graph_is_held_and_grows_with_the_items():
    prior = unet()
    plain, one, two = (footprint.network_bytes(prior, n, (48, 32), g) for n, g in ((1, False), (1, True), (2, True)))
    assert one[0] > 3 * plain[0] and one[1] > one[0]
    assert two[1] == pytest.approx(2 * one[1], rel=0.05)


@measured
@pytest.mark.parametrize(("coils", "shape", "walks"), [(4, (128, 160), 4), (8, (160, 128), 4)])
def test_the_peak_of_walks_is_foretold(coils, shape, walks):
    prior = unet()
    options = {"steps": 2, "samples": walks, "batch_size": walks, "slices": [0], "device": "cpu"}
    sample_posterior(scan(2, (32, 32)), prior, **options)  # libraries make room for themselves at their first call
    item = scan(coils, shape)
    with PeakMemory(CPU) as peak:
        sample_posterior(item, prior, **options)
    assert 0.5 < footprint.walk_bytes(prior, coils, shape, walks) / MIB / peak.mib < 2


@measured
@pytest.mark.parametrize(("make", "shape"), [(unet, (96, 96)), pytest.param(ncsn, (96, 64), marks=pytest.mark.slow)])
def test_the_peak_of_training_is_foretold(tmp_path, make, shape):
    prior, loss = make(), Denoising(LogNormal(0.01, 5.0))
    item = TrainingItem("item", image=torch.ones(1, *shape, dtype=torch.complex64))
    foretold = footprint.train_bytes(prior, loss, item, 8) / MIB

    class Source:
        def sample(self, random):
            return item

    with PeakMemory(CPU) as peak:
        train(prior, loss, Source(), tmp_path, lambda *about: None, steps=2, batch_size=8, workers=0, quiet=True)
    assert 0.5 < foretold / peak.mib < 2


FRESH = """
from mri_score.memory.peak import resident
from test_footprint import *
prior, loss = unet(), Denoising(LogNormal(0.01, 5.0))
item = TrainingItem("item", image=torch.ones(1, 128, 112, dtype=torch.complex64))

class Source:
    def sample(self, random):
        return item

coils, rows, columns, draws = map(int, sys.argv[2:])

def walks():
    options = {"steps": 2, "samples": draws, "batch_size": draws, "slices": [0], "device": "cpu"}
    sample_posterior(scan(coils, (rows, columns)), prior, **options)

def training():
    options = {"steps": 2, "batch_size": 10, "workers": 0, "quiet": True}
    train(prior, loss, Source(), Path("run"), lambda *about: None, **options)

foretold = {
    "walks": lambda: footprint.reconstruct_bytes(prior, coils, (rows, columns), draws),
    "training": lambda: footprint.train_bytes(prior, loss, item, 10),
}
work = foretold[sys.argv[1]]()
before = resident()
globals()[sys.argv[1]]()
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
print(before, work, 1024 * int(peak.split()[1]))
"""


@pytest.mark.slow
@measured
@pytest.mark.parametrize(
    "what",
    [
        ("walks", 6, 192, 160, 6),
        ("walks", 64, 128, 128, 1),
        ("walks", 1, 512, 512, 2),
        ("training", 1, 1, 1, 1),
    ],
)
def test_the_peak_of_a_fresh_process_is_foretold_within_a_fifth(tmp_path, what):
    """Walks of so many coils, rows, columns and draws; training of the item above."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", FRESH, *map(str, what)]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, work, peak = map(int, done.stdout.split())
    assert peak > 1.2 * before, "too little work to tell"
    assert before + work == pytest.approx(peak, rel=0.2)
    assert work == pytest.approx(peak - before, rel=0.5)


def test_factors_of_line_systems_count_where_they_are_used():
    prior = Small(1)
    shape, vectors = (96, 80), 16 * 96 * 80 * 80
    lines = footprint.walk_bytes(prior, 4, shape, 1)
    assert lines - footprint.walk_bytes(prior, 4, shape, 1, line_axis=None) > vectors
    assert footprint.walk_bytes(prior, 4, shape, 1, "langevin") < vectors  # solves nothing


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/job/step", {"job/memory.max": "3000", "job/memory.current": "1200", "job/step/memory.max": "max"}),
        ("0::/not/seen/here", {"memory.max": "2000", "memory.current": "200"}),
        ("4:cpu,memory:/job", {"memory/job/memory.limit_in_bytes": "1900", "memory/job/memory.usage_in_bytes": "100"}),
        ("4:memory:/job\n0::/", {"memory/job/memory.limit_in_bytes": "1800", "memory.max": "max"}),
    ],
)
def test_the_limit_of_a_control_group_bounds_what_is_available(tmp_path, monkeypatch, own, files):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "own").write_text(own + "\n")
    monkeypatch.setattr(free, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(free, "GROUPS", tmp_path)
    assert footprint.available(CPU) == 1800


def test_file_cache_of_a_control_group_is_room(tmp_path, monkeypatch):
    files = {"own": "0::/", "memory.max": "3000", "memory.current": "2500"}
    for name, text in {**files, "memory.stat": "anon 100\ninactive_file 700\nactive_file 5"}.items():
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(free, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(free, "GROUPS", tmp_path)
    assert footprint.available(CPU) == 1200


@pytest.mark.parametrize("own", [None, "1:cpu:/", "0::/"])
def test_without_a_limit_the_machine_says_what_is_available(tmp_path, monkeypatch, own):
    if own is not None:
        (tmp_path / "own").write_text(own + "\n")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   7 kB\n")
    monkeypatch.setattr(free, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(free, "GROUPS", tmp_path)
    monkeypatch.setattr(free, "MEMINFO", tmp_path / "meminfo")
    assert footprint.available(CPU) == 7 * 1024


@pytest.mark.parametrize(("room", "walks"), [(35, 3), (30, 3), (29.9, 2), (5, 1), (1e6, 32)])
def test_the_largest_batch_that_fits(room, walks):
    assert footprint.fitting(lambda count: 10 * count, room) == walks


def test_line_axis_of_a_mask():
    lines = torch.arange(7) % 3 == 0
    assert footprint.line_axis(lines.reshape(1, 1, 1, 7)) == footprint.line_axis(lines.expand(1, 1, 5, 7)) == -1
    assert footprint.line_axis(lines.reshape(1, 1, 7, 1)) == -2
    assert footprint.line_axis((lines[:, None] & lines)[None, None]) is None


def test_out_of_memory_halves_batches_and_changes_no_draw():
    options = {"method": "adaptive-draw", "steps": 3, "samples": 5, "slices": [0, 1], "device": "cpu"}
    item, tight = scan(3, (16, 15), slices=2), Small(2)
    found = sample_posterior(item, tight, batch_size=8, **options)
    wanted = sample_posterior(item, Small(8), batch_size=8, **options)
    torch.testing.assert_close(found.samples, wanted.samples, rtol=1e-4, atol=1e-5)
    assert tight.refused == 2 and found.work.calls == wanted.work.calls


def test_no_room_for_one_walk_is_said():
    with pytest.raises(Exception, match="no memory for a single walk"):
        sample_posterior(scan(2, (16, 16)), Small(0), steps=2, samples=2, slices=[0], device="cpu")


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(tmp_path):
    (file,) = simulate(tmp_path / "scans", volumes=1, slices=2, size=48, coils=3)
    out = tmp_path / "out"
    arguments = ["reconstruct", str(file), "--accel", "3", "--samples", "5", "--steps", "7", "--batch-size", "auto"]
    done = CliRunner().invoke(main, [*arguments, "--out", str(out), "--dry-run"])
    assert done.exit_code == 0, done.output
    for words in ("2 of 2", "48 x 48", "10 by matched-draw", " 110\n", " 90 with", "2 of 5 draws", "MiB", str(out)):
        assert words in done.output
    checked = CliRunner().invoke(main, [*arguments, "--out", str(out), "--dry-run", "--check-lines", "2"])
    assert "20 by matched-draw" in checked.output and " 220\n" in checked.output  # the second reconstruction counts
    assert not out.exists()
