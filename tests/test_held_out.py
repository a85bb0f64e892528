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
from mri_score.data.scan import Scan, Undersampling
from mri_score.errors import InputError
from mri_score.models.base import ScoreModel
from mri_score.numerics.channels import per_item
from mri_score.numerics.noise import generators, noise_like
from mri_score.operators.sense import Sense
from mri_score.pipeline.facts import CG_SENSE, worse_than_cg_sense
from mri_score.pipeline.held_out import LEAST_LINES, WORSE, Misfit, held_out_of, hold_out, misfit, quick_check_of
from mri_score.pipeline.options import Options
from mri_score.pipeline.output import write_volume
from mri_score.pipeline.volume import reconstruct_volume
from mri_score.priors.store import load_prior
from mri_score.readers import open_scan
from mri_score.readers.fastmri import FastMRI
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


@pytest.mark.slow
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


class About(ScoreModel):
    """Gaussian images about one image, with a standard deviation of 0.1."""

    sd = 0.3

    def __init__(self, image):
        super().__init__()
        self.image = image

    def denoise(self, x, sigma):
        share = 0.01 / (0.01 + per_item(sigma, x) ** 2)
        return share * x + (1 - share) * self.image.expand_as(x)


QUICK = Options(steps=12, samples=2, baselines=(), device="cpu", quick_check=True)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A scan of 6 slices at R = 2, and the image of the first slice in the scale of its acquisition."""
    (path,) = simulate(tmp_path_factory.mktemp("head"), volumes=1, slices=6, size=64, coils=4)
    scan = Scan(FastMRI(path), Undersampling(2.0))
    truth, _ = scan.truth(0)
    return scan, truth / scan.acquisition(0).scale


def test_the_quick_check_warns_of_a_prior_that_predicts_left_out_lines_worse_than_cg_sense(head, tmp_path):
    scan, truth = head
    for image, warned in ((truth, False), (truth.roll((12, 9), (0, 1)) * 1.5, True)):
        volume = reconstruct_volume(scan, About(image), QUICK, [0])
        notes = [note for note in volume.notes if "worse than CG-SENSE" in note]
        own, simple = volume.held_out["one walk of 6 levels"], volume.held_out[CG_SENSE]
        assert bool(notes) == warned == (own.misfit > WORSE * simple.misfit)
        assert own.count == simple.count and own.ratio is None
        plain = reconstruct_volume(scan, About(image), replace(QUICK, quick_check=False), [0])
        assert not plain.held_out and torch.equal(plain.image, volume.image)
    with h5py.File(write_volume(tmp_path, volume, QUICK, {})) as file:
        assert file.attrs["held_out_misfit"] == own.misfit
        assert file.attrs["held_out_misfit_cg_sense"] == simple.misfit
        report = bytes(file["pictures/page"][()]).decode()
    assert "worse than CG-SENSE" in report and "lines left out" in report


def test_the_quick_check_takes_few_slices_and_three_lines_at_least(head):
    scan, _ = head
    found = quick_check_of(scan, range(6))
    assert sorted(found) == [0, 2, 3, 5] and all(int(one.sum()) >= LEAST_LINES for one in found.values())
    assert sorted(quick_check_of(scan, [4])) == [4]
    assert quick_check_of(Scan(scan.file, Undersampling(5.0)), range(6)) == {}  # a fifth of its lines are fewer


def test_a_quick_check_that_fails_costs_no_slice(head, monkeypatch):
    from mri_score.pipeline import volume as volumes

    walk = volumes.sample_posterior

    def fails(scan, prior, options, **rest):
        if options.samples == 1:
            raise InputError("not finite")
        return walk(scan, prior, options, **rest)

    monkeypatch.setattr(volumes, "sample_posterior", fails)
    volume = reconstruct_volume(head[0], About(head[1]), QUICK, [0, 1])
    assert volume.slices == [0, 1] and not volume.held_out


def test_only_a_clear_difference_on_enough_lines_is_warned_of():
    def note(own, simple=100.0, lines=LEAST_LINES):
        found = {CG_SENSE: Misfit(simple, None, None, 10), "method": Misfit(own, None, None, 10)}
        return worse_than_cg_sense(found, "method", lines)

    assert "misfit 12.6 against 10.0" in note(126.0)
    assert note(124.0) is None and note(900.0, lines=LEAST_LINES - 1) is None
    assert worse_than_cg_sense({"method": Misfit(9.0, None, None, 1)}, "method", 9) is None


@pytest.mark.slow
def test_the_bundled_prior_passes_and_is_warned_of_a_noise_level_far_off(tmp_path):
    (path,) = simulate(tmp_path, volumes=1, slices=1, size=96, coils=4)
    prior, options = load_prior("brain-fast"), replace(QUICK, steps=None, samples=1)

    class Told(Scan):
        factor = 1.0

        def acquisition(self, number):
            one = super().acquisition(number)
            return replace(one, noise_std=one.noise_std * self.factor)

    def warned(factor):
        scan = Told(open_scan(path), Undersampling(3.0))
        scan.factor = factor
        return any("worse than CG-SENSE" in note for note in reconstruct_volume(scan, prior, options).notes)

    assert [warned(1.0), warned(0.05)] == [False, True]
