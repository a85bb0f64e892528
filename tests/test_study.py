"""Many scans: what status says of a folder, what merge joins, and a study whose workers are killed."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import mri_score, refused

from mri_score.cli.options import each_file
from mri_score.errors import InputError
from mri_score.pipeline.derived import COLUMNS
from mri_score.pipeline.result_file import MVUE, RSS
from mri_score.pipeline.run_log import RunLog, read_study

CHECKOUT = Path(__file__).resolve().parents[1]
SCANS = [Path(f"scans/{name}.h5") for name in "abcd"]


def result(out: Path, name: str) -> None:
    (out / "reconstructions").mkdir(parents=True, exist_ok=True)
    (out / "reconstructions" / name).touch()


def log_of(out: Path, process: int, lines: list[dict]) -> None:
    """A log as another process left it."""
    (out / "log").mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (out / "log" / f"{process}.jsonl").write_text(text)


def event(time: float, event: str, name: str | None = None, **more) -> dict:
    return {"time": time, "event": event, **({} if name is None else {"scan": f"{name}.h5"}), **more}


# What becomes of each scan.


def test_files_that_end_fail_or_are_kept_are_told_apart(tmp_path):
    log = RunLog(tmp_path, SCANS)

    def work(path):
        if path.stem == "b":
            raise InputError("it is damaged")
        if path.stem == "c":
            log.keep(path)
        if path.stem == "d":
            raise KeyboardInterrupt
        result(tmp_path, path.name)

    with pytest.raises(KeyboardInterrupt):
        each_file(SCANS, work, log=log)
    study = read_study(tmp_path)
    assert study.done == ["a.h5", "c.h5"] and study.failed == {"b.h5": "it is damaged"} and study.left == []
    assert list(study.working) == ["d.h5"]  # this process still lives
    assert study.count == 4 and study.per_hour > 0 and study.ends is not None


def test_an_only_file_that_fails_is_on_record(tmp_path):
    def work(path):
        raise InputError("no lines")

    with pytest.raises(InputError):
        each_file(SCANS[:1], work, log=RunLog(tmp_path, SCANS[:1]))
    assert read_study(tmp_path).failed == {"a.h5": "no lines"}


def test_results_written_by_the_second_thread_count_when_they_are_there(tmp_path):
    log = RunLog(tmp_path, SCANS[:2])
    seen = []

    def rest(path):
        seen.append(len(read_study(tmp_path).done))
        result(tmp_path, path.name)

    each_file(SCANS[:2], lambda path: lambda: rest(path), log=log)
    assert seen[0] == 0 and len(read_study(tmp_path).done) == 2


def test_the_newest_event_and_the_result_decide(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = [f"{name}.h5" for name in "abcdefg"]
    mine = RunLog(tmp_path, []).path
    host = json.loads(mine.read_text())["host"]
    log_of(tmp_path, 1, [
        event(100, "run", scans=names, host=host, process=dead.pid),
        event(101, "begun", "a"), event(105, "done", "a"),
        event(105, "begun", "b"), event(107, "failed", "b", why="first"),
        event(107, "begun", "c"), event(109, "done", "c"),  # its result was removed
        event(109, "begun", "d"),  # killed
    ])  # fmt: skip
    log_of(tmp_path, 2, [
        event(110, "run", scans=names, host=host, process=dead.pid),
        event(111, "begun", "b"), event(113, "done", "b"),
        event(113, "begun", "e"), event(114, "failed", "e", why="second"),
        event(114, "begun", "a"),  # killed as it met what was done before
    ])  # fmt: skip
    log_of(tmp_path, 3, [
        event(110, "run", scans=names, host="elsewhere", process=1), event(112, "begun", "f"),
    ])  # fmt: skip
    with open(tmp_path / "log" / "3.jsonl", "a") as file:
        file.write('{"time": 119, "event": "do')  # cut off by a kill
    for name in ("a", "b", "old"):
        result(tmp_path, f"{name}.h5")
    study = read_study(tmp_path, now=130.0)
    assert study.done == ["a.h5", "b.h5", "old.h5"] and study.failed == {"e.h5": "second"}
    assert study.left == ["c.h5", "d.h5", "g.h5"] and study.working == {"f.h5": 18.0}


@pytest.mark.parametrize("count", [10, 120])
def test_the_rate_is_that_of_the_last_fifty_and_tells_the_end(tmp_path, count):
    """One scan every 4 s after 60 slow ones; each took 8 s, by two workers."""
    names = [f"{number:03d}" for number in range(count + 30)]
    times = [4.0 * (number + 1) if count < 50 or number >= 60 else 0.01 * number for number in range(count)]
    lines = [event(0.0, "run", scans=[f"{name}.h5" for name in names], host="elsewhere", process=1)]
    for name, moment in zip(names, times, strict=False):
        lines += [event(moment - 8, "begun", name), event(moment, "done", name)]
        result(tmp_path, f"{name}.h5")
    log_of(tmp_path, 1, lines)
    study = read_study(tmp_path, now=times[-1])
    assert study.per_hour == pytest.approx(900) and study.scan_seconds == pytest.approx(8)
    assert study.ends == pytest.approx(times[-1] + 30 * 4) and len(study.left) == 30
    late = read_study(tmp_path, now=times[-1] + min(count, 50) * 4)  # nothing more came: the rate falls
    assert late.per_hour == pytest.approx(450)


def test_the_command_prints_numbers_reasons_and_json(tmp_path):
    result(tmp_path, "a.h5")
    log_of(tmp_path, 1, [
        event(time.time() - 60, "run", scans=["a.h5", "b.h5", "c.h5"], host="elsewhere", process=1),
        event(time.time() - 60, "begun", "a"), event(time.time() - 30, "done", "a"),
        event(time.time() - 30, "failed", "b", why="b.h5: it is\x1b damaged"),
    ])  # fmt: skip
    said = mri_score("status", tmp_path)
    words = " ".join(said.split())
    assert "scans 3 done 1 failed 1 in work 0 left 1 rate " in words and "one takes 30 s" in words
    assert re.search(r"ends in \d+ (s|min), 20\d\d-", words)
    assert "failed: b.h5: b.h5: it is" in words and "\x1b" not in said
    found = json.loads(mri_score("status", "--json", tmp_path))
    assert (found["scans"], found["done"], found["left"]) == (3, ["a.h5"], ["c.h5"])
    assert "has no results of mri-score reconstruct" in refused("status", tmp_path / "nothing")


# Joining.


def table(folder: Path, *rows: tuple) -> Path:
    """metrics.csv with rows of (file, method, target, PSNR, seconds)."""
    folder.mkdir()
    with open(folder / "metrics.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name, method, target, psnr, seconds in rows:
            writer.writerow([name, target, "foreground", method, psnr, 0.9, 0.01, seconds])
    return folder


def test_merge_joins_tables_and_gives_the_mean_of_each_method(tmp_path):
    one = table(tmp_path / "one", ("b.h5", "ours", MVUE, 30.0, 5), ("b.h5", "zero", MVUE, 20.0, 1))
    again = "b.h5", "ours", MVUE, 30.0, 7
    two = table(tmp_path / "two", ("a.h5", "ours", MVUE, 33.0, 5), ("a.h5", "ours", RSS, 9.0, 5), again)
    mri_score("merge", one, two, "--out", tmp_path / "both")
    with open(tmp_path / "both" / "metrics.csv", newline="") as file:
        rows = [(row["file"], row["method"], row["target"]) for row in csv.DictReader(file)]
    assert rows == [("a.h5", "ours", MVUE), ("a.h5", "ours", RSS), ("b.h5", "ours", MVUE), ("b.h5", "zero", MVUE)]
    page = (tmp_path / "both" / "report" / "index.html").read_text()
    assert "31.50" in page and str(one / "report") in page and "33.0" in page  # the mean of 30 and 33
    before = (tmp_path / "both" / "metrics.csv").read_bytes()
    result(tmp_path / "both", "c.h5")  # of a scan without ground truth
    mri_score("merge", tmp_path / "both", "--out", tmp_path / "both")
    assert (tmp_path / "both" / "metrics.csv").read_bytes() == before
    page = (tmp_path / "both" / "report" / "index.html").read_text()
    assert re.search(r"Volumes</dt>\s*<dd>3<", page)


def test_merge_refuses_what_cannot_belong_together(tmp_path):
    one = table(tmp_path / "one", ("b.h5", "ours", MVUE, 30.0, 5))
    other = table(tmp_path / "other", ("b.h5", "ours", MVUE, 30.1, 5))
    said = refused("merge", one, other, "--out", tmp_path / "both")
    assert "b.h5 has other scores of ours" in said and "merge only folders that were made with the same options" in said
    said = refused("merge", one, tmp_path / "none", "--out", tmp_path / "both")
    assert "has no results of mri-score reconstruct" in said
    assert not (tmp_path / "both").exists()


# Whole studies.


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the driver reads /proc")
@pytest.mark.parametrize("apart", [[], ["--apart"]])
def test_a_study_whose_workers_are_killed_is_whole(apart):
    command = [sys.executable, CHECKOUT / "scripts" / "study.py", "--scans", "8", "--kills", "5", *apart]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout.splitlines()[0])
    assert facts["kills"] >= 3 and facts["starts"] == 4 + facts["kills"] and facts["failed"] == 1


@pytest.mark.slow
def test_the_workflow_of_one_scan_a_job_runs(tmp_path):
    snakemake = shutil.which("snakemake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if snakemake is None:
        pytest.skip("snakemake is not installed")
    mri_score("simulate", "--out", tmp_path / "scans", "--volumes", 2, "--slices", 1, "--size", 32, "--coils", 3)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "mri-score").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mri_score "$@"\n')
    (bin_ / "mri-score").chmod(0o755)
    command = [snakemake, "--snakefile", CHECKOUT / "scripts" / "snakemake" / "Snakefile", "--cores", "1", "--config"]
    options = "options=--accel 3 --steps 2 --samples 1 --prior brain-fast --baselines zero-filled"
    environment = {**os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [*command, "scans=scans", "out=out", options], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    study = read_study(tmp_path / "out")
    assert len(study.done) == 2 and not study.failed
    assert "Mean over volumes" in (tmp_path / "out" / "report" / "index.html").read_text()
