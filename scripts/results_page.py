"""Update the tables of docs/lab/results.md, docs/results.md and README.md; all other text is written by hand.

The tables are computed from the cells in docs/lab/comparison.

python scripts/results_page.py
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from pages import fill

from mri_score.benchmark.ledger import read_rows
from mri_score.benchmark.yardstick import BEST, HEADLINE, best_classical
from mri_score.errors import InputError
from mri_score.priors.record import bundled_priors
from mri_score.priors.store import read_record

DOCS = Path(__file__).resolve().parents[1] / "docs"
LAB = DOCS / "lab"
DEFAULT = "matched-draw"
DRAWS = 4
"""Methods that are averaged in comparisons of priors."""
SHORT = (
    ("best classical, tuned", BEST, 1),
    ("L1-wavelet, tuned", "l1-wavelet-tuned", 1),
    ("total variation, tuned", "tv-tuned", 1),
    ("`matched-draw`, P = 1", DEFAULT, 1),
    ("P = 4", DEFAULT, 4),
    ("`proximal`, P = 8", "proximal", 8),
)
OURS = (
    *((DEFAULT, draws) for draws in (1, 4, 8)),
    *(("adaptive-draw", draws) for draws in (1, 4)),
    *(("proximal", 8), ("exact-draw", 8), ("langevin", 1), ("langevin", 2)),
)
"""Methods whose gain over the reference is given; also the supervised network."""
RIVALS = ("l1-wavelet-tuned", "tv-tuned", "supervised", "langevin")
"""Further methods for the default: one image against any number of draws; for `langevin`, as many draws."""
DIGITS = {"psnr": 2, "ssim": 3}


def main() -> None:
    tables = {}
    for name in ("real", "others", "simulated", "shifted"):
        folder = LAB / "comparison" / name
        subprocess.run([sys.executable, "-m", "mri_score", "compare", "--summary", str(folder)], check=True)
        (folder / "cells.lock").unlink(missing_ok=True)
        tables[name] = sections((folder / "summary.md").read_text(encoding="utf-8"))
    rows = {name: cells_of(LAB / "comparison" / name) for name in ("real", "simulated", "shifted")}
    others = read_rows(LAB / "comparison" / "priors" / "cells.jsonl")
    fill(
        LAB / "results.md",
        **tables,
        headline=headline(rows),
        gains=gains(rows),
        priors=priors(rows, others),
    )
    fill(DOCS / "results.md", short=short(rows["real"]))
    fill(DOCS.parent / "README.md", priors=short_priors(rows["real"], others))


def cells_of(folder: Path) -> list[dict]:
    """The rows of a comparison and of its reference. Errors: InputError if a scan has two files, or a method two
    networks.
    """
    rows = read_rows(folder / "cells.jsonl")
    for what, key in (("scan", "file"), ("method", "prior")):
        seen: dict[str, str] = {}
        for row in rows:
            if seen.setdefault(row[what], row[key]) != row[key]:
                raise InputError(
                    f"{folder} holds rows of two versions of the {what} {row[what]}: {key} {seen[row[what]]} and"
                    f" {row[key]}; take those of one out of cells.jsonl"
                )
    return [*rows, *best_classical(rows)]


def sections(summary: str) -> str:
    """The sections of a summary with deeper headings, without their tables of other targets and regions."""
    parts = re.split(r"\n(?=## )", summary)[1:]
    return "\n\n".join("#" + part.split("\n\nOther targets, regions and metrics:")[0].rstrip() for part in parts)


def short(rows: list[dict]) -> str:
    """PSNR / SSIM, means over the masks of a method: |MVUE| in the foreground, then RSS in the whole image."""
    scans = sorted({row["scan"] for row in rows}, reverse=True)
    lines = ["| | R | against | " + " | ".join(title for title, *_ in SHORT) + " |", "|---" * (3 + len(SHORT)) + "|"]
    for scan in scans:
        for nominal in sorted({row["nominal"] for row in rows}):
            for target, label in (("mvue_foreground", "MVUE"), ("rss_whole", "RSS")):
                cells = [score(rows, scan, nominal, method, draws, target) for _, method, draws in SHORT]
                lines.append(f"| {scan} | {nominal:g} | {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def headline(rows: dict[str, list[dict]]) -> str:
    """Gains of our methods and the supervised network over the best classical method, in the four numbers."""
    lines = [_head(["scans", "mask", "true R", "method", "P", "cells"])]
    for scans, cells, law, nominal, true in _settings(rows):
        for method, draws in (*OURS, ("supervised", 1)):
            found = pairs(cells, law, nominal, (method, draws), (BEST, 1))
            if found:
                lines.append(_line([scans, law, f"{true:.2f}", f"`{method}`", draws, len(found)], found))
    return "\n".join(lines)


def gains(rows: dict[str, list[dict]]) -> str:
    """The paired difference of the default to each rival, and for samplers the ratio of their times."""
    lines = [_head(["scans", "mask", "true R", "P", f"`{DEFAULT}` less", "cells"], "slower")]
    for scans, cells, law, nominal, true in _settings(rows):
        for rival in RIVALS:
            for draws in (1, 2) if rival == "langevin" else (1, 4, 8):
                found = pairs(cells, law, nominal, (DEFAULT, draws), (rival, draws if rival == "langevin" else 1))
                if found:
                    slower = [other["seconds"] / one["seconds"] for one, other in found]
                    cost = f"{min(slower):.1f} to {max(slower):.1f}" if rival == "langevin" else ""
                    lines.append(_line([scans, law, f"{true:.2f}", draws, rival, len(found)], found, cost))
    return "\n".join(lines)


def priors(rows: dict[str, list[dict]], others: list[dict]) -> str:
    """The mean of the default's draws with each bundled prior, and its gains over the best classical method.

    Over the common cells of all priors: PSNR against |MVUE|, and in brackets the gains in the four numbers.
    """
    columns = [(scans, nominal) for scans in ("real", "simulated") for nominal in (4.0, 8.0)]
    texts: dict[str, list[str]] = {}
    titles = []
    for place, (scans, nominal) in enumerate(columns):
        found = _by_prior(rows[scans], others, nominal)
        titles.append(f"{scans}, R = {nominal:g}, {len(next(iter(found.values()), []))} cells")
        for name, both in found.items():
            level = mean(ours[HEADLINE[0]] for ours, _ in both)
            text = f"{level:.2f} dB ({', '.join(_mean(both, key) for key in HEADLINE)})"
            texts.setdefault(name, [""] * len(columns))[place] = text
    lines = ["| prior | " + " | ".join(titles) + " |", "|---" * (1 + len(titles)) + "|"]
    return "\n".join([*lines, *(f"| `{name}` | " + " | ".join(found) + " |" for name, found in texts.items())])


def short_priors(rows: list[dict], others: list[dict]) -> str:
    """The four gains of each prior on the real scans, for the README."""
    head = "| `--prior` | R | PSNR, MVUE | SSIM, MVUE | PSNR, RSS | SSIM, RSS |"
    lines = [head, "|---" * 6 + "|"]
    found = {nominal: _by_prior(rows, others, nominal) for nominal in (4.0, 8.0)}
    for name in dict.fromkeys(name for one in found.values() for name in one):
        for nominal, one in found.items():
            if name in one:
                gains = " | ".join(_mean(one[name], key) for key in HEADLINE)
                lines.append(f"| `{name}` | {nominal:g} | {gains} |")
    return "\n".join(lines)


def _by_prior(rows: list[dict], others: list[dict], nominal: float) -> dict[str, list[tuple[dict, dict]]]:
    """Name of each bundled prior -> its rows and those of the reference, for the common cells of all priors."""
    digests = {read_record(path)["sha256"][:12]: name for name, path in bundled_priors().items()}
    best = {cell(row): row for row in rows if row["method"] == BEST}
    mine: dict[str, dict[tuple, dict]] = {}
    for row in (*rows, *others):
        wanted = (row["method"], row["nominal"], row["draws"]) == (DEFAULT, nominal, DRAWS)
        if wanted and row["prior"] in digests and cell(row) in best:
            mine.setdefault(digests[row["prior"]], {})[cell(row)] = row
    common = sorted(set.intersection(*map(set, mine.values()))) if mine else []
    return {name: [(found[key], best[key]) for key in common] for name, found in mine.items() if common}


def pairs(
    rows: list[dict], law: str, nominal: float, ours: tuple[str, int], theirs: tuple[str, int]
) -> list[tuple[dict, dict]]:
    """Pairs of rows of two methods with given numbers of draws, for every cell that has both."""
    here = [row for row in rows if (row["law"], row["nominal"]) == (law, nominal)]
    alone = {cell(row): row for row in here if (row["method"], row["draws"]) == theirs}
    return [(row, alone[cell(row)]) for row in here if (row["method"], row["draws"]) == ours and cell(row) in alone]


def cell(row: dict) -> tuple:
    return row["scan"], row["file"], row["slice"], row["law"], row["nominal"], row["mask_seed"]


def score(rows: list[dict], scan: str, nominal: float, method: str, draws: int, target: str) -> str:
    wanted = (scan, nominal, method, draws)
    found = [row for row in rows if (row["scan"], row["nominal"], row["method"], row["draws"]) == wanted]
    if not found:
        return ""
    psnr, ssim = (mean(row[f"{target}_{key}"] for row in found) for key in ("psnr", "ssim"))
    return f"{psnr:.2f} / {ssim:.3f}"


def _settings(rows: dict[str, list[dict]]) -> Iterator[tuple[str, list[dict], str, float, float]]:
    """Each set of scans with its rows, mask law, nominal acceleration and mean true acceleration."""
    for scans, cells in rows.items():
        for law, nominal in sorted({(row["law"], row["nominal"]) for row in cells}):
            true = mean(row["true"] for row in cells if (row["law"], row["nominal"]) == (law, nominal))
            yield scans, cells, law, nominal, true


def _head(names: list[str], *more: str) -> str:
    numbers = ["PSNR, MVUE: mean, lowest", "SSIM, MVUE", "PSNR, RSS", "SSIM, RSS"]
    columns = [*names, *numbers, *more]
    return f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|"


def _line(names: list[object], found: list[tuple[dict, dict]], *more: str) -> str:
    """Means and lowest differences of pairs of rows in the four numbers."""
    numbers = [f"{_mean(found, key)}, {_signed(min(_less(found, key)), key)}" for key in HEADLINE]
    return f"| {' | '.join(map(str, [*names, *numbers, *more]))} |"


def _mean(found: list[tuple[dict, dict]], key: str) -> str:
    return _signed(mean(_less(found, key)), key)


def _less(found: list[tuple[dict, dict]], key: str) -> list[float]:
    return [ours[key] - theirs[key] for ours, theirs in found]


def _signed(value: float, key: str) -> str:
    return f"{value:+.{DIGITS[key.rpartition('_')[2]]}f}"


if __name__ == "__main__":
    main()
