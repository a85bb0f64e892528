"""A study of many small scans by several workers that are killed again and again, as on preemptible machines.

Each worker is `mri-score reconstruct SCANS --shard I/N` into the same folder, or with --apart into one of its own. A
worker that is killed (SIGKILL, after a random processor time) is started again, as by a job array with --requeue. Scans
that are damaged must fail with a reason, and no other may. Meanwhile `mri-score status` must count every scan
once, and never fewer of them done than before. At the end all sound scans must be done, with the scores of a run that
nothing interrupted (of the first CONTROL scans), and `mri-score merge` must join what the workers left apart.

    python scripts/study.py --scans 1000 --workers 4 --kills 40
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import torch
from kills import IMPORTED, NETWORK, SIDE, start

from mri_score.pipeline.derived import read_metrics
from mri_score.pipeline.merge import merge_folders
from mri_score.pipeline.run_log import Study, read_study
from mri_score.priors.store import build_prior, save_prior
from mri_score.simulation.simulate import simulate

CONTROL = 4
"""Number of scans that one more, uninterrupted run reconstructs."""
QUICK = {"--accel": 3, "--steps": 2, "--samples": 2, "--threads": 1, "--baselines": "zero-filled"}
SHARE = 1.2
"""Largest life of a worker that is killed, over the mean that would spend all processor time on lives with a kill."""
LOOK_EVERY = 0.2
"""Seconds between two looks at the status."""


class Worker:
    """One shard, in a process that may be killed and started again."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.arguments, self.log = arguments, log
        self.code: int | None = None
        self.starts, self.seconds = 0, 0.0
        self.begin()

    def begin(self) -> None:
        """Start it, again if it was killed."""
        self.process, self.starts, self.code = start(self.arguments, self.log), self.starts + 1, None

    def look(self) -> int | None:
        """Its exit code, negative if it was killed; None while it lives."""
        if self.code is None:
            done, status, usage = os.wait4(self.process, os.WNOHANG)
            if done:
                self.code = os.waitstatus_to_exitcode(status)
                self.seconds += usage.ru_utime + usage.ru_stime
        return self.code

    def age(self) -> float:
        """Its processor time so far."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def damage(scans: Sequence[Path], count: int) -> set[str]:
    """Cut the last `count` files in half; their names."""
    for path in scans[len(scans) - count :]:
        os.truncate(path, path.stat().st_size // 2)
    return {path.name for path in scans[len(scans) - count :]}


def work(workers: list[Worker], folders: list[Path], lives: Iterator[float], count: int) -> tuple[int, list[str]]:
    """Kill and start workers until all have ended by themselves.

    lives: processor times after which a worker is killed, as many as kills. count: of scans. Returns the number of
    kills, and what status said that cannot be.
    """
    faults, done, killed, looked = [], 0, 0, 0.0
    ends = [next(lives, math.inf) for _ in workers]
    while any(worker.code is None for worker in workers):
        time.sleep(0.01)
        for number, worker in enumerate(workers):
            if worker.look() == -signal.SIGKILL:
                worker.begin()
                ends[number] = next(lives, math.inf)
            elif worker.code is None and worker.age() > ends[number]:
                os.kill(worker.process, signal.SIGKILL)
                killed, ends[number] = killed + 1, math.inf
        if time.monotonic() - looked > LOOK_EVERY and all(list((one / "log").glob("*")) for one in folders):
            looked = time.monotonic()
            studies = [read_study(folder) for folder in folders]
            if any(one.count != count for one in studies):
                faults.append(f"status counts {[one.count for one in studies]} scans, not {count}")
            now = sum(len(one.done) for one in studies)
            if now < done:
                faults.append(f"{done} scans were done, and then {now}")
            done = now
    return killed, faults


def check(studies: list[Study], scans: Sequence[Path], damaged: set[str]) -> list[str]:
    """What is not as it must be at the end."""
    done = [name for one in studies for name in one.done]
    failed = {name: why for one in studies for name, why in one.failed.items()}
    faults = [] if sorted(done) == [path.name for path in scans if path.name not in damaged] else ["done: not the rest"]
    if set(failed) != damaged or not all(failed.values()):
        faults.append(f"failed: {failed}, not {sorted(damaged)}")
    if len(studies) == 1 and (studies[0].left or studies[0].working or studies[0].ends is not None):
        faults.append(f"left: {studies[0].left}, in work: {studies[0].working}")
    return faults


def scores(table: Path, names: set[str]) -> list[dict[str, str]]:
    """The rows of some scans, without measured seconds."""
    return [{**row, "seconds": ""} for row in read_metrics(table) if row["file"] in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scans", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--damaged", type=int, default=1, help="number of scans that are cut in half")
    parser.add_argument("--apart", action="store_true", help="one output folder a worker, joined by merge")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for module in IMPORTED:
        with suppress(ImportError):
            import_module(module)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scans = simulate(folder / "scans", volumes=given.scans, slices=1, size=SIDE, coils=3, noise=30.0)
        prior = folder / "tiny.safetensors"
        save_prior(prior, build_prior(NETWORK, sd=0.3, sigma_min=0.01, sigma_max=5.0), NETWORK, {})
        quick = [str(part) for option in QUICK.items() for part in option]

        def arguments(scans: Path, out: Path, *more: str) -> list[str]:
            return ["reconstruct", str(scans), "--prior", str(prior), "--out", str(out), *quick, "-q", *more]

        few = folder / "few"
        few.mkdir()
        for path in scans[:CONTROL]:
            os.link(path, few / path.name)
        control = Worker(arguments(few, folder / "control"), folder / "control.txt")
        while control.look() is None:
            time.sleep(0.01)
        damaged = damage(scans, given.damaged)
        count = given.workers
        outs = [folder / "out" / (str(number) if given.apart else "") for number in range(count)]
        began = time.monotonic()
        workers = [
            Worker(arguments(folder / "scans", out, "--shard", f"{number}/{count}"), folder / f"{number}.txt")
            for number, out in enumerate(outs)
        ]
        folders = list(dict.fromkeys(outs))
        random_ = random.Random(given.seed)
        longest = SHARE * control.seconds / CONTROL * given.scans / max(given.kills, 1)
        lives = iter([random_.uniform(0, longest) for _ in range(given.kills)])
        killed, faults = work(workers, folders, lives, given.scans)
        if 2 * killed < given.kills:
            faults.append(f"only {killed} of {given.kills} kills happened: take more scans")
        faults += [
            f"worker {number} ended with {worker.code}: {worker.log.read_text()}"
            for number, worker in enumerate(workers)
            if worker.code not in (0, 1, 2)
        ]
        studies = [read_study(one) for one in folders]
        faults += check(studies, scans, damaged)
        table = merge_folders(folders, folder / "merged")[0]
        names = {path.name for path in scans[:CONTROL]}
        if scores(table, names) != scores(folder / "control" / "metrics.csv", names):
            faults.append("the scores are not those of the uninterrupted run")
        with open(table, newline="", encoding="utf-8") as file:
            volumes = len({row["file"] for row in csv.DictReader(file)})
        if volumes != given.scans - given.damaged:
            faults.append(f"the joint table has {volumes} volumes")
        facts = {
            "scans": given.scans, "workers": count, "kills": killed,
            "starts": sum(worker.starts for worker in workers), "wall seconds": round(time.monotonic() - began, 1),
            "processor seconds": round(sum(worker.seconds for worker in workers), 1), "failed": len(damaged),
        }  # fmt: skip
    print(json.dumps(facts))
    for fault in faults[:20]:
        print(f"  {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
