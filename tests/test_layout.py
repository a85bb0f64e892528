"""Arrays whose axes or origin contradict the header or the samples are refused with the command that helps."""

from __future__ import annotations

import re

import h5py
import numpy as np
import pytest
import torch

from mri_score.data.scan import from_arrays
from mri_score.errors import InputError
from mri_score.readers import open_scan
from mri_score.readers.ismrmrd_header import Header, build_header
from mri_score.readers.layout import check_header
from mri_score.reconstruction import reconstruct
from mri_score.simulation.phantom import phantom

SLICES, COILS, ROWS, COLS = 2, 10, 64, 48
TRANSPOSED = {
    "coils last": ((0, 2, 3, 1), np.complex64),
    "coils third": ((0, 2, 1, 3), np.complex64),
    "coils last, double precision": ((0, 2, 3, 1), np.complex128),
}


@pytest.fixture(scope="module")
def kspace() -> np.ndarray:
    return phantom((ROWS, COLS), coils=COILS, slices=SLICES).kspace.numpy()


def write(path, kspace: np.ndarray, header: bytes | None = None, **datasets: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        if header is not None:
            file["ismrmrd_header"] = header
        for key, value in datasets.items():
            file[key] = value


def helped(message: str, kspace: np.ndarray) -> np.ndarray:
    """k-space after the command that a message names."""
    command = re.search(r"write (np\..*)$", message)
    assert command, message
    return eval(command.group(1), {"np": np, "kspace": kspace})


@pytest.mark.parametrize("kind", TRANSPOSED)
@pytest.mark.parametrize("with_header", [False, True])
def test_other_orders_are_refused_with_the_transpose(tmp_path, kspace, kind, with_header):
    order, dtype = TRANSPOSED[kind]
    wrong = kspace.transpose(order).astype(dtype)
    header = build_header((ROWS, COLS), (ROWS, COLS), (0, COLS), COILS)
    write(tmp_path / "scan.h5", wrong, header if with_header else None)
    with pytest.raises(InputError, match="not in the order") as error:
        assert open_scan(tmp_path / "scan.h5").mask is None
    assert np.array_equal(helped(str(error.value), wrong), kspace.astype(dtype))


@pytest.mark.parametrize("kind", TRANSPOSED)
def test_arrays_in_other_orders_are_refused_too(kspace, kind):
    order, dtype = TRANSPOSED[kind]
    wrong = torch.from_numpy(np.ascontiguousarray(kspace.transpose(order).astype(dtype)))
    with pytest.raises(InputError, match="not in the order"):
        from_arrays(wrong)


def test_the_command_helps_one_slice_as_it_helps_a_volume(kspace):
    wrong = np.moveaxis(kspace[0], 0, -1)
    with pytest.raises(InputError, match="not in the order") as error:
        reconstruct(wrong)
    assert np.array_equal(helped(str(error.value), wrong), kspace[0])


def test_a_single_coil_with_its_axis_last(tmp_path, kspace):
    write(tmp_path / "scan.h5", kspace[:, 0, :, :, None])
    with pytest.raises(InputError, match=r"moveaxis\(kspace, -1, -3\)"):
        assert open_scan(tmp_path / "scan.h5").mask is None
    write(tmp_path / "scan.h5", kspace[0].transpose(1, 2, 0))  # one slice: (rows, columns, coils)
    with pytest.raises(InputError, match="not in the order"):
        assert open_scan(tmp_path / "scan.h5").mask is None


@pytest.mark.parametrize("axes", [(-2,), (-1,), (-2, -1)])
@pytest.mark.parametrize("undersampled", [False, True])
def test_an_origin_at_the_corner_is_refused_with_the_shift(tmp_path, kspace, axes, undersampled):
    mask = np.ones(COLS, bool)
    if undersampled:
        mask[::3] = mask[1::3] = False
        mask[20:28] = True
    wrong = np.fft.ifftshift(kspace * mask, axes=axes)
    write(tmp_path / "scan.h5", wrong)
    with pytest.raises(InputError, match="origin of k-space is at index 0") as error:
        open_scan(tmp_path / "scan.h5").notes  # noqa: B018
    assert np.array_equal(helped(str(error.value), wrong), kspace * mask)
    with pytest.raises(InputError, match="origin"):
        from_arrays(torch.from_numpy(wrong))


@pytest.mark.parametrize("recon", [(96, 80), (192, 80)])
@pytest.mark.parametrize("readout", [96, 192])
def test_rows_and_columns_that_fit_the_header_only_when_swapped(readout, recon):
    header = Header((192, 80), recon, coils=6)
    if readout == 192 or recon[0] == 96:
        with pytest.raises(InputError, match=r"write np\.swapaxes\(kspace, -1, -2\)"):
            check_header("scan", (3, 6, 80, readout), header)
        assert check_header("scan", (3, 6, readout, 80), header) == []


@pytest.mark.parametrize(
    ("shape", "images", "message"),
    [
        ((6, 96, 96), None, r"kspace\[None\]"),
        ((6, 96, 96), 1, r"kspace\[None\]"),
        ((6, 96, 96), 6, None),
        ((9, 96, 96), None, None),  # fastMRI's single coils are combined from many receivers
        ((96, 96, 6), None, r"moveaxis\(kspace, -1, 0\)\[None\]"),
        ((6, 2, 96, 96), None, r"swapaxes\(kspace, 0, 1\)"),
        ((2, 96, 6, 96), None, r"swapaxes\(kspace, -3, -2\)"),
        ((2, 96, 96, 6), 2, r"moveaxis\(kspace, -1, -3\)"),
        ((2, 6, 96, 96), None, None),
    ],
)
def test_receivers_count_the_coils(shape, images, message):
    header = Header((96, 96), (96, 96), coils=6)
    if message is None:
        assert check_header("scan", shape, header, images) == []
    else:
        with pytest.raises(InputError, match=message):
            check_header("scan", shape, header, images)


def test_small_differences_are_notes():
    header = Header((96, 96), (96, 96), coils=6)
    assert "6 receivers, kspace has 4 coils" in check_header("scan", (2, 4, 96, 96), header)[0]
    assert "readout of 96, kspace has 90 rows" in check_header("scan", (2, 6, 90, 96), header)[0]


def test_samples_without_a_peak_pass(tmp_path):
    noise = np.random.default_rng(0).standard_normal((2, 40, 32, 6, 2)).view(np.complex128)[..., 0]
    write(tmp_path / "scan.h5", noise)
    assert open_scan(tmp_path / "scan.h5").notes == []
