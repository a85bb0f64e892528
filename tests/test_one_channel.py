"""Priors of real images for complex scans: against closed forms, and by the commands."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from command import mri_score, refused

import mri_score as package
from mri_score.errors import InputError
from mri_score.models.analytic import GaussianPrior
from mri_score.models.one_channel import MagnitudePrior, PartsPrior, for_complex_images, smooth_phase_of
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense
from mri_score.priors.store import build_prior, load_prior, save_prior

NETWORK = {"name": "unet", "widths": [4], "blocks": 1, "embedding": 8, "channels": 1}


@pytest.fixture
def real_gaussian():
    half = torch.randn(12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 4
    return GaussianPrior(torch.linspace(0, 1, 12, dtype=torch.float64).reshape(3, 4), half @ half.T)


def complex_noise(*shape):
    return noise_like(torch.zeros(*shape, dtype=torch.complex128), generators(1, draws=shape[0]))


def test_parts_are_two_independent_images(real_gaussian):
    """A complex Gaussian whose parts have the same mean and covariance is this prior in closed form."""
    covariance = real_gaussian.axes @ torch.diag(real_gaussian.variances) @ real_gaussian.axes.T
    whole = GaussianPrior((1 + 1j) * real_gaussian.mean, covariance.to(torch.complex128))
    x, sigma = complex_noise(3, 3, 4), torch.tensor([0.1, 1.0, 10.0])
    assert torch.allclose(PartsPrior(real_gaussian).denoise(x, sigma), whole.denoise(x, sigma))
    assert torch.allclose(PartsPrior(real_gaussian).score(x, 0.5), whole.score(x, 0.5))


def test_magnitudes_with_a_phase_are_a_gaussian_of_both_parts(real_gaussian):
    """Against conditioning of the 24 real components, whose covariance is turned by the phase of each pixel."""
    phase = torch.rand(1, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 6
    prior, size, spread = MagnitudePrior(real_gaussian, phase, imaginary_sd=0.2), 12, 0.2
    cos, sin = torch.diag(phase.flatten().cos()), torch.diag(phase.flatten().sin())
    turn = torch.cat([torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)])
    inner = real_gaussian.axes @ torch.diag(real_gaussian.variances) @ real_gaussian.axes.T
    covariance = turn @ torch.block_diag(inner, spread**2 * torch.eye(size, dtype=torch.float64)) @ turn.T
    mean = turn @ torch.cat([real_gaussian.mean.flatten(), torch.zeros(size, dtype=torch.float64)])
    x, sigma = complex_noise(2, 3, 4), 0.7
    stacked = torch.cat([x.real.flatten(1), x.imag.flatten(1)], 1)
    noisy = torch.linalg.inv(covariance + sigma**2 * torch.eye(2 * size, dtype=torch.float64))
    expected = mean + (stacked - mean) @ (covariance @ noisy).T
    found = prior.denoise(x, sigma)
    assert torch.allclose(torch.cat([found.real.flatten(1), found.imag.flatten(1)], 1), expected)


def head(size=48):
    """A disc with a hole and a smooth phase, (1, size, size)."""
    place = torch.linspace(-1, 1, size)
    radius = (place[:, None] ** 2 + place**2).sqrt()
    magnitude = ((radius < 0.8) & (radius > 0.2)).float()
    phase = 1.5 * place[:, None] - place + 0.8 * torch.cos(2 * place[:, None])
    return torch.polar(magnitude, phase)[None]


def test_the_phase_of_a_scan_comes_from_the_centre_of_its_samples():
    image = head()
    maps = torch.stack([torch.ones(48, 48), torch.linspace(0.2, 1, 48).expand(48, 48)]).to(torch.complex64)
    maps = (maps / maps.abs().square().sum(0).sqrt())[None]
    mask = torch.zeros(48, dtype=torch.bool)
    mask[::3] = mask[20:29] = True
    operator = Sense(maps, mask)
    prior = MagnitudePrior(GaussianPrior(torch.zeros(48, 48), torch.eye(4)))
    turn = prior.for_scan(operator, operator(image)).turn
    error = (turn * image.conj()).angle()[image.abs() > 0]
    assert float(error.abs().median()) < 0.05 and float(error.square().mean().sqrt()) < 0.2
    assert float(prior.turn.angle()) == 0  # the prior that was given is not changed
    assert torch.equal(smooth_phase_of(torch.zeros(1, 4, 5, dtype=torch.complex64)), torch.ones(1, 4, 5))


def test_priors_are_taken_by_their_channels(tmp_path):
    one = build_prior(NETWORK, sigma_min=0.01, sigma_max=10.0)
    assert isinstance(for_complex_images(one), PartsPrior)
    assert isinstance(for_complex_images(one, "magnitude"), MagnitudePrior)
    two = build_prior({**NETWORK, "channels": 2})
    assert for_complex_images(two) is two
    with pytest.raises(InputError, match="leave out --one-channel parts"):
        for_complex_images(two, "parts")
    with pytest.raises(InputError, match="prior of colour images cannot reconstruct"):
        for_complex_images(build_prior({**NETWORK, "channels": 3}))


@pytest.mark.parametrize("use", ["parts", "magnitude"])
def test_scans_are_reconstructed_with_a_prior_of_one_channel(tmp_path, monkeypatch, use):
    monkeypatch.chdir(tmp_path)
    save_prior(tmp_path / "one.safetensors", build_prior(NETWORK, sigma_min=0.01, sigma_max=10.0), NETWORK, {})
    mri_score("simulate", "--out", "scans", "--volumes", 1, "--slices", 1, "--size", 48, "--coils", 2)
    (scan,) = (tmp_path / "scans").iterdir()
    shared = ["reconstruct", scan, "--accel", 3, "--samples", 2, "--steps", 3, "--baselines", "none", "--threads", 1]
    output = mri_score(*shared, "--prior", "one.safetensors", "--one-channel", use, "--method", "exact-draw")
    assert "PSNR" in output
    if use == "parts":
        assert "leave out --one-channel" in refused(*shared, "--prior", "brain", "--one-channel", "parts", "--again")
        scan = package.undersample(package.phantom(coils=2, size=32), acceleration=3)
        found = package.reconstruct(scan.kspace, scan.maps, scan.mask, prior="one.safetensors", method="exact-draw",
                                    steps=3, samples=1)  # fmt: skip
        model = PartsPrior(load_prior("one.safetensors"))
        again = package.reconstruct(scan.kspace, scan.maps, scan.mask, prior=model, method="exact-draw", steps=3,
                                    samples=1)  # fmt: skip
        assert np.allclose(found.image, again.image)


def test_noise_and_intervals_are_of_the_same_use(tmp_path, monkeypatch):
    """denoise takes the phase of the scan; intervals of one use are refused for another."""
    monkeypatch.chdir(tmp_path)
    save_prior(tmp_path / "one.safetensors", build_prior(NETWORK, sigma_min=0.01, sigma_max=10.0), NETWORK, {})
    mri_score("simulate", "--out", "scans", "--volumes", 1, "--slices", 1, "--size", 48, "--coils", 2)
    (scan,) = (tmp_path / "scans").iterdir()
    prior = ["--prior", "one.safetensors", "--one-channel", "magnitude", "--threads", 1]
    mri_score("denoise", scan, *prior, "--probes", 2)
    with h5py.File(next((tmp_path / "out/denoised").glob("*.h5"))) as file:
        image, noisy = file["reconstruction_complex"][0], file["noisy"][0]
    turn = smooth_phase_of(torch.as_tensor(noisy)[None])[0].numpy()
    across, before = ((one * turn.conj()).imag for one in (image, noisy))
    assert np.abs(across).mean() < 0.99 * np.abs(before).mean()  # what the phase leaves is a narrow Gaussian
    walk = ["--method", "exact-draw", "--steps", 3, "--samples", 2]
    mri_score("intervals", "scans", "--accel", 3, *prior, *walk, "--level", 0.5)
    run = ["reconstruct", scan, *walk, "--accel", 3, "--baselines", "none", "--intervals", "intervals.json"]
    mri_score(*run, *prior)
    assert "prior" in refused(*run, "--again", "--prior", "one.safetensors", "--one-channel", "parts")
