"""What a release is made of: a lock that fits the requirements, a bill of materials, equal wheels each time."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
if not (CHECKOUT / "scripts" / "requirements.lock").exists():
    pytest.skip("releases are made from a checkout", allow_module_level=True)


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def required():
    setup = ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    lines = setup["options"]["install_requires"].split()
    return {canonical(name): tuple(map(int, least.split("."))) for name, least in (line.split(">=") for line in lines)}


def pinned(file):
    """Name -> the versions that a file pins, for its Python versions and systems."""
    found: dict[str, set[str]] = {}
    text = (CHECKOUT / "scripts" / file).read_text(encoding="utf-8")
    for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==([0-9][\w.]*)", text, flags=re.MULTILINE):
        found.setdefault(canonical(name), set()).add(version)
    return found


def test_the_lock_has_every_requirement_at_the_tested_version_with_hashes():
    lock, tested = pinned("requirements.lock"), pinned("constraints.txt")
    for name, least in required().items():
        assert all(tuple(map(int, re.findall(r"\d+", one)))[: len(least)] >= least for one in lock[name]), name
        assert tested[name] <= lock[name], name
    entries = re.split(r"\n(?=[a-zA-Z])", (CHECKOUT / "scripts" / "requirements.lock").read_text(encoding="utf-8"))[1:]
    assert len(entries) > 30 and all("--hash=sha256:" in one for one in entries)


def sbom(*arguments):
    command = [sys.executable, str(CHECKOUT / "scripts" / "sbom"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_bill_of_materials_is_closed_and_states_licences():
    bill = json.loads(sbom())
    names = {one["name"] for one in bill["components"]}
    assert set(required()) <= names and "pytest" not in names and "mpmath" in names  # of torch's sympy
    refs = {one["bom-ref"] for one in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    assert {one["ref"] for one in bill["dependencies"]} == refs
    assert {other for one in bill["dependencies"] for other in one["dependsOn"]} <= refs
    unstated = [one["name"] for one in bill["components"] if "not stated" in str(one["licenses"])]
    assert not [name for name in unstated if not name.startswith(("cuda-", "nvidia-"))]  # of torch's builds with CUDA
    table = sbom("--licences", "nifti").splitlines()
    assert any(line.startswith("| nibabel |") for line in table) and len(table) > len(names) + 2


@pytest.mark.slow
def test_equal_sources_give_equal_wheels(tmp_path):
    """Two builds of copies with other times of files, at the same SOURCE_DATE_EPOCH."""
    if missing := [name for name in ("build", "setuptools", "wheel") if find_spec(name) is None]:
        pytest.skip(f"building a wheel needs {', '.join(missing)}: install the test extra")
    wheels = []
    for number in (1, 2):
        source = tmp_path / f"{number}" / "mri_score"
        for name in ("mri_score", "cli", "configs", "parameters"):
            left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(CHECKOUT / name, source / name, ignore=left_out, copy_function=shutil.copyfile)
        for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copyfile(CHECKOUT / name, source / name)
            os.utime(source / name, (1e9 * number, 1e9 * number))
        out = str(tmp_path / f"out{number}")
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1764500000"}
        done = subprocess.run([*command, str(source)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        wheels += (tmp_path / f"out{number}").glob("*.whl")
    one, other = (path.read_bytes() for path in wheels)
    assert one == other and zipfile.ZipFile(wheels[0]).testzip() is None
