"""Training by several processes: the gradients, the losses and the runs of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mri_score.errors import InputError
from mri_score.training import checkpoint
from mri_score.training.processes import Processes

WORKER = Path(__file__).with_name("processes_worker.py")


def torchrun(count: int, *arguments, restarts: int = 0) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", count, "--max-restarts", restarts,
               "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1",
               WORKER, *arguments]  # fmt: skip
    done = subprocess.run(
        list(map(str, command)), env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_gradients_of_two_processes_are_those_of_one_with_the_joint_batch(tmp_path):
    torchrun(2, "gradients", tmp_path)
    subprocess.run([sys.executable, WORKER, "gradients", tmp_path], check=True, timeout=300)
    one, first, second = (
        torch.load(tmp_path / f"gradients-{name}.pt", weights_only=True) for name in ("0-of-1", "0-of-2", "1-of-2")
    )
    assert one.keys() == first.keys() and len(one) >= 3
    for loss, gradients in one.items():
        assert gradients.keys() == first[loss].keys() and len(gradients) > 10
        for name, gradient in gradients.items():
            assert torch.equal(first[loss][name], second[loss][name])
            size = max(float(gradient.norm()), 1e-6 * float(gradients["value"]))
            assert float((first[loss][name] - gradient).norm()) < 1e-4 * size, (loss, name)


@pytest.mark.slow
def test_a_run_whose_process_dies_restarts_from_its_checkpoint_and_ends_as_if_nothing_had_been(tmp_path):
    torchrun(2, "straight", tmp_path / "straight")
    torchrun(2, "dying", tmp_path / "dying", restarts=1)
    states = [checkpoint.load(checkpoint.found(tmp_path / name)[-1]) for name in ("straight", "dying")]
    assert [state["step"] for state in states] == [20, 20]
    for name, weight in states[0]["model"].items():
        assert torch.equal(weight, states[1]["model"][name]), name
    log = [json.loads(line) for line in (tmp_path / "dying" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [5, 10, 15, 20]  # by one process, each step once


@pytest.mark.parametrize(("batch_size", "count"), [(5, 2), (7, 3), (4, 4), (9, 1)])
def test_every_item_of_a_batch_has_one_process(batch_size, count):
    shares = [Processes(number, count).share(batch_size) for number in range(count)]
    assert [item for share in shares for item in share] == list(range(batch_size))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_batch_smaller_than_the_processes_is_refused():
    with pytest.raises(InputError, match="joint batch of 4 processes"):
        Processes(0, 4).share(3)
