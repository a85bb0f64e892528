"""Tables of the documentation that scripts make of runs and comparisons, on made-up cells whose answer is known."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mri_score.benchmark.yardstick import best_classical
from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.priors.record import bundled_priors
from mri_score.priors.store import build_prior, read_record, save_prior
from mri_score.simulation.phantom import phantom

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
pytest.importorskip("pages", reason="scripts/ lies in a checkout alone")
import results_page
import training_budget

NETWORK = {"name": "unet", "widths": [6, 8], "blocks": 1, "embedding": 32}
BUNDLED = {name: read_record(path)["sha256"][:12] for name, path in bundled_priors().items()}


def cell(method: str, psnr: float, prior: str | None = None, draws: int = 1, **changes) -> dict:
    shared = {"scan": "head", "file": "0f62", "slice": 3, "law": "variable-density", "nominal": 4.0, "mask_seed": 0}
    scores = {"mvue_foreground_psnr": psnr, "mvue_foreground_ssim": psnr / 50}
    scores |= {"rss_whole_psnr": psnr - 1, "rss_whole_ssim": psnr / 100}
    return {**shared, "method": method, "prior": prior, "draws": draws, "seconds": 1.0, **scores, **changes}


def tuned(psnr: float, **changes) -> list[dict]:
    """Both classical methods, of which total variation is the better one."""
    return [cell("l1-wavelet-tuned", psnr - 1, **changes), cell("tv-tuned", psnr, **changes)]


def test_hours_add_up_over_resumes():
    seconds = [(50, 1800.0), (100, 3600.0), (150, 900.0), (200, 1800.0), (250, 2700.0)]  # resumed after step 100
    log = [{"step": step, "loss": 1.0, "seconds": spent} for step, spent in seconds]
    log.insert(2, {"step": 100, "denoising_errors": {}})
    assert training_budget.hours(log, 100) == 1.0
    assert training_budget.hours(log, 200) == 1.5
    assert training_budget.hours(log, 250) == 1.75


def kept_run(folder: Path, steps: list[int]) -> Path:
    (folder / "kept").mkdir(parents=True)
    lines = []
    for step in steps:
        prior = build_prior(NETWORK, precondition="edm", sd=0.3, sigma_min=0.005, sigma_max=9.0 + step)
        save_prior(folder / "kept" / f"prior-{step:08}.safetensors", prior, NETWORK, {"step": step})
        errors = dict.fromkeys(training_budget.SIGMAS, step / 1000)
        lines += [{"step": step, "loss": 1.0, "seconds": 3.6 * step}, {"step": step, "denoising_errors": errors}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_row_a_kept_prior_with_errors_and_gains(tmp_path):
    run = kept_run(tmp_path / "run", [100, 200, 300])
    paths = training_budget.kept(run, 2)
    assert [path.stem for path in paths] == ["prior-00000100", "prior-00000300"]  # from the end
    cells = [*tuned(30.0), *tuned(25.0, mask_seed=1)]
    for psnr, path in zip((31.0, 33.5), paths, strict=True):
        digest = read_record(path)["sha256"][:12]
        cells += [cell("matched-draw", psnr, digest, 2), cell("matched-draw", psnr, digest, 2, mask_seed=1)]
        cells += [cell("matched-draw", 0.0, digest, 1)]
    image = phantom(32, 1, slices=4).image
    first, last = training_budget.rows(run, 2, cells, [TrainingItem(name="image", image=image)])
    hours, step, *errors, gain = (part.strip() for part in first.strip("| ").split("|")[1:])
    assert (hours, step, gain) == ("0.10", "100", "31.00 (+3.50)")
    assert len(errors) == 4 and all(0 < float(error) < 30 for error in errors)
    assert last.startswith("| run | 0.30 | 300 |") and last.endswith("| 33.50 (+6.00) |")


def test_a_run_that_kept_nothing_is_refused(tmp_path):
    (tmp_path / "kept").mkdir()
    with pytest.raises(InputError, match="kept no priors"):
        training_budget.kept(tmp_path, 1)


def test_priors_are_compared_on_the_cells_that_they_ran():
    brain, heads = BUNDLED["brain"], BUNDLED["brain-heads"]
    real = [
        *tuned(30.0), *tuned(20.0, mask_seed=1),
        cell("matched-draw", 32.0, brain, 4), cell("matched-draw", 26.0, brain, 4, mask_seed=1),
        cell("matched-draw", 99.0, brain, 8),
    ]  # fmt: skip
    simulated = tuned(28.0, scan="made", nominal=8.0)
    rows = {name: [*given, *best_classical(given)] for name, given in (("real", real), ("simulated", simulated))}
    others = [cell("matched-draw", 31.0, heads, 4), cell("matched-draw", 99.0, heads, 4, law="random")]
    expected = [
        ("brain", "32.00 dB (+2.00, +0.040, +2.00, +0.020)"), ("brain-heads", "31.00 dB (+1.00, +0.020, +1.00, +0.010)")
    ]  # fmt: skip
    head, _, *lines = results_page.priors(rows, others).splitlines()
    assert head.startswith("| prior | real, R = 4, 1 cells | real, R = 8, 0 cells |")
    assert lines == [f"| `{name}` | {gain} |  |  |  |" for name, gain in expected]
    assert results_page.short_priors(rows["real"], others).splitlines()[2:] == [
        "| `brain` | 4 | +2.00 | +0.040 | +2.00 | +0.020 |", "| `brain-heads` | 4 | +1.00 | +0.020 | +1.00 | +0.010 |"
    ]  # fmt: skip


def test_gains_are_means_and_lowest_over_the_better_rival_and_draws_meet_draws():
    """Total variation is 1 dB above L1-wavelet; of Langevin two draws meet two, never one."""
    given = [
        *tuned(30.0), *tuned(20.0, mask_seed=1),
        cell("matched-draw", 31.0, "p", 1), cell("matched-draw", 19.5, "p", 1, mask_seed=1),
        cell("matched-draw", 33.0, "p", 2), cell("langevin", 30.0, "p", 2, seconds=8.0), cell("langevin", 1.0, "p", 4),
    ]  # fmt: skip
    given = [{**row, "true": 3.9} for row in given]
    rows = {"real": [*given, *best_classical(given)]}
    lines = results_page.headline(rows).splitlines()[2:]
    expected = "| real | variable-density | 3.90 | `matched-draw` | 1 | 2 | +0.25, -0.50 | +0.005, -0.010 |"
    assert lines[0].startswith(expected) and "langevin" in lines[1]
    against = [line.split(" | ")[3:6] for line in results_page.gains(rows).splitlines()[2:]]
    assert against == [["1", "l1-wavelet-tuned", "2"], ["1", "tv-tuned", "2"], ["2", "langevin", "1"]]
    last = results_page.gains(rows).splitlines()[-1]
    assert "| +3.00, +3.00 |" in last and last.endswith("| 8.0 to 8.0 |")


@pytest.mark.parametrize("changes", [{"file": "beef"}, {"prior": "beef"}])
def test_two_versions_of_a_scan_or_a_network_are_not_mixed(tmp_path, changes):
    rows = [cell("supervised", 30.0, "0123"), cell("supervised", 31.0, **{"prior": "0123", "mask_seed": 1, **changes})]
    (tmp_path / "cells.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match="two versions of the"):
        results_page.cells_of(tmp_path)
    (tmp_path / "cells.jsonl").write_text(json.dumps(rows[0]) + "\n")
    assert results_page.cells_of(tmp_path) == rows[:1]
