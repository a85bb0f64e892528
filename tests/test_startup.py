"""What needs no torch answers without it: wrong values, completion, finished files; walks start at once."""

from __future__ import annotations

import json
import subprocess
import sys

import h5py
import pytest
from click.shell_completion import ShellComplete
from command import mri_score

from mri_score.baselines import BASELINES
from mri_score.cli import main, names
from mri_score.data.masks import LINE_LAWS, POINT_LAWS
from mri_score.methods import ONE_CHANNEL_USES
from mri_score.models.one_channel import ONE_CHANNEL
from mri_score.models.precision import AUTO, PRECISIONS
from mri_score.pipeline.options import OPERATORS
from mri_score.priors.record import bundled_priors
from mri_score.priors.store import build_prior, save_prior
from mri_score.simulation.simulate import simulate

QUICK = ["--accel", "3", "--steps", "2", "--samples", "1", "--threads", "1", "--baselines", "none"]


SLOW = ("scipy", "skimage", "matplotlib", "PIL", "jinja2", "sigpy", "numba", "pydantic", "sympy", "torch._dynamo")
"""Modules that take longer to import than all of the package: for pictures, pages, trajectories, training."""


def without_torch(*arguments):
    """Exit code and output of a command that must not import torch; it may write a page, which needs jinja2."""
    return without(["torch", *(set(SLOW) - {"jinja2"})], *arguments)


def without(modules, *arguments, first=""):
    """Exit code and output of a command that must not import the modules, in its own process; first: runs before."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({list(modules)!r}))\nfrom mri_score.cli import main\n{first}\n"
        "main(sys.argv[1:], prog_name='mri-score')"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_names_that_options_check_are_those_of_the_tables():
    assert set(names.BASELINES) == set(BASELINES) and set(names.OPERATORS) == set(OPERATORS)
    assert set(ONE_CHANNEL_USES) == set(ONE_CHANNEL)
    assert set(names.MASKS) == {*LINE_LAWS, *POINT_LAWS} and set(names.PRECISIONS) == {AUTO, *PRECISIONS}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["reconstruct", "--method", "nope"], "matched-draw"),
        (["reconstruct", "--precision", "float16"], "bfloat16"),
        (["reconstruct", "--prior", "nowhere"], "brain-fast"),
        (["reconstruct", "--baselines", "tv,deep"], "l1-wavelet"),
        (["reconstruct", "--mask", "spirals"], "variable-density"),
        (["reconstruct", "--operator", "fortran"], "sigpy"),
        (["compare", "--methods", "exact-draw,nope"], "matched-draw"),
        (["sample", "--method", "nope"], "heun-churn"),
        (["reconstruct", "--batch-size", "0"], "x>=1"),
        (["reconstruct", "nowhere.h5"], "nowhere.h5"),
        (["info", "nowhere.h5"], "nowhere.h5"),
    ],
)
def test_wrong_values_are_refused_without_torch(arguments, words):
    code, output = without_torch(*arguments)
    assert code == 2 and words in output and "Traceback" not in output


def test_finished_files_and_headers_are_known_without_torch(tmp_path):
    simulate(tmp_path / "scans", volumes=2, slices=1, size=32, coils=3)
    network = {"name": "unet", "widths": [6, 8], "blocks": 1, "embedding": 8}
    prior = tmp_path / "tiny.safetensors"
    save_prior(prior, build_prior(network, sd=0.3, sigma_min=0.01, sigma_max=5.0), network, {})
    arguments = ["reconstruct", tmp_path / "scans", *QUICK, "--prior", prior, "--out", tmp_path / "out"]
    mri_score(*arguments)
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    (tmp_path / "out" / "report" / "index.html").unlink()
    code, output = without_torch(*arguments)
    assert code == 0 and output.count("finished before") == 2, output
    assert (tmp_path / "out" / "report" / "index.html").read_text() == page
    code, output = without_torch("info", "--quick", tmp_path / "scans")
    assert code == 0 and output.count("1 slices, 3 coils") == 2, output


def test_info_and_all_that_comes_before_a_walk_need_no_slow_module(tmp_path):
    (path,) = simulate(tmp_path, volumes=1, slices=1, size=32, coils=3)
    stop = (
        "from mri_score.pipeline import volume\n"
        "def stop(*_, **__): print('ready to walk'); raise SystemExit\n"
        "volume.sample_posterior = stop\n"
        "try: main(['info', sys.argv[2]])\n"
        "except SystemExit: pass\n"
    )
    code, output = without(SLOW, "reconstruct", path, *QUICK, "--out", tmp_path / "out", first=stop)
    assert code == 0 and "noise  " in output and output.endswith("ready to walk\n"), output


def test_info_in_json_has_numbers(tmp_path):
    (path,) = simulate(tmp_path, volumes=1, slices=1, size=32, coils=3)
    found = json.loads(mri_score("info", "--json", path))
    with h5py.File(path) as file:
        assert found["noise_std"] == pytest.approx(file.attrs["noise_std"], rel=0.2)
    assert (found["slices"], found["coils"], found["cols"], found["full"]) == (1, 3, 32, True)
    assert "noise_std" not in json.loads(mri_score("info", "--json", "--quick", path))


def completed(command, *arguments, incomplete=""):
    shell = ShellComplete(main, {}, "mri-score", "_MRI_SCORE_COMPLETE")
    return [one.value for one in shell.get_completions([command, *arguments], incomplete)]


def test_the_shell_completes_methods_priors_and_precisions():
    assert completed("reconstruct", "--method", incomplete="exact") == ["exact-draw"]
    assert completed("reconstruct", "--sampler", incomplete="exact") == ["exact-draw"]
    assert completed("reconstruct", "--precision", incomplete="b") == ["bfloat16"]
    assert set(bundled_priors()) <= set(completed("reconstruct", "--prior"))
    assert completed("reconstruct", "--baselines", incomplete="tv,zero") == ["tv,zero-filled"]
    assert completed("reconstruct", "--mask", incomplete="magic") == ["magic", "magic_fraction", "magic"]
