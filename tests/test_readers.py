"""A new format of scans: a class that satisfies `Reader` and a row of `READERS`; all else goes on working."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from command import mri_score, refused

from mri_score.data.scan import Scan
from mri_score.errors import InputError
from mri_score.readers import READERS, open_scan, scan_files
from mri_score.readers.base import PlainReader, Reader
from mri_score.readers.fastmri import FastMRI, write_fastmri
from mri_score.simulation.phantom import phantom


class Npy(PlainReader):
    """k-space (slices, coils, rows, cols) in a .npy file, fully sampled."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = Path(path), Path(path).stem
        self.attributes: dict[str, str] = {}
        self.acquisition, self.notes = "unknown", ["a .npy file has no header"]
        self.array = np.load(path, mmap_mode="r", allow_pickle=False)
        self.slices, self.coils, self.rows, self.cols = self.array.shape
        self.image_shape = self.crop = (self.rows, self.cols)
        self.padding, self.mask = (0, self.cols), None

    @property
    def sampled(self) -> torch.Tensor:
        return torch.ones(1, 1, 1, self.cols, dtype=torch.bool)

    def about(self) -> dict[str, str]:
        return {"k-space": str(self.array.shape)}

    def empty(self, slice: int) -> bool:
        return not self.array[slice].any()

    def kspace(self, slice: int) -> torch.Tensor:
        return torch.from_numpy(np.array(self.array[slice]))


@pytest.fixture
def both(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """One scan in both formats."""
    monkeypatch.setitem(READERS, ".npy", Npy)
    kspace = phantom((48, 45), coils=4, slices=2).kspace
    write_fastmri(tmp_path / "head.h5", kspace)
    np.save(tmp_path / "head.npy", kspace.numpy())
    return tmp_path / "head.h5", tmp_path / "head.npy"


def test_the_suffix_chooses_the_reader(both):
    files: list[Reader] = [open_scan(path) for path in both]
    assert [type(file) for file in files] == [FastMRI, Npy]
    assert scan_files(both[0].parent) == list(both)
    assert scan_files(both[1]) == [both[1]]


def test_capitals_in_a_suffix_change_nothing(both, tmp_path):
    folder = tmp_path / "capitals"
    folder.mkdir()
    copies = [folder / path.name.upper() for path in both]
    for path, copy in zip(both, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    assert [type(open_scan(path)) for path in copies] == [FastMRI, Npy]
    assert scan_files(folder) == copies


def test_another_format_gives_the_same_acquisition(both):
    one, other = (Scan(open_scan(path)).acquisition(1) for path in both)
    for name in ("kspace", "maps", "mask", "noise_std", "scale"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_the_command_line_reads_another_format(both):
    assert "k-space        (2, 4, 48, 45)" in mri_score("info", both[1])
    assert "a .npy file has no header" in mri_score("info", both[1])


def test_a_folder_without_scans_says_which_files_it_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"has no \*\.h5 or \*\.mrd or \*\.cfl files"):
        scan_files(tmp_path)
    assert "does not exist" in refused("info", tmp_path / "nothing.h5")
