"""Baselines: exact solutions, minimised objectives, and weights that see no truth."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import sigpy
import torch
from torch import Tensor

from mri_score.baselines import (
    cg_sense,
    l1_wavelet,
    total_variation,
    tune_weight,
    weight_by_rule,
    zero_filled,
)
from mri_score.errors import InputError
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense

METHODS = [l1_wavelet, total_variation]
NOISE = 0.02


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return noise_like(torch.zeros(1, *shape, dtype=torch.complex64), generators(seed))[0]


def make_maps(coils: int, size: tuple[int, int]) -> Tensor:
    """Smooth maps of unit norm: Gaussian lobes around the field of view, each with its own phase."""
    rows, cols = torch.meshgrid(torch.linspace(-1, 1, size[0]), torch.linspace(-1, 1, size[1]), indexing="ij")
    angle = 2 * torch.pi * torch.arange(coils)[:, None, None] / coils
    distance = (rows - torch.cos(angle)) ** 2 + (cols - torch.sin(angle)) ** 2
    maps = torch.polar(torch.exp(-distance / 1.5), angle + rows * torch.cos(angle))
    return maps / maps.abs().square().sum(0).sqrt()


def pieces(size: tuple[int, int]) -> Tensor:
    """A piecewise constant head: three ellipses with values between 0 and 1, and a smooth phase."""
    rows, cols = torch.meshgrid(torch.linspace(-1, 1, size[0]), torch.linspace(-1, 1, size[1]), indexing="ij")
    image = 0.6 * ((rows / 0.8) ** 2 + (cols / 0.7) ** 2 < 1).float()
    image += 0.4 * (((rows - 0.2) / 0.3) ** 2 + ((cols + 0.1) / 0.25) ** 2 < 1)
    image -= 0.3 * (((rows + 0.35) / 0.2) ** 2 + ((cols - 0.2) / 0.3) ** 2 < 1)
    return torch.polar(image.abs(), 0.5 * rows + 0.3 * cols)


def scan(size: tuple[int, int] = (48, 51), coils: int = 4, noise_std: float = NOISE) -> tuple[Tensor, ...]:
    """k-space, maps and a mask of every second column around 12 central ones; and the truth."""
    maps, truth = make_maps(coils, size), pieces(size)
    columns = torch.arange(size[1])
    mask = ((columns % 2 == 0) | ((columns - size[1] // 2).abs() < 6)).reshape(1, 1, -1)
    kspace = Sense(maps[None], mask)(truth[None])[0] + mask * noise_std * gaussian(coils, *size, seed=4)
    return kspace, maps, mask, truth


def psnr(image: Tensor, truth: Tensor) -> float:
    inside = truth.abs() > 0.15
    return float(-10 * torch.log10((image.abs() - truth.abs())[inside].square().mean()))


def penalty(method, x: Tensor) -> float:
    """|T x|_1, with differences by numpy's roll and wavelets by SigPy."""
    if method is total_variation:
        return sum(float((x - x.roll(1, axis)).abs().sum()) for axis in (0, 1))
    return float(np.abs(sigpy.fwt(x.numpy(), wave_name="db4")).sum())


def objective(method, x: Tensor, weight: float, kspace: Tensor, maps: Tensor, mask: Tensor) -> float:
    residual = Sense(maps[None], mask)(x[None])[0] - kspace
    return float(residual.abs().square().sum()) / 2 + weight * penalty(method, x)


def relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


@pytest.mark.parametrize("size", [(8, 12), (7, 9)])
def test_zero_filled_is_the_adjoint(size):
    kspace, maps, mask, _ = scan(size)
    assert relative(zero_filled(kspace, maps, mask), Sense(maps[None], mask).adjoint(kspace[None])[0]) < 1e-6
    arrays = [value.numpy() for value in (kspace, maps, mask)]
    assert torch.equal(zero_filled(*arrays), zero_filled(kspace, maps, mask))


@pytest.mark.parametrize("size", [(6, 8), (5, 9)])
def test_cg_sense_reaches_least_squares(size):
    """Against a dense solve; and 15 iterations are exactly the 15th iterate from zero."""
    kspace, maps, mask, _ = scan(size)
    pixels = size[0] * size[1]
    basis = torch.eye(pixels, dtype=torch.complex128).reshape(pixels, *size)
    dense = Sense(maps[None].to(torch.complex128), mask)(basis).reshape(pixels, -1).T
    exact = torch.linalg.lstsq(dense, kspace.reshape(-1, 1).to(torch.complex128)).solution.reshape(size)
    assert relative(cg_sense(kspace, maps, mask, iterations=100), exact) < 1e-3
    assert torch.equal(cg_sense(kspace, maps, mask), cg_sense(kspace, maps, mask, iterations=15))


def test_cg_sense_is_linear_in_the_scale():
    kspace, maps, mask, _ = scan()
    assert relative(cg_sense(1e-6 * kspace, maps, mask), 1e-6 * cg_sense(kspace, maps, mask)) < 1e-3


@pytest.mark.parametrize("size", [(48, 51), (128, 96)])
def test_one_coil_converges_at_once_and_stays_there(size):
    """What is not sampled stays zero: with one coil of unit sensitivity the zero-filled image is least squares."""
    kspace, maps, mask, truth = scan(size, coils=1)
    expected = zero_filled(kspace, maps, mask)
    assert (cg_sense(kspace, maps, mask) - expected).norm() < 1e-5 * expected.norm()
    for method in METHODS:
        assert psnr(method(kspace, maps, mask, NOISE), truth) > psnr(expected, truth) - 1


@pytest.mark.parametrize("method", METHODS)
def test_each_weight_minimises_its_own_objective(method):
    """x(w) is better at w than the images of other weights, than CG-SENSE, and than itself moved at random."""
    kspace, maps, mask, _ = scan()
    images = {w: method(kspace, maps, mask, NOISE, weight=w, iterations=300) for w in (0.005, 0.02)}
    others = [*images.values(), zero_filled(kspace, maps, mask), cg_sense(kspace, maps, mask)]
    for weight, x in images.items():
        own = objective(method, x, weight, kspace, maps, mask)
        moved = [x + 0.01 * gaussian(*x.shape, seed=seed) for seed in range(3)]
        rivals = [other for other in [*others, *moved] if other is not x]
        assert all(own < objective(method, rival, weight, kspace, maps, mask) for rival in rivals)


@pytest.mark.parametrize("method", METHODS)
def test_a_hundred_iterations_are_nearly_converged(method):
    kspace, maps, mask, _ = scan()
    short, long = (method(kspace, maps, mask, NOISE, iterations=n) for n in (100, 1000))
    assert relative(short, long) < 0.01


@pytest.mark.parametrize(("method", "margin"), [(l1_wavelet, 2), (total_variation, 6)])
@pytest.mark.parametrize("size", [(64, 63), (48, 51)])
def test_regularisation_by_rule_beats_cg_sense(method, margin, size):
    kspace, maps, mask, truth = scan(size)
    image = method(kspace, maps, mask, NOISE)
    assert image.dtype == torch.complex64 and image.shape == size
    cg, zero = (psnr(one(kspace, maps, mask), truth) for one in (cg_sense, zero_filled))
    assert psnr(image, truth) > cg + margin > zero + 3 + margin


@pytest.mark.parametrize(("method", "gap"), [(l1_wavelet, 1), (total_variation, 4)])
def test_the_rule_comes_close_to_the_oracle_whose_optimum_is_inside(method, gap):
    """Wider for total variation: CG-SENSE's noise hides how few edges a phantom of constant pieces has."""
    kspace, maps, mask, truth = scan()
    tuned = tune_weight(method, kspace, maps, mask, NOISE, truth=truth)
    best = tuned.weights.index(tuned.weight)
    assert 0 < best < len(tuned.weights) - 1 and len(tuned.weights) >= 10
    assert tuned.psnr == max(tuned.psnrs)
    assert psnr(method(kspace, maps, mask, NOISE, weight=tuned.weight), truth) == pytest.approx(tuned.psnr, abs=1e-3)
    assert psnr(method(kspace, maps, mask, NOISE), truth) > tuned.psnr - gap


def test_tuning_widens_its_grid_and_gives_up_loudly():
    """A method whose best weight is far below the grid, and one that has none."""
    truth = pieces((16, 15))
    scan_of_truth = (truth[None], torch.ones(1, 16, 15) + 0j, torch.ones(1, 1, 15))

    def far_below(kspace, maps, mask, noise_std, weight, iterations):
        return kspace[0] * (1 + 0.1 * np.log10(weight / 1e-5))

    def unbounded(kspace, maps, mask, noise_std, weight, iterations):
        return kspace[0] * (1 + weight)

    tuned = tune_weight(far_below, *scan_of_truth, 0.1, truth=truth)
    assert 0.4e-5 < tuned.weight < 2.5e-5 and len(tuned.weights) > 12
    with pytest.raises(InputError, match="best weight of unbounded is at the edge"):
        tune_weight(unbounded, *scan_of_truth, 0.1, truth=truth)


def test_the_rule_is_the_most_likely_scale():
    """For coefficients drawn from exp(-|w| / b) in the complex plane the rule finds noise_std^2 / b."""
    scale, random = 0.3, np.random.default_rng(0)
    radius, angle = random.gamma(2, scale, (300, 301)), random.uniform(0, 2 * np.pi, (300, 301))
    image = radius * np.exp(1j * angle)
    weight = weight_by_rule(image, sigpy.linop.Identity(image.shape), 0.05)
    assert abs(weight * scale / 0.05**2 - 1) < 0.02


@pytest.mark.parametrize("method", METHODS)
def test_no_truth_can_reach_a_reconstruction(method):
    names = set(inspect.signature(method).parameters)
    assert {"kspace", "maps", "mask", "noise_std", "weight", "iterations"} <= names <= {
        "kspace", "maps", "mask", "noise_std", "weight", "iterations", "wavelet"
    }  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_the_rule_follows_the_noise(method):
    """More noise said, smoother image: the penalty of the result falls."""
    kspace, maps, mask, _ = scan()
    penalties = [penalty(method, method(kspace, maps, mask, noise_std)) for noise_std in (0.005, 0.02, 0.08)]
    assert penalties[0] > penalties[1] > penalties[2]


@pytest.mark.parametrize("method", METHODS)
def test_empty_slices_stay_empty(method):
    kspace, maps, mask, _ = scan((16, 15))
    assert torch.equal(method(0 * kspace, maps, mask, NOISE), torch.zeros(16, 15, dtype=torch.complex64))


def test_results_repeat_and_leave_their_inputs_alone():
    kspace, maps, mask, _ = scan((32, 33))
    before = [value.clone() for value in (kspace, maps, mask)]
    for method in METHODS:
        first, second = (method(kspace, maps, mask, NOISE, iterations=20) for _ in range(2))
        assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(before, (kspace, maps, mask), strict=True))


def test_refusals():
    kspace, maps, mask, _ = scan((8, 9))
    with pytest.raises(InputError, match="one slice"):
        cg_sense(kspace[None], maps[None], mask)
    with pytest.raises(InputError, match=r"pass mask\[0\]"):
        cg_sense(kspace, maps, mask[None])
    with pytest.raises(InputError, match="does not fit"):
        cg_sense(kspace, maps, mask[..., :5])
    with pytest.raises(InputError, match="not positive"):
        l1_wavelet(kspace, maps, mask, 0.0)
    for weight in (-1.0, 0.0, float("nan"), "best"):
        with pytest.raises(InputError, match='pass "rule" or a positive number'):
            total_variation(kspace, maps, mask, NOISE, weight=weight)


def test_the_rule_is_near_the_oracle_on_a_real_head(shared):
    """A strip of an in-vivo slice at R = 4, maps from its calibration lines: within 1 dB of the best weight."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(shared / "data/kspace/brain_flash_16ch.h5") as file:
        full = file["kspace"][0].astype(np.complex64)
    strip = sigpy.fft(sigpy.ifft(full, axes=[-2])[:, 48:80], axes=[-2]).astype(np.complex64)
    size = strip.shape[-1]
    columns = np.arange(size)
    calibration = np.abs(columns - size // 2) < 12
    maps = _maps(strip * calibration)
    truth = (_maps(strip).conj() * sigpy.ifft(strip, axes=[-2, -1])).sum(0)
    mask = (calibration | (columns % 3 == 0)).reshape(1, 1, -1)
    outer = strip[..., np.abs(columns - size // 2) > 56]
    noise_std = 1.4826 * np.median(np.abs(np.stack([outer.real, outer.imag])))
    scale = np.percentile(cg_sense(strip * mask, maps, mask).abs().numpy(), 99)
    arguments = (strip * mask / scale, maps, mask, noise_std / scale)
    for method in METHODS:
        tuned = tune_weight(method, *arguments, truth=truth / scale)
        reference = np.abs(truth / scale)
        inside = reference > 0.15 * np.percentile(reference, 99)
        error = (method(*arguments).abs().numpy() - reference)[inside]
        assert 10 * np.log10(reference[inside].max() ** 2 / np.mean(error**2)) > tuned.psnr - 1


def _maps(kspace: np.ndarray) -> np.ndarray:
    """Low-resolution coil images over their root sum of squares: crude, smooth and of unit norm."""
    rows, cols = (np.hanning(n)[:, None] if axis == 0 else np.hanning(n)[None] for axis, n in enumerate((32, 24)))
    window = np.pad(rows * cols, ((0, 0), (52, 52)))
    coils = sigpy.ifft(kspace * window, axes=[-2, -1])
    return (coils / np.sqrt((np.abs(coils) ** 2).sum(0) + 1e-30)).astype(np.complex64)
