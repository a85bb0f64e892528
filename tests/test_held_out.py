"""Left-out samples judge a reconstruction: exact posterior draws foretell their own misfit, others do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest
import torch
from click.testing import CliRunner
from gaussian import gaussian_problem

from mri_score.cli import main
from mri_score.data.masks import make_mask
from mri_score.errors import InputError
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense
from mri_score.pipeline.held_out import Misfit, held_out_of, hold_out, misfit
from mri_score.simulation.simulate import simulate


def random(seed=0):
    return generators(seed, "held out")[0]


@pytest.mark.parametrize("axis", [-1, -2])
def test_lines_outside_the_calibration_lines_are_left_out(axis):
    shape = (65, 81)
    mask = make_mask("variable-density", shape, 3, 11, axis=axis)[None, None]
    outside = mask.clone()
    outside.movedim(axis, 0)[(shape[axis] - 11 + 1) // 2 :][:11] = False
    seen = torch.zeros_like(mask)
    for seed in range(60):
        held = hold_out(mask, shape, 4, random(seed))
        assert held.shape == mask.shape and int(held.sum()) == 4
        seen |= held
    assert not (seen & ~mask).any() and (seen & outside).sum() >= outside.sum() - 2
    centre = seen.movedim(axis, 0).flatten()[shape[axis] // 2 - 5 : shape[axis] // 2 + 6]
    assert not centre.any()
    assert torch.equal(hold_out(mask, shape, 0.2, random()), hold_out(mask, shape, 0.2, random()))


def test_whole_lines_are_known_in_a_mask_of_points_and_points_spare_the_centre():
    shape = (50, 61)
    lines = make_mask("variable-density", shape, 3)[None, None]
    assert torch.equal(hold_out(lines.expand(1, 1, *shape), shape, 3, random()), hold_out(lines, shape, 3, random()))
    points = make_mask("poisson-disc", shape, 4)[None, None]
    held = hold_out(points, shape, 0.1, random())
    outside = int(points.sum()) - int(points[..., 13:37, 18:42].sum())
    assert held.shape == (1, 1, *shape) and int(held.sum()) == round(0.1 * outside)
    assert not held[..., 13:37, 18:42].any() and not (held & ~points).any()


def test_the_choice_follows_from_the_name_of_the_scan_and_the_seed_of_its_mask():
    """So that a result does not depend on which files were reconstructed before, and volumes differ."""
    mask = make_mask("random", (48, 96), 3)[None, None]

    def chosen(name: str, seed: int | None) -> list[bool]:
        file = SimpleNamespace(path=Path(name), image_shape=(48, 96))
        scan = SimpleNamespace(file=file, mask=mask, sampling=SimpleNamespace(seed=seed))
        return held_out_of(scan, 6, [0])[0].flatten().tolist()

    cases = [("a.h5", None), ("b.h5", None), ("a.h5", 1), ("a.h5", 2)]
    first, again = ([chosen(*case) for case in cases] for _ in range(2))
    assert first == again
    assert len({tuple(one) for one in first}) == len(cases)


@pytest.mark.parametrize("amount", [0, -1, 1000, float("nan")])
def test_what_cannot_be_left_out_is_refused(amount):
    with pytest.raises(InputError, match="calibration region the mask samples"):
        hold_out(make_mask("random", (32, 48), 3)[None, None], (32, 48), amount, random())
    with pytest.raises(InputError, match="samples 0 lines"):
        hold_out(torch.ones(1, 1, 1, 48, dtype=torch.bool), (32, 48), 0.1, random())


def judged(spread=1.0, bias=0.0, draws=4, repeats=150):
    """Exact posterior draws of the Gaussian problem without some lines, their spread times a factor, over many y."""
    problem = gaussian_problem(48)
    mask, maps = problem.operator.mask, problem.operator.maps
    held = torch.zeros_like(mask)
    held[..., 4::8] = mask[..., 4::8]
    held[..., 20:28] = False
    rest = Sense(maps, mask & ~held)
    identity = torch.eye(48, dtype=torch.complex128)[:, None]
    A = rest(identity).flatten(1).T
    prior = problem.prior.axes @ (problem.prior.variances[:, None] * problem.prior.axes.mH)
    variance = problem.noise_std**2
    covariance = torch.linalg.inv(A.mH @ A / variance + torch.linalg.inv(prior))
    root = torch.linalg.cholesky(covariance)
    total = None
    for repeat in range(repeats):
        x = problem.prior.sample(generators(5, "x", repeat))
        y = problem.operator(x)
        y = y + problem.noise_std * mask * noise_like(y, generators(6, "y", repeat))
        mean = covariance @ (A.mH @ (y * ~held).flatten()) / variance
        noise = noise_like(mean.expand(draws, -1), generators(7, "draws", repeat, draws))
        samples = (1 + bias) * mean + spread * noise @ root.T
        found = misfit(samples.mean(0)[None], y[0], maps[0], held, problem.noise_std, samples[:, None])
        total = found if total is None else total + found
    return total


@pytest.mark.parametrize("draws", [2, 16])
def test_exact_posterior_draws_foretell_their_misfit(draws):
    total = judged(draws=draws, repeats=500)
    assert total.ratio == pytest.approx(1, abs=0.08)
    assert total.misfit > 1.5  # else the noise alone would make the ratio


def test_wrong_draws_are_found_out():
    assert judged(spread=0.3).ratio > 1.3
    assert judged(spread=2.0).ratio < 0.7
    assert judged(bias=1.0).ratio > 1.3


def test_the_truth_leaves_noise_alone_and_zero_leaves_the_energy():
    problem = gaussian_problem(96, noise_std=0.02)
    mask, maps, y = problem.operator.mask, problem.operator.maps, problem.kspace
    x = problem.prior.sample(generators(0, "truth"))
    found = misfit(x[0], y[0], maps[0], mask, 0.02)
    assert found.misfit == pytest.approx(1, abs=0.3) and found.ratio is None and found.expected is None
    nothing = misfit(torch.zeros_like(x[0]), y[0], maps[0], mask, 0.02)
    assert nothing.count == 2 * int(mask.sum())
    assert nothing.misfit == pytest.approx(float(y.abs().square().sum()) / (2 * 0.02**2 * nothing.count))
    assert misfit(x[0], 2 * y[0], maps[0] * 2, mask, 0.04).misfit == pytest.approx(found.misfit)


def test_slices_add_up_by_their_samples():
    both = Misfit(10.0, 10.0, 4.0, 5) + Misfit(20.0, 20.0, 0.0, 15)
    assert (both.misfit, both.expected, both.ratio) == (1.5, 1.2, pytest.approx(1.25))
    assert (both + Misfit(1.0, None, None, 1)).ratio is None
    assert replace(both, count=30).misfit == 1.0


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["reconstruct", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def test_the_check_ranks_methods_and_leaves_the_reconstruction_alone(tmp_path):
    (path,) = simulate(tmp_path / "in", volumes=1, slices=2, size=48, coils=4, undersample=3.0)
    quick = ["--steps", 4, "--samples", 2, "--threads", 1, "--baselines", "zero-filled,cg-sense"]
    assert "left-out" not in run(path, "--out", tmp_path / "a", *quick)
    output = run(path, "--out", tmp_path / "b", "--check-lines", 2, *quick)
    a, b = (tmp_path / name / "reconstructions" / path.name for name in "ab")
    with h5py.File(a) as plain, h5py.File(b) as checked:
        assert (plain["reconstruction_complex"][()] == checked["reconstruction_complex"][()]).all()
        assert (plain["mask"][()] == checked["mask"][()]).all()
        assert checked.attrs["held_out"] == "2 lines"
        misfit, ratio = (checked.attrs[f"held_out_{name}"] for name in ("misfit", "ratio"))
        figure = f"misfit {misfit:.2f} (1 is noise alone), {ratio:.2f} times the expected"
        assert figure in output
    lines = [line for line in output.splitlines() if "left-out samples, " in line]
    misfits = [float(line.split("misfit ")[1].split()[0]) for line in lines]
    assert len(misfits) == 3 and min(misfits) > 1
    assert "2 lines left out" in (tmp_path / "b/report/index.html").read_text()
    other = run(path, "--out", tmp_path / "b", "--check-lines", 2, *quick, "--seed", 1)
    assert all(line in other for line in lines[:2])  # the lines follow from the mask, never from the seed of the draws
    assert lines[2] not in other
    assert "0.1" in run(path, "--check-lines", "few", code=2)
    assert "below" in run(path, "--out", tmp_path / "c", "--check-lines", 99, *quick, code=2)
