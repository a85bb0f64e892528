"""The command line: chains that a newcomer runs, and one clear message for everything that can be wrong."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from command import mri_score, refused

from mri_score.cli import COMMANDS
from mri_score.cli import simulate as simulate_command
from mri_score.cli.options import DRAWS, ESTIMATES, TRAJECTORIES
from mri_score.data import trajectories
from mri_score.data.noncartesian import NonCartesianScan
from mri_score.errors import InputError
from mri_score.evaluation.metrics import volume_scores
from mri_score.methods import METHODS
from mri_score.priors.store import load_prior
from mri_score.readers.fastmri import FastMRI, write_fastmri
from mri_score.reconstruction import sample_posterior
from mri_score.simulation.simulate import simulate

QUICK = ["--steps", "2", "--samples", "1", "--threads", "1", "--baselines", "zero-filled"]

ESTIMATE = "posterior mean of one walk"


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Two small simulated volumes."""
    return simulate(tmp_path_factory.mktemp("scans"), volumes=2, slices=2, size=64, coils=4, noise=30.0)


def run(*arguments, cwd, **options):
    """The command in a process of its own, as a user starts it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mri_score", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def test_help_loads_neither_torch_nor_sigpy(tmp_path):
    code = (
        "import sys; from click.testing import CliRunner; from mri_score.cli import main;"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0;"
        "assert CliRunner().invoke(main, ['reconstruct', '--help']).exit_code == 0;"
        "heavy = {'torch', 'sigpy', 'numpy', 'h5py'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_names_that_help_writes_out_are_those_of_the_tables():
    assert {*DRAWS, *ESTIMATES} == set(METHODS) and not {*DRAWS} & {*ESTIMATES}
    assert set(TRAJECTORIES) == set(trajectories.TRAJECTORIES)
    words = "".join(mri_score("reconstruct", "--help").split())
    assert f"Draws(samplesoftheposterior):{','.join(DRAWS)}.Pointestimates" in words


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name):
    assert "Example" in mri_score(name, "--help")


@pytest.mark.slow
def test_reconstruct_without_a_file_makes_everything_it_names(tmp_path):
    output = mri_score("reconstruct", "--accel", 4, "--steps", 3, "--samples", 2, "--out", tmp_path, "--threads", 1)
    for method in ("zero-filled", "CG-SENSE", "L1-wavelet", "one draw", "posterior mean of 2 draws"):
        assert method in output
    (page,) = (tmp_path / "report").glob("index.html")
    assert "http" not in page.read_text().replace("http-equiv", "")
    (panel,) = (tmp_path / "panels").iterdir()
    assert panel.read_bytes()[:4] == b"\x89PNG"
    (result,) = (tmp_path / "reconstructions").iterdir()
    with h5py.File(result) as file:
        assert file["reconstruction"].dtype == np.float32
        assert (
            file["reconstruction"].shape == file["std"].shape == file["reconstruction_complex"].shape == (1, 256, 256)
        )
        assert len(file.attrs["prior_sha256"]) == 64
        assert file["std"][()].max() > 0
        assert file.attrs["acceleration"] == 4


def test_metrics_csv_is_what_the_files_say(tmp_path, scans):
    mri_score("reconstruct", scans[0], "--accel", 3, "--out", tmp_path, *QUICK)
    with h5py.File(scans[0]) as target, h5py.File(tmp_path / "reconstructions" / scans[0].name) as found:
        wanted = volume_scores(target["reconstruction_rss"][()], found["reconstruction"][()])
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = [
            row for row in csv.DictReader(file)
            if row["region"] == "whole" and row["target"].startswith("RSS") and row["method"] == ESTIMATE
        ]  # fmt: skip
    assert float(rows[0]["psnr"]) == pytest.approx(wanted["psnr"], abs=1e-3)
    assert float(rows[0]["ssim"]) == pytest.approx(wanted["ssim"], abs=1e-4)


def test_a_folder_skips_what_is_finished_and_evaluate_scores_it(tmp_path, scans):
    first = mri_score("reconstruct", scans[0].parent, "--accel", 3, "--out", tmp_path, *QUICK)
    assert "finished before" not in first
    written = tmp_path / "reconstructions" / scans[0].name
    stamp = written.stat().st_mtime_ns
    again = mri_score("reconstruct", scans[0].parent, "--accel", 3, "--out", tmp_path, *QUICK)
    assert again.count("finished before") == 2 and "made from" not in again
    made = [tmp_path / "metrics.csv", *(path for path in tmp_path.rglob("*") if path.suffix in (".png", ".html"))]
    contents = {path: path.read_bytes() for path in made}
    for path in made:  # as a run that is stopped behind its result files leaves them
        path.unlink()
    restored = mri_score("reconstruct", scans[0].parent, "--accel", 3, "--out", tmp_path, *QUICK)
    assert restored.count("made from its result: pictures, report, scores") == 2
    assert {path: path.read_bytes() for path in made} == contents and len(made) == 1 + 2 * 2 + 3
    assert written.stat().st_mtime_ns == stamp
    scores = mri_score("evaluate", "--target", scans[0].parent, "--predictions", tmp_path / "reconstructions")
    for more in (QUICK, [*QUICK, "--again"]):
        assert "finished before" not in mri_score("reconstruct", scans[0], "--accel", 2, "--out", tmp_path, *more)
    _check_evaluation(first, scores, [scan.name for scan in scans])


def _check_evaluation(printed: str, scores: str, names: list[str]) -> None:
    """Both commands name target and region of each number, and print the same numbers for the same ones."""
    assert "reconstruction_rss, whole image: PSNR = " in scores and "+/- n/a" not in scores
    regions = {"|MVUE|, maps from full k-space": "inside the foreground", "RSS of full k-space": "whole"}
    for target, region in regions.items():
        blocks = printed.split(f"  against {target}, {region}")[1:]
        assert len(blocks) == len(names)
        for name, block in zip(names, blocks, strict=True):
            line = next(line for line in block.splitlines() if line.strip().startswith("posterior mean"))
            psnr, ssim, nmse = map(float, line.rsplit(maxsplit=4)[1:4])
            of_file = scores.split(f"{name}\n")[1]
            title = target if region != "whole" else "reconstruction_rss, whole image"
            found = next(line for line in of_file.splitlines() if line.strip().startswith(title))
            values = [float(one.split(" = ")[1]) for one in found.split(": ", 1)[1].split("  ")][:3]
            assert values == pytest.approx([psnr, ssim, nmse], rel=2e-3, abs=1e-4)
    assert printed.count("SSIM of the whole image is lower") == len(names) and "SSIM of the whole image" in scores


def test_a_bad_file_in_a_folder_is_reported_skipped_and_fails_at_the_end(tmp_path, scans):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(scans[0], folder)
    (folder / "broken.h5").write_bytes(b"not HDF5")
    output = refused("reconstruct", folder, "--accel", 3, "--out", tmp_path / "out", *QUICK, code=1)
    assert "broken.h5: skipped" in output and "1 of 2 files failed: broken.h5" in output
    assert [path.name for path in (tmp_path / "out" / "reconstructions").iterdir()] == [scans[0].name]


def test_every_command_over_files_reports_and_skips_in_one_way(tmp_path, scans):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(scans[0], folder)
    (folder / "broken.h5").write_bytes(b"not HDF5")
    for arguments, words in (
        (["info", folder], "2 slices, 4 coils"),
        (["maps", folder, "--accel", 3, "--out", tmp_path / "maps"], "the calibration lines"),
        (["intervals", folder, "--out", tmp_path / "i.json", "--level", 0.6, *QUICK[:2], "-n", 2], "2 slices: 60%"),
    ):
        output = refused(*arguments, code=1)
        assert "broken.h5: skipped" in output and "1 of 2 files failed: broken.h5" in output
        assert words in output
    assert json.loads((tmp_path / "i.json").read_text())["volumes"] == 1


@pytest.mark.slow
def test_a_trajectory_takes_the_place_of_the_mask(tmp_path):
    (path,) = simulate(tmp_path / "in", volumes=1, slices=1, size=48, coils=4, noise=36.0)
    options = ["--accel", 2, "--trajectory", "radial", "--steps", 6, "--samples", 2, "--threads", 1, "--keep-samples"]
    output = mri_score("reconstruct", path, *options, "--out", tmp_path)
    assert "acceleration 2.00" in output and "gridding" in output and "CG-SENSE" in output
    assert "zero-filled" not in output and "L1-wavelet" not in output
    trajectory = trajectories.radial((48, 48), 2)
    with h5py.File(tmp_path / "reconstructions" / path.name) as file:
        assert "mask" not in file and "mask_seed" not in file.attrs
        np.testing.assert_array_equal(file["trajectory"][()], trajectory.coordinates.numpy())
        assert "radial trajectory, 1152 samples" in file.attrs["sampling"]
        assert file.attrs["true_acceleration"] == file.attrs["acceleration"] == 2
        scan, samples = NonCartesianScan(FastMRI(path), trajectory), file["samples"][()]
    direct = sample_posterior(scan.acquisition(0), load_prior(), steps=6, samples=2, slices=[0])
    assert np.linalg.norm(samples - direct.samples.numpy()) < 1e-3 * np.linalg.norm(samples)
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["region"] == "foreground" and row["target"].startswith("|")]
    psnr = {row["method"]: float(row["psnr"]) for row in rows}
    assert psnr["CG-SENSE"] > psnr["gridding"] > 15


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--mask", "random", "--axis", "-2", "--maps", "x.h5"], "cannot be combined with --mask, --axis, --maps"),
        (["--check-lines", "3"], "--check-lines"),
        (["--baselines", "cg-sense,l1-wavelet,tv"], "l1-wavelet, tv: not available with --trajectory"),
        (["--accel", "0.5"], "at least 1"),
    ],
)
def test_a_trajectory_refuses_what_only_masks_have(options, words, scans, tmp_path):
    base = ["--accel", 3, "--trajectory", "spiral", "--out", tmp_path / "out", *QUICK[:6]]
    assert words in refused("reconstruct", scans[0], *base, *options)
    assert not list((tmp_path / "out").rglob("*.h5"))


def test_a_trajectory_needs_an_acceleration(scans, tmp_path):
    assert "needs --accel" in refused("reconstruct", scans[0], "--trajectory", "radial", "--out", tmp_path, *QUICK)


@pytest.mark.slow
def test_precision_and_warm_start_change_the_result_and_are_told(tmp_path, scans):
    options = ["--accel", 3, "--slices", "0", "--out", tmp_path, *QUICK[2:], "--steps", 4]
    images = {}
    for more in ((), ("--precision", "bfloat16"), ("--warm-start", "0.3")):
        assert "finished before" not in mri_score("reconstruct", scans[0], *options, *more)
        with h5py.File(tmp_path / "reconstructions" / scans[0].name) as file:
            images[more] = file["reconstruction"][()]
            assert file.attrs["precision"] == ("bfloat16" if "bfloat16" in more else "float32")
            assert ("0.3" in file.attrs.get("warm_start", "")) == ("0.3" in more)
        assert "finished before" in mri_score("reconstruct", scans[0], *options, *more)
    whole, half, warm = images.values()
    norm = np.linalg.norm(whole)
    assert 0 < np.linalg.norm(half - whole) < 0.05 * norm
    assert np.linalg.norm(warm - whole) > 1e-3 * norm


@pytest.mark.slow
def test_the_two_operators_agree(tmp_path, scans):
    images = []
    for operator in ("torch", "sigpy"):
        mri_score("reconstruct", scans[0], "--accel", 3, "--operator", operator, "--out", tmp_path / operator, *QUICK)
        with h5py.File(tmp_path / operator / "reconstructions" / scans[0].name) as file:
            images.append(file["reconstruction_complex"][()])
    assert np.linalg.norm(images[1] - images[0]) < 1e-4 * np.linalg.norm(images[0])


@pytest.mark.slow
def test_results_do_not_depend_on_the_batch_size(tmp_path, scans):
    images = []
    for size in (1, 3):
        out = tmp_path / str(size)
        options = ["--steps", 4, "--samples", 3, "--threads", 1, "--baselines", "none", "--keep-samples"]
        mri_score("reconstruct", scans[0], "--accel", 3, "--batch-size", size, "--out", out, *options)
        with h5py.File(out / "reconstructions" / scans[0].name) as file:
            images.append(file["samples"][()])
    assert images[0].shape[0] == 3
    assert np.linalg.norm(images[1] - images[0]) < 1e-4 * np.linalg.norm(images[0])


def test_the_seed_of_the_draws_does_not_change_the_mask(tmp_path, scans):
    """All runs go into one folder: a file of another seed does not count as finished."""
    masks, images = [], []
    for options in (["--seed", 1], ["--seed", 2], ["--seed", 1, "--mask-seed", 5]):
        mri_score("reconstruct", scans[0], "--accel", 3, *options, "--out", tmp_path, *QUICK)
        with h5py.File(tmp_path / "reconstructions" / scans[0].name) as file:
            masks.append(file["mask"][()])
            images.append(file["reconstruction"][()])
    assert (masks[0] == masks[1]).all() and (masks[0] != masks[2]).any()
    assert (images[0] != images[1]).any()


@pytest.mark.slow
def test_maps_are_cached_and_given_maps_are_used(tmp_path, scans):
    output = mri_score("maps", scans[0], "--accel", 3, "--out", tmp_path / "maps")
    assert "the calibration lines" in output
    out = tmp_path / "out"
    mri_score("reconstruct", scans[0], "--accel", 3, "--out", out, *QUICK)
    cached = sorted((out / "maps").iterdir())
    stamps = [path.stat().st_mtime_ns for path in cached]
    mri_score("reconstruct", scans[0], "--accel", 3, "--out", out, "--again", *QUICK)
    assert [path.stat().st_mtime_ns for path in sorted((out / "maps").iterdir())] == stamps
    given = ["--maps", tmp_path / "maps" / scans[0].name]
    mri_score("reconstruct", scans[0], "--accel", 3, "--out", tmp_path / "given", *given, *QUICK)
    with (
        h5py.File(out / "reconstructions" / scans[0].name) as a,
        h5py.File(tmp_path / "given" / "reconstructions" / scans[0].name) as b,
    ):
        difference = np.linalg.norm(a["reconstruction"][()] - b["reconstruction"][()])
        assert difference < 0.05 * np.linalg.norm(a["reconstruction"][()])
        assert "given" in b.attrs["coil_maps"]


def test_an_undersampled_file_is_taken_as_it_is(tmp_path):
    (path,) = simulate(tmp_path / "in", volumes=1, slices=1, size=64, coils=4, undersample=3.0)
    output = mri_score("reconstruct", path, "--out", tmp_path / "out", *QUICK)
    assert "no ground truth" in output and not (tmp_path / "out" / "metrics.csv").exists()
    assert "already undersampled" in refused("reconstruct", path, "--accel", 4, "--out", tmp_path / "out", *QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prospective_poisson_8ch", "prospective_random_6ch"])
def test_real_undersampled_scans_reconstruct(name, tmp_path, shared):
    mri_score("reconstruct", shared / f"data/kspace/{name}.h5", "--out", tmp_path, *QUICK)
    with h5py.File(tmp_path / "reconstructions" / f"{name}.h5") as file:
        image = file["reconstruction"][0]
    assert np.isfinite(image).all() and image.max() > 0


def test_info_tells_what_a_file_holds(scans, tmp_path):
    output = mri_score("info", scans[0])
    for words in ("2 slices, 4 coils", "readout 128 -> 64", "full", "noise"):
        assert words in output


def test_priors_lists_the_bundled_one_and_shows_its_card():
    assert "brain" in mri_score("priors")
    card = mri_score("priors", "brain")
    assert "CC BY 4.0" in card and "Not for diagnosis" in card


# ---- Chains.

TINY = [
    "--set", "data.size=32", "--set", "data.patch=null", "--set", "training.batch_size=2", "--set", "training.steps=12",
    "--set", "training.save_every=4", "--set", "training.log_every=4", "--threads", "1", "--quiet",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("config", "noise"), [("tiny.yml", 36), ("tiny_noisy.yml", 12)])
def test_simulate_train_kill_resume_reconstruct_evaluate(config, noise, tmp_path):
    data = tmp_path / "data"
    mri_score("simulate", "--out", data, "--volumes", 1, "--slices", 2, "--size", 64, "--coils", 4, "--noise", noise)
    arguments = ["train", "--config", config, "--data", data, "--out", "run", *TINY]
    straight = run(*arguments[:-1], "--quiet", "--out", "whole", cwd=tmp_path)
    output, _ = straight.communicate(timeout=300)
    assert straight.returncode == 0, output

    killed = run(*arguments, cwd=tmp_path)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "run").glob("checkpoint-*.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    resumed = run(*arguments, cwd=tmp_path)
    output, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, output
    weights = [(tmp_path / name / "prior.safetensors").read_bytes() for name in ("run", "whole")]
    assert weights[0] == weights[1]  # bit for bit

    for name in ("config.yaml", "parameters.txt", "log.jsonl", "prior.json"):
        assert (tmp_path / "run" / name).exists()
    mri_score("reconstruct", data, "--accel", 3, "--prior", tmp_path / "run", "--out", tmp_path / "out", *QUICK)
    assert "SSIM" in mri_score("evaluate", "--target", data, "--predictions", tmp_path / "out" / "reconstructions")


@pytest.mark.slow
def test_sigterm_writes_a_checkpoint_and_says_how_to_go_on(tmp_path):
    data = tmp_path / "data"
    simulate(data, volumes=1, slices=1, size=64, coils=4)
    arguments = [
        "train",
        "--config",
        "tiny.yml",
        "--data",
        data,
        "--out",
        "run",
        *TINY,
        "--set",
        "training.steps=100000",
    ]
    training = run(*arguments, cwd=tmp_path, start_new_session=True)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "run").glob("checkpoint-*.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(training.pid, signal.SIGTERM)  # as a scheduler does: to the whole group
    output, _ = training.communicate(timeout=60)
    assert training.returncode == 143, output
    assert "resumes" in output


@pytest.mark.slow
def test_dry_run_says_what_would_be_trained_and_writes_no_run(tmp_path, scans, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = mri_score("train", "--config", "tiny.yml", "--data", scans[0].parent, "--dry-run")
    assert "466,162 parameters" in output
    assert not (tmp_path / "runs").exists()


# ---- Bad input.


@pytest.fixture
def bad(tmp_path, scans):
    """A file that one thing is wrong with."""

    def make(kind):
        path = tmp_path / f"{kind}.h5"
        kspace = (
            np.random.default_rng(0).standard_normal((1, 4, 32, 32, 2)).astype(np.float32).view(np.complex64)[..., 0]
        )
        if kind == "text":
            path.write_text("this is not HDF5")
        elif kind == "truncated":
            path.write_bytes(scans[0].read_bytes()[: scans[0].stat().st_size // 2])
        elif kind == "keys":
            with h5py.File(path, "w") as file:
                file["image"] = np.zeros((2, 2))
        elif kind == "nan":
            kspace[0, 1, 3, 3] = np.nan
            write_fastmri(path, kspace)
        elif kind == "coil":
            kspace[:, 2] = 0
            write_fastmri(path, kspace)
        elif kind == "calibration":
            mask = np.arange(32) % 4 == 0
            write_fastmri(path, kspace * mask, mask=mask)
        elif kind == "link":
            with h5py.File(path, "w") as file:
                file["kspace"] = h5py.ExternalLink(str(scans[0]), "kspace")
        elif kind == "bomb":
            with h5py.File(path, "w") as file:
                file.create_dataset("kspace", (100000, 64, 4096, 4096), "c8", chunks=(1, 1, 64, 64))
        return path

    return make


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("text", "HDF5"),
        ("truncated", "fetch or export"),
        ("keys", "kspace"),
        ("nan", "NaN"),
        ("coil", "coil 2"),
        ("calibration", "calibration"),
        ("link", "link"),
        ("bomb", "declares"),
    ],
)
@pytest.mark.parametrize("command", ["reconstruct", "info", "maps"])
def test_bad_files_get_one_clear_message(command, kind, words, bad, tmp_path):
    if command == "info" and kind == "calibration":
        pytest.skip("info needs no calibration region")
    path = bad(kind)
    options = ["--out", tmp_path / "out"] if command != "info" else []
    accel = [] if kind == "calibration" else ["--accel", "2"]
    output = refused(command, path, *options, *([*accel, *QUICK] if command == "reconstruct" else []))
    assert path.name in output and words.lower() in output.lower()
    assert not list((tmp_path / "out").rglob("*.h5")) and not list((tmp_path / "out").rglob("*.part"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sampler", "magic"], "exact-draw"),
        (["--prior", "nowhere"], "brain"),
        (["--accel", "0.5"], "at least 1"),
        (["--accel", "1000"], "1000"),
        (["--accel", "nan"], "nan"),
        (["--mask", "spirals"], "variable-density"),
        (["--mask", "missing.npy"], "missing.npy"),
        (["--operator", "fortran"], "sigpy"),
        (["--precision", "float16"], "bfloat16"),
        (["--warm-start", "1e-9"], "1e-09"),
        (["--baselines", "deep"], "l1-wavelet"),
        (["--slices", "9"], "0 to 1"),
        (["--slices", "x"], "--slices"),
        (["--maps", "missing.h5"], "missing.h5"),
        (["--device", "abacus"], "abacus"),
        (["--coils", "99"], "99"),
    ],
)
def test_bad_options_get_one_clear_message(options, words, scans, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    accel = [] if "--accel" in options else ["--accel", "3"]
    base = list(QUICK) if "--baselines" not in options else QUICK[:-2]
    output = refused("reconstruct", scans[0], *accel, "--out", tmp_path / "out", *base, *options)
    assert words in output
    assert not list((tmp_path / "out" / "reconstructions").rglob("*"))


def test_a_mask_that_does_not_fit_is_refused(scans, tmp_path):
    np.save(tmp_path / "mask.npy", np.ones(50, bool))
    output = refused(
        "reconstruct", scans[0], "--accel", 3, "--mask", tmp_path / "mask.npy", "--out", tmp_path / "out", *QUICK
    )
    assert "50" in output and "64" in output


def test_an_output_that_cannot_be_written_is_refused_before_the_work(scans, tmp_path):
    (tmp_path / "file").write_text("in the way")
    output = refused("reconstruct", scans[0], "--accel", 3, "--out", tmp_path / "file" / "out", *QUICK)
    assert "cannot write" in output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dataset: x\nnetwork: {name: ncsnv2, dpeth: low}\n", "depth"),
        ("seed: 1\nseed: 2\n", "twice"),
        ("training: {steps: many}\n", "training.steps"),
        ("sampler: {}\n", "unknown section"),
        ("[1, 2]\n", "sections"),
        ("a: [1\n", "YAML"),
        ("a: &x 1\nb: *x\n", "alias"),
        ("loss: {name: dsmm}\n", "denoising"),
    ],
)
def test_bad_configs_get_one_clear_message(text, words, tmp_path, scans, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sections = {"dataset": "x", "data": f"{{name: fastmri, paths: [{scans[0].parent}], size: 32}}",
                "network": "{name: ncsnv2, depth: low, width: 16}", "training": "{steps: 1}"}  # fmt: skip
    rest = "".join(f"{key}: {value}\n" for key, value in sections.items() if f"{key}:" not in text)
    config = tmp_path / "bad.yml"
    config.write_text(text + (rest if text[0] not in "[a" else ""))
    assert words in refused("train", "--config", config, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["knee_384.yml", "knee_noisy_sure.yml", "brain_384.yml", "tiny.yml"])
def test_a_config_without_its_data_says_how_to_get_some(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "mri-score simulate" in refused("train", "--config", name)
    assert not list(tmp_path.iterdir())


def test_a_supervised_run_is_followed_by_compare(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = []
    monkeypatch.setattr("mri_score.experiment.run", lambda config, folder, **given: trained.append(folder))
    for config, following in (
        ("brain_supervised.yml", "next    mri-score compare --supervised run SCANS"),
        ("tiny.yml", "next    mri-score reconstruct --accel 4 --prior run"),
        ("brain_one_step.yml", "next    mri-score reconstruct --accel 4 --prior run --method one-step"),
    ):
        assert following in mri_score("train", "--config", config, "--out", "run")
    assert len(trained) == 3


@pytest.mark.parametrize("text", ["3,x", "9"])
def test_a_bad_pick_is_named_as_such(text):
    with pytest.raises(InputError, match=f"^--pick '{text}'"):
        simulate_command._pick(text, 5)


def test_an_unknown_config_lists_the_bundled_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "knee_384.yml" in refused("train", "--config", "kneee.yml")


def test_numbers_such_as_1e_4_are_read_as_numbers(tmp_path):
    from mri_score.config_file import read_config

    path = tmp_path / "c.yml"
    path.write_text("training: {learning_rate: 1e-4}\n")
    from mri_score.experiment import call
    from mri_score.training.ema import Ema

    config = read_config(path, ["training.clip=2e0"])
    assert float(config["training"]["learning_rate"]) == 1e-4
    with pytest.raises(Exception, match="decay"):
        call("ema", Ema, {"decay": "fast"}, model=None)
