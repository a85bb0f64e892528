"""mri-score compare: its statistics against closed forms, its ledger under many hands, its cells against evaluate."""

from __future__ import annotations

import csv
import json
import multiprocessing

import h5py
import numpy as np
import pytest
import torch
from command import mri_score

from mri_score.benchmark import comparison
from mri_score.benchmark.ledger import Ledger, read_rows
from mri_score.benchmark.quality_plot import write_plot
from mri_score.benchmark.statistics import mean_interval, resampling_unit
from mri_score.benchmark.summary import QUANTITIES, main_table, markdown, plain, summarise, summary_rows
from mri_score.errors import InputError
from mri_score.evaluation.metrics import volume_scores
from mri_score.memory.peak import PeakMemory
from mri_score.simulation.simulate import simulate

FORK = multiprocessing.get_context("fork")
QUICK = ["--accel", "3", "--mask-seeds", "0", "--samples", "3", "--steps", "matched-draw=2", "--threads", "1"]
UNTUNED = [*QUICK, "--baselines", "zero-filled,cg-sense,tv"]


def row(**more):
    """A row as a cell writes it; every quantity is 1 unless given."""
    known = {
        "scan": "a", "patient": "a", "file": "f", "slice": 0, "law": "random", "nominal": 4.0, "mask_seed": 0,
        "method": "tv", "steps": None, "prior": None, "precision": None, "seed": None, "draws": 1,
        "title": "total variation", "true": 4.1, "noise_std": 0.01, "mvue_over_rss": 1.0, "hardware": "CPU",
    }  # fmt: skip
    return {**known, **dict.fromkeys(QUANTITIES, 1.0), **more}


def rows(scans=1, slices=1, seeds=1, **more):
    return [
        row(scan=f"s{scan}", patient=f"s{scan}", slice=number, mask_seed=seed, **more)
        for scan in range(scans)
        for number in range(slices)
        for seed in range(seeds)
    ]


# ---- Intervals.


def test_interval_of_the_mean_of_normals_is_the_closed_form():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    found = mean_interval(list(values), range(400))
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.06 * half)


def test_interval_covers_the_mean_of_few_normals():
    """At 8 groups plain percentiles cover about 88 %; the expanded ones stay near 95 %."""
    random, hits = np.random.default_rng(2), 0
    for _ in range(400):
        found = mean_interval(list(random.normal(size=8)), range(8))
        hits += found.low <= 0 <= found.high
    assert 0.92 <= hits / 400 <= 0.985


def test_cells_of_a_group_are_no_new_evidence():
    values = [1.0, 2.0, 4.0, 7.0]
    once = mean_interval(values, range(4))
    assert mean_interval(values * 50, list(range(4)) * 50) == once


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0], [1.0, float("inf"), 2.0, 3.0]])
def test_too_little_gives_a_mean_and_no_interval(values):
    found = mean_interval(values, range(len(values)))
    assert found.mean == np.mean(values)
    assert np.isnan(found.low) and np.isnan(found.high)


def test_equal_values_give_an_interval_of_no_width():
    found = mean_interval([2.0] * 6, range(6))
    assert (found.mean, found.low, found.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (rows(scans=5, seeds=3), "bootstrap over 5 volumes"),
        (rows(scans=2, slices=9, seeds=3), "bootstrap over 6 slice blocks"),
        (rows(scans=2, slices=1, seeds=3), "bootstrap over 3 mask seeds of these scans, too few"),
        (rows(scans=1, slices=4, seeds=5), "bootstrap over 5 mask seeds"),
        (rows(scans=2, slices=1, seeds=2), "none (2 mask seeds"),
    ],
)
def test_the_table_says_what_the_interval_is_over(given, says):
    assert says in str(resampling_unit(given))
    assert says in plain(summarise(given)[0])


def test_scans_of_one_patient_are_one_group():
    given = rows(scans=10)
    for number, one in enumerate(given):
        one["patient"] = f"p{number // 2}"
    assert "5 patients" in str(resampling_unit(given))


# ---- The ledger.


def test_torn_and_repeated_lines_are_not_rows(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append([row(seconds=1.0)])
    with open(ledger.path, "a") as file:
        file.write('{"scan": "b", "sli')
    ledger.append([row(seconds=2.0), row(slice=1)])
    found = read_rows(ledger.path)
    assert [(one["slice"], one["seconds"]) for one in found] == [(0, 1.0), (1, 1.0)]


def write_hundred(folder, name):
    ledger = Ledger(folder)
    for number in range(100):
        ledger.append([row(scan=name, slice=number, text="x" * 5000)])


def hold_claim(folder, held, done):
    with Ledger(folder).claim("cell", 1):
        held.set()
        done.wait()


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    writers = [FORK.Process(target=write_hundred, args=(tmp_path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = [json.loads(line) for line in (tmp_path / "cells.jsonl").read_text().splitlines()]
    assert {(one["scan"], one["slice"]) for one in found} == {(name, n) for name in "ab" for n in range(100)}


def test_a_claim_holds_against_other_processes_until_they_are_gone(tmp_path):
    held, done = FORK.Event(), FORK.Event()
    other = FORK.Process(target=hold_claim, args=(tmp_path, held, done))
    other.start()
    assert held.wait(30)
    ledger = Ledger(tmp_path)
    with ledger.claim("cell", 1) as mine, ledger.claim("cell", 2) as free:
        assert not mine and free
    other.kill()
    other.join()
    with ledger.claim("cell", 1) as mine:
        assert mine


# ---- Memory.


def test_peak_memory_sees_what_came_and_went():
    with PeakMemory(torch.device("cpu")) as peak:
        block = np.ones(2**24)  # 128 MiB
        del block
    if peak.mib is None:
        pytest.skip("this system has no /proc")
    assert 100 < peak.mib < 180


# ---- The summary.


def quality(values, **more):
    return [
        row(scan=f"s{place}", patient=f"s{place}", mvue_foreground_psnr=value, **more)
        for place, value in enumerate(values)
    ]


def test_gains_are_paired():
    """Scans differ by 30 dB, the methods by 1: the gain's interval knows, the means' intervals do not."""
    base = np.array([20.0, 30.0, 50.0, 25.0, 40.0])
    better = base + [1.0, 1.1, 0.9, 1.2, 0.8]
    (section,) = summarise([*quality(base), *quality(better, method="cg-sense", title="CG-SENSE")], "tv")
    line = section.lines[1]
    assert line.title == "CG-SENSE"
    gain = line.gain["mvue_foreground_psnr"]
    assert gain.mean == pytest.approx(1.0)
    assert 0.8 - 1e-9 <= gain.low < gain.high <= 1.2 + 1e-9
    assert line.estimates["mvue_foreground_psnr"].high - line.estimates["mvue_foreground_psnr"].low > 15
    assert min(line.gains["mvue_foreground_psnr"].values()) == pytest.approx(0.8)
    assert line.gain["rss_whole_ssim"].mean == 0


def test_a_method_that_lacks_cells_is_named_and_gains_over_what_it_has():
    given = [*quality([20.0, 30.0, 40.0, 35.0, 25.0]), *quality([21.0, 33.0], method="cg-sense", title="CG-SENSE")]
    (section,) = summarise(given, "tv")
    assert section.lines[1].gain["mvue_foreground_psnr"].mean == pytest.approx(2.0)
    assert "Fewer than all 5 cells" in plain(section) and "CG-SENSE" in plain(section)


def sampled(method, draws, psnr):
    about = {"method": method, "title": f"{method}, 300 levels", "steps": 300, "prior": "0" * 12, "draws": draws}
    return row(mvue_foreground_psnr=psnr, **about)


def test_draws_are_compared_with_draws_and_means_with_means():
    """Over a sampler each line gains over its own number of draws; over one image every line gains over that."""
    given = [
        *(sampled("langevin", draws, 10.0 + draws) for draws in (4, 1, 2)),
        *(sampled("daps", draws, 20.0 + draws) for draws in (1, 2, 8)),
        row(mvue_foreground_psnr=20.0),
    ]

    def gains(reference):
        (section,) = summarise(given, reference)
        return {
            (line.method, line.draws): line.gain["mvue_foreground_psnr"].mean for line in section.lines if line.gain
        }

    langevin = {("langevin", 1): 0, ("langevin", 2): 0, ("langevin", 4): 0}
    assert gains("langevin") == {("tv", 1): 9, **langevin, ("daps", 1): 10, ("daps", 2): 10}
    assert gains("tv")["daps", 8] == 8 and gains("tv")["langevin", 4] == -6
    (section,) = summarise(given, "langevin")
    assert [line.draws for line in section.lines if line.method == "langevin"] == [1, 2, 4]
    assert section.reference == "langevin, 300 levels, draws over draws and means of P over means of P"


def test_the_yardstick_is_the_better_classical_method_in_each_number_and_cell():
    def tuned(method, seed, psnr, ssim, nmse):
        scores = {"mvue_foreground_psnr": psnr, "mvue_foreground_ssim": ssim, "mvue_foreground_nmse": nmse}
        return row(method=method, title=method, mask_seed=seed, **scores)

    given = [
        tuned("l1-wavelet-tuned", 0, 30.0, 0.95, 0.02), tuned("tv-tuned", 0, 31.0, 0.90, 0.01),
        tuned("l1-wavelet-tuned", 1, 28.0, 0.85, 0.03), tuned("tv-tuned", 1, 27.0, 0.80, 0.04),
        tuned("l1-wavelet-tuned", 2, 50.0, 1.00, 0.00),
        *(row(method="cg-sense", title="CG-SENSE", mask_seed=seed, mvue_foreground_psnr=29.0) for seed in range(3)),
    ]  # fmt: skip
    (section,) = summarise(given)
    assert section.reference == "best classical, tuned on the truth"
    best = next(line for line in section.lines if line.method == "best-classical")
    found = {key[2]: rows[0] for key, rows in best.cells.items()}  # the third mask lacks one of the two
    assert {seed: one["mvue_foreground_psnr"] for seed, one in found.items()} == {0: 31.0, 1: 28.0}
    assert {seed: one["mvue_foreground_ssim"] for seed, one in found.items()} == {0: 0.95, 1: 0.85}
    assert {seed: one["mvue_foreground_nmse"] for seed, one in found.items()} == {0: 0.01, 1: 0.03}
    assert "seconds" not in best.estimates
    cg = next(line for line in section.lines if line.method == "cg-sense")
    assert sorted(cg.gains["mvue_foreground_psnr"].values()) == [-2, 1]
    assert all(
        max(line.gains["mvue_foreground_ssim"].values()) <= 0 for line in section.lines if "tuned" in line.method
    )
    with pytest.raises(InputError, match="needs cells of l1-wavelet-tuned and tv-tuned"):
        summarise([row()], "best-classical")


def test_two_priors_are_two_lines():
    sampler = {"method": "langevin", "title": "langevin", "steps": 300}
    (section,) = summarise([row(prior="aaaaaaaa", **sampler), row(prior="bbbbbbbb", **sampler)])
    assert [line.title for line in section.lines] == ["langevin, weights aaaaaa", "langevin, weights bbbbbb"]


def test_tables_are_well_formed_and_say_when_the_truth_is_doubtful(tmp_path):
    given = [*rows(scans=2, seeds=3), *(replace_law(one) for one in rows(scans=2, seeds=3))]
    sections = summarise(given)
    assert [section.law for section in sections] == ["equispaced", "random"]
    text = markdown(sections, given)
    tables = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert len(tables) == 2 * 3 * 3
    assert all(len({line.count("|") for line in tables[start : start + 3]}) == 1 for start in range(0, 18, 3))
    assert "Doubtful truth" not in text
    assert "Doubtful truth" in markdown(sections, [*given, row(mvue_over_rss=0.3)])
    assert "spread / skill" in dict(main_table(sections[0]))
    one = next(summary for summary in summary_rows(sections) if summary["quantity"] == "rss_whole_ssim")
    assert float(one["mean"]) == 1 and one["cells"] == 6
    write_plot(tmp_path / "quality.png", sections)
    assert (tmp_path / "quality.png").read_bytes()[:4] == b"\x89PNG"


def replace_law(one):
    return {**one, "law": "equispaced"}


def test_no_rows_and_an_unknown_reference_are_refused():
    with pytest.raises(InputError, match="no finished cells"):
        summarise([])
    with pytest.raises(InputError, match="known names: tv"):
        summarise([row()], "no-such")


# ---- The command.


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("scans"), volumes=2, slices=1, size=(48, 56), coils=4, noise=36.0)


@pytest.fixture(scope="module")
def compared(tmp_path_factory, scans):
    """One run over two scans, without the tuned baselines, which take 90 % of the time: its folder."""
    out = tmp_path_factory.mktemp("compared")
    mri_score("compare", scans[0].parent, "--out", out, *UNTUNED)
    return out


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, scans):
    """One run over two scans with the default baselines, and its output."""
    out = tmp_path_factory.mktemp("tuned")
    return out, mri_score("compare", scans[0].parent, "--out", out, *QUICK)


@pytest.mark.slow
def test_every_cell_has_its_rows(tuned):
    out, output = tuned
    found = read_rows(out / "cells.jsonl")
    assert "[14/14" in output and " left]" in output
    assert len(found) == 2 * (6 + 3)
    assert sorted(one["draws"] for one in found if one["method"] == "matched-draw") == [1, 1, 2, 2, 3, 3]
    for one in found:
        sampled = one["method"] == "matched-draw"
        assert ("spread_skill" in one) == (sampled and one["draws"] > 1)
        assert one.get("calls") == (3 * one["draws"] if sampled else None)  # two levels, and the mean beside the last
        assert one["patient"] == one["scan"] and one["true"] == pytest.approx(3.0, abs=0.1)
    mean, first = (next(o for o in found if o["method"] == "matched-draw" and o["draws"] == p) for p in (3, 1))
    assert mean["seconds"] == pytest.approx(3 * first["seconds"])
    assert mean["complex_nrmse"] < first["complex_nrmse"]
    for name in ("summary.md", "summary.csv", "quality.png"):
        assert (out / name).stat().st_size > 500


@pytest.mark.slow
def test_the_tuned_baseline_is_the_best_of_its_kind(tuned):
    by_method = {one["method"]: one for one in read_rows(tuned[0] / "cells.jsonl") if one["scan"].endswith("1")}
    for method in ("l1-wavelet", "tv"):
        tuned = by_method[f"{method}-tuned"]
        assert tuned["mvue_foreground_psnr"] >= by_method[method]["mvue_foreground_psnr"] - 0.02


def test_scores_are_those_of_reconstruct(tmp_path, compared, scans):
    mri_score(
        "reconstruct", scans[0], "--accel", 3, "--mask-seed", 0, "--steps", 2, "--samples", 3, "--out", tmp_path,
        "--baselines", "none", "--threads", 1,
    )  # fmt: skip
    with h5py.File(scans[0]) as file, h5py.File(tmp_path / "reconstructions" / scans[0].name) as found:
        wanted = volume_scores(file["reconstruction_rss"][()], found["reconstruction"][()])
    (one,) = (
        one for one in read_rows(compared / "cells.jsonl")
        if (one["scan"], one["method"], one["draws"]) == (scans[0].stem, "matched-draw", 3)
    )  # fmt: skip
    for metric in ("psnr", "ssim", "nmse"):
        assert one[f"rss_whole_{metric}"] == pytest.approx(wanted[metric], rel=1e-3)
    with open(tmp_path / "metrics.csv", newline="") as file:
        table = [
            line for line in csv.DictReader(file)
            if line["target"].startswith("|MVUE|") and line["region"] == "foreground" and "of 3" in line["method"]
        ]  # fmt: skip
    assert one["mvue_foreground_psnr"] == pytest.approx(float(table[0]["psnr"]), rel=1e-3)


def test_a_second_run_does_only_what_is_missing(compared, scans):
    out = compared
    before = read_rows(out / "cells.jsonl")
    assert "8 cells, 8 of them finished before" in mri_score("compare", *scans, "--out", out, *UNTUNED)
    assert read_rows(out / "cells.jsonl") == before
    more = ["--precision", "bfloat16", "--baselines", "zero-filled,cg-sense"]
    output = mri_score("compare", scans[0], "--out", out, *QUICK, *more)
    assert "3 cells, 2 of them finished before" in output and "matched-draw, 2 levels, bfloat16" in output
    after = read_rows(out / "cells.jsonl")
    assert after[: len(before)] == before and len(after) == len(before) + 3


def test_the_summary_is_made_again_without_running(compared, tmp_path):
    (tmp_path / "cells.jsonl").write_text((compared / "cells.jsonl").read_text())
    output = mri_score("compare", "--summary", tmp_path, "--reference", "tv")
    assert "Gains over total variation" in output
    assert "Gains over total variation" in (tmp_path / "summary.md").read_text()
    assert (tmp_path / "quality.png").exists() and (tmp_path / "summary.csv").exists()


def test_what_fails_is_reported_skipped_and_ends_with_code_1(tmp_path, scans, monkeypatch):
    def fails(*problem, key):
        raise RuntimeError("no such luck")

    monkeypatch.setitem(comparison.BASELINES, "cg-sense", comparison.BASELINES["cg-sense"]._replace(solve=fails))
    output = mri_score(
        "compare",
        scans[0],
        "--out",
        tmp_path,
        *QUICK,
        "--methods",
        "none",
        "--baselines",
        "cg-sense,zero-filled",
        code=1,
    )
    assert "CG-SENSE: RuntimeError: no such luck" in output and "1 failures" in output
    assert [one["method"] for one in read_rows(tmp_path / "cells.jsonl")] == ["zero-filled"]
    assert (tmp_path / "summary.md").exists()


def test_a_scan_without_truth_is_no_subject(tmp_path):
    (path,) = simulate(tmp_path, volumes=1, slices=1, size=64, coils=4, undersample=2.0)
    assert "no ground truth" in mri_score("compare", path, "--out", tmp_path / "out", *QUICK, code=2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--methods", "matched-drawn"], "known names: adaptive-draw"),
        (["--baselines", "tvv"], "known names: bart-l1-wavelet"),
        (["--mask", "randm"], "equispaced"),
        (["--precision", "float8"], "bfloat16"),
        (["--steps", "langevin"], "METHOD=N"),
        (["--steps", "langevn=9"], "known names"),
        (["--accel", "four"], "--accel"),
        (["--reference", "supervised"], "the reference"),
        (["--supervised", "brain"], "not a supervised network"),
    ],
)
def test_bad_names_are_refused_before_anything_runs(tmp_path, scans, arguments, says):
    output = mri_score("compare", scans[0], "--out", tmp_path / "out", *QUICK, *arguments, code=2)
    assert says in output and "finished before" not in output


def test_two_scans_of_one_name_are_refused(tmp_path, scans):
    twin = tmp_path / scans[0].name
    twin.write_bytes(scans[0].read_bytes())
    refusal = mri_score("compare", scans[0], twin, "--out", tmp_path / "out", *QUICK, code=2)
    assert "two input files are named" in refusal


def test_a_supervised_network_stands_in_the_table(tmp_path, scans):
    """An untrained one adds nothing to the CG-SENSE image that it starts from."""
    from mri_score.priors.store import build_prior, save_prior

    network = {"name": "unet", "widths": [8, 8], "blocks": 1}
    restorer = build_prior(network, precondition="regression", sigma_min=0.001, sigma_max=0.1)
    save_prior(tmp_path / "net.safetensors", restorer, network, {})
    mri_score(
        "compare", scans[0], "--out", tmp_path / "out", *QUICK, "--methods", "none", "--baselines", "cg-sense",
        "--supervised", tmp_path / "net.safetensors",
    )  # fmt: skip
    cg_sense, supervised = read_rows(tmp_path / "out" / "cells.jsonl")
    assert supervised["method"] == "supervised" and len(supervised["prior"]) == 12
    assert supervised["mvue_foreground_psnr"] == pytest.approx(cg_sense["mvue_foreground_psnr"], rel=1e-5)
