"""Which scans are fully sampled: zeros around k-space are padding, gaps within are not; a mask of ones is no mask."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from mri_score.data.coils import calibration_region
from mri_score.data.scan import Scan, Undersampling
from mri_score.numerics.fourier import fft, ifft, resize_image
from mri_score.readers import open_scan
from mri_score.readers.fastmri import FastMRI, write_fastmri
from mri_score.readers.sampling import remove_oversampled_rows
from mri_score.simulation.phantom import phantom
from mri_score.sources.combined_images import Combined

ROWS, COLS = 64, 60
LINES = Undersampling(3.0, "random")


def ellipse(rows: int = ROWS, cols: int = COLS) -> np.ndarray:
    y, x = np.ogrid[:rows, :cols]
    return ((y - rows // 2) / (rows / 2)) ** 2 + ((x - cols // 2) / (cols / 2)) ** 2 <= 1


def box(top: int, bottom: int, left: int = 0, right: int = COLS) -> np.ndarray:
    region = np.zeros((ROWS, COLS), bool)
    region[top:bottom, left:right] = True
    return region


REGIONS = {
    "all": box(0, ROWS),
    "asymmetric echo": box(20, ROWS),
    "two rows at an edge": box(0, ROWS - 2),
    "partial Fourier": box(0, ROWS, 22, COLS),
    "zero-filled": box(12, 52, 10, 48),
    "ellipse": ellipse(),
    "ellipse, asymmetric": ellipse() & box(16, ROWS),
}


@pytest.fixture(scope="module")
def head() -> Tensor:
    return phantom((ROWS, COLS), coils=6, slices=2).kspace


def stored(folder, kspace: Tensor, mask: np.ndarray | None = None, **options) -> FastMRI:
    write_fastmri(folder / "scan.h5", kspace, **options)
    if mask is not None:
        with h5py.File(folder / "scan.h5", "a") as file:
            file["mask"] = mask
    return FastMRI(folder / "scan.h5")


@pytest.mark.parametrize(
    ("kind", "ones"),
    [*((kind, None) for kind in REGIONS), ("all", (COLS,)), ("zero-filled", (ROWS, COLS)), ("ellipse", (2, 1, COLS))],
)
def test_zeros_around_kspace_are_padding(tmp_path, head, kind, ones):
    region = REGIONS[kind]
    mask = None if ones is None else np.ones(ones, np.float32)
    columns = np.flatnonzero(region.any(0))
    padding = columns[0], columns[-1] + 1
    file = stored(tmp_path, head * torch.from_numpy(region), mask, padding=padding)
    assert file.mask is None and file.notes == [] and file.padding == padding
    assert np.array_equal(file.sampled.expand(1, 1, ROWS, COLS)[0, 0], region)
    assert torch.equal(file.kspace(1), head[1] * torch.from_numpy(region))
    scan = Scan(file, LINES)
    lines = scan.mask.expand(1, 1, ROWS, COLS)[0, 0].numpy()
    taken = np.flatnonzero(lines.any(0))
    assert len(taken) == round(len(columns) / 3) and np.array_equal(lines, region & lines.any(0))
    assert scan.acceleration == pytest.approx(region.sum() / region[:, taken].sum())
    assert scan.has_truth and scan.acquisition(0).maps.isfinite().all()
    assert Combined(file.path).slices == [0, 1]  # a training image


@pytest.mark.parametrize("kind", ["asymmetric echo", "ellipse", "zero-filled"])
def test_rows_are_undersampled_within_the_acquired_ones(tmp_path, head, kind):
    region = REGIONS[kind]
    scan = Scan(stored(tmp_path, head * torch.from_numpy(region)), Undersampling(2.0, "random", axis=-2))
    lines = scan.mask.expand(1, 1, ROWS, COLS)[0, 0].numpy()
    assert lines.any(1).sum() == round(region.any(1).sum() / 2)
    assert np.array_equal(lines, region & lines.any(1)[:, None])


def test_an_asymmetric_echo_is_reconstructed_without_its_zeros(tmp_path, head):
    """CG-SENSE of the samples there are, against that of a symmetric scan: the zeros are no measurement."""
    scan = Scan(stored(tmp_path, head * torch.from_numpy(box(16, ROWS))), LINES)
    item = scan.acquisition(0)
    assert not bool(item.mask[0, 0, :16].any()) and bool(item.mask[0, 0, 16:].any())
    assert not bool(item.kspace[..., :16, :].any())
    assert scan.noise_std == pytest.approx(Scan(stored(tmp_path, head), LINES).noise_std, rel=0.05)


@pytest.mark.parametrize(("rows", "recon"), [(64, 32), (64, 31), (63, 32)])
def test_oversampling_is_removed_from_an_asymmetric_echo(tmp_path, rows, recon):
    """An object within the smaller field of view: the rows that the samples determine are those of the full scan."""
    small = ifft(phantom((recon, COLS), coils=4).kspace)
    kspace = fft(resize_image(small, (rows, COLS)))
    kspace[..., :17, :] = 0
    file = stored(tmp_path, kspace, recon=(recon, COLS))
    assert file.mask is None and file.image_shape == (recon, COLS)
    sampled = file.sampled.flatten()
    frequency = (np.arange(recon) - recon // 2) * rows / recon
    first, last = 17 - rows // 2, rows - 1 - rows // 2
    assert not sampled[frequency < first].any() and sampled[(frequency > first + 4) & (frequency < last - 4)].all()
    found, expected = file.kspace(0)[:, sampled], fft(small)[0][:, sampled]
    assert float((found - expected).norm() / expected.norm()) < 0.01
    assert not file.kspace(0)[:, ~sampled].any()


def test_only_rows_that_the_samples_determine_are_sampled():
    mask = np.ones((1, 32, 3), bool)
    mask[:, :10, 0] = mask[:, :, 1] = False
    found = remove_oversampled_rows(mask, 16)[0]
    assert found[:, 2].all() and not found[:, 1].any()
    assert found[:, 0].nonzero()[0].tolist() == list(range(6, 15))  # 10 / 2 and the row beside either end are left out


def gaps() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    missing_row, missing_column = box(0, ROWS), box(0, ROWS)
    missing_row[40], missing_column[:, 20] = False, False
    y, x = np.ogrid[:ROWS, :COLS]
    angle = np.arctan2(y - ROWS // 2, x - COLS // 2)
    return {
        "a missing row": missing_row,
        "a missing column": missing_column,
        "random points": random.random((ROWS, COLS)) < 0.5,
        "lines in an ellipse": ellipse() & (random.random(COLS) < 0.5),
        "a star": np.cos(8 * angle) > 0.6,
        "a cross": box(30, 34) | box(0, ROWS, 28, 32),
    }


@pytest.mark.parametrize("kind", gaps())
def test_gaps_are_undersampling(tmp_path, head, kind):
    points = gaps()[kind]
    file = stored(tmp_path, head * torch.from_numpy(points))
    assert file.mask is not None
    found = file.sampled.expand(1, 1, ROWS, COLS)[0, 0].numpy()
    assert np.array_equal(found & points, points)
    assert (found & ~points).sum() <= (0 if kind != "lines in an ellipse" else points.size)


def test_all_samples_beside_a_mask(tmp_path, head):
    mask = np.arange(COLS) % 3 == 0
    mask[24:36] = True
    file = stored(tmp_path, head, mask)
    assert np.array_equal(file.mask, mask) and "--ignore-mask" in file.notes[0]
    whole = open_scan(file.path, ignore_mask=True)
    assert whole.mask is None and torch.equal(whole.kspace(0), head[0]) and whole.notes == []
    scan = Scan(whole, Undersampling(1.0, str(file.path)))  # scored under the file's own mask
    assert scan.has_truth and np.array_equal(scan.mask.flatten(), mask)


def test_the_calibration_region_lies_within_the_acquired_rows():
    lines = torch.arange(COLS) % 4 == 0
    lines[22:38] = True
    assert calibration_region(lines.expand(ROWS, COLS)) == (slice(0, 64), slice(22, 38))
    assert calibration_region(torch.from_numpy(box(20, ROWS)) & lines) == (slice(20, 64), slice(22, 38))
    rows, cols = calibration_region(torch.from_numpy(ellipse()) & lines)
    assert cols == slice(22, 38) and ellipse()[rows, cols].all() and rows.stop - rows.start > 50
