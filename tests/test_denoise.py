"""Denoising: a Gaussian's posterior in closed form, the bundled prior on a head of known noise, the command."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from gaussian import gaussian_problem
from PIL import Image

from mri_score.cli import main
from mri_score.cli.denoise import command
from mri_score.data.coils import coil_maps
from mri_score.data.scan import Scan
from mri_score.errors import InputError
from mri_score.evaluation.metrics import foreground, psnr
from mri_score.models.analytic import GaussianPrior
from mri_score.models.base import ScoreModel, clamped
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense
from mri_score.pipeline.denoise import PROBES, denoise, denoise_slice
from mri_score.priors.store import build_prior, load_prior, read_record, save_prior
from mri_score.readers.fastmri import FastMRI, write_fastmri
from mri_score.simulation.phantom import noise_std_of_snr, phantom

SNR = 14.0
NETWORK = {"name": "unet", "widths": [4, 6], "blocks": 1, "embedding": 8}


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["denoise", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def scan():
    return phantom((112, 96), coils=4, noise_snr=SNR, seed=3)


@pytest.fixture(scope="module")
def path(scan, tmp_path_factory):
    file = tmp_path_factory.mktemp("scan") / "head.h5"
    write_fastmri(file, 3e-4 * scan.kspace)
    return file


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("prior") / "prior.safetensors"
    save_prior(file, build_prior(NETWORK, sigma_min=0.01, sigma_max=20.0), NETWORK, {})
    return file


# ---- The library.


def test_mean_and_std_are_those_of_the_exact_posterior():
    """Of smooth variances a window averages, many probes leave little error; the mean is the prior's own answer."""
    spread = torch.linspace(0.2, 2.0, 9 * 7).double()
    prior = GaussianPrior(torch.zeros(9, 7, dtype=torch.complex128), torch.diag(spread**2).to(torch.complex128))
    clean = prior.sample(generators(1))
    x = (clean + 0.5 * noise_like(clean, generators(2)))[0]
    image, std = denoise(prior, x, 0.5, probes=3)
    variance = (spread**2 * 0.25 / (spread**2 + 0.25)).reshape(9, 7)
    torch.testing.assert_close(image, variance / 0.25 * x)
    exact = torch.nn.functional.avg_pool2d(variance[None], 3, 1, 1, count_include_pad=False)[0].sqrt()
    torch.testing.assert_close(std, exact)  # a diagonal Jacobian needs no chance


def test_correlated_pixels_have_the_std_of_the_posterior_too():
    prior = gaussian_problem(35).prior
    covariance = (prior.axes * prior.variances) @ prior.axes.mH
    exact = 0.09 * (covariance @ torch.linalg.inv(covariance + 0.09 * torch.eye(35))).diagonal().real.reshape(5, 7)
    exact = torch.nn.functional.avg_pool2d(exact[None], 3, 1, 1, count_include_pad=False)[0].sqrt()
    x = prior.sample(generators(1)).reshape(5, 7)
    flat = Reshaped(prior)
    _, std = denoise(flat, x, 0.3, probes=400)
    torch.testing.assert_close(std, exact, rtol=0.08, atol=0)
    _, other = denoise(flat, x, 0.3, probes=400, seed=1)
    assert not torch.equal(std, other)


class Reshaped(GaussianPrior):
    """A Gaussian of 35 numbers as images of 5 x 7."""

    def __init__(self, prior):
        super().__init__(prior.mean.reshape(-1), (prior.axes * prior.variances) @ prior.axes.mH)

    def denoise(self, x, sigma):
        return super().denoise(x.flatten(1), sigma).reshape(x.shape)


class Idle(ScoreModel):
    """Whatever it sees is clean."""

    def denoise(self, x, sigma):
        return 1 * x


def test_the_bundled_prior_gains_more_than_3_db_and_knows_its_error(scan):
    """PSNR in the foreground; the spread against the root mean square error there."""
    prior = load_prior()
    noise_std = noise_std_of_snr(SNR)
    noisy = Sense(scan.maps, torch.ones(1, 1, 1, 1, dtype=torch.bool)).adjoint(scan.kspace)[0]
    image, std = denoise(prior, noisy, noise_std)
    truth, inside = scan.image[0], torch.from_numpy(foreground(scan.image.abs())[0])
    before, after = (psnr(truth.abs()[None], one.abs()[None], inside[None]) for one in (noisy, image))
    assert after > before + 3
    error = float(torch.view_as_real(image - truth)[inside].square().mean().sqrt())
    spread = float(std[inside].square().mean().sqrt())
    assert 0.5 < spread / error < 2
    assert spread < 0.8 * noise_std


def test_a_slice_is_combined_with_white_noise_of_the_measured_level(scan, path):
    view = Scan(FastMRI(path))
    found = denoise_slice(view, 0, Idle(), probes=1)
    maps = coil_maps(scan.kspace)[0]
    ideal = Sense(maps, torch.ones(1, 1, 1, 1, dtype=torch.bool)).adjoint(3e-4 * scan.kspace)[0]
    inside = torch.from_numpy(foreground(scan.image.abs())[0])
    difference = (found.noisy.abs() * found.weight - ideal.abs())[inside]
    assert float(difference.norm() / ideal[inside].norm()) < 0.03  # whitened, so that coils count a little differently
    outside = torch.view_as_real(found.noisy[:, :4]).std().item()
    assert outside == pytest.approx(found.noise_std, rel=0.15)
    assert found.noise_std == pytest.approx(3e-4 * noise_std_of_snr(SNR), rel=0.1) and found.level_ratio == 1


def test_std_and_level_are_in_the_units_of_the_file(path):
    """A prior that changes nothing has the Jacobian 1: its posterior is as uncertain as the image is noisy."""
    view = Scan(FastMRI(path))
    found = denoise_slice(view, 0, Idle(), probes=2)
    assert torch.allclose(found.std, torch.full_like(found.std, found.noise_std), rtol=1e-4)
    assert torch.allclose(found.image, found.noisy)
    coarse = denoise_slice(view, 0, build_prior(NETWORK, sigma_min=0.5, sigma_max=2.0), probes=1)
    scale = float(view.acquisition(0).scale)
    assert coarse.level_ratio > 1 and coarse.level_ratio * coarse.noise_std == pytest.approx(0.5 * scale, rel=1e-4)


def test_columns_of_padding_do_not_darken_the_noise(scan, tmp_path):
    kspace = 0.01 * noise_like(torch.empty(1, 1, 60, 80, dtype=torch.complex64), generators(0))
    kspace[..., :15] = 0
    kspace[..., 65:] = 0
    write_fastmri(tmp_path / "padded.h5", kspace, padding=(15, 65))
    found = denoise_slice(Scan(FastMRI(tmp_path / "padded.h5")), 0, Idle(), probes=1)
    assert torch.view_as_real(found.noisy).std().item() == pytest.approx(0.01, rel=0.05)


def test_a_prior_is_asked_at_the_nearest_level_of_its_range():
    prior = build_prior(NETWORK, sigma_min=0.05, sigma_max=2.0)
    assert [clamped(prior, level) for level in (0.01, 0.3, 5.0)] == [0.05, 0.3, 2.0]


@pytest.mark.parametrize(("level", "probes"), [(0.0, 4), (0.1, 0)])
def test_levels_and_probes_are_positive(level, probes):
    with pytest.raises(InputError, match="must be positive"):
        denoise(gaussian_problem(9).prior, torch.zeros(3, 3, dtype=torch.complex128), level, probes=probes)


# ---- The command.


def test_the_command_writes_what_the_library_finds(path, tiny, tmp_path):
    (default,) = [option.default for option in command.params if option.name == "probes"]
    assert default == PROBES
    output = run(path, "-p", tiny, "--probes", 2, "--seed", 5, "--out", tmp_path)
    written, picture = tmp_path / "denoised" / "head.h5", tmp_path / "denoised" / "head-slice000.png"
    assert str(written) in output and str(picture) in output and "1 slice," in output
    expected = denoise_slice(Scan(FastMRI(path)), 0, load_prior(tiny), probes=2, seed=5)
    with h5py.File(written) as file:
        for key, value in (("noisy", expected.noisy), ("reconstruction_complex", expected.image),
                           ("std", expected.std * expected.weight),
                           ("reconstruction", expected.image.abs() * expected.weight)):  # fmt: skip
            np.testing.assert_allclose(file[key][0], value.numpy(), rtol=1e-3, atol=1e-9)
        assert file.attrs["prior_sha256"] == read_record(tiny)["sha256"] and file.attrs["complete"]
        assert file.attrs["noise_std"] == pytest.approx(expected.noise_std) and file.attrs["probes"] == 2
    with Image.open(picture) as shown:
        assert shown.size[0] > 3 * 200


def test_a_level_that_is_given_counts_and_one_outside_the_range_of_the_prior_is_noted(path, tiny, tmp_path):
    output = run(path, "-p", tiny, "--probes", 1, "--noise-std", 1e-6, "--out", tmp_path)
    assert "outside the training range of the prior; the nearest level in it was used" in output
    with h5py.File(tmp_path / "denoised" / "head.h5") as file:
        assert file.attrs["noise_std"] == pytest.approx(1e-6)


def test_an_undersampled_scan_is_refused(scan, tiny, tmp_path):
    mask = torch.arange(96) % 2 == 0
    write_fastmri(tmp_path / "half.h5", scan.kspace * mask, mask=mask)
    assert "mri-score reconstruct" in run(tmp_path / "half.h5", "-p", tiny, "--out", tmp_path, code=2)
