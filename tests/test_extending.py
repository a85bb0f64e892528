"""The examples of docs/extending.md: complete, short, and they run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from mri_score.readers import READERS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"
SECTIONS = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:] if PAGE.exists() else []
EXAMPLES = [
    pytest.param(example, id=f"{section.splitlines()[0]} {number}")
    for section in SECTIONS
    for number, example in enumerate(re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL))
]
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="docs/ lies in a checkout alone")


def test_each_extension_has_its_example():
    names = [section.splitlines()[0] for section in SECTIONS]
    assert names == [f"Your {one}" for one in ("denoiser", "operator", "posterior", "walk", "reader")]
    assert all("```python" in section for section in SECTIONS)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(READERS, ".npy", READERS[".h5"])  # what the example writes there is undone
    lines = [line for line in example.splitlines() if line.strip()]
    assert len(lines) <= 25, f"{len(lines)} lines"
    names: dict = {}
    exec(compile(example, PAGE.name, "exec"), names)
    found = names.get("images", names["result"].samples if "result" in names else None)
    if found is None:
        scan = names["scan"]
        assert (scan.slices, tuple(scan.kspace(0).shape)) == (1, (2, 32, 32))
    else:
        assert found.is_complex() and len(found) == 2 and torch.isfinite(found.abs()).all()
