"""docs/formats.md: every command of its tables runs on the file that it names."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from command import mri_score
from scipy.io import savemat

from mri_score.simulation.simulate import simulate

PAGE = Path(__file__).resolve().parents[1] / "docs" / "formats.md"
if not PAGE.exists():
    pytest.skip("the pages are part of a checkout", allow_module_level=True)
COMMANDS = re.findall(r"^\|[^|]*\| `mri-score ([^`]+)` \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
QUICK = ["--prior", "brain-fast", "--method", "exact-draw", "--steps", "2", "--samples", "2", "--baselines", "none"]
NEEDED = {"nifti": "nibabel", "bids": "nibabel", "dicom": "highdicom"}
"""Word of a command -> package without which it is not run."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with the files that the page names: one undersampled scan in every format."""
    folder = tmp_path_factory.mktemp("formats")
    (path,) = simulate(folder / "made", volumes=1, slices=1, size=48, coils=3, undersample=2.0)
    scan = folder / "scan.h5"
    shutil.copy(path, scan)
    with h5py.File(scan) as file:
        kspace = file["kspace"][()]
    mri_score("convert", scan, folder / "scan_ismrmrd.h5", "--to", "ismrmrd")
    mri_score("convert", scan, folder / "scan.cfl")
    np.save(folder / "scan.npy", kspace[0])
    savemat(folder / "scan.mat", {"kspace": kspace.transpose(2, 3, 1, 0)})
    raw = folder / "data" / "sub-01" / "anat" / "sub-01_T2w.h5"
    raw.parent.mkdir(parents=True)
    shutil.copy(scan, raw)
    if shutil.which("bart"):
        for line in ("traj -x32 -y24 -r trajectory", "phantom -k -s3 -t trajectory samples"):
            subprocess.run(["bart", *line.split()], cwd=folder, check=True, capture_output=True)
    return folder


def test_the_page_has_a_command_for_every_format():
    said = " ".join(COMMANDS)
    for word in ("scan.h5", "scan_ismrmrd.h5", "scan.cfl", "scan.npy", "scan.mat", "samples.cfl", "new.mrd", "new.cfl",
                 "--write nifti", "--write dicom", "--write cfl", "bids"):  # fmt: skip
        assert word in said


@pytest.mark.parametrize(
    "command", [pytest.param(one, marks=pytest.mark.slow) if "trajectory" in one else one for one in COMMANDS]
)
def test_its_commands_run(command, files, tmp_path, monkeypatch):
    for word, package in NEEDED.items():
        if word in command:
            pytest.importorskip(package, reason=f"the command needs {package}")
    if "samples.cfl" in command and not (files / "samples.cfl").exists():
        pytest.skip("BART is not installed")
    for path in files.iterdir():  # commands write beside what they read
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    name, *arguments = shlex.split(command)
    quick = QUICK if name in ("reconstruct", "bids") else []
    assert mri_score(name, *arguments, *quick)
    made = {
        "nifti": "out/nifti/scan_desc-std.nii.gz",
        "dicom": "out/dicom/scan/std_map/0001.dcm",
        "cfl": "out/cfl/scan.hdr",
        "participant": "derivatives/mri_score/sub-01/anat/sub-01_desc-std_T2w.nii.gz",
    }
    for word, result in made.items():
        if arguments[-1] == word:
            assert (tmp_path / result).exists()
