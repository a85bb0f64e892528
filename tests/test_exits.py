"""How commands end and what they print: exit codes, one message an error, logs for people and for programs."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal

import click
import pytest
from click.testing import CliRunner
from command import mri_score, refused

from mri_score import progress, readers
from mri_score.cli import COMMANDS, main
from mri_score.cli.exits import SomeFailed, explained
from mri_score.cli.log import note, say
from mri_score.cli.options import each_file
from mri_score.errors import InputError
from mri_score.files import DiskFull
from mri_score.simulation.simulate import simulate


def shortest(command):
    """The arguments of the shortest call of a command."""
    found: list[str] = []
    for one in command.params:
        if one.required:
            found += [] if isinstance(one, click.Argument) else [one.opts[0]]
            found.append(one.type.choices[0] if isinstance(one.type, click.Choice) else "x")
    return found


def commands():
    """The names of all commands; those within a group by two words."""
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        yield from [f"{name} {one}" for one in command.commands] if isinstance(command, click.Group) else [name]


def end(number):
    return lambda: os.kill(os.getpid(), number)


def throw(error):
    def work():
        raise error

    return work


ENDS = {
    "done": (lambda: None, 0, ""),
    "some failed": (throw(SomeFailed("1 of 2 files failed: a.h5")), 1, "Error: 1 of 2 files failed: a.h5"),
    "bad input": (throw(InputError("a.h5 has no kspace")), 2, "Error: a.h5 has no kspace"),
    "bug": (throw(ZeroDivisionError("division by zero")), 2, "Error: ZeroDivisionError: division by zero; this is not"),
    "gone": (throw(FileNotFoundError(errno.ENOENT, "No such file", "a.h5")), 2, "Error: a.h5: No such file"),
    "memory": (throw(MemoryError()), 2, "Error: the memory is full"),
    "Ctrl-C": (throw(KeyboardInterrupt()), 130, "Error: stopped by SIGINT"),
    "SIGTERM": (end(signal.SIGTERM), 143, "Error: stopped by SIGTERM"),
    "SIGHUP": (end(signal.SIGHUP), 129, "Error: stopped by SIGHUP"),
}


@pytest.mark.parametrize("name", list(commands()))
def test_every_command_ends_with_the_code_and_the_message_that_is_documented(name, monkeypatch):
    command = main
    for word in name.split():
        command = command.get_command(click.Context(command), word)
    before = signal.getsignal(signal.SIGTERM)
    for work, code, words in ENDS.values():
        monkeypatch.setattr(command, "callback", lambda work=work, **given: work())
        output = mri_score(*name.split(), *shortest(command), code=code)
        assert output.startswith(words) and "Traceback" not in output and output.count("\n") <= 1
    assert signal.getsignal(signal.SIGTERM) is before
    assert "No such option" in mri_score(*name.split(), "--no-such-option", code=2)
    words = " ".join(mri_score("--help").split())
    assert all(f" {code} " in words for code in (0, 1, 2, 130, 143, 129))


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch):
    """As under nohup."""
    monkeypatch.setattr(main.get_command(click.Context(main), "simulate"), "callback", lambda **_: end(signal.SIGHUP)())
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        mri_score("simulate")
    finally:
        signal.signal(signal.SIGHUP, before)


# Files of a folder.


@pytest.mark.parametrize("error", [ValueError("odd"), KeyError("x"), OSError(errno.EIO, "broken"), InputError("bad")])
def test_any_exception_costs_its_own_file_only(error, tmp_path):
    files, done = [tmp_path / name for name in "abc"], []

    def work(path):
        if path.name == "b":
            raise error
        done.append(path.name)

    with pytest.raises(SomeFailed, match="1 of 3 files failed: b$"):
        each_file(files, work, lambda: done.append("summary"))
    assert done == ["a", "c", "summary"]


def test_exceptions_of_the_writing_thread_are_of_their_file(tmp_path):
    files, done = [tmp_path / name for name in "abc"], []
    with pytest.raises(SomeFailed, match="1 of 3 files failed: b$"):
        each_file(files, lambda path: throw(KeyError("x")) if path.name == "b" else lambda: done.append(path.name))
    assert done == ["a", "c"]


def test_all_failed_is_nothing_done_and_a_single_file_has_its_own_error(tmp_path):
    with pytest.raises(InputError, match="2 of 2 files failed: a, b") as caught:
        each_file([tmp_path / "a", tmp_path / "b"], lambda path: throw(KeyError())(), throw(AssertionError()))
    assert not isinstance(caught.value, SomeFailed)
    with pytest.raises(KeyError, match="own"):
        each_file([tmp_path / "a"], lambda path: throw(KeyError("own"))())


def test_a_full_disk_ends_the_folder(tmp_path):
    tried = []

    def work(path):
        tried.append(path.name)
        if path.name == "b":
            raise DiskFull("the disk is full")

    with pytest.raises(SomeFailed, match="1 of 4 files failed: b; 2 were not tried because the disk is full"):
        each_file([tmp_path / name for name in "abcd"], work)
    assert tried == ["a", "b"]


def test_full_memory_says_what_to_lower():
    text = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    assert "--batch-size" in explained(RuntimeError(text)) and "--batch-size" in explained(MemoryError())


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_vanished_files_and_names_that_are_no_text_cost_only_themselves(tmp_path, monkeypatch):
    (path,) = simulate(tmp_path, volumes=1, slices=1, size=32, coils=3)
    odd, gone = tmp_path / os.fsdecode(b"odd\xff.h5"), tmp_path / "gone.h5"
    shutil.copy(path, odd)
    monkeypatch.setattr(readers, "scan_files", lambda *_, **__: [gone, odd, path])
    output = refused("info", "--quick", tmp_path, code=1)
    assert output.count("skipped: ") == 2 and "3 coils" in output and "2 of 3 files failed: gone.h5, odd" in output


# What is printed.


def prints(monkeypatch, *options, bug=False):
    def work(**given):
        say("3 slices", slices=3)
        note("a note", file="a.h5")
        if bug:
            raise KeyError("bug")

    monkeypatch.setattr(main.get_command(click.Context(main), "simulate"), "callback", work)
    return CliRunner().invoke(main, ["simulate", *options])


def test_logs_are_text_or_json_and_quiet_or_verbose(monkeypatch):
    plain = prints(monkeypatch)
    assert plain.stdout == "3 slices\nnote: a note\n" and not plain.stderr
    assert prints(monkeypatch, "-q").output == "note: a note\n"
    assert "Traceback" not in prints(monkeypatch, bug=True).output
    verbose = prints(monkeypatch, "-v", bug=True)
    assert "Traceback" in verbose.stderr and 'raise KeyError("bug")' in verbose.stderr and verbose.exit_code == 2
    found = prints(monkeypatch, "--log", "json", bug=True)
    lines = [json.loads(line) for line in found.stderr.splitlines()]
    assert not found.stdout and [line["level"] for line in lines] == ["info", "warning", "error"]
    assert lines[0]["slices"] == 3 and lines[1] == lines[1] | {"message": "a note", "file": "a.h5"}
    assert lines[2]["exit_code"] == 2 and lines[2]["message"].startswith("KeyError: 'bug'")


def test_progress_is_a_line_every_so_often_and_a_bar_on_a_terminal(monkeypatch, caplog):
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with caplog.at_level("INFO", logger="mri_score"), progress.progress(6, "call", "head") as shown:
        for _ in range(6):
            shown.update(loss=0.5)
    assert caplog.messages[0] == "head: 2 of 6 calls, 3 min left, loss 0.5"
    assert 2 <= len(caplog.records) < 6 and caplog.records[0].data["total"] == 6
    monkeypatch.undo()
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    for quiet, level, bar in ((False, "INFO", True), (True, "INFO", False), (False, "WARNING", False)):
        with caplog.at_level(level, logger="mri_score"), progress.progress(6, "call", "head", quiet=quiet) as shown:
            assert (shown._bar is not None) == bar


def test_json_lines_hold_the_scores(tmp_path):
    (path,) = simulate(tmp_path / "in", volumes=1, slices=1, size=48, coils=3)
    quick = ["--steps", "2", "--samples", "1", "--threads", "1", "--baselines", "zero-filled", "--accel", "3"]
    found = CliRunner().invoke(main, ["reconstruct", str(path), *quick, "--out", str(tmp_path / "o"), "--log", "json"])
    lines = [json.loads(line) for line in found.stderr.splitlines()]
    (scores,) = [line["scores"] for line in lines if "scores" in line]
    assert {"method", "psnr", "ssim", "nmse"} <= set(scores[0]) and not found.stdout
