"""Files shared out among processes: each file once, the same results, one table."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import h5py
import numpy as np
import pytest
from command import mri_score

from mri_score.cli.options import _found_task, read_slices, take_shard
from mri_score.errors import InputError
from mri_score.simulation.simulate import simulate

QUICK = ["--accel", "3", "--steps", "2", "--samples", "1", "--threads", "1", "--baselines", "zero-filled"]
FILES = [Path(f"{name}.h5") for name in "abcdefg"]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_file_has_one_shard(count):
    shards = [take_shard(FILES, f"{number}/{count}") for number in range(count)]
    assert sorted(path for shard in shards for path in shard) == FILES
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def array(task: int, count: int, first: int, last: int, step: int = 1) -> dict[str, str]:
    """What Slurm sets in a task of a job array."""
    values = {"ID": task, "COUNT": count, "MIN": first, "MAX": last, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


ARRAYS = {
    "0-2": [array(task, 3, 0, 2) for task in (0, 1, 2)],
    "1-3": [array(task, 3, 1, 3) for task in (1, 2, 3)],
    "0-20:10": [array(task, 3, 0, 20, 10) for task in (0, 10, 20)],
    "0-20:7": [array(task, 3, 0, 14, 7) for task in (0, 7, 14)],
    "2,7": [array(task, 2, 2, 7) for task in (2, 7)],
    "2,3,9": [array(task, 3, 2, 9) for task in (2, 3, 9)],
    "0,8,9": [array(task, 3, 0, 9, 4) for task in (0, 8, 9)],
    "5": [array(5, 1, 5, 5)],
    "srun -n 2": [{"SLURM_PROCID": str(task), "SLURM_NTASKS": "2"} for task in range(2)],
    "torchrun": [{"RANK": str(task), "WORLD_SIZE": "4"} for task in range(4)],
    "srun in an array": [{**array(task, 2, 0, 1), "SLURM_PROCID": "0", "SLURM_NTASKS": "1"} for task in range(2)],
}


@pytest.fixture
def alone(monkeypatch):
    """No variable of Slurm or torchrun is set; returns a function that sets some."""

    def within(environment: dict[str, str]) -> None:
        for name in [name for name in os.environ if name.startswith("SLURM_") or name in ("RANK", "WORLD_SIZE")]:
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    within({})
    return within


@pytest.mark.parametrize("kind", ARRAYS)
def test_the_tasks_of_an_array_share_the_files(kind, alone):
    shards = []
    for environment in ARRAYS[kind]:
        alone(environment)
        shards.append(take_shard(FILES, "auto"))
        assert take_shard(FILES, None) == FILES  # unasked, nothing is shared out
        assert take_shard(FILES[:1], "auto", folder=False) == FILES[:1]
    assert sorted(path for shard in shards for path in shard) == FILES
    assert shards == [FILES[number :: len(shards)] for number in range(len(shards))]


@pytest.mark.parametrize(
    ("text", "tasks"),
    [
        ("1,5,9,20", (1, 5, 9, 20)),
        ("20, 9,1,5%2", (1, 5, 9, 20)),
        ("0-6:2,7", (0, 2, 4, 6, 7)),
        ("3,0-1,1-2", (0, 1, 2, 3)),
    ],
)
def test_an_irregular_array_shares_the_files_by_its_list(text, tasks, alone):
    shards = []
    for task in tasks:
        alone(array(task, len(tasks), min(tasks), max(tasks)))
        shards.append(take_shard(FILES, f"auto:{text}"))
    assert shards == [FILES[number :: len(tasks)] for number in range(len(tasks))]


@pytest.mark.parametrize("step", [None, 1, 2, 3])
def test_without_its_list_an_array_never_leaves_out_a_file_silently(step, alone):
    """Of every array of 2 to 5 numbers below 9, some task ends with an error, or each file is done."""
    for count in (2, 3, 4, 5):
        for tasks in combinations(range(9), count):
            shards, failed = [], False
            for task in tasks:
                values = array(task, count, tasks[0], tasks[-1], step or 1)
                if step is None:
                    del values["SLURM_ARRAY_TASK_STEP"]
                alone(values)
                try:
                    shards.append(_found_task())
                except InputError:
                    failed = True
            assert failed or sorted(shards) == [(place, count) for place in range(count)], tasks


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "belongs to no Slurm job array"),
        (array(5, 4, 2, 11), "a list of 4 numbers from 2 to 11"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK is 'one'"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_COUNT is ''"),
    ],
)
def test_a_part_that_the_environment_does_not_state_is_no_guess(environment, message, alone):
    alone(environment)
    with pytest.raises(InputError, match=message):
        take_shard(FILES, "auto")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,5,9,21", "not the list of the array, which has 4 tasks from 1 to 20"),
        ("1,5,6-20", "not the list"),
        ("1,x", "'x' is no task or range"),
        ("0-999999999", "more than 1000000 tasks"),
        ("5-1", "not the list"),
    ],
)
def test_a_list_that_is_not_that_of_the_array_is_refused(text, message, alone):
    alone(array(5, 4, 1, 20))
    with pytest.raises(InputError, match=message):
        take_shard(FILES, f"auto:{text}")


def test_an_empty_part_is_no_success():
    with pytest.raises(InputError, match="part 8 of 9 is empty, as there are 7 files"):
        take_shard(FILES, "8/9")
    assert take_shard(FILES[:1], "8/9", folder=False) == FILES[:1]


def test_a_task_of_an_array_does_the_file_that_it_names(tmp_path, alone):
    (scan,) = simulate(tmp_path / "scans", volumes=1, slices=1, size=48, coils=3, noise=30.0)
    alone(array(3, 4, 0, 3))
    mri_score("maps", scan, "--out", tmp_path / "maps")
    assert (tmp_path / "maps" / scan.name).exists()
    alone({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"})
    simulate(tmp_path / "scans", volumes=2, slices=1, size=48, coils=3, noise=30.0)
    told = mri_score("maps", tmp_path / "scans", "--out", tmp_path / "all")
    assert "SLURM_NTASKS=4): all 2 files are done; --shard auto takes a part" in told
    assert len(list((tmp_path / "all").glob("*.h5"))) == 2


@pytest.mark.parametrize("text", ["2/2", "-1/2", "1", "a/b", "1/2/3", "0/0"])
def test_a_shard_that_does_not_exist_is_refused(text):
    with pytest.raises(InputError, match="--shard"):
        take_shard(FILES, text)


def start(*arguments):
    command = [sys.executable, "-m", "mri_score", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
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


@pytest.mark.slow
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
