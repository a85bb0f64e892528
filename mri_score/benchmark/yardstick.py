"""The reference for gains: the best classical method with its weight tuned on the truth."""

from __future__ import annotations

from collections.abc import Sequence

from mri_score.benchmark.statistics import Row, cell_key

BEST = "best-classical"
"""The name of the yardstick as a method and as a reference."""
TITLE = "best classical, tuned on the truth"
CANDIDATES = ("l1-wavelet-tuned", "tv-tuned")
HEADLINE = ("mvue_foreground_psnr", "mvue_foreground_ssim", "rss_whole_psnr", "rss_whole_ssim")
"""The four headline numbers: against |MVUE| in the foreground, and against RSS in the whole image."""
LESS_IS_BETTER = ("mvue_foreground_nmse", "mvue_whole_nmse", "rss_foreground_nmse", "rss_whole_nmse", "complex_nrmse")


def best_classical(rows: Sequence[Row]) -> list[Row]:
    """A row for each cell with both candidates, with the better of the two in each number.

    This is a reference, not a method: a cell may have its PSNR from total variation and its SSIM from L1-wavelet, so
    that a gain over it is a gain over both. Costs are left out.
    """
    found: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        if row["method"] in CANDIDATES:
            found.setdefault((row["law"], row["nominal"], *cell_key(row)), {})[row["method"]] = row
    return [_best(list(both.values())) for both in found.values() if len(both) == len(CANDIDATES)]


def _best(rows: Sequence[Row]) -> Row:
    first = rows[0]
    numbers = [key for key in first if key.endswith(("_psnr", "_ssim"))]
    kept = {key: first[key] for key in first if key not in ("seconds", "memory_mib")}
    best = {key: max(row[key] for row in rows) for key in numbers}
    least = {key: min(row[key] for row in rows) for key in LESS_IS_BETTER if key in first}
    return {**kept, **best, **least, "method": BEST, "title": TITLE}
