"""Baselines: exact solutions, minimised objectives, and weights that see no truth."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import pywt
import sigpy
import sigpy.mri
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
from mri_score.baselines.problem import pose
from mri_score.baselines.wavelets import coefficients, decompose, draw_shifts, fista, shrink
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


def penalty(x: Tensor) -> float:
    """Isotropic total variation by numpy's roll."""
    x = x.numpy()
    return float(np.sqrt(sum(np.abs(x - np.roll(x, 1, axis)) ** 2 for axis in (0, 1))).sum())


def objective(x: Tensor, weight: float, kspace: Tensor, maps: Tensor, mask: Tensor) -> float:
    residual = Sense(maps[None], mask)(x[None])[0] - kspace
    return float(residual.abs().square().sum()) / 2 + weight * penalty(x)


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


def test_each_weight_of_total_variation_minimises_its_own_objective():
    """x(w) is better at w than the images of other weights, than CG-SENSE, and than itself moved at random."""
    kspace, maps, mask, _ = scan()
    images = {w: total_variation(kspace, maps, mask, NOISE, weight=w, iterations=300) for w in (0.005, 0.02)}
    others = [*images.values(), zero_filled(kspace, maps, mask), cg_sense(kspace, maps, mask)]
    for weight, x in images.items():
        own = objective(x, weight, kspace, maps, mask)
        moved = [x + 0.01 * gaussian(*x.shape, seed=seed) for seed in range(3)]
        rivals = [other for other in [*others, *moved] if other is not x]
        assert all(own < objective(rival, weight, kspace, maps, mask) for rival in rivals)


class GroupNorm(sigpy.prox.Prox):
    """The proximal step of weight sum_p |(g_p, h_p)|, for SigPy."""

    def __init__(self, shape, weight):
        self.weight = weight
        super().__init__(shape)

    def _prox(self, alpha, pairs):
        size = np.sqrt((np.abs(pairs) ** 2).sum(0))
        return pairs * np.maximum(size - alpha * self.weight, 0) / np.maximum(size, 1e-30)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(32, 33), (48, 51)])
def test_total_variation_reaches_the_optimum_of_sigpy(size):
    """SigPy's alternating direction method, run long: 1e-3 with many inner iterations, 5e-3 as it is by default."""
    kspace, maps, mask, _ = scan(size)
    weight = 0.01
    A = sigpy.mri.linop.Sense(maps.numpy(), weights=mask.numpy().astype(np.float32))
    D = sigpy.linop.FiniteDifference(A.ishape)
    long = sigpy.app.LinearLeastSquares(
        A, kspace.numpy(), proxg=GroupNorm(D.oshape, weight), G=D, solver="ADMM", rho=0.2, max_iter=600,
        max_cg_iter=10, show_pbar=False,
    ).run()  # fmt: skip
    limit = torch.from_numpy(long)
    exact = total_variation(kspace, maps, mask, NOISE, weight=weight, iterations=600, inner_iterations=30)
    assert relative(exact, limit) < 1e-3
    assert relative(total_variation(kspace, maps, mask, NOISE, weight=weight), limit) < 5e-3
    assert relative(cg_sense(kspace, maps, mask), limit) > 5e-2


def pywt_bands(x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Details from fine to coarse and the last approximation; each axis is split while it has 16 or more."""
    details = []
    while axes := [axis for axis in (0, 1) if x.shape[axis] >= 16]:
        found = pywt.dwtn(x, "db2", mode="symmetric", axes=axes)
        x = found.pop("a" * len(axes))
        details.append((axes, found))
    return details, x


def pywt_shrink(x: np.ndarray, threshold: float, shift: tuple[int, int]) -> np.ndarray:
    soft = lambda c: c * np.maximum(1 - threshold / np.maximum(np.abs(c), 1e-30), 0)  # noqa: E731
    shape = x.shape
    details, low = pywt_bands(np.roll(x, shift, (0, 1)))
    low = soft(low)
    for place in reversed(range(len(details))):
        axes, found = details[place]
        bands = {name: soft(band) for name, band in found.items()} | {"a" * len(axes): low}
        low = pywt.idwtn(bands, "db2", mode="symmetric", axes=axes)
        above = details[place - 1][1] if place else None
        rows, cols = shape if above is None else next(iter(above.values())).shape
        low = low[:rows, :cols]
    return np.roll(low, (-shift[0], -shift[1]), (0, 1))


@pytest.mark.parametrize("size", [(64, 64), (67, 90), (31, 200), (15, 40), (9, 7), (33, 16)])
def test_the_wavelet_is_that_of_pywavelets(size):
    """Daubechies with two vanishing moments, half-sample symmetric, for all sizes; complex images, two of them."""
    images = torch.stack([gaussian(*size, seed=seed) for seed in range(2)])
    for number, image in enumerate(images):
        details, low = pywt_bands(image.numpy())
        *found, last = (band[number] for band in decompose(images))
        assert len(found) == len(details)
        assert np.abs(last[0].numpy() - low).max() < 1e-4
        for bands, (_, expected) in zip(found, details, strict=True):
            assert np.abs(bands.numpy() - np.stack([expected[name] for name in sorted(expected)])).max() < 1e-4


@pytest.mark.parametrize("size", [(64, 64), (67, 90), (31, 200), (9, 7)])
def test_shrinking_follows_pywavelets_and_nothing_shrinks_nothing(size):
    image, shift = gaussian(*size), (5, 11)
    assert relative(shrink(image[None], 0.0, shift)[0], image) < 1e-5
    assert relative(shrink(image[None], 0.7, shift)[0], torch.from_numpy(pywt_shrink(image.numpy(), 0.7, shift))) < 1e-5


def numpy_fista(kspace, maps, mask, weight, shifts):
    """FISTA as BART iterates it: threshold, momentum, gradient step of .95."""
    A = sigpy.mri.linop.Sense(maps.numpy(), weights=mask.numpy().astype(np.float32))
    b = A.H(kspace.numpy())
    x, before, momentum = 0 * b, 0 * b, 1.0
    for shift in shifts:
        x = pywt_shrink(x, 0.95 * weight, shift)
        last, momentum = momentum, (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        x, before = x + (last - 1) / momentum * (x - before), x
        x = x + 0.95 * (b - A.N(x))
        yield x


def test_l1_wavelet_is_fista_with_the_shifts_that_it_was_given():
    kspace, maps, mask, _ = scan()
    shifts = [(3, 14), (0, 1), (9, 5), (7, 7), (2, 0), (15, 15)] * 2
    expected = list(numpy_fista(kspace, maps, mask, 0.02, shifts))
    found = fista(*pose(kspace, maps, mask), 0.02, shifts, averaged=0)
    assert relative(found, torch.from_numpy(expected[-1])) < 1e-4
    found = l1_wavelet(kspace, maps, mask, NOISE, 0.02, 12, shifts=shifts)
    assert relative(found, torch.from_numpy(np.mean(expected[-4:], 0))) < 1e-4


def test_shifts_follow_the_key_alone_and_hardly_matter():
    kspace, maps, mask, truth = scan((64, 63))
    keys = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)]
    images = [l1_wavelet(kspace, maps, mask, NOISE, key=key) for key in keys]
    assert torch.equal(images[0], l1_wavelet(kspace, maps, mask, NOISE, key=(0, "a", 0)))
    assert all(0 < relative(other, images[0]) < 0.01 for other in images[1:])
    fixed = l1_wavelet(kspace, maps, mask, NOISE, shifts=[(0, 0)] * 100)
    assert min(psnr(image, truth) for image in images) > psnr(fixed, truth) + 0.1
    shifts = draw_shifts((64, 31), 4000, generators(0)[0])
    assert {rows for rows, _ in shifts} == set(range(8)) and {cols for _, cols in shifts} == set(range(4))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "change"), [(l1_wavelet, 0.03), (total_variation, 0.005)])
def test_a_hundred_iterations_are_nearly_converged(method, change):
    kspace, maps, mask, _ = scan()
    short, long = (method(kspace, maps, mask, NOISE, iterations=n) for n in (100, 1000))
    assert relative(short, long) < change


@pytest.mark.parametrize(("method", "margin"), [(l1_wavelet, 2), (total_variation, 6)])
@pytest.mark.parametrize("size", [(64, 63), (48, 51)])
def test_regularisation_by_rule_beats_cg_sense(method, margin, size):
    kspace, maps, mask, truth = scan(size)
    image = method(kspace, maps, mask, NOISE)
    assert image.dtype == torch.complex64 and image.shape == size
    cg, zero = (psnr(one(kspace, maps, mask), truth) for one in (cg_sense, zero_filled))
    assert psnr(image, truth) > cg + margin > zero + 3 + margin


@pytest.mark.slow
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
    image = torch.from_numpy(radius * np.exp(1j * angle))
    weight = weight_by_rule(image, lambda x: x, 0.05)
    assert abs(weight * scale / 0.05**2 - 1) < 0.02


@pytest.mark.parametrize("method", METHODS)
def test_no_truth_can_reach_a_reconstruction(method):
    names = set(inspect.signature(method).parameters)
    assert {"kspace", "maps", "mask", "noise_std", "weight", "iterations"} <= names <= {
        "kspace", "maps", "mask", "noise_std", "weight", "iterations", "key", "shifts", "averaged", "inner_iterations"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "penalty"),
    [(l1_wavelet, lambda x: float(coefficients(x[None]).abs().sum())), (total_variation, penalty)],
)
def test_the_rule_follows_the_noise(method, penalty):
    """More noise said, smoother image: the penalty of the result falls."""
    kspace, maps, mask, _ = scan()
    penalties = [penalty(method(kspace, maps, mask, noise_std)) for noise_std in (0.005, 0.02, 0.08)]
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
    with pytest.raises(InputError, match="100 iterations need as many shifts, not 1"):
        l1_wavelet(kspace, maps, mask, NOISE, shifts=[(0, 0)])
    with pytest.raises(InputError, match="not positive"):
        l1_wavelet(kspace, maps, mask, 0.0)
    for weight in (-1.0, 0.0, float("nan"), "best"):
        with pytest.raises(InputError, match='pass "rule" or a positive number'):
            total_variation(kspace, maps, mask, NOISE, weight=weight)


@pytest.mark.slow
def test_the_rule_is_near_the_oracle_on_a_real_head(shared):
    """A strip of an in-vivo slice at R = 4, maps from its calibration lines: within 2 dB of the best weight."""
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
        assert 10 * np.log10(reference[inside].max() ** 2 / np.mean(error**2)) > tuned.psnr - 2


def _maps(kspace: np.ndarray) -> np.ndarray:
    """Low-resolution coil images over their root sum of squares: crude, smooth and of unit norm."""
    rows, cols = (np.hanning(n)[:, None] if axis == 0 else np.hanning(n)[None] for axis, n in enumerate((32, 24)))
    window = np.pad(rows * cols, ((0, 0), (52, 52)))
    coils = sigpy.ifft(kspace * window, axes=[-2, -1])
    return (coils / np.sqrt((np.abs(coils) ** 2).sum(0) + 1e-30)).astype(np.complex64)
