"""Published tables remade: their masks, scales and metrics against formulas written here, on simulated files."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from skimage.metrics import structural_similarity

from mri_score.benchmark.protocols import (
    PROTOCOLS,
    by_sampling,
    full_slices,
    line_mask,
    our_scores,
    prepare,
    prepare_ours,
    table,
    their_scores,
    zero_filled,
)
from mri_score.cli import main
from mri_score.errors import InputError
from mri_score.evaluation.metrics import volume_scores
from mri_score.models.base import ScoreModel
from mri_score.numerics.noise import generators, noise_like
from mri_score.readers.fastmri import write_fastmri
from mri_score.reconstruction import WalkOptions
from mri_score.simulation.phantom import phantom

SIDE = 48


class FlatPrior(ScoreModel):
    """Independent Gaussian pixels of standard deviation 0.3, of any image size."""

    sd = 0.3

    def denoise(self, x, sigma):
        return x * 0.09 / (0.09 + torch.as_tensor(sigma).reshape(-1, 1, 1) ** 2)



@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two files in fastMRI's layout, with noise."""
    folder = tmp_path_factory.mktemp("multicoil_test")
    for number in range(2):
        kspace = phantom((SIDE, SIDE + 4), coils=4, slices=1).kspace
        kspace = kspace + 0.01 * kspace.abs().square().mean().sqrt() * noise_like(kspace, generators(number))
        write_fastmri(folder / f"file_{number}.h5", (1 + number) * kspace)
    return folder


@pytest.fixture(scope="module")
def kspace(data):
    return full_slices(data)[0][1]


@pytest.mark.parametrize(
    ("law", "size", "acceleration", "lines"),
    [
        ("equispaced-added", 384, 2, 207), ("equispaced-added", 384, 4, 119), ("equispaced-added", 384, 8, 62),
        ("random", 320, 4, 80), ("random", 320, 8, 40), ("random", 368, 4, 92),
    ],
)  # fmt: skip
def test_masks_have_the_published_numbers_of_lines(law, size, acceleration, lines):
    mask = line_mask(law, size, acceleration)
    centre = int((0.08 if acceleration <= 6 else 0.04) * size)
    start = (size - centre) // 2
    assert mask.sum() == lines and mask[start : start + centre].all()
    assert np.array_equal(mask, line_mask(law, size, acceleration))
    assert (law == "random") != np.array_equal(mask, line_mask(law, size, acceleration, seed=1))


def test_a_budget_below_the_centre_is_refused():
    with pytest.raises(InputError, match="the centre has 12"):
        line_mask("random", 320, 30)


def test_inversebench_is_prepared_and_scored_as_published(kspace):
    protocol = replace(PROTOCOLS["inversebench"], size=32)
    problem = prepare(protocol, kspace, 4, "one")
    truth = problem.truth.abs().numpy()
    assert truth.shape == (32, 32)
    assert np.quantile(truth, 0.99) == pytest.approx(1, rel=1e-4)  # the scale comes from the truth
    perfect = their_scores(protocol, problem, problem.truth)
    assert perfect["PSNR"] > 80 and perfect["SSIM"] == pytest.approx(1) and perfect["misfit"] < 1e-4  # simulated
    high = problem.truth * 3
    clipped = np.clip(3 * truth, 0, truth.max())
    expected = 10 * np.log10(truth.max() ** 2 / np.mean((clipped.astype(float) - truth) ** 2))
    assert their_scores(protocol, problem, high)["PSNR"] == pytest.approx(expected, abs=1e-4)
    assert their_scores(replace(protocol, clipped=False), problem, high)["PSNR"] < expected - 1


def test_csgm_takes_its_scale_from_the_masked_samples(kspace):
    protocol = replace(PROTOCOLS["csgm"], size=40)
    problem = prepare(protocol, kspace, 4, "one")
    image = zero_filled(problem.scan)
    assert float(torch.quantile(image.abs().flatten(), 0.99)) == pytest.approx(1, rel=1e-4)
    assert problem.acceleration == pytest.approx(40 / line_mask("equispaced-added", 40, 4).sum())
    assert their_scores(protocol, problem, problem.truth)["misfit"] > 0.1  # raw samples have noise
    found = their_scores(protocol, problem, image)
    truth = problem.truth.abs().double().numpy()
    similarity = structural_similarity(truth, image.abs().double().numpy(), data_range=truth.max())
    assert found["SSIM"] == pytest.approx(similarity)


@pytest.mark.parametrize("snr", [20.0, 30.0])
def test_snap_adds_noise_of_its_decibels(kspace, snr):
    protocol = replace(PROTOCOLS["snap"], size=48, snr=snr)
    noisy, clean = (prepare(replace(protocol, snr=one), kspace, 4, "one") for one in (snr, None))
    assert float(noisy.truth.abs().max()) == pytest.approx(1)
    added = (noisy.scan.kspace - clean.scan.kspace)[clean.scan.kspace != 0]
    power = clean.scan.kspace[clean.scan.kspace != 0].abs().square().mean()
    assert float(10 * torch.log10(power / added.abs().square().mean())) == pytest.approx(snr, abs=0.3)
    assert float(noisy.scan.noise_std) == pytest.approx(float(added.real.std()), rel=0.05)


def test_ours_sees_no_full_kspace_and_scores_the_foreground(kspace):
    protocol = PROTOCOLS["inversebench"]
    problem = prepare_ours(protocol, kspace, 4, "one")
    mask = torch.from_numpy(line_mask("random", kspace.shape[-1], 4, least=10))
    changed = prepare_ours(protocol, torch.where(mask, kspace, 5 * kspace), 4, "one")
    assert torch.equal(problem.scan.maps, changed.scan.maps) and torch.equal(problem.scan.kspace, changed.scan.kspace)
    image = zero_filled(problem.scan)
    truth = (problem.truth.abs() * problem.scan.scale).numpy()[None]
    from mri_score.evaluation.metrics import foreground

    expected = volume_scores(truth, (image.abs() * problem.scan.scale).numpy()[None], foreground(truth))
    found = our_scores([problem], [image])
    assert found["PSNR"] == pytest.approx(expected["psnr"], abs=1e-3)
    assert found["SSIM"] == pytest.approx(expected["ssim"], abs=1e-4)


def test_draws_of_a_prior_stand_beside_zero_filling(kspace):
    """A Gaussian prior at its own scale: draws fit the samples, which zero-filling of a mask with gaps does not."""
    protocol = replace(PROTOCOLS["inversebench"], size=SIDE)
    prior = FlatPrior()
    methods = {"zero-filled": zero_filled, "exact-draw": by_sampling(prior, WalkOptions("exact-draw", 8, samples=2))}
    rows = table(protocol, [("one", kspace)], [2], methods, draws=2)
    assert [row["conventions"] for row in rows] == ["paper", "paper", "ours", "ours"]
    assert [row["draws"] for row in rows] == [1, 2, 1, 2]
    assert rows[1]["misfit"] < 0.3 * rows[0]["misfit"] and all(np.isfinite(row["PSNR"]) for row in rows)


def test_the_command_writes_both_and_the_published_rows(data, tmp_path):
    arguments = ["protocol", "snap", str(data), "--no-prior", "--accel", "4", "--size", "48"]
    arguments += ["--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader((tmp_path / "out/table.csv").open()))
    kinds = {row["conventions"] for row in rows}
    assert kinds == {"paper", "ours", "published"}
    assert {row["acceleration"] for row in rows} == {"4.0", "4"}
    assert "coil maps come from full k-space" in result.output and "SNaP" in result.output


def test_names_that_help_writes_out_are_those_of_the_tables():
    from mri_score.cli import export_checkpoint, protocol
    from mri_score.priors.published_layouts import LAYOUTS

    assert set(protocol.PROTOCOLS) == set(PROTOCOLS) and set(export_checkpoint.LAYOUTS) == set(LAYOUTS)
