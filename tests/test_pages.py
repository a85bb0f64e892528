"""Tables of pages are renewed between their marks, and nothing else changes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mri_score.errors import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
pages = pytest.importorskip("pages", reason="scripts/ lies in a checkout alone")

PAGE = "by hand\n<!-- one -->\nold\n<!-- end of one -->\nmore\n<!-- two -->\n<!-- end of two -->\nend\n"


def test_what_lies_between_the_marks_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    for _ in range(2):  # renewing again changes nothing
        pages.fill(page, one="| a |", two="new\n")
        assert page.read_text() == PAGE.replace("old", "\n| a |\n").replace("<!-- two -->\n", "<!-- two -->\n\nnew\n\n")


@pytest.mark.parametrize("text", ["nothing", PAGE + PAGE, "<!-- end of one -->\n<!-- one -->\n"])
def test_a_page_without_the_marks_is_refused_and_left(text, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(InputError, match="needs the marks <!-- one --> and <!-- end of one -->"):
        pages.check(page, "one")
    with pytest.raises(InputError):
        pages.fill(page, one="new")
    assert page.read_text() == text


def test_every_page_that_a_script_renews_has_its_marks():
    docs = Path(__file__).resolve().parents[1] / "docs"
    for page, names in (
        ("results.md", ("short",)),
        ("samplers.md", ("one channel",)),
        ("lab/results.md", ("headline", "gains", "real", "others", "simulated", "shifted", "priors", "ood")),
        ("lab/noisy_training.md", ("results",)),
        ("lab/training.md", ("ablation", "budget")),
    ):
        pages.check(docs / page, *names)
