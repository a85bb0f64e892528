"""The benchmark suite: fair timing, agreement before speed, and every operator subject at a tiny size."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

import numpy as np
import pytest
import torch

BENCH = Path(__file__).resolve().parents[1] / "scripts" / "bench"
OURS = ["floors", "operators", "solve", "espirit", "distance"]


@pytest.fixture
def load(monkeypatch):
    """Import a file of the suite as the suite does, with its folder on the path."""
    monkeypatch.syspath_prepend(str(BENCH))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == BENCH:
            del sys.modules[name]


@pytest.fixture
def harness(load):
    return load("harness")


@pytest.fixture
def command(load, monkeypatch):
    """The module of `scripts/bench/all`."""
    loader = SourceFileLoader("bench_all", str(BENCH / "all"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("bench_all", loader))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    return module


def subject_file(folder: Path, body: str) -> Path:
    """A subject whose `run` has this body."""
    path = folder / "toy.py"
    path.write_text(f'from harness import Row, Spread, compare\nNAME = "toy"\ndef run(sizes, threads):\n    {body}\n')
    return path


# Timing.


def test_contestants_take_turns(harness, monkeypatch):
    calls = []
    functions = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    spreads, _ = harness.interleave(functions, seconds=0, least=3)
    assert calls == ["a", "b"] * 4  # a warm-up each, then three rounds
    calls.clear()
    monkeypatch.setattr(harness, "LONG", 0)
    harness.interleave(functions, seconds=0, least=3)
    assert calls == ["a", "b"] * 3  # what takes long is not warmed up
    assert set(spreads) == {"a", "b"}


def test_a_warm_up_does_not_count(harness, monkeypatch):
    clock = iter([0, 1, *(t for k in range(3) for t in (10 * k, 10 * k + 0.25))])
    monkeypatch.setattr(harness.time, "perf_counter", lambda: next(clock))
    spreads, _ = harness.interleave({"a": lambda: None}, seconds=0, least=3)
    assert spreads["a"] == harness.Spread(0.25, 0.25, 0.25)


def test_spread_is_median_and_quartiles(harness):
    spread = harness.Spread.of([0.4, 0.1, 0.2, 0.3, 9.0])
    assert (spread.median, spread.low, spread.high) == pytest.approx((0.3, 0.2, 0.4))
    assert str(spread) == "300 ms (200 to 400)"
    assert str(harness.Spread.exact(12.5, "MiB")) == "12.5 MiB"


# Agreement before speed.


@pytest.mark.parametrize("theirs, sound", [(1.0, True), (1.1, False), (math.nan, False)])
def test_results_must_agree(harness, theirs, sound):
    row = harness.compare("x", "y", lambda: torch.tensor(1.0), lambda: np.array(theirs), sizes="quick", bound=1e-3)
    assert row.sound is sound
    assert ("WRONG" in str(row)) is not sound


def test_relative_error_is_of_the_second(harness):
    assert harness.relative_error(torch.tensor([3j, 0]), np.array([0, 4])) == pytest.approx(5 / 4)


@pytest.mark.parametrize("wanted, word", [(3.9, "reached"), (4.1, "MISSED")])
def test_ratio_is_how_many_times_smaller(harness, wanted, word):
    row = harness.Row("x", ours=harness.Spread.exact(0.5), theirs=harness.Spread.exact(2.0), wanted=wanted)
    assert row.ratio == 4 and word in str(row) and row.sound


def test_rows_fit_the_table(harness):
    row = harness.Row("a | b", ours=harness.Spread.exact(2.0), floor=harness.Spread.exact(1.0), floor_of="copy")
    lines = harness.table([row]).splitlines()
    assert {line.count("|") for line in lines} == {harness.HEADER.count("|")}
    assert "1.00 s, copy: 50% of ours" in lines[2]


# The command.


def test_finds_every_subject(command):
    assert list(command.subjects())[0] == "floors"
    assert set(OURS) <= set(command.subjects())
    assert not {"harness", "subject"} & set(command.subjects())


def test_only_names_what_is_known(command):
    assert list(command.choose("solve", command.subjects())) == ["floors", "solve"]
    with pytest.raises(SystemExit, match="no subject 'speed'; known: floors, "):
        command.choose("solve,speed", command.subjects())


def test_a_subject_runs_with_the_threads_told(command, tmp_path):
    body = "import os, torch; return [Row(str(torch.get_num_threads()), os.environ['OPENBLAS_NUM_THREADS'])]"
    (row,) = command.run(subject_file(tmp_path, body), "toy", "quick", 1)
    assert (row.subject, row.what, row.against) == ("toy", "1", "1")


@pytest.mark.parametrize(
    "body, status, word",
    [
        ("return [compare('x', 'y', lambda: 1, lambda: 1, sizes=sizes, bound=1e-9)]", 0, "| toy | x | y |"),
        ("return [compare('x', 'y', lambda: 1, lambda: 2, sizes=sizes, bound=1e-9)]", 1, "WRONG"),
        ("raise ValueError('no data')", 1, "ValueError: no data"),
    ],
)
def test_writes_table_and_json_and_fails_on_what_is_wrong(command, tmp_path, monkeypatch, capsys, body, status, word):
    path = subject_file(tmp_path, body)
    monkeypatch.setattr(command, "subjects", lambda: {"toy": path})
    assert command.main(["--quick", "--threads", "1", "--out", str(tmp_path / "out")]) == status
    written = (tmp_path / "out" / "bench.md").read_text()
    assert word in written and word in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert (report["threads"], report["sizes"], len(report["rows"])) == (1, "quick", 1)
    assert report["rows"][0]["sound"] is (status == 0)
    assert report["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]


def test_without_avx512_ratios_are_shown_and_goals_are_not(command, tmp_path, monkeypatch):
    """The second run of --both has an environment in which torch computes with AVX2; on AVX2 machines there is one run.
    """
    body = "import torch; theirs = Spread.exact(2.0); cpu = torch.backends.cpu.get_cpu_capability()\n"
    body += "    return [Row(cpu, 'y', Spread.exact(1.0), theirs, wanted=4), Row(cpu, 'z', Spread.exact(1.0), theirs)]"
    monkeypatch.setattr(command, "subjects", lambda: {"toy": subject_file(tmp_path, body)})
    told = {"instructions": "avx2", "torch build": "cpu", "bart": "absent"}
    for here, count in (("AVX512", 2), ("AVX2", 1)):
        monkeypatch.setattr(command, "features", lambda here=here: {**told, "torch computes with": here})
        assert command.main(["--quick", "--both", "--threads", "1", "--out", str(tmp_path / here)]) == 0
        report = json.loads((tmp_path / here / "bench.json").read_text())
        assert report["features"]["torch computes with"] == here
        rows = [row for row in report["rows"] if row["against"] == "y"]
        assert [row["note"] for row in report["rows"] if row["against"] == "z"] == [""] * count  # it has no goal
        assert len(rows) == count and {row["ratio"] for row in rows} == {2.0}
        assert [row["reached"] for row in rows] == ([False, None] if here == "AVX512" else [None])
        assert rows[-1]["note"] == "goal with AVX-512: 4"
        if count == 2:
            assert rows[1]["subject"] == "toy without AVX-512" and rows[1]["what"] in ("AVX2", "DEFAULT", "NEON")


def test_features_name_instructions_build_and_bart(command):
    found = command.features()
    assert set(found) == {"instructions", "torch computes with", "torch build", "bart"} and all(found.values())


# The subjects, tiny.

TINY = {
    "operators": {"SIZES": {"quick": (3, 43)}},
    "solve": {"SIZES": {"quick": (3, 44)}},
    "espirit": {"SIZES": {"quick": ((40, 35),)}, "COILS": 3},
    "distance": {"SIZES": {"quick": (70, 9)}},
}


@pytest.mark.parametrize("name", TINY)
def test_fast_paths_equal_their_rivals(harness, load, monkeypatch, name):
    monkeypatch.setitem(harness.SECONDS, "quick", 0)
    monkeypatch.setenv("PATH", "")
    subject = load(name)
    for constant, value in TINY[name].items():
        monkeypatch.setattr(subject, constant, value)
    rows = subject.run("quick", 1)
    compared = [row for row in rows if row.theirs]
    assert compared and all(row.bound is not None and row.sound for row in compared), rows
    assert all(row.wanted for row in rows)


@pytest.mark.slow
def test_networks_equal_their_published_form_and_keep_less(harness, load, monkeypatch):
    monkeypatch.setitem(harness.SECONDS, "quick", 0)
    monkeypatch.setattr(harness, "LEAST", 1)
    rows = load("network").ncsnv2_rows(6, 32, "quick")
    assert len([row for row in rows if row.bound is not None]) == 2 and all(row.sound for row in rows)
    (saving,) = [row for row in rows if row.wanted == 2]
    assert saving.reached and saving.note == "checkpointing"


def test_start_up_counts_the_processor_to_the_first_line_or_to_the_end(load):
    startup = load("startup")
    busy = "print(1, flush=True); import time; time.sleep(0.3); end = time.process_time() + 0.3\n"
    busy += "while time.process_time() < end: pass"
    (first, _), (whole, wall) = (startup.seconds(["-c", busy], whole) for whole in (False, True))
    assert whole > first + 0.2 and wall > whole + 0.2
    with pytest.raises(RuntimeError, match="ended with status 3"):
        startup.seconds(["-c", "print(1); raise SystemExit(3)"], True)


def test_the_gpu_script_runs_on_the_cpu(harness, monkeypatch, tmp_path, capsys):
    loader = SourceFileLoader("gpu_bench", str(BENCH.parent / "gpu_bench"))
    script = importlib.util.module_from_spec(importlib.util.spec_from_loader("gpu_bench", loader))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", [*sys.path])
    loader.exec_module(script)
    with pytest.raises(SystemExit, match="0"):
        script.main(["--help"])
    assert "--sizes" in capsys.readouterr().out
    monkeypatch.setitem(harness.SECONDS, "quick", 0)
    monkeypatch.setattr(harness, "MOST", 1)
    monkeypatch.setattr(script, "networks", lambda sizes, device: [])  # tried above
    assert script.main(["--sizes", "quick", "--device", "cpu", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "gpu_bench.json").read_text())["rows"]
    assert len(rows) == 4 and all(row["ours"] for row in rows) and rows[0]["error"] < 1e-5


def test_a_residual_is_that_of_the_whole_system(load):
    solve = load("solve")
    maps, b = torch.full((1, 4, 5, 6), 0.5 + 0j), torch.randn(1, 5, 6, dtype=torch.complex64)
    mask = torch.ones(1, 6)  # A^H A is the identity
    assert solve.residual(torch.zeros_like(b), maps, mask, b, 0.25) == pytest.approx(1)
    assert solve.residual(b / 1.25, maps, mask, b, 0.25) < 1e-7


def test_bart_reads_our_files_and_we_read_its(load, tmp_path, monkeypatch):
    """By a stand-in for BART, which writes its first argument as its second."""
    espirit = load("espirit")
    program = tmp_path / "bart"
    program.write_text('#!/bin/sh\n[ "$1" = ecalib ] || exit 1\n/bin/cp $7.cfl $8.cfl; /bin/cp $7.hdr $8.hdr\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    x = torch.randn(3, 5, 7, dtype=torch.complex64)
    espirit.write_cfl(tmp_path / "kspace", x)
    raw = np.fromfile(tmp_path / "kspace.cfl", np.complex64)
    assert raw[4 + 5 * (6 + 7 * 2)] == x[2, 4, 6].item()
    assert torch.equal(espirit.by_bart(tmp_path / "kspace"), x)


def test_maps_differ_by_more_than_phase(load):
    difference = load("espirit").difference
    maps = torch.randn(3, 10, dtype=torch.complex64)
    turned = maps * torch.exp(1j * torch.arange(10.0))
    assert difference(maps, turned) < 1e-6
    assert difference(maps, turned.flip(0)) > 0.1
