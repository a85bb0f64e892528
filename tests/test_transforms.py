"""Training transforms: each changes the image by what it says, and by nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from mri_score.data.scale import percentile
from mri_score.sources import augmentation


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=seeded(seed))


def blob(shape: tuple[int, int], y: float, x: float) -> torch.Tensor:
    """A Gaussian (y, x) pixels off the middle of the image."""
    rows, cols = (torch.arange(n) - (n - 1) / 2 for n in shape)
    return torch.exp(-((rows[:, None] - y) ** 2 + (cols - x) ** 2) / 18)


def centre_of_mass(image: torch.Tensor) -> complex:
    """x + i y in pixels from the middle of the image."""
    rows, cols = (torch.arange(n) - (n - 1) / 2 for n in image.shape)
    total = image.sum()
    return complex(float((image * cols).sum() / total), float((image * rows[:, None]).sum() / total))


def assert_smooth(field: torch.Tensor, order: int) -> None:
    """No cosine beyond `order` half waves."""
    waves = np.abs(dctn(field.double().numpy(), norm="ortho"))
    inside = waves[: order + 1, : order + 1].max()
    waves[: order + 1, : order + 1] = 0
    assert waves.max() < 1e-4 * inside


@pytest.mark.parametrize("shape", [(10, 10), (7, 13)])
def test_percentile_is_the_value_that_one_in_a_hundred_exceeds(shape):
    images = torch.complex(some_image(3, *shape), some_image(3, *shape, seed=1))
    values = images.abs().flatten(1).sort(1).values
    assert torch.equal(percentile(images), values[:, math.ceil(0.99 * values.shape[1]) - 1])
    assert torch.equal(percentile(images[1]), percentile(images)[1])


@pytest.mark.parametrize(("shape", "count"), [((5, 5), 8), ((6, 6), 8), ((4, 7), 4)])
def test_flip_and_turn_is_a_symmetry_of_the_shape(shape, count):
    image = some_image(*shape)
    turned = [torch.rot90(image, quarters) for quarters in range(4)]
    known = [x for one in turned for x in (one, one.flip(-1)) if x.shape == image.shape]
    assert len(known) == count
    found = set()
    for seed in range(100):
        result = augmentation.flip_and_turn(image, seeded(seed))
        (number,) = [n for n, one in enumerate(known) if torch.equal(one, result)]
        found.add(number)
    assert len(found) == count


@pytest.mark.parametrize("shape", [(32, 32), (21, 34)])
def test_warp_by_nothing_is_the_identity(shape):
    image = some_image(*shape)
    torch.testing.assert_close(augmentation.warp(image, seeded(1), degrees=0, zoom=0, stretch=0), image)


def test_warp_turns_without_shear_in_a_rectangle():
    for seed in range(6):
        angle = math.radians(augmentation.between(-40, 40, seeded(seed)))
        warped = augmentation.warp(blob((64, 91), 3, 15), seeded(seed), degrees=40, zoom=0, stretch=0)
        turn = centre_of_mass(warped) / complex(15, 3)
        assert abs(turn) == pytest.approx(1, abs=5e-3)
        assert abs(math.atan2(turn.imag, turn.real)) == pytest.approx(abs(angle), abs=5e-3)


def test_warp_zooms_about_the_middle():
    for seed in range(6):
        random = seeded(seed)
        augmentation.between(0, 0, random)  # the angle
        zoom = 1 + augmentation.between(-0.3, 0.3, random)
        warped = augmentation.warp(blob((64, 91), 8, -12), seeded(seed), degrees=0, zoom=0.3, stretch=0)
        assert centre_of_mass(warped) == pytest.approx(zoom * complex(-12, 8), abs=0.05)
        assert warped.sum() == pytest.approx(float(zoom**2 * blob((64, 91), 8, -12).sum()), rel=0.01)


def test_warp_never_makes_negative_magnitudes():
    edges = (some_image(40, 40) > 0.5).float()
    assert augmentation.warp(edges, seeded(2)).min() >= 0


@pytest.mark.parametrize(("shape", "order"), [((48, 48), 4), ((31, 50), 2)])
def test_smooth_fields_have_unit_deviation_and_bounded_frequency(shape, order):
    random = seeded(0)
    fields = torch.stack([augmentation.smooth_field(shape, random, order) for _ in range(1500)])
    assert fields.square().mean().sqrt().item() == pytest.approx(1, rel=0.03)
    assert fields.mean().item() == pytest.approx(0, abs=1e-5)  # no wave without a node
    assert fields.mean(0).abs().max() < 0.25  # no place is special
    assert_smooth(fields[0], order)


def test_smooth_phase_keeps_the_magnitude_and_is_smooth():
    image = 0.5 + some_image(40, 33)
    turned = augmentation.smooth_phase(image, seeded(3))
    torch.testing.assert_close(turned.abs(), image)
    for seed in range(20):
        ramp = augmentation.smooth_phase(image, seeded(seed), strength=0, slope=3, steps=0)
        for axis in (0, 1):
            step = (ramp.narrow(axis, 1, ramp.shape[axis] - 1) / ramp.narrow(axis, 0, ramp.shape[axis] - 1)).angle()
            assert step.std() < 1e-5 and step.abs().max() < 3 / (ramp.shape[axis] - 1) + 1e-5


def test_phases_are_uniform_over_the_circle():
    one = torch.ones(1, 1)
    draws = [
        [augmentation.global_phase(one + 0j, seeded(seed)) for seed in range(2000)],
        [augmentation.smooth_phase(one, seeded(seed), strength=0, slope=0) for seed in range(2000)],
    ]
    for phases in draws:
        turns = torch.stack(phases)
        torch.testing.assert_close(turns.abs(), torch.ones_like(turns.abs()))
        for power in (1, 2, 3):
            assert (turns**power).mean().abs() < 0.08  # 2000 unit vectors: 0.02 expected


def test_global_phase_is_one_number_for_the_image():
    image = torch.complex(some_image(9, 8), some_image(9, 8, seed=1))
    ratio = augmentation.global_phase(image, seeded(4)) / image
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))


def test_shade_is_a_smooth_factor_of_the_stated_strength():
    image = 0.5 + some_image(30, 41)
    logs = torch.stack([(augmentation.shade(image, seeded(seed), strength=0.3) / image).log() for seed in range(1500)])
    assert logs.square().mean().sqrt().item() == pytest.approx(0.3 / math.sqrt(3), rel=0.05)
    assert_smooth(logs[0], order=2)
    assert torch.equal(augmentation.shade(image, seeded(0), strength=0), image)


def test_scales_are_log_uniform():
    factors = torch.stack([augmentation.rescale(torch.ones(1, 1), seeded(seed)) for seed in range(2000)]).flatten()
    place = (factors / 0.6).log() / math.log(1.25 / 0.6)
    assert place.min() >= 0 and place.max() <= 1
    quarters = torch.tensor([0.25, 0.5, 0.75])
    torch.testing.assert_close(place.quantile(quarters), quarters, atol=0.04, rtol=0)
    image = some_image(4, 5)
    torch.testing.assert_close(augmentation.rescale(image, seeded(7), 2.0, 2.0), 2 * image)


@pytest.mark.parametrize("shape", [(48, 40), (45, 51)])
def test_coarse_images_are_samples_of_the_same_function(shape):
    """A wave below the new band edge, at the middle of each larger pixel."""

    def wave(rows: int, cols: int) -> torch.Tensor:
        y, x = ((torch.arange(n, dtype=torch.float64) - n // 2) / n for n in (rows, cols))
        y = y[:, None]
        return 0.3 + torch.exp(2j * math.pi * (3 * y - 5 * x)) + 2 * torch.exp(2j * math.pi * (x - 4 * y))

    sizes = set()
    for seed in range(8):
        coarse = augmentation.coarsen(wave(*shape), seeded(seed), least=0.45, share=1.0)
        torch.testing.assert_close(coarse, wave(*coarse.shape))
        assert all(0.45 * n - 1 <= m <= n + 1 and m % 2 == 0 for m, n in zip(coarse.shape, shape, strict=True))
        sizes.add(coarse.shape)
    assert len(sizes) > 4


def test_coarse_images_keep_their_mean_and_some_stay_fine():
    image = torch.complex(some_image(40, 30), some_image(40, 30, seed=1))
    coarse = [augmentation.coarsen(image, seeded(seed), share=0.6) for seed in range(400)]
    assert all(one.mean().item() == pytest.approx(image.mean().item(), rel=1e-4) for one in coarse)
    assert np.mean([one is image for one in coarse]) == pytest.approx(0.4, abs=0.08)


def test_patches_lie_within_the_image_and_everywhere():
    image = torch.arange(7 * 9).reshape(7, 9)
    corners = set()
    for seed in range(300):
        patch = augmentation.crop(image, seeded(seed), (5, 6))
        top, left = divmod(int(patch[0, 0]), 9)
        assert torch.equal(patch, image[top : top + 5, left : left + 6])
        corners.add((top, left))
    assert corners == {(top, left) for top in range(3) for left in range(4)}


def test_images_smaller_than_a_patch_are_padded():
    patch = augmentation.crop(torch.ones(4, 9), seeded(0), (7, 5))
    assert torch.equal(patch, torch.ones(4, 5).new_zeros(7, 5).index_fill(0, torch.arange(1, 5), 1.0))


def test_transforms_follow_their_generator():
    image = 0.5 + some_image(24, 24)
    for transform in (
        augmentation.flip_and_turn,
        augmentation.warp,
        augmentation.smooth_phase,
        augmentation.global_phase,
        augmentation.shade,
        augmentation.coarsen,
        augmentation.rescale,
    ):
        draws = [transform(image, seeded(seed)) for seed in (*range(12), *range(12))]
        assert all(torch.equal(one, other) for one, other in zip(draws[:12], draws[12:], strict=True))
        assert any(one.shape != draws[0].shape or not torch.equal(one, draws[0]) for one in draws[1:12])


def test_phase_steps_are_one_constant_inside_one_region():
    image = torch.ones(32, 40)
    plain = augmentation.smooth_phase(image, seeded(1), strength=0, slope=0, steps=0)
    found = 0
    for seed in range(20):
        stepped = augmentation.smooth_phase(image, seeded(seed), strength=0, slope=0, steps=1)
        values = stepped.angle().flatten().double().round(decimals=4).unique()
        assert len(values) <= 2
        found += len(values) == 2
    assert found >= 10 and len(plain.angle().unique()) == 1


def test_tone_keeps_black_and_white_and_the_order_of_values():
    image = torch.linspace(0, 1, 50).reshape(5, 10)
    changed = 0
    for seed in range(30):
        toned = augmentation.tone(image, seeded(seed))
        torch.testing.assert_close(toned.flatten()[[0, -1]], image.flatten()[[0, -1]])
        assert (toned.flatten().diff() > 0).all()
        changed += not torch.equal(toned, image)
    assert 10 <= changed < 30


@pytest.mark.parametrize("b", [(0.0, 0.0, 1.0), (0.6, 0.0, 0.8)])
def test_the_field_of_a_sphere_is_harmonic_and_has_its_poles_along_b0(b):
    b = torch.tensor(b, dtype=torch.float64)
    h = 1e-3
    here = torch.tensor([0.11, -0.2, 0.3], dtype=torch.float64)

    def field(r):
        return float(augmentation.dipole(r[0], r[1], float(r[2]), b))

    laplacian = sum(field(here + h * axis) + field(here - h * axis) - 2 * field(here) for axis in torch.eye(3).double())
    assert abs(laplacian / h**2) < 1e-3 * abs(field(here)) / float(here.norm()) ** 2
    assert field(0.5 * b) == pytest.approx(2 / 0.5**3)  # twice the field on the equator, of the other sign
    equator = torch.linalg.cross(b, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    assert field(0.5 * equator / equator.norm()) == pytest.approx(-1 / 0.5**3)


def test_air_turns_the_phase_and_only_takes_signal_away():
    image = torch.polar(some_image(48, 64) + 0.1, torch.zeros(48, 64))
    turned = [augmentation.susceptibility(image, seeded(seed)) for seed in range(40)]
    kept = sum(torch.equal(result, image) for result in turned)
    assert 10 <= kept <= 30  # a share of one half
    changed = [result for result in turned if not torch.equal(result, image)]
    assert all(bool((result.abs() <= image.abs() * (1 + 1e-6)).all()) for result in changed)
    ratios = torch.stack([result.abs() / image.abs() for result in changed])
    assert float(ratios.median()) > 0.98 and float(ratios.min()) < 0.5  # signal is lost near the air only
    assert max(float(result.angle().abs().max()) for result in changed) > 1


def test_fat_is_a_rim_off_by_one_constant():
    image = torch.zeros(64, 48, dtype=torch.complex64)
    image[10:50, 8:40] = 0.8
    shifts = []
    for seed in range(20):
        ratio = augmentation.fat_shift(image, seeded(seed), share=1.0)[10:50, 8:40] / 0.8
        rim = ratio.angle() != 0
        assert not bool(rim[12:28, 10:22].any()) and bool(rim[0].any())
        constants = ratio[rim]
        torch.testing.assert_close(constants, constants[:1].expand_as(constants))
        shifts.append(float(constants[0].angle()))
    assert min(shifts) < -1 and max(shifts) > 1
    assert torch.equal(augmentation.fat_shift(image, seeded(0), share=0.0), image)
