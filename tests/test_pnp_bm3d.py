"""BM3D in the loop: exact data steps about a denoiser, and BM3D itself where it is installed."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from mri_score.baselines import pnp_bm3d
from mri_score.baselines.plug_and_play import bm3d_denoiser
from mri_score.errors import InputError
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense

NOISE = 0.05


def problem(size=(24, 21), coils=2):
    random = generators(3)
    maps = noise_like(torch.zeros(1, coils, *size, dtype=torch.complex64), random)
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    mask = (torch.arange(size[1]) % 2 == 0).reshape(1, 1, -1)
    truth = torch.zeros(1, *size, dtype=torch.complex64)
    truth[:, 6:18, 5:15] = 0.6 + 0.3j
    kspace = Sense(maps, mask)(truth)
    return (kspace + NOISE * mask * noise_like(kspace, random))[0], maps[0], mask, truth[0]


def test_a_linear_denoiser_has_a_fixed_point_in_closed_form():
    """With z = c x at every level the walk is linear: its end against dense matrices."""
    kspace, maps, mask, _ = problem((6, 5))
    levels = np.geomspace(0.1, NOISE, 4)
    found = pnp_bm3d(kspace, maps, mask, NOISE, iterations=4, weight=2.0, denoiser=lambda x, sigma: (1 - sigma) * x)
    basis = torch.eye(30, dtype=torch.complex128).reshape(30, 6, 5)
    A = Sense(maps[None].to(torch.complex128), mask)(basis).reshape(30, -1).T
    normal, b = A.mH @ A, A.mH @ kspace.flatten().to(torch.complex128)
    x = Sense(maps[None], mask).cg_sense(kspace[None])[0].flatten().to(torch.complex128)
    for sigma in levels:
        z, share = (1 - sigma) * x, 2.0 * (NOISE / sigma) ** 2
        x = torch.linalg.solve(normal + share * torch.eye(30), b + share * z)
    assert torch.linalg.vector_norm(found.flatten() - z) < 1e-4 * torch.linalg.vector_norm(z)


def test_levels_fall_to_the_noise_and_the_denoiser_is_told_them():
    kspace, maps, mask, _ = problem()
    seen = []
    pnp_bm3d(kspace, maps, mask, NOISE, iterations=5, denoiser=lambda x, sigma: seen.append(sigma) or x)
    assert seen == pytest.approx(np.geomspace(0.1, NOISE, 5))


def test_bm3d_removes_noise_from_both_parts_and_beats_cg_sense():
    pytest.importorskip("bm3d", reason="the package bm3d is not installed")
    kspace, maps, mask, truth = problem((40, 36), coils=4)
    noisy = truth[None] + 0.1 * noise_like(truth[None], generators(5))
    clean = bm3d_denoiser()(noisy, 0.1)
    for part in (torch.real, torch.imag):
        assert (part(clean) - part(truth)).norm() < 0.5 * (part(noisy) - part(truth)).norm()
    start = Sense(maps[None], mask).cg_sense(kspace[None])[0]
    assert (pnp_bm3d(kspace, maps, mask, NOISE) - truth).norm() < 0.5 * (start - truth).norm()


def test_refusals(monkeypatch):
    kspace, maps, mask, _ = problem()
    with pytest.raises(InputError, match="not positive"):
        pnp_bm3d(kspace, maps, mask, 0.0)
    with pytest.raises(InputError, match='pass "rule" or a positive number'):
        pnp_bm3d(kspace, maps, mask, NOISE, weight=-1.0)
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(InputError, match="pip install bm3d"):
        pnp_bm3d(kspace, maps, mask, NOISE)
