"""deepinv's solvers as rivals, where it is installed: the problem that they get, and a posterior in closed form."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from mri_score.benchmark import deepinv as rivals
from mri_score.benchmark.deepinv import RIVALS, sample_deepinv, to_complex, to_real
from mri_score.data.acquisition import Acquisition
from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense

SD, NOISE = 0.4, 0.05


class White(ScoreModel):
    """White Gaussian images."""

    sd = SD

    def denoise(self, x, sigma):
        return x * (SD**2 / (SD**2 + per_item(sigma, x) ** 2))


@pytest.fixture
def package():
    return pytest.importorskip("deepinv", minversion="0.5", reason="deepinv 0.5 is not installed")


@pytest.fixture(scope="module")
def scan() -> Acquisition:
    random = generators(0)
    maps = noise_like(torch.zeros(1, 3, 12, 10, dtype=torch.complex64), random)
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    mask = (torch.arange(10) % 2 == 0).reshape(1, 1, 1, -1)
    truth = SD * noise_like(torch.zeros(1, 12, 10, dtype=torch.complex64), random)
    kspace = Sense(maps, mask)(truth)
    kspace = kspace + NOISE * mask * noise_like(kspace, random)
    return Acquisition(
        "scan", kspace=kspace, maps=maps, mask=mask, noise_std=torch.tensor(NOISE), image=truth,
        scale=torch.tensor([2.0]),
    )  # fmt: skip


def test_real_channels_and_back():
    for shape in [(2, 5, 4), (2, 3, 5, 4)]:
        x = noise_like(torch.zeros(shape, dtype=torch.complex64), generators(0, draws=2))
        assert torch.equal(to_complex(to_real(x)), x)


def test_its_operator_is_ours_and_its_adjoint_too(package, scan):
    physics = rivals._physics(package, scan, NOISE)
    random = generators(1)
    x = noise_like(torch.zeros(1, 12, 10, dtype=torch.complex64), random)
    y = noise_like(torch.zeros_like(scan.kspace), random)
    assert torch.allclose(to_complex(physics.A(to_real(x))), Sense(scan.maps, scan.mask)(x), atol=1e-6)
    left = (physics.A(to_real(x)) * to_real(y)).sum()
    assert torch.allclose(left, (to_real(x) * physics.A_adjoint(to_real(y))).sum(), rtol=1e-4)


@pytest.mark.parametrize("name", ["deepinv-mmps", "deepinv-diffpir"])
def test_a_gaussian_posterior_has_its_mean(package, scan, name):
    """With a Gaussian prior the posterior mean is a linear system; a wrong scale, noise or operator would miss it."""
    exact = Sense(scan.maps, scan.mask).solve(Sense(scan.maps, scan.mask).adjoint(scan.kspace), (NOISE / SD) ** 2)
    images, works = sample_deepinv(RIVALS[name], White(), scan, 0, steps=60, samples=8, seed=0)
    error = torch.linalg.vector_norm(images.mean(0) / 2 - exact[0]) / torch.linalg.vector_norm(exact)
    assert error < (0.15 if RIVALS[name].draws else 0.2)
    assert all(work.calls >= 60 for work in works)
    assert (works[0].products > 0) == RIVALS[name].draws


def test_images_follow_their_key_and_the_scale(package, scan):
    def draw(scan, number=0, samples=2, seed=0):
        rival = RIVALS["deepinv-pigdm"]
        return sample_deepinv(rival, White(), scan, number, steps=5, samples=samples, seed=seed)[0]

    both = draw(scan)
    assert torch.equal(draw(scan, samples=1)[0], both[0]) and not torch.allclose(both[0], both[1])
    assert not torch.allclose(draw(scan, number=1)[0], both[0]) and not torch.allclose(draw(scan, seed=1)[0], both[0])
    assert torch.allclose(draw(replace(scan, scale=torch.tensor([6.0]))), 3 * both)


def test_without_deepinv_the_error_says_what_to_install(monkeypatch, scan):
    monkeypatch.setitem(sys.modules, "deepinv", None)
    with pytest.raises(InputError, match="pip install 'deepinv"):
        sample_deepinv(RIVALS["deepinv-pigdm"], White(), scan, 0, steps=2, samples=1, seed=0)
