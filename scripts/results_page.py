"""Renew the tables of docs/results.md from the cells of docs/comparison; the words between them are written by hand.

python scripts/results_page.py
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from statistics import mean

from pages import fill

from mri_score.benchmark.ledger import read_rows
from mri_score.errors import InputError
from mri_score.priors.store import bundled_priors, read_record

DOCS = Path(__file__).resolve().parents[1] / "docs"
SHORT = (
    ("L1-wavelet, tuned", "l1-wavelet-tuned", 1),
    ("total variation, tuned", "tv-tuned", 1),
    ("`langevin`, P = 2", "langevin", 2),
    ("`adaptive-draw`, P = 2", "adaptive-draw", 2),
    ("P = 4", "adaptive-draw", 4),
    ("P = 8", "adaptive-draw", 8),
    ("`proximal`, P = 8", "proximal", 8),
)

AGAINST = [
    *((method, draws) for method in ("l1-wavelet-tuned", "tv", "tv-tuned", "supervised") for draws in (1, 4, 8)),
    *(("langevin", draws) for draws in (1, 2)),
]
ONE = {"l1-wavelet-tuned": (1,), "tv": (1,), "tv-tuned": (1,), "supervised": (1,), "langevin": ()}
"""Classical methods and the supervised network have one image, whatever the number of draws."""
DEFAULT = "adaptive-draw"
DRAWS = 4
"""Averaged, where priors are compared."""


def main() -> None:
    tables = {}
    for name in ("real", "others", "simulated", "shifted"):
        folder = DOCS / "comparison" / name
        subprocess.run([sys.executable, "-m", "mri_score", "compare", "--summary", str(folder)], check=True)
        (folder / "cells.lock").unlink(missing_ok=True)
        tables[name] = sections((folder / "summary.md").read_text(encoding="utf-8"))
    rows = {name: cells_of(DOCS / "comparison" / name) for name in ("real", "simulated", "shifted")}
    of_priors = priors(rows, read_rows(DOCS / "comparison" / "priors" / "cells.jsonl"))
    fill(DOCS / "results.md", **tables, short=short(rows["real"]), gains=gains(rows), priors=of_priors)


def cells_of(folder: Path) -> list[dict]:
    """The rows of a comparison, in which each scan is one file and each method has one network."""
    rows = read_rows(folder / "cells.jsonl")
    for what, key in (("scan", "file"), ("method", "prior")):
        seen: dict[str, str] = {}
        for row in rows:
            if seen.setdefault(row[what], row[key]) != row[key]:
                raise InputError(
                    f"{folder} holds rows of two versions of the {what} {row[what]}: {key} {seen[row[what]]} and"
                    f" {row[key]}; take those of one out of cells.jsonl"
                )
    return rows


def sections(summary: str) -> str:
    """The sections of a summary a level deeper, without their tables of other targets and regions."""
    parts = re.split(r"\n(?=## )", summary)[1:]
    return "\n\n".join("#" + part.split("\n\nOther targets and regions:")[0].rstrip() for part in parts)


def short(rows: list[dict]) -> str:
    """PSNR / SSIM against the MVUE image in the foreground, means over the masks that a method ran under."""
    scans = sorted({row["scan"] for row in rows}, reverse=True)
    lines = ["| | R | " + " | ".join(title for title, *_ in SHORT) + " |", "|---" * (2 + len(SHORT)) + "|"]
    for scan in scans:
        for nominal in sorted({row["nominal"] for row in rows}):
            cells = [score(rows, scan, nominal, method, draws) for _, method, draws in SHORT]
            lines.append(f"| {scan} | {nominal:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def gains(rows: dict[str, list[dict]]) -> str:
    """The default less each rival, cell by cell: mean and lowest PSNR and SSIM; how many times slower the rival is."""
    lines = [
        "| scans | mask | R | draws | `adaptive-draw` less | cells | PSNR: mean, lowest (dB) | SSIM: mean, lowest |"
        " slower |"
    ]
    lines.append("|---" * 9 + "|")
    for scans, cells in rows.items():
        for law, nominal in sorted({(row["law"], row["nominal"]) for row in cells}):
            true = mean(row["true"] for row in cells if (row["law"], row["nominal"]) == (law, nominal))
            for method, draws in AGAINST:
                found = pairs([row for row in cells if row["law"] == law], nominal, method, draws)
                if not found:
                    continue
                values = [f"{len(found)}"]
                for metric, digits in (("psnr", 2), ("ssim", 3)):
                    key = f"mvue_foreground_{metric}"
                    less = [one[key] - other[key] for one, other in found]
                    values.append(f"{mean(less):+.{digits}f}, {min(less):+.{digits}f}")
                slower = [other["seconds"] / one["seconds"] for one, other in found]
                values.append(f"{min(slower):.1f} to {max(slower):.1f}" if method == "langevin" else "")
                lines.append(f"| {scans} | {law} | {true:.2f} | {draws} | {method} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def priors(rows: dict[str, list[dict]], cells: list[dict]) -> str:
    """The default walk with each bundled prior, and what it gains over L1-wavelet tuned on the truth.

    On the cells that all of them ran.
    """
    digests = {read_record(path)["sha256"][:12]: name for name, path in bundled_priors().items()}
    columns = [(scans, nominal) for scans in ("real", "simulated") for nominal in (4.0, 8.0)]
    texts: dict[str, list[str]] = {}
    titles = []
    for place, (scans, nominal) in enumerate(columns):
        tuned = {cell(row): row for row in rows[scans] if row["method"] == "l1-wavelet-tuned"}
        mine: dict[str, dict[tuple, dict]] = {}
        for row in (*rows[scans], *cells):
            wanted = (row["method"], row["nominal"], row["draws"]) == (DEFAULT, nominal, DRAWS)
            if wanted and row["prior"] in digests and cell(row) in tuned:
                mine.setdefault(digests[row["prior"]], {})[cell(row)] = row
        common = set.intersection(*map(set, mine.values())) if mine else set()
        titles.append(f"{scans}, R = {nominal:g}, {len(common)} cells")
        for name, found in mine.items() if common else ():
            level = mean(found[key]["mvue_foreground_psnr"] for key in common)
            psnr, ssim = (
                mean(found[key][metric] - tuned[key][metric] for key in common)
                for metric in ("mvue_foreground_psnr", "mvue_foreground_ssim")
            )
            text = f"{level:.2f} dB ({psnr:+.2f}, SSIM {ssim:+.3f})"
            texts.setdefault(name, [""] * len(columns))[place] = text
    lines = ["| prior | " + " | ".join(titles) + " |", "|---" * (1 + len(titles)) + "|"]
    return "\n".join([*lines, *(f"| `{name}` | " + " | ".join(found) + " |" for name, found in texts.items())])


def pairs(rows: list[dict], nominal: float, method: str, draws: int) -> list[tuple[dict, dict]]:
    """The default's mean of so many draws and the rival's row, of every cell that has both."""
    alone = {cell(row): row for row in rows if row["method"] == method and row["draws"] in (draws, *ONE[method])}
    ours = [row for row in rows if (row["method"], row["draws"], row["nominal"]) == (DEFAULT, draws, nominal)]
    return [(row, alone[cell(row)]) for row in ours if cell(row) in alone]


def cell(row: dict) -> tuple:
    return row["scan"], row["file"], row["slice"], row["law"], row["nominal"], row["mask_seed"]


def score(rows: list[dict], scan: str, nominal: float, method: str, draws: int) -> str:
    wanted = (scan, nominal, method, draws)
    found = [row for row in rows if (row["scan"], row["nominal"], row["method"], row["draws"]) == wanted]
    if not found:
        return ""
    psnr, ssim = (mean(row[f"mvue_foreground_{key}"] for row in found) for key in ("psnr", "ssim"))
    return f"{psnr:.2f} / {ssim:.3f}"


if __name__ == "__main__":
    main()
