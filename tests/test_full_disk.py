"""`reconstruct` onto a disk that is full or read-only: one message, nothing half written, and nothing lost."""

from __future__ import annotations

import subprocess

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from mri_score import files
from mri_score.cli import main
from mri_score.priors.store import build_prior, save_prior
from mri_score.simulation.simulate import simulate

QUICK = ["--accel", "3", "--steps", "2", "--samples", "1", "--threads", "1", "--baselines", "zero-filled", "-q"]

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path):
    """A function that mounts a disk of so many KiB, or changes it; needs the right to mount one."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        again = "remount," if place.is_mount() else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{again}{options}", "tmpfs", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no command mount")
        if done.returncode:
            pytest.skip(f"a disk cannot be mounted, as by root on Linux: {done.stderr.strip()}")
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Run `reconstruct` of three scans into a folder, as another process would; its exit code and output."""
    folder = tmp_path_factory.mktemp("scans")
    simulate(folder / "scans", volumes=3, slices=1, size=32, coils=3, noise=30.0)
    network = {"name": "unet", "widths": [6, 8], "blocks": 1, "embedding": 8}
    save_prior(folder / "p.safetensors", build_prior(network, sd=0.3, sigma_min=0.01, sigma_max=5.0), network, {})

    def reconstruct(out):
        files._cleaned.clear()
        given = [str(folder / "scans"), "--prior", str(folder / "p.safetensors"), "--out", str(out)]
        done = CliRunner().invoke(main, ["reconstruct", *given, *QUICK])
        assert "Traceback" not in done.output and "not expected" not in done.output
        return done.exit_code, done.output

    return reconstruct


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """The folder of a run that nothing disturbs."""
    out = tmp_path_factory.mktemp("whole")
    assert command(out)[0] == 0
    return out


def written(out):
    """Paths of all that is written in a folder; the logs are named after their process."""
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and path.suffix != ".jsonl"}


def assert_same_results(out, whole):
    for path in (out / "reconstructions").iterdir():
        with h5py.File(path) as found, h5py.File(whole / "reconstructions" / path.name) as wanted:
            assert np.array_equal(found["reconstruction"][()], wanted["reconstruction"][()])


@pytest.mark.parametrize(("share", "code"), [(0.05, 2), (0.6, 1)])
def test_a_full_disk_is_one_message_and_what_is_done_stays(share, code, disk, command, whole):
    size = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    out = disk(f"size={int(share * size) >> 10}k") / "out"
    found, output = command(out)
    assert found == code and output.count("the disk is full; make room") == 1, output
    assert "because the disk is full" in output.splitlines()[-1]
    assert not [name for name in written(out) if name.endswith(".part")]
    if code == 1:
        assert_same_results(out, whole)  # h5py opens each: none is half written
    disk("size=20m")
    assert command(out)[0] == 0
    assert written(out) == written(whole)
    assert_same_results(out, whole)


def test_a_disk_that_cannot_be_written_is_one_message(disk, command, whole):
    out = disk("size=20m") / "out"
    assert command(out)[0] == 0
    before = {name: (out / name).read_bytes() for name in written(out)}
    disk("ro")
    for folder in (out, out.with_name("new")):
        code, output = command(folder)
        assert code == 2 and output.count("Read-only file system; choose another folder with --out") == 1, output
    assert {name: (out / name).read_bytes() for name in written(out)} == before
