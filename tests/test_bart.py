"""BART's `pics` as a witness, where it is installed."""

from __future__ import annotations

import ctypes
import shutil

import numpy as np
import pytest
import torch

from mri_score.baselines import l1_wavelet, total_variation
from mri_score.baselines.bart import bart_l1_wavelet, bart_total_variation
from mri_score.baselines.problem import pose
from mri_score.baselines.wavelets import Shift, depth, fista
from mri_score.data.fastmri import FastMRI
from mri_score.data.scan import Sampling
from mri_score.subject import Subject, Subjects

pytestmark = pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed (Debian: apt install bart)")

SCANS = ("brain_t2_4ch", "brain_flash_16ch")
ITERATIONS = 50


@pytest.fixture(scope="module")
def subjects(shared):
    found = {}
    for name in SCANS:
        of_file = Subjects(FastMRI(shared / "data" / "kspace" / f"{name}.h5"))
        for accel in (4, 8):
            found[name, accel] = of_file.find(of_file.file.slices // 2, Sampling(accel, "variable-density", seed=1))
    return found


def shifts_of_bart(shape: tuple[int, int], count: int) -> list[Shift]:
    """What BART 0.8 draws by the C library's rand_r, from 0 to 2^(levels + 1) inclusive."""
    state, rand_r = ctypes.c_uint(1), ctypes.CDLL(None).rand_r

    def below(limit: int) -> int:
        while (value := rand_r(ctypes.byref(state)) // ((2**31 - 1) // (limit + 1))) > limit:
            pass
        return value

    return [(below(2 ** (depth(shape[0]) + 1)), below(2 ** (depth(shape[1]) + 1))) for _ in range(count)]


def psnr(subject: Subject, image) -> float:
    return subject.scores(image * subject.scale)["mvue_foreground_psnr"]


@pytest.mark.parametrize(
    "weight", [pytest.param(0.001, marks=pytest.mark.slow), 0.003, pytest.param(0.01, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("accel", [pytest.param(4, marks=pytest.mark.slow), 8])
@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow) if one == "brain_t2_4ch" else one for one in SCANS]
)
def test_l1_wavelet_is_barts(subjects, name, accel, weight):
    """Equal weight, iterations and shifts: the same image. By default, own shifts and a mean: at most .1 dB worse."""
    subject = subjects[name, accel]
    theirs = bart_l1_wavelet(*subject.problem, weight=weight)
    shifts = shifts_of_bart(tuple(theirs.shape), 100)
    same = fista(*pose(*subject.problem[:3]), weight, shifts, averaged=0)
    assert torch.linalg.vector_norm(same - theirs) < 1e-4 * torch.linalg.vector_norm(theirs)
    assert psnr(subject, l1_wavelet(*subject.problem, weight=weight)) > psnr(subject, theirs) - 0.1


def test_a_fixed_wavelet_is_barts_too(subjects):
    subject = subjects["brain_flash_16ch", 4]
    theirs = bart_l1_wavelet(*subject.problem, weight=0.003, iterations=ITERATIONS, spin=False)
    ours = fista(*pose(*subject.problem[:3]), 0.003, [(0, 0)] * ITERATIONS, averaged=0)
    assert torch.linalg.vector_norm(ours - theirs) < 1e-4 * torch.linalg.vector_norm(theirs)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "accel"), [("brain_t2_4ch", 4), ("brain_flash_16ch", 4)])
def test_total_variation_reaches_the_optimum_of_bart(subjects, name, accel):
    """BART's alternating direction method run long, and ours with many inner iterations, meet."""
    subject = subjects[name, accel]
    theirs = bart_total_variation(*subject.problem, weight=0.002, iterations=600)
    ours = total_variation(*subject.problem, weight=0.002, iterations=200, inner_iterations=20)
    assert torch.linalg.vector_norm(ours - theirs) < 5e-3 * torch.linalg.vector_norm(theirs)
    assert abs(psnr(subject, total_variation(*subject.problem, weight=0.002)) - psnr(subject, theirs)) < 0.1


def test_the_scale_that_bart_gives_k_space_divides_the_weight(subjects):
    """Without -w 1 BART's -r is relative: the same image, scaled, at weight / s."""
    subject = subjects["brain_flash_16ch", 4]
    kspace, maps, mask, noise_std = subject.problem
    big = bart_l1_wavelet(50 * kspace, maps, mask, noise_std, weight=50 * 0.003, iterations=ITERATIONS)
    small = bart_l1_wavelet(kspace, maps, mask, noise_std, weight=0.003, iterations=ITERATIONS)
    assert np.allclose(big.numpy() / 50, small.numpy(), atol=1e-4)
