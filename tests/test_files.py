"""Files that appear whole or not at all: killed processes, full disks, claims, and the system without fcntl."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mri_score import files
from mri_score.errors import InputError
from mri_score.files import DiskFull, alone, cannot_write, claimed, sink, whole_file, write_text
from mri_score.readers.hdf5 import new_hdf5

FULL = Path("/dev/full")
"""Every write to it fails, as on a full disk."""
on_linux = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full, as on Linux")


def python(code: str) -> subprocess.Popen:
    """A process of its own that runs code, after `from mri_score.files import *`."""
    text = f"import os, sys, time\nfrom mri_score.files import *\n{code}"
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", text], text=True, **pipes)


@pytest.mark.skipif(os.name == "nt", reason="on Windows, signal 0 ends a process")
def test_what_a_killed_process_leaves_is_removed_by_the_next_and_the_living_keep_theirs(tmp_path):
    killed = python(f"with whole_file({str(tmp_path / 'a')!r}) as part:\n part.write_text('half'); os._exit(9)")
    killed.communicate()
    (left,) = tmp_path.iterdir()
    foreign = tmp_path / ".b.x1.00000000-1.part"  # of another machine, written just now
    own = tmp_path / ".notes.part"  # no name that this program gives
    for path in (foreign, own):
        path.touch()
    with python(
        f"with whole_file({str(tmp_path / 'c')!r}) as part: print(part.name, flush=True); sys.stdin.read()"
    ) as living:  # fmt: skip
        writing = tmp_path / living.stdout.readline().strip()
        assert writing.exists()
        write_text(tmp_path / "d", "all")
        assert not left.exists() and {foreign, own, writing} < set(tmp_path.iterdir())
        living.kill()
    os.utime(foreign, (0, 0))
    files._cleaned.discard(tmp_path)
    write_text(tmp_path / "d", "all")
    assert set(tmp_path.iterdir()) == {own, tmp_path / "d"}


def test_a_file_that_fails_leaves_what_was_there(tmp_path):
    write_text(tmp_path / "a", "before")
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "a") as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


@on_linux
def test_a_full_disk_is_one_message_whatever_library_writes():
    def hdf5(file):
        with h5py.File(file, "w") as data:
            data["many"] = np.zeros(100_000)
            data.create_dataset("packed", data=np.arange(10_000), chunks=(100,), compression="gzip")

    for write in (lambda file: torch.save({"w": torch.zeros(100_000)}, file), hdf5, lambda file: file.write(b"x")):
        with pytest.raises(OSError, match="No space left") as caught, sink(FULL) as file:
            write(file)
        assert isinstance(cannot_write("out/a.h5", caught.value), DiskFull)
    assert isinstance(cannot_write("a", RuntimeError("I/O error: No space left on device (os error 28)")), DiskFull)
    assert not isinstance(cannot_write("a", PermissionError(13, "Permission denied")), DiskFull)


def test_what_a_sink_takes_is_what_hdf5_writes_by_itself(tmp_path):
    def fill(file):
        file["x"] = np.arange(1000.0)
        file.create_dataset("packed", data=np.arange(5000), chunks=(100,), compression="gzip")

    with new_hdf5(tmp_path / "a.h5") as file:
        fill(file)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        fill(file)
    with h5py.File(tmp_path / "a.h5") as one, h5py.File(tmp_path / "b.h5") as other:
        assert set(one) == set(other) and one["packed"].compression == "gzip"
        assert all(np.array_equal(one[name], other[name]) for name in other)


@pytest.mark.skipif(files.fcntl is None, reason="this system has no fcntl")
def test_a_folder_has_one_owner_until_its_process_ends(tmp_path):
    with python(f"with claimed({str(tmp_path)!r}): print('has it', flush=True); sys.stdin.read()") as owner:
        assert owner.stdout.readline() == "has it\n"
        with pytest.raises(InputError, match=f"is in use by process {owner.pid} on"), claimed(tmp_path):
            pass
        owner.kill()
    with claimed(tmp_path), claimed(tmp_path):  # again in the same process
        pass
    with claimed(tmp_path):
        pass


def test_without_fcntl_files_are_written_and_nothing_is_locked(tmp_path, monkeypatch):
    """As on Windows, where there is no such module."""
    monkeypatch.setattr(files, "fcntl", None)
    with claimed(tmp_path), alone(tmp_path / "a"), alone(tmp_path / "a"):
        write_text(tmp_path / "a", "text")
    code = "import sys; sys.modules['fcntl'] = None; import mri_score.cli, mri_score.files"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
