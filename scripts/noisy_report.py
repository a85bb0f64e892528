"""Results of the experiment on priors from noisy or undersampled scans: tables, plot and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from noisy_cases import ACCELERATIONS, ALL, LEVELS, METHODS, NOISY, RIVALS, TIERS, UNDERSAMPLED, Case
from pages import fill
from PIL import Image
from torch import Tensor

from mri_score.benchmark.statistics import Estimate, mean_interval
from mri_score.errors import InputError
from mri_score.evaluation.metrics import magnitude_psnr
from mri_score.evaluation.panel import panel
from mri_score.files import whole_file, write_text


class Results:
    """All finished cases of a folder."""

    def __init__(self, out: Path) -> None:
        self.folder = out / "cases"
        found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.folder.glob("*/numbers.json"))]
        if len({json.dumps(one["settings"]) for one in found}) > 1:
            raise InputError(f"{self.folder} holds cases of several settings; keep those of one, or give another --out")
        place = {name: number for number, name in enumerate(ALL)}
        found.sort(key=lambda one: place.get(one["case"], len(place)))
        self.cases = {one["case"]: one for one in found}
        self.least = {Case.of(one["case"]).row: one["sigma_min"] for one in found}
        self.blocks = {(row["task"], row["item"]): row["block"] for one in found for row in one["rows"]}
        self.values: dict[str, dict[tuple[str, Any], float]] = {}
        for name in dict.fromkeys(Case.of(one["case"]).row for one in found):
            seeds = [one for one in found if Case.of(one["case"]).row == name]
            every = [{(row["task"], row["item"]): row["psnr"] for row in one["rows"]} for one in seeds]
            shared = set.intersection(*(set(one) for one in every))
            self.values[name] = {item: float(np.mean([one[item] for one in every])) for item in sorted(shared, key=str)}

    @property
    def settings(self) -> dict[str, Any]:
        return next(iter(self.cases.values()))["settings"]

    def mean(self, name: str, tasks: Sequence[str], less: str | None = None) -> Estimate | None:
        """Mean over the items of some tasks, or of the paired difference to another case."""
        here, other = self.values.get(name, {}), {} if less is None else self.values.get(less, {})
        items = [item for item in here if item[0] in tasks and (less is None or item in other)]
        if not items:
            return None
        values = [here[item] - other.get(item, 0.0) for item in items]
        return mean_interval(values, [self.blocks[item] for item in items])


SIMULATED = tuple(f"R = {factor}" for factor in ACCELERATIONS)
REAL = tuple(f"real, R = {factor}" for factor in ACCELERATIONS)
BELOW = "†"
DENOISED = tuple(f"denoise {level:g}" for level in LEVELS)


def report(results: Results) -> str:
    """Tables for each SNR, differences between methods, and effects of changes."""
    cases = {name: Case.of(name) for name in results.values if not Case.of(name).change}
    names, clean = list(cases), [name for name in cases if name == "clean"]
    parts = [_about(results)]
    for snr in sorted({case.snr for case in cases.values() if case.snr is not None}, reverse=True):
        here = [name for name, case in cases.items() if case.snr == snr]
        for kind in ("noisy", "undersampled"):
            rows = [name for name in here if (cases[name].method in UNDERSAMPLED) == (kind == "undersampled")]
            if rows:
                parts.append(f"### {snr:g} dB, {kind} scans only\n\n" + "\n\n".join(_tables(results, clean + rows)))
    if verdicts := _verdicts(results, names):
        parts.append("### Against each other\n\n" + verdicts)
    if changed := [name for name in results.values if name not in cases]:
        bases = dict.fromkeys(map(_base, changed))
        groups = [(base, *(one for one in changed if _base(one) == base)) for base in bases]
        rows = [one for group in groups for one in group if one in results.values]
        parts.append("### With something changed\n\n" + "\n\n".join(_tables(results, rows)))
    return "\n\n".join(parts) + "\n"


def _base(name: str) -> str:
    return str(replace(Case.of(name), change=""))


def _about(results: Results) -> str:
    s, seconds = results.settings, [one["training_seconds"] for one in results.cases.values()]
    tests = [one["testing_seconds"] for one in results.cases.values()]
    return (
        f"{len(results.cases)} cases; a U-Net of widths {list(s['widths'])}, {s['steps']} steps of {s['batch_size']}"
        f" bands of {s['band']} x {s['size']} from {s['scans']} scans. Processor time of a training: {min(seconds):.0f}"
        f" to {max(seconds):.0f} s, of tests {np.mean(tests):.0f} s. PSNR in dB, of the magnitude in the foreground;"
        " in brackets the difference to `clean`, image by image, with its 95 % interval: a bootstrap over blocks of two"
        f" neighbouring slices of the one validation patient, and over {s['masks']} masks of each real scan."
    )


def _tables(results: Results, rows: Sequence[str]) -> Iterator[str]:
    tested = [task for task in (*SIMULATED, *REAL) if any(task == item[0] for item in results.blocks)]
    yield _table(results, rows, tested)
    yield _table(results, rows, DENOISED)


def _table(results: Results, rows: Sequence[str], tasks: Sequence[str]) -> str:
    lines = ["| | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for name in rows:
        cells = []
        for task in tasks:
            mean, gap = results.mean(name, [task]), results.mean(name, [task], less="clean")
            behind = "" if gap is None or name == "clean" else f" ({gap.text()})"
            told = "" if task not in DENOISED or float(task.split()[1]) >= results.least[name] else BELOW
            cells.append("" if mean is None else f"{mean.mean:.2f}{told}{behind}")
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    if any(BELOW in line for line in lines):
        lines += ["", f"{BELOW} below the prior's smallest level, which it is told instead."]
    return "\n".join(lines)


def _verdicts(results: Results, names: Sequence[str]) -> str:
    """At each SNR, the best method that accounts for noise and undersampling, against the clean prior and naive
    methods.
    """
    lines = ["| | best | to `clean` | to its rivals |", "|---|---|---|---|"]
    for snr in sorted({case.snr for case in map(Case.of, names) if case.snr is not None}, reverse=True):
        for kind, methods in (("noisy", NOISY), ("undersampled", UNDERSAMPLED)):
            rivals = RIVALS[kind]
            named = (f"{method}@{snr:g}" for method in methods if method not in rivals)
            found = {one: results.mean(one, SIMULATED) for one in named}
            known = {one: mean.mean for one, mean in found.items() if mean is not None}
            if not known:
                continue
            best = max(known, key=lambda one: known[one])
            gap = results.mean(best, SIMULATED, less="clean")
            cells = []
            for rival in (f"{method}@{snr:g}" for method in rivals):
                if (gain := results.mean(best, SIMULATED, less=rival)) is not None:
                    cells.append(f"`{rival}`: {gain.text()}, {_words(gain)}")
            lines.append(
                f"| {kind}, {snr:g} dB | `{best}` | {'' if gap is None else gap.text()} | {'; '.join(cells)} |"
            )
    if len(lines) == 2:
        return ""
    return "\n".join([*lines, "", f"The best by its mean over {' and '.join(SIMULATED)} of these very images."])


def _words(gain: Estimate) -> str:
    if math.isnan(gain.low) or gain.low <= 0 <= gain.high:
        return "not to be told apart"
    return "better" if gain.low > 0 else "worse"


def write_plot(path: Path, results: Results) -> None:
    """Loss of each method relative to `clean`, by SNR: reconstruction and denoising."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    methods = [name for name, method in METHODS.items() if name != "clean" and not method.undersampled]
    for axes, (title, tasks) in zip(
        figure.subplots(1, 3, sharey=True),
        ((SIMULATED[0], SIMULATED[:1]), (SIMULATED[1], SIMULATED[1:]), ("denoising, five levels", DENOISED)),
        strict=True,
    ):
        for number, method in enumerate(methods):
            gaps = {snr: results.mean(f"{method}@{snr:g}", tasks, less="clean") for snr in sorted(TIERS)}
            known = {snr: gap for snr, gap in gaps.items() if gap is not None}
            means = np.array([gap.mean for gap in known.values()])
            ends = np.array([[gap.low, gap.high] for gap in known.values()]).reshape(-1, 2)
            bars = np.nan_to_num(np.abs(ends.T - means))
            x = np.array(list(known)) + 0.3 * (number - len(methods) / 2)
            axes.errorbar(x, means, bars, marker="o", color=colormaps["tab10"](number), label=method, elinewidth=0.8)
        axes.axhline(0, color="0.5", linewidth=0.8)
        axes.set(title=title, xlabel="SNR of the training scans (dB)", xticks=sorted(TIERS))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("PSNR against clean training (dB)")
    figure.axes[-1].legend(fontsize=8, frameon=False)
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=110)


def write_pictures(folder: Path, results: Results, truths: Mapping[str, Tensor]) -> list[Path]:
    """A panel for each truth, by its name, and SNR: truth, clean training, and the methods."""
    written = []
    for title, truth in truths.items():
        for snr in sorted(TIERS, reverse=True):
            for kind in ("noisy", "undersampled"):
                names = [f"{n}@{snr:g}" for n, m in METHODS.items() if m.undersampled == (kind == "undersampled")]
                images = {name: _picture(results, name, title) for name in ("clean", *names) if name in results.cases}
                known = {name: image for name, image in images.items() if image is not None}
                if len(known) < 2 or set(known) == {"clean"}:
                    continue
                captions = {
                    name: f"{magnitude_psnr(truth, torch.from_numpy(image)):.2f} dB" for name, image in known.items()
                }
                path = folder / f"{title.replace(', R = ', '-R')}-{kind}-{snr:g}dB.png"
                picture = Image.open(BytesIO(panel(known, truth=truth, captions={"truth": "", **captions})))
                with whole_file(path) as part:  # with 256 colours the file is a third of the size
                    picture.convert("RGB").quantize(256).save(part, format="png", optimize=True)
                written.append(path)
    return written


def _picture(results: Results, name: str, title: str) -> np.ndarray | None:
    path = results.folder / name / "pictures.npz"
    if not path.exists():
        return None
    with np.load(path) as kept:
        return kept.get(title)


def write_report(out: Path, truths: Mapping[str, Tensor], page: Path | None) -> None:
    """Write out/table.md, out/plot.png and out/pictures/; with a page, also the text between its marks, and its
    figures.

    The page only shows pictures of R = 4: of the validation patient and of the first real scan.
    """
    results = Results(out)
    if not results.cases:
        raise InputError(f"{out} has no finished case yet")
    text = report(results)
    write_text(out / "table.md", text)
    write_plot(out / "plot.png", results)
    write_pictures(out / "pictures", results, truths)
    if page is None:
        return
    figures = page.parent / "figures" / "noisy"
    write_plot(figures / "plot.png", results)
    shown = ["![PSNR against clean training, by SNR](figures/noisy/plot.png)"]
    for path in write_pictures(figures, results, {title: truths[title] for title in shown_titles(truths)}):
        shown.append(f"![{path.stem}](figures/noisy/{path.name})")
    fill(page, results=text + "\n" + "\n\n".join(shown))


def shown_titles(titles: Iterable[str]) -> list[str]:
    return [title for title in titles if SIMULATED[0] in title][:2]
