"""What the README promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.fixture(scope="module")
def text():
    return README.read_text(encoding="utf-8")


def run(text, number):
    """The names that a Python example leaves."""
    names: dict = {}
    exec(compile(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[number], "README.md", "exec"), names)
    return names


@pytest.mark.slow
def test_the_python_example_runs(text):
    names = run(text, 0)
    truth, image = names["scan"].image.abs(), names["image"].abs()
    assert names["draws"].shape == (4, *truth.shape) and names["std"].shape == truth.shape
    assert float((image - truth).norm() / truth.norm()) < 0.15
    assert torch.isfinite(names["std"]).all()


@pytest.mark.slow
def test_the_example_of_the_four_parts_runs(text):
    names = run(text, 1)
    truth, image = names["scan"].image.abs(), names["images"].mean(0).abs()
    assert names["images"].shape == (4, 128, 128)
    assert float((image - truth).norm() / truth.norm()) < 0.15


def test_commands_options_and_files_that_it_names_exist(text):
    from mri_score.cli import COMMANDS
    from mri_score.config_file import find_config
    from mri_score.methods import METHODS
    from mri_score.priors.record import bundled_priors

    for command in re.findall(r"mri-score ([a-z-]+)", text):
        assert command in COMMANDS
    for config in re.findall(r"--config (\S+\.yml)", text):
        assert find_config(config).exists()
    for name in re.findall(r"^\| `([a-z][a-z0-9-]+)`", text, flags=re.MULTILINE):
        assert name in METHODS or name in bundled_priors()
    for link in re.findall(r"\]\((\S+?)\)", text):
        path, _, anchor = link.partition("#")
        assert (README.parent / path).exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (README.parent / path).read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in [re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-") for one in headings], link
