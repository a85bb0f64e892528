"""Non-Cartesian scans: trajectories, their operator, and reconstructions from their samples alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mri_score.data.acquisition import Acquisition
from mri_score.data.coils import coil_maps, truth_image
from mri_score.data.noncartesian import NonCartesianScan, acquire, centre_maps, gridding, samples
from mri_score.data.trajectories import GOLDEN, TRAJECTORIES, radial, spiral
from mri_score.errors import InputError
from mri_score.models.analytic import GaussianPrior
from mri_score.numerics.fourier import ifft
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.noncartesian import NonCartesian, find_gain
from mri_score.operators.sense import Sense
from mri_score.readers.fastmri import FastMRI
from mri_score.reconstruction import sample_posterior
from mri_score.simulation.phantom import phantom
from mri_score.simulation.simulate import simulate

SHAPES = [(24, 24), (21, 16)]


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return noise_like(torch.zeros(shape, dtype=torch.complex64), generators(seed, draws=shape[0]))


def make_maps(batch: int, coils: int, shape: tuple[int, int]) -> Tensor:
    maps = gaussian(batch, coils, *shape, seed=3)
    return maps / maps.abs().square().sum(1, keepdim=True).sqrt()


def relative(found: Tensor, expected: Tensor) -> float:
    return float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))


def grid(shape: tuple[int, int]) -> Tensor:
    rows, cols = (torch.arange(size, dtype=torch.float64) - size // 2 for size in shape)
    return torch.stack(torch.meshgrid(rows, cols, indexing="ij"), -1).flatten(0, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_on_the_grid_it_is_sense(shape):
    maps, x = make_maps(2, 3, shape), gaussian(2, *shape)
    points = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.4
    ours = NonCartesian(maps, grid(shape)[points.flatten()], gain=1.0)
    sense = Sense(maps, points)
    assert relative(ours(x), sense(x)[:, :, points]) < 1e-3
    assert relative(ours.adjoint(sense(x)[:, :, points]), sense.normal(x)) < 1e-3
    assert relative(ours.normal(x), sense.normal(x)) < 1e-5


@pytest.mark.parametrize("name", TRAJECTORIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_sum_that_defines_it(name, shape):
    trajectory = TRAJECTORIES[name](shape, 1.5)
    maps, x = make_maps(1, 2, shape), gaussian(1, *shape)
    angle = 2 * math.pi * (trajectory.coordinates / torch.tensor(shape)) @ grid(shape).T
    rows = torch.polar(torch.ones_like(angle), -angle).to(torch.complex64) / math.sqrt(shape[0] * shape[1])
    found = NonCartesian(maps, trajectory.coordinates, gain=0.5)(x)
    assert relative(found, 0.5 * (maps * x[:, None]).flatten(2) @ rows.T) < 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_adjoint_and_normal_are_those_of_the_forward_map(shape):
    maps = make_maps(2, 3, shape)
    operator = NonCartesian(maps, radial(shape, 2).coordinates)
    x, other = gaussian(2, *shape), gaussian(2, *shape, seed=5)
    y = gaussian(*operator(x).shape, seed=6)
    left, right = torch.vdot(y.flatten(), operator(x).flatten()), torch.vdot(operator.adjoint(y).flatten(), x.flatten())
    assert abs(left - right) < 1e-6 * torch.linalg.vector_norm(y) * torch.linalg.vector_norm(operator(x))
    assert relative(operator.normal(x), operator.adjoint(operator(x))) < 1e-3
    energy = torch.vdot(other.flatten(), operator.normal(x).flatten())
    back = torch.vdot(operator.normal(other).flatten(), x.flatten())
    assert abs(energy - back) < 1e-5 * torch.linalg.vector_norm(other) * torch.linalg.vector_norm(operator.normal(x))


@pytest.mark.parametrize("coils", [1, 3])
def test_the_norm_is_at_most_one_and_one_without_coils(coils):
    operator = NonCartesian(make_maps(1, coils, (21, 16)), radial((21, 16), 2).coordinates)
    x = gaussian(1, 21, 16)
    for _ in range(40):
        x = operator.normal(x / torch.linalg.vector_norm(x))
    norm = torch.linalg.vector_norm(x).sqrt()
    assert norm <= 1
    if coils == 1:
        assert norm > 0.97


def test_draws_share_maps_and_items_have_their_own():
    shape, coordinates = (16, 16), radial((16, 16), 2).coordinates
    maps, x = make_maps(2, 3, shape), gaussian(2, *shape)
    both = NonCartesian(maps, coordinates)
    for item in range(2):
        alone = NonCartesian(maps[item : item + 1], coordinates)
        assert relative(both(x)[item], alone(x)[item]) < 1e-6
        assert relative(both.normal(x)[item], alone.normal(x)[item]) < 1e-6


@pytest.mark.parametrize("name", TRAJECTORIES)
@pytest.mark.parametrize("shape", [(64, 64), (63, 50)])
@pytest.mark.parametrize("acceleration", [1.0, 2.0])
def test_trajectories_have_their_acceleration_and_fill_the_ellipse(name, shape, acceleration):
    trajectory = TRAJECTORIES[name](shape, acceleration)
    assert trajectory.acceleration == pytest.approx(acceleration, rel=0.03)
    reach = (trajectory.coordinates / (torch.tensor(shape) / 2)).square().sum(1).sqrt()
    assert 0.95 < reach.max() <= 1 + 1e-9
    ellipse = math.pi / 4 * shape[0] * shape[1]
    assert float(trajectory.area.sum()) == pytest.approx(ellipse, rel=0.03)


def test_spokes_turn_by_the_golden_angle_and_pass_through_dc():
    spokes = radial((32, 32), 4).coordinates.unflatten(0, (8, 32))
    assert (spokes[:, 16] == 0).all()
    angle = torch.atan2(spokes[:, 20, 0], spokes[:, 20, 1])
    torch.testing.assert_close(torch.polar(torch.ones(7), angle.diff().float()), torch.full((7,), _turn(GOLDEN)))
    torch.testing.assert_close(spokes.diff(dim=1).norm(dim=-1), torch.ones(8, 31, dtype=torch.float64))


def _turn(angle: float) -> complex:
    return complex(math.cos(angle), math.sin(angle))


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_the_centre_is_sampled_without_gaps(name):
    trajectory = TRAJECTORIES[name]((64, 64), 2.0)
    points = grid((64, 64))
    inside = points[points.norm(dim=1) < trajectory.centre - 1]
    nearest = torch.cdist(inside, trajectory.coordinates).amin(1)
    assert len(inside) > 100
    assert nearest.max() < 1.0  # golden angles leave some gaps above the mean of one cell
    assert nearest.mean() < 0.5


def test_beyond_the_centre_spiral_arms_are_evenly_apart():
    trajectory = spiral((96, 96), 3.0)
    along = trajectory.coordinates[(trajectory.coordinates[:, 1] > 0) & (trajectory.coordinates[:, 0].abs() < 0.5)]
    gaps = along[:, 1].sort().values
    gaps = gaps[gaps > 15].diff()
    gaps = gaps[gaps > 0.6]  # several samples of one arm lie near the axis
    assert gaps.std() < 0.2 * gaps.mean()


def test_the_scans_noise_keeps_its_level_and_stays_nearly_white():
    shape = (48, 48)
    trajectory = radial(shape, 3)
    y = samples(gaussian(40, 8, *shape), trajectory)
    assert y.real.std().item() == pytest.approx(1.0, abs=0.02)  # each row of the transform has norm 1
    spokes = y.unflatten(-1, (-1, 48)).flatten(0, 1)
    outer = spokes[..., :12]
    neighbours = (outer[..., 1:] * outer[..., :-1].conj()).mean(0).abs() / outer.abs().square().mean()
    assert neighbours.max() < 0.25  # 0.13 at 45 degrees, and 320 draws scatter by 0.06
    distant = (outer[:, :, None] * outer[:, None].conj()).mean((0, -1)).abs() / outer.abs().square().mean()
    assert (distant - torch.diag(distant.diag())).max() < 0.1  # other spokes


def test_the_posterior_sees_gain_times_k_space_and_its_noise_alike():
    scan = phantom(48, coils=4, noise_snr=30.0)
    trajectory = radial((48, 48), 2)
    found = acquire(scan.kspace, trajectory, float(scan.noise_std), "phantom")
    gain = find_gain(trajectory.coordinates, (48, 48))
    expected = samples(ifft(scan.kspace), trajectory)
    assert relative(found.kspace * found.scale[:, None, None] / gain, expected) < 1e-5
    torch.testing.assert_close(found.noise_std * found.scale / gain, scan.noise_std[None])
    assert found.kspace.abs().mean() > 10 * found.noise_std
    assert found.operator().gain == gain


@pytest.mark.parametrize("name", TRAJECTORIES)
@pytest.mark.parametrize("shape", [(64, 64), (63, 64)])
def test_maps_of_the_centre_are_those_of_full_k_space(name, shape):
    scan = phantom(shape, coils=4, noise_snr=36.0)
    full, _, _ = coil_maps(scan.kspace)
    found = centre_maps(samples(ifft(scan.kspace), TRAJECTORIES[name](shape, 2)), TRAJECTORIES[name](shape, 2))
    torch.testing.assert_close(found.abs().square().sum(1), torch.ones(1, *shape))
    head = scan.image[0].abs() > 0.2
    agreement = (found.conj() * full).sum(1).abs()[0, head]  # of the directions, whatever their common phase
    assert agreement.mean() > 0.99
    assert agreement.min() > 0.9


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_least_squares_beat_gridding_and_follow_the_image(name):
    scan = phantom(64, coils=6, noise_snr=36.0)
    trajectory = TRAJECTORIES[name]((64, 64), 3)
    found = acquire(scan.kspace, trajectory, float(scan.noise_std), "phantom")
    truth, head = scan.image[0].abs(), scan.image[0].abs() > 0.1
    by_cg = found.operator().cg_sense(found.kspace)[0].abs() * found.scale
    by_gridding = gridding(found, trajectory)[0].abs() * found.scale
    errors = [relative(image[head], truth[head]) for image in (by_cg, by_gridding)]
    assert errors[0] < 0.12
    assert errors[0] < 0.85 * errors[1]
    assert errors[1] < 0.2  # gridding has the right units, and streaks


def test_the_same_samplers_run_on_it():
    """A flat Gaussian prior makes the exact draw's mean the regularised least-squares image."""
    scan = phantom(21, coils=4, noise_snr=30.0)
    found = acquire(scan.kspace, radial((21, 21), 2), float(scan.noise_std), "phantom")
    prior = GaussianPrior(torch.zeros(21, 21) + 0j, 0.16 * torch.eye(441) + 0j)
    drawn = sample_posterior(found, prior, "exact-draw", steps=12, samples=6, slices=[0])
    operator, weight = found.operator(), float(found.noise_std / 0.4) ** 2
    expected = operator.solve(operator.adjoint(found.kspace), weight) * found.scale
    spread = drawn.std[0].mean()
    error = (drawn.image - expected).abs().square().mean().sqrt() / 2**0.5
    assert error == pytest.approx(float(spread / 6**0.5), rel=0.35)
    one = sample_posterior(found, prior, "exact-draw", steps=12, samples=1, batch_size=1, slices=[0])
    assert relative(one.samples, drawn.samples[:1]) < 1e-3


def test_a_scan_of_a_file(tmp_path):
    (path,) = simulate(tmp_path, volumes=1, slices=1, size=48, coils=4, noise=36.0)
    file = FastMRI(path)
    scan = NonCartesianScan(file, radial(file.image_shape, 2))
    assert scan.acceleration == 2
    found = scan.acquisition(0)
    assert found.mask is None and found.kspace.shape == (1, 4, 24 * 48)
    truth, _ = scan.truth(0)
    image = found.operator().cg_sense(found.kspace)[0].abs() * found.scale
    assert relative(image, truth.abs()) < 0.2


def test_bad_input_is_named(tmp_path):
    maps = make_maps(1, 2, (16, 16))
    with pytest.raises(InputError, match="beyond the matrix"):
        NonCartesian(maps, torch.tensor([[0.0, 20.0]]))
    with pytest.raises(InputError, match="samples, 2"):
        NonCartesian(maps, torch.zeros(3, 4, 2))
    with pytest.raises(InputError, match="dense centre"):
        spiral((64, 64), 20)
    with pytest.raises(InputError, match="leaves no spokes"):
        radial((16, 16), 100)
    with pytest.raises(InputError, match=r"needs \(slices, coils, 7\)"):
        Acquisition("scan", kspace=torch.zeros(1, 2, 16, 16) + 0j, trajectory=torch.zeros(7, 2))
    (path,) = simulate(tmp_path, volumes=1, slices=1, size=48, coils=4)
    with pytest.raises(InputError, match="the trajectory is for"):
        NonCartesianScan(FastMRI(path), radial((64, 64), 2))
    (under,) = simulate(tmp_path / "under", volumes=1, slices=1, size=48, coils=4, undersample=2)
    with pytest.raises(InputError, match="undersampled"):
        NonCartesianScan(FastMRI(under), radial((48, 48), 2))


def test_a_real_scan_along_a_spiral(shared):
    kspace = FastMRI(shared / "data/kspace/brain_flash_16ch.h5").kspace(0)[None]
    trajectory = spiral((128, 128), 3)
    found = acquire(kspace, trajectory, 1.1e-6, "flash")
    truth = truth_image(kspace).abs()
    by_cg = found.operator().cg_sense(found.kspace, 10).abs() * found.scale
    assert relative(by_cg, truth) < 0.15
    assert relative(by_cg, truth) < 0.6 * relative(gridding(found, trajectory).abs() * found.scale, truth)
