"""Kill `mri-score reconstruct` and `mri-score train` at random moments, run them again, and look for what is missing.

A run is repeated until it ends by itself; what lies in its folder must then be what an uninterrupted run writes: the
same images, scores, pictures, pages, checkpoints, priors and logs (but for measured seconds), and no temporary file.
Half of the kills come at a random time, half just before or after a random file is renamed to its place, where little
time is spent and most can go wrong. Every kill is SIGKILL, which a program cannot see coming.

    python scripts/kills.py --kills 100 --seed 0
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from mri_score.cli import main as command_line
from mri_score.pipeline.run_log import FOLDER as LOGS
from mri_score.priors.store import build_prior, save_prior
from mri_score.simulation.simulate import simulate
from mri_score.training import checkpoint

IMPORTED = (
    "mri_score.cli.run.reconstruct", "mri_score.cli.train", "mri_score.experiment", "matplotlib.backends.backend_agg",
    "torch._dynamo", "torch.utils.tensorboard",
)  # fmt: skip
"""Imported before the processes are forked, which saves each of them seconds."""
SIDE = 32
NETWORK: dict[str, Any] = {"name": "unet", "widths": [6, 8], "blocks": 1, "embedding": 8}
STEPS = 24


class Reconstruct:
    """`reconstruct` of a folder of three scans, and all that it leaves."""

    def __init__(self, folder: Path) -> None:
        self.scans = folder / "scans"
        simulate(self.scans, volumes=3, slices=1, size=SIDE, coils=3, noise=30.0)
        prior = build_prior(NETWORK, sd=0.3, sigma_min=0.01, sigma_max=5.0)
        self.prior = folder / "tiny.safetensors"
        save_prior(self.prior, prior, NETWORK, {})

    def arguments(self, out: Path) -> list[str]:
        quick = {"--accel": 3, "--steps": 2, "--samples": 2, "--threads": 1, "--baselines": "zero-filled"}
        options = [str(part) for option in quick.items() for part in option]
        return ["reconstruct", str(self.scans), "--prior", str(self.prior), "--out", str(out), *options, "-q"]

    def left(self, out: Path) -> dict[str, Any]:
        """Name -> what is there, without measured seconds. Each process leaves a log of its own, which is left out."""
        return {str(path.relative_to(out)): _content(path) for path in _files(out) if path.parent.name != LOGS}


class Train:
    """`train` of a tiny prior, and all that it leaves."""

    def __init__(self, folder: Path) -> None:
        scans = folder / "scans"
        if not scans.exists():
            simulate(scans, volumes=3, slices=1, size=SIDE, coils=3, noise=30.0)
        data = {"name": "fastmri", "paths": [str(scans)], "size": SIDE}
        config = {
            "dataset": "tiny", "data": data, "validation": data, "network": NETWORK, "schedule": {"name": "karras"},
            "training": {
                "steps": STEPS, "batch_size": 16, "save_every": 8, "log_every": 4, "workers": 0, "keep_every": 1,
                "ema_decay": [0.9, 0.8],
            },
        }  # fmt: skip
        self.config = folder / "tiny.yml"
        self.config.write_text(json.dumps(config))

    def arguments(self, out: Path) -> list[str]:
        return ["train", "--config", str(self.config), "--out", str(out), "--threads", "1", "--device", "cpu", "-q"]

    def left(self, out: Path) -> dict[str, Any]:
        """Name -> what is there, without measured seconds. TensorBoard writes one file a process."""
        return {
            str(path.relative_to(out)): _content(path)
            for path in _files(out)
            if "tensorboard" not in path.parts
        }  # fmt: skip


SUBJECTS: dict[str, Callable[[Path], Reconstruct | Train]] = {"reconstruct": Reconstruct, "train": Train}


SHARES = {"times": 1.0, "renames": 0.0, "both": 0.5}
"""Share of kills at a random time; those at renames are the same in every run of one seed."""


def _files(out: Path) -> list[Path]:
    """All files but locks; temporary files are among them."""
    return sorted(path for path in out.rglob("*") if path.is_file() and not path.name.endswith(".lock"))


def _content(path: Path) -> Any:
    """What a file holds, in a form that can be compared between runs."""
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            found: dict[str, Any] = {}
            parts: list[str] = []
            file.visit(parts.append)
            found |= {name: file[name][()] for name in parts if isinstance(file[name], h5py.Dataset)}
            if "scores" in found:
                found["scores"] = found["scores"][[name for name in found["scores"].dtype.names if name != "seconds"]]
            page = found.pop("pictures/page", None)
            return {name: np.asarray(value).tolist() for name, value in found.items()} | {
                "page": None if page is None else _page(page.tobytes().decode())
            }
    if path.suffix == ".html":
        return _page(path.read_text(encoding="utf-8"))
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    if path.suffix == ".pt":
        return _tensors(checkpoint.load(path))
    return path.read_bytes()


def _page(text: str) -> str:
    """A report without the date and the command line of its run, and measured seconds, the last column of tables."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC|<dd>mri-score [^<]*</dd>", "", text)
    return re.sub(r"<td[^>]*>(<b>)?[\d.]+(</b>)?</td>\s*</tr>", "</tr>", text)


def _tensors(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _tensors(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_tensors(value) for value in state]
    return state.tolist() if isinstance(state, torch.Tensor) else state


def start(arguments: list[str], log: Path, before: Callable[[], None] = lambda: None) -> int:
    """Fork a process that runs the command; returns its number. log: for what it prints. before: called in it first."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        printed = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        before()
        command_line(arguments, prog_name="mri-score")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(process: int, seconds: float | None = None) -> tuple[int | None, float]:
    """Wait for a process, or kill it after so much processor time, which a busy machine does not change.

    Returns its exit code, -9 if it was killed, and its processor time in seconds.
    """
    while True:
        done, status, usage = os.wait4(process, 0 if seconds is None else os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        if seconds is not None and (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") >= seconds:
            os.kill(process, signal.SIGKILL)
            seconds = None
        time.sleep(0.002)


def kill_at_rename(number: int, after: bool) -> Callable[[], None]:
    """For a process: kill yourself just before, or after, the file `number` is renamed to its place."""

    def before() -> None:
        rename, count = os.replace, 0

        def replace(*arguments: Any, **options: Any) -> None:
            nonlocal count
            count += 1
            if count == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(*arguments, **options)
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = replace  # type: ignore[assignment]

    return before


def compare(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What is missing, too much or other than in the uninterrupted run."""
    missing = [f"{name} is missing" for name in wanted if name not in found]
    more = [f"{name} should not be there" for name in found if name not in wanted]
    other = [f"{name} is different" for name in wanted if name in found and wanted[name] != found[name]]
    return missing + more + other


def run(name: str, kills: int, seed: int, folder: Path, share: float) -> dict[str, Any]:
    """Kill a command `kills` times. share: of kills at a random time. Returns counts and faults."""
    subject = SUBJECTS[name](folder)
    whole = folder / f"{name}-whole"
    log = folder / "log.txt"
    code, length = wait(start(subject.arguments(whole), log))
    assert code == 0, f"the uninterrupted {name} ended with {code}: {log.read_text()}"
    wanted = subject.left(whole)
    rng = random.Random(f"{name} {seed}")
    done, passes, faults = 0, 0, []
    out = folder / f"{name}-killed"
    while done < kills:
        shutil.rmtree(out, ignore_errors=True)
        passes += 1
        while True:
            last = done >= kills
            if last or rng.random() < share:
                process, limit = start(subject.arguments(out), log), None if last else rng.uniform(0, length)
            else:
                process = start(subject.arguments(out), log, kill_at_rename(rng.randrange(1, 7), rng.random() < 0.5))
                limit = None
            code, _ = wait(process, limit)
            if code == 0:
                break
            if code != -signal.SIGKILL:
                faults.append(f"after {done} kills {name} ended with {code}: {log.read_text()}")
                break
            done += 1
        faults += compare(wanted, subject.left(out))
    return {"command": name, "kills": done, "runs to the end": passes, "faults": faults}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=10, help="kills of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at", choices=list(SHARES), default="both", help="the moments of the kills")
    parser.add_argument("--only", choices=list(SUBJECTS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    for module in IMPORTED:
        with suppress(ImportError):
            import_module(module)
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in SUBJECTS if given.only is None else [given.only]:
            found = run(name, given.kills, given.seed, Path(folder), SHARES[given.at])
            print(f"{name}: {found['kills']} kills, {found['runs to the end']} runs to the end", flush=True)
            for fault in found["faults"]:
                print(f"  {fault}")
            faults += len(found["faults"])
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
