"""log.jsonl of a training run: one JSON object a line, read without lines that are cut off or hold something else."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from mri_score.untrusted.text import read_text

LARGEST = 256 << 20
"""Largest log, in bytes."""


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a log, each with its `step`; an empty list if the file does not exist.

    path: of log.jsonl. Errors: InputError for a file that is no text, or is larger than LARGEST.
    """
    if not path.exists():
        return []
    entries = []
    for line in read_text(path, LARGEST).splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and _number(entry.get("step")) and _numbers(entry.get("denoising_errors", {})):
            entries.append(entry)
    return entries


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _numbers(values: Any) -> bool:
    return isinstance(values, dict) and all(map(_number, values.values()))
