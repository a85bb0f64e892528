"""Some hundred altered files of every kind; `python scripts/fuzz.py --seconds 3600` tries them for an hour."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

fuzz = pytest.importorskip("fuzz", reason="scripts/ is not beside the tests")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are enforced on Linux")
def test_altered_files_end_as_results_or_error_messages():
    said: list[str] = []
    ends, findings = fuzz.fuzz(cases=510, seconds=20, seed=7, say=said.append)
    assert not findings
    assert ends["read"] and ends["refused"] and sum(ends.values()) > len(fuzz.READERS)
