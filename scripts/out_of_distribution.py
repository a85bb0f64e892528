"""The out-of-distribution thresholds of a prior, and its false alarms and hits over patients, sizes and foreign scans.

python scripts/out_of_distribution.py --prior PRIOR --head SCAN [--head ...] --slices 8 --state CASES.jsonl --write
python scripts/out_of_distribution.py --images STACK [--images ...] --unseen patient19,patient20 --like SCAN
    --head SCAN --foreign SCAN --state CASES.jsonl [--write] [--page docs/lab/results.md] [--summary docs/results.md]

The first form measures thresholds from fully sampled scans that are similar to the prior's training images and not part
of them. The second form is the study of the results page.

Ordinary heads: slices of every patient of the stacks, on several matrix sizes, with the phase, the coils and the noise
of real scans. Changed scans: the same slices with one thing changed; and real scans as they are. The score of a case is
what `mri-score reconstruct` warns by, from one draw. Each case is written to --state at once, and a run
continues from there; cases come in rounds, so that a run that is stopped has tried a part of everything.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import torch
from pages import check, fill
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from mri_score.data.acquisition import Acquisition
from mri_score.data.coils import coil_maps, compress_coils
from mri_score.data.masks import make_mask
from mri_score.data.scale import percentile
from mri_score.data.scan import Scan, Undersampling, from_arrays
from mri_score.errors import InputError
from mri_score.evaluation.out_of_distribution import LEVELS, threshold_at
from mri_score.methods import DEFAULT_METHOD, METHODS
from mri_score.models.base import ScoreModel
from mri_score.models.precision import find_precision
from mri_score.noise.schedules import TwoParts
from mri_score.numerics.fourier import fft, ifft, resize_kspace
from mri_score.numerics.noise import generators, noise_like
from mri_score.priors.record import add_to_record
from mri_score.priors.store import find_prior, load_prior
from mri_score.readers.fastmri import FastMRI
from mri_score.reconstruction import sample_posterior
from mri_score.simulation.from_images import HEAD, ScanTemplate, fit, scan_template

UNSEEN, TRAINED, REAL, UNUSUAL, FOREIGN = "not trained on", "trained on", "real head", "unusual", "foreign"


class ScoredLevels(TwoParts):
    """The default's levels down to the last that the score uses: the same walk, ended early."""

    def levels(self, n: int) -> Tensor:
        levels = super().levels(n)
        return levels[levels >= LEVELS[0]]


WALK = replace(METHODS[DEFAULT_METHOD], schedule=ScoredLevels)
"""The default method, without the levels that no score depends on."""


def score(scan: Acquisition, prior: ScoreModel) -> float:
    """The out-of-distribution score of one slice, from one draw."""
    ratios = sample_posterior(scan, prior, WALK, samples=1, slices=[0]).misfit_ratios
    return math.nan if ratios is None else float(ratios[0, 0])


# Changes of a scan. Images are magnitudes (H, W).


def turned(image: Tensor, degrees: float = 45.0, size: float = 1.0) -> Tensor:
    """The image turned about its centre, with its object `size` times as large."""
    rows, cols = image.shape
    c, s = math.cos(math.radians(degrees)) / size, math.sin(math.radians(degrees)) / size
    matrix = torch.tensor([[[c, -s * rows / cols, 0.0], [s * cols / rows, c, 0.0]]])
    grid = affine_grid(matrix, [1, 1, *image.shape], align_corners=False)
    return grid_sample(image[None, None], grid, mode="bicubic", align_corners=False)[0, 0].clamp_min(0)


def negative(image: Tensor) -> Tensor:
    """Inverted brightness within the object."""
    brightest = percentile(image)
    return torch.where(image > HEAD * brightest, (1.1 * brightest - image).clamp_min(0), image)


def decimated(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """The magnitude of an image whose k-space is cropped to `shape`."""
    return ifft(resize_kspace(fft(image.to(torch.cfloat)), shape)).abs()


def quarter(image: Tensor) -> Tensor:
    """A quarter of the resolution along both axes, on the same matrix."""
    rows, cols = image.shape
    small = resize_kspace(fft(image.to(torch.cfloat)), (rows // 4, cols // 4))
    return ifft(resize_kspace(small, (rows, cols))).abs()


def ellipses(image: Tensor, parts: Sequence[tuple[float, float, float, float, float]], texture: float) -> Tensor:
    """Ellipses (centre row, centre column, half height, half width, value) on one another, with smooth texture.

    Centres and half axes are in units of half of the field of view; texture: its standard deviation, relative.
    """
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in image.shape), indexing="ij")
    picture = torch.zeros_like(image)
    for row, col, height, width, value in parts:
        inside = ((y - row) / height) ** 2 + ((x - col) / width) ** 2 < 1
        picture = torch.where(inside, value, picture)
    coarse = torch.randn(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    field = interpolate(coarse, size=image.shape, mode="bicubic", align_corners=False)[0, 0]
    return (picture * (1 + texture * field)).clamp_min(0) * percentile(image)


def knee(image: Tensor) -> Tensor:
    """A knee from the side: a limb with muscle, two bones with dark rims, kneecap and fat pad."""
    parts = [
        (0, 0, 1.4, 0.55, 0.9), (0, 0.02, 1.4, 0.47, 0.35), (-0.75, 0, 0.68, 0.2, 0.1), (-0.75, 0, 0.66, 0.18, 0.75),
        (-0.2, 0, 0.24, 0.36, 0.1), (-0.2, 0, 0.22, 0.34, 0.75), (0.85, 0, 0.74, 0.26, 0.1),
        (0.85, 0, 0.72, 0.24, 0.75),
        (0.22, 0, 0.14, 0.38, 0.1), (0.22, 0, 0.12, 0.36, 0.72), (-0.16, -0.44, 0.15, 0.07, 0.7),
        (0.1, -0.4, 0.1, 0.06, 1.0), (0.04, 0.32, 0.1, 0.05, 0.08),
    ]  # fmt: skip
    return ellipses(image, parts, 0.1)


def abdomen(image: Tensor) -> Tensor:
    """An axial slice of an abdomen: fat, muscle wall, liver, spleen, kidneys, vertebra, vessels, bowel."""
    parts = [
        (0, 0, 0.66, 0.9, 1.0), (0, 0, 0.57, 0.8, 0.3), (0, 0, 0.5, 0.74, 0.85), (-0.08, -0.36, 0.36, 0.34, 0.5),
        (0.02, 0.52, 0.24, 0.16, 0.65), (0.2, -0.34, 0.14, 0.1, 0.75), (0.2, 0.3, 0.14, 0.1, 0.75),
        (0.3, 0, 0.16, 0.16, 0.45), (0.46, 0, 0.07, 0.06, 0.9), (0.1, 0.07, 0.05, 0.05, 0.05),
        (0.1, -0.08, 0.05, 0.06, 0.05),
        *[(-0.25 + 0.1 * (n % 2), 0.08 + 0.12 * n, 0.09, 0.07, 0.25 + 0.15 * n) for n in range(4)],
    ]  # fmt: skip
    return ellipses(image, parts, 0.1)


def discs(image: Tensor) -> Tensor:
    """A bottle: a disc of one value with inserts of other values, without texture."""
    inserts = [(0.35 * math.sin(n * math.pi / 3), 0.35 * math.cos(n * math.pi / 3), n) for n in range(6)]
    sizes = [(row, col, 0.04 + 0.02 * n, 0.04 + 0.02 * n, 0.2 * n) for row, col, n in inserts]
    return ellipses(image, [(0, 0, 0.6, 0.6, 0.6), *sizes], 0.0)


def moved(kspace: Tensor, image: Tensor, profiles: Tensor) -> Tensor:
    """Lines beyond a twelfth of the width right of the centre come after a turn by 5 degrees and a shift."""
    rows, cols = image.shape
    later = fft(profiles * turned(image, 5.0).roll(max(1, rows // 40), -2))
    place = torch.arange(cols) - cols // 2
    return torch.where(place > cols // 12, later, kspace)


def folded(kspace: Tensor, image: Tensor, profiles: Tensor) -> Tensor:
    """An object 1.5 times as large along the lines' axis as its field of view, with its coils, folded over."""
    rows, cols = image.shape
    wide = image.new_zeros(rows, 2 * cols)
    wide[:, cols // 2 : cols // 2 + cols] = image
    parts = torch.view_as_real(wide * _stretched(profiles, cols))
    sheet = torch.tensor([[[1 / 1.5, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    coils = parts.movedim(-1, 1)
    grid = affine_grid(sheet.expand(len(coils), -1, -1), list(coils.shape), align_corners=False)
    large = grid_sample(coils, grid, mode="bicubic", align_corners=False).movedim(1, -1).contiguous()
    coil_images = torch.view_as_complex(large)
    middle = coil_images[..., cols // 2 : cols // 2 + cols]
    left, right = coil_images[..., : cols // 2], coil_images[..., cols // 2 + cols :]
    return fft(middle + torch.cat([right, left], -1)[..., :cols])


def _stretched(profiles: Tensor, cols: int) -> Tensor:
    """Profiles on twice the width: those inside, and their edges repeated."""
    before, after = cols // 2, cols - cols // 2
    return torch.cat([profiles[..., :1].expand(-1, -1, before), profiles, profiles[..., -1:].expand(-1, -1, after)], -1)


@dataclass(frozen=True)
class Condition:
    """One change of a scan that otherwise is similar to the training images."""

    group: str
    image: Callable[[Tensor], Tensor] | None = None
    """Change of the magnitude (H, W)."""
    kspace: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    """Another k-space from (C, H, W), magnitude and coil profiles."""
    coils: int | None = None
    """Number of virtual coils."""
    noise: float = 1.0
    """Factor of the noise of the scan."""
    told: float = 1.0
    """Given noise level, as a multiple of the true one; by default it is measured."""
    maps: Callable[[Tensor], Tensor] | None = None
    """Change of the maps (1, C, H, W) from the calibration lines."""
    scale: float = 1.0
    """Factor of the image scale."""


CONDITIONS = {
    "turned by 45 degrees": Condition(UNUSUAL, turned),
    "a quarter of the resolution": Condition(UNUSUAL, quarter),
    "2 coils": Condition(UNUSUAL, coils=2),
    "noise 4 times stronger": Condition(UNUSUAL, noise=4.0),
    "knee, simulated": Condition(FOREIGN, knee),
    "abdomen, simulated": Condition(FOREIGN, abdomen),
    "discs, no head": Condition(FOREIGN, discs),
    "contrast inverted": Condition(FOREIGN, negative),
    "object half as large": Condition(FOREIGN, lambda image: turned(image, 0.0, 0.5)),
    "object twice as large": Condition(FOREIGN, lambda image: turned(image, 0.0, 2.0)),
    "fold-over": Condition(FOREIGN, kspace=folded),
    "motion": Condition(FOREIGN, kspace=moved),
    "coil maps shifted by 1/12": Condition(FOREIGN, maps=lambda maps: maps.roll(maps.shape[-1] // 12, -1)),
    "coil maps of other coils": Condition(FOREIGN, maps=lambda maps: maps.roll(1, 1)),
    "image scale half": Condition(FOREIGN, scale=0.5),
    "image scale double": Condition(FOREIGN, scale=2.0),
    "noise told as half": Condition(FOREIGN, told=0.5),
    "noise told as double": Condition(FOREIGN, told=2.0),
}
"""Changes: unusual ones, whose images the prior still improves, and foreign ones, of which a user should be warned."""


def simulated(
    image: Tensor, template: ScanTemplate, condition: Condition, acceleration: float, name: str
) -> Acquisition:
    """The scaled samples of a magnitude (H, W) with one thing changed."""
    profiles = fit(template, image[None])
    image = image if condition.image is None else condition.image(image)
    image = image / percentile(image)
    noise_std = condition.noise * template.noise_std
    kspace = fft(profiles * image)
    kspace = (kspace if condition.kspace is None else condition.kspace(kspace, image, profiles))[None]
    kspace = kspace + noise_std * noise_like(kspace, generators(0, name))
    mask = make_mask("variable-density", (image.shape[-2], image.shape[-1]), acceleration, seed=(0,))[None, None]
    if condition.coils is not None:
        kspace, _ = compress_coils(kspace * mask, condition.coils)
    told = None if condition.told == 1 else condition.told * noise_std
    maps = None if condition.maps is None else condition.maps(coil_maps(kspace * mask, mask)[0])
    scan = from_arrays(kspace, mask, maps, told, name)
    factor = condition.scale
    return replace(scan, kspace=scan.kspace * factor, noise_std=scan.noise_std * factor, scale=scan.scale / factor)


# Images by patient and matrix.


class Heads:
    """The slices of stacks by patient."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.files = [h5py.File(path) for path in paths]
        self.places: dict[str, list[tuple[int, int]]] = {}
        for number, file in enumerate(self.files):
            for index, patient in enumerate(file["patient"].asstr()[()]):
                self.places.setdefault(str(patient), []).append((number, index))

    def image(self, patient: str, matrix: int, turn: int) -> tuple[str, Tensor] | None:
        """A slice near the middle of a patient and its name, on a matrix whose longer side is `matrix`, if it has one.

        turn: which of the patient's volumes. Slices of a smaller matrix are left out: they hold no such resolution.
        """
        sets: dict[tuple[int, str], list[tuple[int, int]]] = {}
        for file, index in self.places[patient]:
            if max(self.files[file]["image"].shape[1:]) >= matrix:
                sets.setdefault((file, str(self.files[file]["contrast"].asstr()[index])), []).append((file, index))
        if not sets:
            return None
        chosen = list(sets.values())[turn % len(sets)]
        file, index = chosen[len(chosen) // 2]
        image = torch.from_numpy(self.files[file]["image"][index].astype(np.float32))
        factor = matrix / max(image.shape)
        rows, cols = (2 * round(side * factor / 2) for side in image.shape)
        return f"{patient} {Path(self.files[file].filename).stem} {index}", decimated(image, (rows, cols))


@dataclass(frozen=True)
class Case:
    """One case: what it is, and what makes its scan."""

    group: str
    title: str
    matrix: int
    acceleration: float
    name: str
    make: Callable[[], Acquisition]

    @property
    def key(self) -> list[Any]:
        return [self.group, self.title, self.matrix, self.acceleration, self.name]


def cases(
    heads: Heads, unseen: Sequence[str], templates: Sequence[ScanTemplate], matrices: Sequence[int],
    changed: Sequence[int], factors: Sequence[float], rounds: int,
) -> Iterator[Case]:  # fmt: skip
    """All cases of images, round by round; every second round has the changed scans, on the matrices in turn."""
    groups = {UNSEEN: [one for one in heads.places if one in unseen]}
    groups[TRAINED] = _mixed(heads, [one for one in heads.places if one not in unseen])
    for turn in range(rounds):
        template = templates[turn % len(templates)]
        for group, patients in groups.items():
            for number, matrix in enumerate(matrices):
                found = _find(heads, patients, matrix, turn * len(matrices) + number)
                if found is not None:
                    for factor in factors:
                        yield _case(group, "ordinary head", *found, template, Condition(group), factor)
        if turn % 2 == 0 and unseen:
            matrix = changed[(turn // 2) % len(changed)]
            found = _find(heads, groups[UNSEEN], matrix, turn // 2)
            for title, condition in CONDITIONS.items() if found is not None else ():
                for factor in factors:
                    yield _case(
                        condition.group, title, *found, templates[(turn // 2) % len(templates)], condition, factor
                    )


def _mixed(heads: Heads, patients: Sequence[str]) -> list[str]:
    """The patients, stacks by turns; those of a stack in an order that goes over all of it early."""
    stacks: dict[int, list[str]] = {}
    for one in patients:
        stacks.setdefault(heads.places[one][0][0], []).append(one)
    orders = []
    for members in stacks.values():
        step = max(1, round(len(members) * 0.382))
        while math.gcd(step, len(members)) > 1:
            step += 1
        orders.append([members[number * step % len(members)] for number in range(len(members))])
    return [one for turn in zip_longest(*orders) for one in turn if one is not None]


def _find(heads: Heads, patients: Sequence[str], matrix: int, turn: int) -> tuple[str, Tensor] | None:
    """The slice of the first patient from number `turn` on that has this matrix."""
    for number in range(len(patients)):
        found = heads.image(patients[(turn + number) % len(patients)], matrix, turn)
        if found is not None:
            return found
    return None


def _case(
    group: str, title: str, name: str, image: Tensor, template: ScanTemplate, condition: Condition, factor: float
) -> Case:
    label = f"{name} {template.name}"

    def make() -> Acquisition:
        return simulated(image, template, condition, factor, label)

    return Case(group, title, max(image.shape), factor, label, make)


def real_cases(paths: Sequence[Path], group: str, factors: Sequence[float], slices: int = 1) -> Iterator[Case]:
    """Slices of scans as they are: the middle one, or `slices` evenly spaced ones."""
    for path in paths:
        file = FastMRI(path)
        middle = Scan(file, Undersampling(factors[0], seed=0)).middle
        count = min(slices, file.slices)
        numbers = [middle] if slices == 1 else np.linspace(0, file.slices - 1, count).round().astype(int).tolist()
        for factor in factors:
            for number in numbers:

                def make(file: FastMRI = file, factor: float = factor, number: int = number) -> Acquisition:
                    return Scan(file, Undersampling(factor, seed=0)).acquisition(number)

                label = file.name if slices == 1 else f"{file.name} slice {number}"
                yield Case(group, file.name, max(file.image_shape), factor, label, make)


def measure(case: Case, prior: ScoreModel) -> dict[str, Any]:
    """The row of a case: its score, and whether the noise level was warned of; or the reason why there is none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = {"score": score(case.make(), prior)}
        except InputError as error:  # such as too few lines for this acceleration
            found = {"refused": str(error)}
    noise = any("noise_std is given" in str(one.message) for one in caught)
    return {"case": case.key, "noise_warning": noise, **found}


# The threshold.

MATRIX = 256
"""Matrix of the thresholds in a prior's record."""
QUANTILE = 1.645
"""Standard deviations above the mean of the logarithm, below which 95 % of normal values lie."""


def threshold_law(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], dict[str, float]]:
    """Thresholds for each R, and matrix and power of the law score ~ (matrix)^-power, fitted to ordinary heads.

    One power for all R; the threshold is what 95 % of log-normal scores about the law stay below. Without heads of
    several sizes the power is 0. Errors: InputError for fewer than two scores at an acceleration.
    """
    ordinary = [row for row in rows if row["case"][0] in (UNSEEN, TRAINED, REAL)]
    parts = {}
    for factor in sorted({row["case"][3] for row in ordinary}):
        chosen = [row for row in ordinary if row["case"][3] == factor]
        if len(chosen) < 2:
            raise InputError(f"one score at R = {factor:g} gives no threshold; measure more scans or more --slices")
        parts[factor] = np.array([[math.log(row["case"][2] / MATRIX), math.log(row["score"])] for row in chosen]).T
    sizes = {row["case"][2] for row in ordinary}
    power = -float(np.mean([np.polyfit(x, y, 1)[0] for x, y in parts.values()])) if len(sizes) > 1 else 0.0
    thresholds = {}
    for factor, (x, y) in parts.items():
        levels = y + power * x
        thresholds[f"{factor:g}"] = round(float(np.exp(levels.mean() + QUANTILE * levels.std(ddof=1))), 3)
    return thresholds, {"matrix": MATRIX, "power": round(max(power, 0.0), 3)}


def judged_apart(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """For each ordinary head whether it is warned of by a law that was fitted without its patient or scan."""
    found = []
    for row in rows:
        if row["case"][0] not in (UNSEEN, TRAINED, REAL):
            continue
        patient = _patient(row)
        thresholds, law = threshold_law([one for one in rows if _patient(one) != patient])
        limit = threshold_at(row["case"][3], thresholds, row["case"][2], law)
        found.append(limit is not None and row["score"] > limit)
    return found


def _patient(row: Mapping[str, Any]) -> str:
    """The patient, or the scan, of a row."""
    return str(row["case"][4]).split(" openms")[0].split(" heads")[0].split(" slice ")[0]


# Tables.


def tables(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> tuple[str, str]:
    """The full table, and the short one: how many cases of each kind are warned of. about: of the prior's record."""
    scored = [row for row in rows if "score" in row]
    full = [
        "| scans | matrix | R | cases | median | lowest | largest | warned |", "|---" * 8 + "|",
        *_lines(scored, about),
    ]  # fmt: skip
    factors = sorted({row["case"][3] for row in scored})
    short = [
        "| warned of | " + " | ".join(f"R = {factor:g}" for factor in factors) + " |",
        "|---" * (1 + len(factors)) + "|",
    ]
    titles = {
        f"ordinary heads, {UNSEEN}": lambda case: case[0] == UNSEEN,
        f"ordinary heads, {TRAINED}": lambda case: case[0] == TRAINED,
        "real heads": lambda case: case[0] == REAL,
        "unusual scans that come out well": lambda case: case[0] == UNUSUAL,
        **{title: (lambda case, title=title: case[:2] == [FOREIGN, title]) for title in _foreign(scored)},
        "all foreign": lambda case: case[0] == FOREIGN,
    }
    for title, belongs in titles.items():
        cells = []
        for factor in factors:
            chosen = [row for row in scored if row["case"][3] == factor and belongs(row["case"])]
            cells.append(_warned(chosen, about))
        short.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(full), "\n".join(short)


def _foreign(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found = list(dict.fromkeys(row["case"][1] for row in rows if row["case"][0] == FOREIGN))
    return [*(title for title in CONDITIONS if title in found), *(title for title in found if title not in CONDITIONS)]


def _name(group: str, title: str) -> str:
    return f"{title}, {group}" if group in (UNSEEN, TRAINED) else title


def _lines(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> Iterator[str]:
    order = [UNSEEN, TRAINED, REAL, UNUSUAL, FOREIGN]
    cells: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in sorted(
        rows, key=lambda row: (order.index(row["case"][0]), row["case"][0] in order[:2] and row["case"][2])
    ):
        group, title, matrix, factor, _ = row["case"]
        cells.setdefault((_name(group, title), matrix, factor), []).append(row)
    for (title, matrix, factor), chosen in cells.items():
        scores = [row["score"] for row in chosen]
        yield (
            f"| {title} | {matrix} | {factor:g} | {len(scores)} | {np.median(scores):.2f} | {min(scores):.2f} |"
            f" {max(scores):.2f} | {_warned(chosen, about)} |"
        )


def _warned(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    """How many of the cases are warned of by the score, and by the noise level where that warns of more."""
    if not rows:
        return "–"
    thresholds, basis = about.get("ood_thresholds"), about.get("ood_basis")
    limits = [threshold_at(row["case"][3], thresholds, row["case"][2], basis) or math.inf for row in rows]
    above = [row["score"] > limit for row, limit in zip(rows, limits, strict=True)]
    noise = sum(row["noise_warning"] for row in rows)
    text = f"{sum(above)} of {len(rows)}"
    return f"{text} (noise level: {noise})" if noise else text


FILES = click.Path(exists=True, path_type=Path)
"""A click type: an existing file."""


def _read(state: Path) -> Iterator[dict[str, Any]]:
    """The rows of a state file; a last line that was cut off is skipped."""
    for line in state.read_text(encoding="utf-8").splitlines() if state.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _numbers(context: click.Context, option: click.Parameter, text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


@click.command()
@click.option("--prior", "name", default="brain", show_default=True)
@click.option("--images", multiple=True, type=FILES, help="HDF5 stacks with labels patient, contrast.")
@click.option("--unseen", default="", help="Patients that the prior was not trained on, with commas.")
@click.option("--like", "likes", multiple=True, type=FILES, help="Scans whose phase and maps are used.")
@click.option("--head", multiple=True, type=FILES, help="Fully sampled scans of heads, as they are.")
@click.option("--foreign", multiple=True, type=FILES, help="Fully sampled scans of other things, as they are.")
@click.option("--matrices", default="96,128,192,256,320", show_default=True, callback=_numbers)
@click.option("--changed", default="128,192", show_default=True, callback=_numbers, help="Matrices of changed scans.")
@click.option("--accel", multiple=True, type=float, default=(4.0, 8.0), show_default=True)
@click.option("--slices", type=click.IntRange(1), default=1, show_default=True, help="Number of slices of each --head.")
@click.option("--rounds", type=click.IntRange(1), default=4, show_default=True)
@click.option("--precision", default="bfloat16", show_default=True, help="Of the prior's network.")
@click.option("--threads", type=int, default=1, show_default=True)
@click.option("--state", required=True, type=click.Path(path_type=Path), help="File of the measured cases.")
@click.option("--no-run", is_flag=True, help="Measure nothing: tables of the cases in --state.")
@click.option("--write", is_flag=True, help="Fit the thresholds to the ordinary heads, and write them into the record.")
@click.option("--page", type=FILES, help="A page that the full table is written into, between its marks.")
@click.option("--summary", type=FILES, help="A page that the short table is written into, between its marks.")
def main(
    name: str, images: tuple[Path, ...], unseen: str, likes: tuple[Path, ...], head: tuple[Path, ...],
    foreign: tuple[Path, ...], matrices: list[int], changed: list[int], accel: tuple[float, ...], slices: int,
    rounds: int, precision: str, threads: int, state: Path, no_run: bool, write: bool, page: Path | None,
    summary: Path | None,
) -> None:  # fmt: skip
    """Measure scores of the default method of fully sampled scans and changed images, and count the warnings."""
    if images and not likes:
        raise click.UsageError("--images needs --like, a scan whose phase and coil maps they are given")
    check(page, "ood")
    check(summary, "ood-short")
    torch.set_num_threads(threads)
    prior = load_prior(name)
    prior.precision = find_precision(precision)
    heads, templates = Heads(images), [scan_template(path) for path in likes]
    wanted = [
        *real_cases(head, REAL, accel, slices),
        *real_cases(foreign, FOREIGN, accel),
        *(cases(heads, unseen.split(","), templates, matrices, changed, accel, rounds) if images else ()),
    ]
    done = {json.dumps(row["case"]): row for row in _read(state)}
    for case in () if no_run else wanted:
        if (key := json.dumps(case.key)) not in done:
            done[key] = measure(case, prior)
            with state.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[key]) + "\n")
            click.echo(json.dumps(done[key]))
    rows = [row for row in done.values() if math.isfinite(row.get("score", math.nan))]
    if not rows:
        raise InputError(
            f"{DEFAULT_METHOD} measured no score: the prior's record needs denoising_errors (train it with validation"
            " images), and the scans need enough lines"
        )
    about = dict(prior.about)
    if write:
        thresholds, law = threshold_law(rows)
        ordinary = [row for row in rows if row["case"][0] in (UNSEEN, TRAINED, REAL)]
        basis = {
            "scans": sorted({_patient(row) for row in ordinary}), "slices": len({row["case"][4] for row in ordinary}),
            "law": Undersampling().law, "method": DEFAULT_METHOD, "draws": 1, "precision": precision,
            "quantile": 0.95, **law,
        }  # fmt: skip
        add_to_record(find_prior(name), ood_thresholds=thresholds, ood_basis=basis)
        about |= {"ood_thresholds": thresholds, "ood_basis": basis}
        click.echo(f"written to the record of {name}: {thresholds}, {law}")
    if len({_patient(row) for row in rows if row["case"][0] in (UNSEEN, TRAINED, REAL)}) > 2:
        apart = judged_apart(rows)
        click.echo(f"ordinary heads above a threshold fitted without their patient: {sum(apart)} of {len(apart)}")
    full, short = tables(rows, about)
    click.echo(f"\n{full}\n\n{short}")
    if page is not None:
        fill(page, ood=full)
    if summary is not None:
        fill(summary, **{"ood-short": short})


if __name__ == "__main__":
    main()
