"""Files shared out among processes: each file once, the same results, one table."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mri_score.cli.options import read_slices, take_shard
from mri_score.errors import InputError
from mri_score.simulation.simulate import simulate

QUICK = ["--accel", "3", "--steps", "2", "--samples", "1", "--threads", "1", "--baselines", "zero-filled"]
FILES = [Path(f"{name}.h5") for name in "abcdefg"]


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_every_file_has_one_shard(count):
    shards = [take_shard(FILES, f"{number}/{count}") for number in range(count)]
    assert sorted(path for shard in shards for path in shard) == FILES
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize(
    ("environment", "files"),
    [
        ({}, FILES),
        ({"RANK": "1", "WORLD_SIZE": "2"}, FILES[1::2]),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "1"}, FILES[2::3]),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, FILES[0::4]),
        ({"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "3", "SLURM_NTASKS": "4"}, FILES[0::2]),
    ],
)
def test_the_environment_says_which_shard(environment, files, monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM_") or name in ("RANK", "WORLD_SIZE")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert take_shard(FILES, None) == files
    assert take_shard(FILES, "0/1") == FILES


@pytest.mark.parametrize("text", ["2/2", "-1/2", "1", "a/b", "1/2/3", "0/0"])
def test_a_shard_that_does_not_exist_is_refused(text):
    with pytest.raises(InputError, match="--shard"):
        take_shard(FILES, text)


def start(*arguments):
    command = [sys.executable, "-m", "mri_score", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_processes_that_share_a_folder_give_what_one_gives(tmp_path):
    scans = simulate(tmp_path / "scans", volumes=3, slices=1, size=48, coils=3, noise=30.0)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    runs = [start("reconstruct", tmp_path / "scans", *QUICK, "--out", whole)]
    runs += [start("reconstruct", tmp_path / "scans", *QUICK, "--out", parts, "--shard", f"{i}/2") for i in (0, 1)]
    for run in runs:
        output, _ = run.communicate(timeout=300)
        assert run.returncode == 0, output
    for scan in scans:
        with (
            h5py.File(whole / "reconstructions" / scan.name) as one,
            h5py.File(parts / "reconstructions" / scan.name) as other,
        ):
            assert np.array_equal(one["reconstruction_complex"], other["reconstruction_complex"])
            assert one.attrs["identity"] == other.attrs["identity"]
    rows = []
    for folder in (whole, parts):
        with open(folder / "metrics.csv", newline="") as file:
            rows.append(
                sorted((row["file"], row["target"], row["method"], row["psnr"]) for row in csv.DictReader(file))
            )
    assert rows[0] == rows[1] and len({row[0] for row in rows[0]}) == 3
    assert (parts / "report" / "index.html").read_text() == (whole / "report" / "index.html").read_text()


def test_maps_are_made_once(tmp_path):
    simulate(tmp_path / "scans", volumes=2, slices=1, size=48, coils=3, noise=30.0)
    out = tmp_path / "maps"
    outputs = []
    for more in (["--shard", "1/2"], [], [], ["--again"], ["--accel", "2"]):
        run = start("maps", tmp_path / "scans", "--out", out, *more)
        outputs.append(run.communicate(timeout=300)[0])
        assert run.returncode == 0, outputs[-1]
    assert [output.count("finished before") for output in outputs] == [0, 1, 2, 0, 0]


def test_slices_are_numbers_ranges_and_the_middle_of_the_volume():
    cases = {
        None: [0, 1, 2, 3, 4],
        ":": [0, 1, 2, 3, 4],
        "middle": [2],
        "4": [4],
        "1:3": [1, 2],
        "3:": [3, 4],
        "0,4": [0, 4],
    }
    assert {text: read_slices(text, 5) for text in cases} == cases
    for text in ("5", "-1", "2:2", "0,5", "two"):
        with pytest.raises(InputError, match="--slices"):
            read_slices(text, 5)
