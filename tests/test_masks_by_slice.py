"""Slices with masks of their own: each is read, measured, reconstructed and reported under its own mask."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from command import mri_score
from torch import Tensor

from mri_score.data.masks import read_mask
from mri_score.data.scan import Scan, Undersampling, from_arrays
from mri_score.errors import InputError
from mri_score.pipeline.held_out import held_out_of
from mri_score.readers.fastmri import FastMRI, write_fastmri
from mri_score.readers.sampling import mask_candidates
from mri_score.simulation.phantom import phantom

SLICES, COILS, ROWS, COLS = 4, 5, 64, 60
COUNTS = (30, 20, 24, 15)


@pytest.fixture(scope="module")
def head() -> Tensor:
    return phantom((ROWS, COLS), coils=COILS, slices=SLICES).kspace


@pytest.fixture(scope="module")
def lines() -> np.ndarray:
    """(slices, cols): 12 lines at the centre and others, another number and others in each slice."""
    random, lines = np.random.default_rng(0), np.zeros((SLICES, COLS), bool)
    lines[:, 24:36] = True
    for mask, count in zip(lines, COUNTS, strict=True):
        mask[random.choice(np.flatnonzero(~mask), count - 12, replace=False)] = True
    return lines


def stored(folder, kspace: Tensor, mask: np.ndarray | None = None) -> FastMRI:
    write_fastmri(folder / "frames.h5", kspace, recon=(ROWS, COLS))
    if mask is not None:
        with h5py.File(folder / "frames.h5", "a") as file:
            file["mask"] = mask
    return FastMRI(folder / "frames.h5")


SHAPES = {
    "no mask": None,
    "lines of slices": (SLICES, COLS),
    "3-D": (SLICES, 1, COLS),
    "4-D": (SLICES, 1, 1, COLS),
    "3-D points": (SLICES, ROWS, COLS),
    "4-D points": (SLICES, 1, ROWS, COLS),
    "all coils": (SLICES, COILS, ROWS, COLS),
    "trailing axis": (SLICES, 1, COLS, 1),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_every_slice_has_its_own_mask(tmp_path, head, lines, kind):
    shape = SHAPES[kind]
    mask = None
    if shape is not None:
        full = np.broadcast_to(lines[:, None, None], (SLICES, COILS, ROWS, COLS))
        mask = full[:, : shape[1], : shape[2]] if len(shape) == 4 and kind != "trailing axis" else None
        mask = full[:, 0, : shape[1]] if len(shape) == 3 else mask
        mask = (lines.reshape(shape) if mask is None else mask).astype(np.float32)
    acquired = torch.from_numpy(lines)[:, None, None]
    scan = Scan(stored(tmp_path, head * acquired if mask is None else head, mask))
    for number in range(SLICES):
        found = scan.acquisition(number)
        assert torch.equal(found.mask, acquired[number][None])
        assert torch.equal(found.kspace[0] != 0, (head * acquired)[number] != 0) or scan.mixing is not None
        assert scan.acceleration_of([number]) == pytest.approx(COLS / COUNTS[number])
    assert scan.acceleration == pytest.approx(SLICES * COLS / sum(COUNTS))
    assert any("different masks, of R = 2.00 to 4.00" in note for note in scan.notes)


def test_arrays_are_read_as_files_are(tmp_path, head, lines):
    acquired = torch.from_numpy(lines)[:, None, None]
    for kspace, mask in ((head * acquired, None), (head, lines), (head, acquired)):
        found = from_arrays(kspace, None if mask is None else torch.as_tensor(mask))
        assert torch.equal(found.mask, acquired)
        assert torch.equal(found.kspace != 0, (head * acquired) != 0) or found.whitening is not None
    for number in range(SLICES):  # as each slice alone
        alone = from_arrays((head * acquired)[number][None])
        assert torch.equal(alone.mask, acquired[number][None])


def test_noise_is_measured_on_the_samples_of_each_slice(tmp_path):
    """Lines that no other slice samples count too: from the few common ones the level would be that of signal."""
    scan = phantom((96, 90), coils=6, slices=6, noise_snr=20.0)
    random, lines = np.random.default_rng(1), np.zeros((6, 90), bool)
    lines[:, 39:51] = True
    for mask in lines:
        mask[random.choice(np.flatnonzero(~mask), 14, replace=False)] = True
    assert np.flatnonzero(lines.all(0)).tolist() == list(range(39, 51))
    found = Scan(stored(tmp_path, scan.kspace * torch.from_numpy(lines)[:, None, None]))
    assert found.noise_std == pytest.approx(float(scan.noise_std), rel=0.05)


@pytest.mark.parametrize(
    ("shape", "rows", "cols"), [((8, 6), 8, 6), ((8, 1), 8, 1), ((6,), 1, 6), ((1, 8, 1), 8, 1), ((1, 1, 6, 1), 1, 6)]
)
def test_masks_of_one_slice_keep_their_axes(shape, rows, cols):
    (mask,) = mask_candidates(np.ones(shape), 3, 2, (8, 6))
    assert mask.shape == (1, rows, cols)


@pytest.mark.parametrize("shape", [(8, 1), (1, 8, 1), (8,), (1, 8), (1, 1, 8, 1)])
@pytest.mark.parametrize("along_rows", [False, True])
def test_on_a_square_matrix_the_samples_tell_rows_from_columns(tmp_path, shape, along_rows):
    """(N, 1) is rows, (N,) columns; the samples overrule that where they are zero outside the other reading."""
    lines = np.array([1, 0, 0, 1, 1, 0, 1, 0], bool)
    mask = lines[:, None] if along_rows else lines[None]
    kspace = torch.view_as_complex(torch.randn(1, 2, 8, 8, 2, generator=torch.Generator().manual_seed(0)))
    if (shape[-1] != 1) and along_rows:
        return  # (N,) and (1, N) have one reading only
    file = stored(tmp_path, kspace * torch.from_numpy(mask), lines.reshape(shape))
    assert torch.equal(file.sampled.expand(1, 1, 8, 8)[0, 0], torch.from_numpy(np.broadcast_to(mask, (8, 8)).copy()))
    assert torch.equal(file.kspace(0), kspace[0] * torch.from_numpy(mask))


def test_rows_of_a_square_matrix_with_full_kspace_are_rows(tmp_path):
    lines = np.array([1, 0, 0, 1, 1, 0, 1, 0], bool)
    kspace = torch.view_as_complex(torch.randn(1, 2, 8, 8, 2, generator=torch.Generator().manual_seed(0)))
    file = stored(tmp_path, kspace, lines[:, None])
    assert torch.equal(file.sampled.flatten(), torch.from_numpy(lines)) and file.sampled.shape == (1, 1, 8, 1)


def test_a_mask_file_may_have_a_mask_for_each_slice(tmp_path, head, lines):
    np.save(tmp_path / "mask.npy", lines[:, None])
    file = stored(tmp_path, head)
    scan = Scan(file, Undersampling(1.0, str(tmp_path / "mask.npy")))
    assert scan.has_truth and torch.equal(scan.mask[:, 0, 0], torch.from_numpy(lines))
    assert scan.acceleration == pytest.approx(SLICES * COLS / sum(COUNTS))
    with pytest.raises(InputError, match=r"\(4, 1, 60\) but k-space"):
        read_mask(tmp_path / "mask.npy", (ROWS, COLS), slices=3)


def test_held_out_lines_are_lines_of_the_slice(tmp_path, head, lines):
    scan = Scan(stored(tmp_path, head * torch.from_numpy(lines)[:, None, None]))
    held = held_out_of(scan, 2, range(SLICES))
    for number, mask in enumerate(torch.from_numpy(lines)):
        assert int(held[number].sum()) == 2 and not bool((held[number].flatten() & ~mask).any())
        assert not bool(held[number].flatten()[24:36].any())


def test_the_command_reports_and_writes_the_masks(tmp_path, head, lines):
    stored(tmp_path, head * torch.from_numpy(lines)[:, None, None])
    out = mri_score(
        "reconstruct", tmp_path / "frames.h5", "--out", tmp_path / "out", "--steps", "2", "--samples", "1",
        "--baselines", "none", "--slices", "1:4", "--check-lines", "2",
    )  # fmt: skip
    assert "acceleration 3.05 (2.50 to 4.00 by slice), 3 slices" in out
    with h5py.File(tmp_path / "out/reconstructions/frames.h5") as file:
        assert np.array_equal(file["mask"][:, 0], lines[1:])
        assert file.attrs["true_acceleration"] == pytest.approx(3 * COLS / sum(COUNTS[1:]))
