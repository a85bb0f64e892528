"""docs/parity.md: every proof that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mri_score.cli import COMMANDS, main

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "parity.md"
if not PAGE.exists():
    pytest.skip("docs/parity.md is not beside the tests", allow_module_level=True)
ROWS = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| N?\d+ \|", line)]
SYSTEMS = [row for row in ROWS if not row.startswith("| N")]
OTHERS = ROWS[len(SYSTEMS) :]


def test_the_checklist_is_whole():
    assert [int(row.split("|")[1]) for row in SYSTEMS] == list(range(1, 38))
    assert all(row.count(" | ") == 10 for row in SYSTEMS)
    assert [row.split(" | ")[0] for row in OTHERS] == [f"| N{number}" for number in range(1, len(OTHERS) + 1)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[2].strip())
def test_every_row_has_a_proof_that_exists(row):
    proof = row.rsplit(" | ", 1)[1]
    found, file = 0, None
    for name in re.findall(r"`([^`]+)`", proof):
        if name.startswith("mri-score "):
            command, *options = name.split()[1:]
            known = {option for parameter in _command(command).params for option in parameter.opts}
            assert set(options) <= known, name
            found += 1
        elif match := re.fullmatch(r"(test_\w+\.py)?(?:::(test_\w+))?", name):
            file = TESTS / match[1] if match[1] else file
            assert file is not None and file.exists(), name
            if match[2]:
                assert f"def {match[2]}(" in file.read_text(encoding="utf-8"), name
            found += 1
        elif name.startswith("scripts/"):
            assert (TESTS.parent / name).exists(), name
            found += 1
    assert found or "| **-** |" in row


FURTHER = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| (S\d|CSGM)", line)]


@pytest.mark.parametrize("row", FURTHER, ids=lambda row: row.split("|")[2].strip()[:40])
def test_every_flag_key_and_folder_has_a_proof(row):
    here, proof = row.strip("| ").split(" | ")[2:]
    test_every_row_has_a_proof_that_exists(f" | {proof}")
    for name in re.findall(r"`(mri-score [^`]+)`", here):
        test_every_row_has_a_proof_that_exists(f" | `{name}`")


def _command(name):
    assert name in COMMANDS
    return main.get_command(None, name)
