"""Partial Fourier: POCS against closed forms, and the posterior's way of reading what was not measured."""

from __future__ import annotations

import pytest
import torch
from command import refused

from mri_score.baselines.linear import zero_filled
from mri_score.baselines.partial_fourier import pocs, symmetric_window
from mri_score.data.scan import Scan
from mri_score.numerics.fourier import fft
from mri_score.readers import open_scan
from mri_score.readers.fastmri import write_fastmri
from mri_score.simulation.phantom import phantom

SHAPE = (40, 48)


def quarter_missing(step=1):
    """Every step-th column without the first quarter, and the 12 centre columns."""
    columns = torch.zeros(SHAPE[1], dtype=torch.bool)
    columns[::step] = True
    columns[18:30] = True
    columns[: SHAPE[1] // 4] = False
    return columns.reshape(1, 1, -1)


def error(found, truth):
    return float((found - truth).norm() / truth.norm())


@pytest.mark.parametrize("step", [1, 2])
def test_pocs_recovers_a_positive_image_from_three_quarters_of_its_lines(step):
    """k-space of a positive image is Hermitian: one side follows from the other, and the phase of the centre is 0."""
    scan = phantom(SHAPE, coils=4, noise_snr=None)
    maps, truth = scan.maps[0], scan.image[0].abs().to(torch.complex64)
    kspace, mask = fft(maps * truth), quarter_missing(step)
    found = pocs(kspace * mask, maps, mask, iterations=200)
    plain = error(zero_filled(kspace * mask, maps, mask), truth)
    assert error(found, truth) < 0.25 * plain
    assert error(pocs(kspace, maps, torch.ones_like(mask)), truth) < 0.01


def test_the_phase_comes_from_the_lines_that_both_sides_have():
    window = symmetric_window(quarter_missing()[0].expand(SHAPE))
    assert window[20].nonzero().flatten().tolist() == list(range(13, 36))  # 12 on either side of 24, edges are 0
    assert window[20, 24] == 1 and window[:, 24].nonzero().flatten().tolist() == list(range(1, 40))


def test_a_scan_that_lacks_one_side_is_reconstructed_as_it_is_and_others_are_not(tmp_path):
    kspace = phantom(SHAPE, coils=4).kspace
    write_fastmri(tmp_path / "full.h5", kspace)
    write_fastmri(tmp_path / "partial.h5", kspace * quarter_missing())
    dry = ("--dry-run", "--out", tmp_path / "out")
    assert "is fully sampled: give --accel" in refused("reconstruct", tmp_path / "full.h5", *dry)
    scan = Scan(open_scan(tmp_path / "partial.h5"))
    assert scan.has_truth and scan.acceleration == 1.0
    assert scan.mask[0, 0, 0].nonzero().flatten().tolist() == list(range(12, 48))
    one = scan.acquisition(0)
    assert not one.kspace[..., :12].any() and one.mask.sum() == 36  # unknown to the posterior, not zero
