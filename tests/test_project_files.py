"""What is said about the project outside of its code: version, metadata, contributors' pages, workflows."""

from __future__ import annotations

import os
import re
import subprocess
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
import yaml

import mri_score

CHECKOUT = Path(__file__).resolve().parents[1]
if not (CHECKOUT / "setup.cfg").exists():
    pytest.skip("the files of the project are not beside the tests", allow_module_level=True)

PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", *(
    path.relative_to(CHECKOUT).as_posix() for path in sorted((CHECKOUT / "docs").rglob("*.md"))
)]  # fmt: skip


def read(name: str) -> str:
    return (CHECKOUT / name).read_text(encoding="utf-8")


def heading_anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}


def test_the_version_is_written_once():
    setup = ConfigParser()
    setup.read_string(read("setup.cfg"))
    assert setup["metadata"]["version"] == "attr: mri_score.__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+", mri_score.__version__)
    assert re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), flags=re.MULTILINE)[0] == mri_score.__version__
    assert "version:" not in read("CITATION.cff").replace("cff-version:", "")


def test_the_installed_metadata_have_that_version_and_licence():
    try:
        installed = metadata("mri-score")
    except PackageNotFoundError:
        pytest.skip("mri-score is not installed in this environment")
    assert installed["Version"] == mri_score.__version__
    if installed["License-Expression"] is None:
        pytest.skip("it was installed by setuptools below 77, or before the licence was an expression")
    assert installed["License-Expression"] == "MIT AND CC-BY-4.0"


def test_the_citation_file_agrees_with_the_licence():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    owner = re.search(r"Copyright \(c\) \d+ (.+)", read("LICENSE"))
    assert owner is not None and citation["authors"] == [{"name": owner[1]}]
    assert citation["license"] == ["MIT", "CC-BY-4.0"]


@pytest.mark.parametrize("name", PAGES)
def test_links_of_the_pages_lead_somewhere(name):
    page = CHECKOUT / name
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path) if path else page
        assert target.exists(), f"{name}: {link}"
        if anchor:
            assert anchor in heading_anchors(target.read_text(encoding="utf-8")), f"{name}: {link}"


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_files_and_tables_that_contributors_are_sent_to_exist(name):
    text = read(name)
    for test in re.findall(r"`(test_\w+\.py)`", text):
        assert (CHECKOUT / "tests" / test).exists(), test
    for path in re.findall(r"`((?:scripts|tests|docs|mri_score|configs)/[\w./]*)`", text):
        assert (CHECKOUT / path).exists(), path
    tables = re.findall(r"`([A-Z][A-Z_]+[A-Z])`[^|`]*? (?:in|of) `([\w/]+/__init__\.py|[\w/]+\.py)`", text)
    assert tables or name == "SECURITY.md"
    for table, place in tables:
        path = CHECKOUT / place if (CHECKOUT / place).exists() else CHECKOUT / "mri_score" / place
        assert re.search(rf"^{table}\b", path.read_text(encoding="utf-8"), flags=re.MULTILINE), (table, place)


def test_the_workflows_run_the_suite_on_the_oldest_and_the_newest_python():
    oldest = re.search(r"python_requires = >=(\S+)", read("setup.cfg"))
    assert oldest is not None
    for name, command in [("test", ".ci/run --fast"), ("nightly", ".ci/run --cov")]:
        workflow = yaml.safe_load(read(f".github/workflows/{name}.yml"))
        job = workflow["jobs"]["test"]
        assert job["strategy"]["matrix"]["python"] == [oldest[1], "3.12", "3.14"]
        assert any(step.get("run", "").startswith(command) for step in job["steps"])


def test_hooks_before_a_commit_are_checks_of_the_suite():
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    for hook in repository["hooks"]:
        assert hook["entry"].removeprefix(".venv/bin/") in read("scripts/test").replace('"', "")


def test_options_of_the_test_script_become_those_of_pytest(tmp_path):
    """In a copy whose environment is a stand-in that prints what it is called with."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "test").write_text(read("scripts/test"))
    (scripts / "setup-environment").write_text(f"#!/bin/sh\necho {tmp_path}/env\n")
    programs = tmp_path / "env" / "bin"
    programs.mkdir(parents=True)
    for name in ("ruff", "mypy", "pytest"):
        (programs / name).write_text(f'#!/bin/sh\nprintf "%s" {name}; printf " <%s>" "$@"; echo\n')
        (programs / name).chmod(0o755)
    (scripts / "setup-environment").chmod(0o755)

    def run(*options: str) -> list[str]:
        command = ["bash", str(scripts / "test"), *options]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ).stdout.splitlines()

    assert run()[-1] == "pytest <-n> <2> <--dist> <loadfile>"
    expected = "pytest <-n> <2> <--dist> <loadfile> <-m> <not slow> <--cov> <--cov-report=term> <tests/test_solve.py>"
    assert run("--fast", "--cov", "tests/test_solve.py") == ["ruff <check> <.>", "mypy <>", expected]
