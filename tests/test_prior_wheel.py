"""A prior packed as a wheel is installed by pip and found by its name, with the same weights."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest
from command import mri_score, refused

from mri_score.files import sha256
from mri_score.priors import installed
from mri_score.priors.record import find_prior
from mri_score.priors.store import build_prior, load_prior, save_prior

NETWORK = {"name": "unet", "widths": [6, 8], "blocks": 1, "embedding": 8}


@pytest.fixture
def prior(tmp_path):
    path = tmp_path / "knee-pd.safetensors"
    save_prior(path, build_prior(NETWORK, sd=0.3, sigma_min=0.01, sigma_max=5.0), NETWORK, {"summary": "Adult knees."})
    path.with_suffix(".md").write_text("# Prior `knee-pd`\n\nResearch use only.\n")
    return path


def test_an_installed_prior_is_found_by_its_name(prior, tmp_path, monkeypatch):
    mri_score("package-prior", prior, "--version", "1.2", "--out", tmp_path / "dist")
    wheel = tmp_path / "dist" / "mri_score_prior_knee_pd-1.2-py3-none-any.whl"
    again = tmp_path / "again"
    mri_score("package-prior", prior, "--version", "1.2", "--out", again)
    assert sha256(wheel) == sha256(again / wheel.name)  # equal priors make equal wheels
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(tmp_path / "site"), str(wheel)]
    subprocess.run([sys.executable, *pip], check=True)  # pip compares every file with RECORD
    monkeypatch.syspath_prepend(tmp_path / "site")
    installed.installed_priors.cache_clear()
    try:
        found = find_prior("knee-pd")
        assert found.is_relative_to(tmp_path / "site") and sha256(found) == sha256(prior)
        assert load_prior("knee-pd").sigma_max == 5.0
        assert "mri_score_prior_knee_pd" not in sys.modules  # nothing of the package is imported
        assert "Adult knees." in mri_score("priors") and "# Prior `knee-pd`" in mri_score("priors", "knee-pd")
        (tmp_path / "site" / "mri_score_prior_knee_pd" / "knee-pd.safetensors").unlink()
        installed.installed_priors.cache_clear()
        assert "knee-pd" in refused("priors", "knee-pd")
    finally:
        installed.installed_priors.cache_clear()


def test_a_wheel_holds_no_code(prior, tmp_path):
    mri_score("package-prior", prior, "--out", tmp_path)
    with zipfile.ZipFile(tmp_path / "mri_score_prior_knee_pd-1.0-py3-none-any.whl") as wheel:
        code = {name: wheel.read(name) for name in wheel.namelist() if name.endswith((".py", ".pth", ".so"))}
    assert code == {"mri_score_prior_knee_pd/__init__.py": b""}


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--name", "brain"], "bundled"), (["--name", "../x"], "small letters"), (["--version", "x"], "version")],
)
def test_names_that_packages_cannot_have_are_refused(prior, tmp_path, options, words):
    assert words in refused("package-prior", prior, "--out", tmp_path / "dist", *options)
    prior.with_suffix(".md").unlink()
    assert "model card" in refused("package-prior", prior, "--out", tmp_path / "dist")
    assert not (tmp_path / "dist").exists()
