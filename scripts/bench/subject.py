"""Run one subject of the benchmark in this process and write its rows: what `all` starts, threads set beforehand.

python scripts/bench/subject.py FILE SIZES THREADS OUT.json
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path


def main(file: str, sizes: str, threads: str, out: str) -> None:
    sys.path.insert(0, str(Path(file).resolve().parent))
    subject = importlib.import_module(Path(file).stem)
    rows = [replace(row, subject=subject.NAME) for row in subject.run(sizes, int(threads))]
    Path(out).write_text(json.dumps([row.as_dict() for row in rows]), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
