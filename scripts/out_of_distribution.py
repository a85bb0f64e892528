"""Quality of a prior on out-of-distribution scans, and whether its score detects them.

python scripts/out_of_distribution.py --prior brain --images VAL.h5 --like SCAN.h5 [--like ...] [--real SCAN.h5 ...]

Slices of a stack that the prior was not trained on, with the phase, the coils and the noise of real scans, each changed
in one way; and real scans as they are. Draws are averaged and compared with L1-wavelet, whose weight follows from the
noise level, on the same samples with the same maps. `misfit` is the score behind the warning of `mri-score
reconstruct`; a prior without a threshold never warns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from pages import check, fill
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from mri_score.baselines import l1_wavelet
from mri_score.benchmark.subject import Subject, Subjects
from mri_score.data.acquisition import Acquisition
from mri_score.data.coils import coil_maps, compress_coils
from mri_score.data.masks import make_mask
from mri_score.data.scale import percentile
from mri_score.data.scan import Scan, Undersampling, coil_weight, from_arrays
from mri_score.errors import InputError
from mri_score.evaluation.metrics import foreground, magnitude_psnr
from mri_score.evaluation.out_of_distribution import threshold_at
from mri_score.evaluation.uncertainty import calibration
from mri_score.models.network import NetworkPrior
from mri_score.models.precision import find_precision
from mri_score.numerics.fourier import fft, ifft, resize_kspace
from mri_score.numerics.noise import generators, noise_like
from mri_score.priors.store import load_prior
from mri_score.readers.fastmri import FastMRI
from mri_score.reconstruction import Reconstruction, sample_posterior
from mri_score.simulation.from_images import HEAD, ScanTemplate, fit, scan_template
from mri_score.sources.magnitude_images import ImageStacks


@dataclass(frozen=True)
class Condition:
    """One change of a scan that otherwise is similar to the training images."""

    image: Callable[[Tensor], Tensor] | None = None
    """Change of the magnitude (H, W)."""
    coils: int | None = None
    """Number of virtual coils."""
    noise: float = 1.0
    """Factor of the noise of the scan."""
    told: float = 1.0
    """Given noise level, as a multiple of the true one; by default it is measured."""
    maps: Callable[[Tensor], Tensor] | None = None
    """Change of the maps (1, C, H, W) from the calibration lines."""


def turned(image: Tensor, degrees: float = 45.0, size: float = 1.0) -> Tensor:
    """(H, W), cropped or padded about its centre, with its object `size` times as large."""
    rows, cols = image.shape
    c, s = math.cos(math.radians(degrees)) / size, math.sin(math.radians(degrees)) / size
    matrix = torch.tensor([[[c, -s * rows / cols, 0.0], [s * cols / rows, c, 0.0]]])
    grid = affine_grid(matrix, [1, 1, *image.shape], align_corners=False)
    return grid_sample(image[None, None], grid, mode="bicubic", align_corners=False)[0, 0].clamp_min(0)


def negative(image: Tensor) -> Tensor:
    """Inverted brightness within the object."""
    brightest = percentile(image)
    return torch.where(image > HEAD * brightest, (1.1 * brightest - image).clamp_min(0), image)


def quarter(image: Tensor) -> Tensor:
    """k-space cropped to a quarter along both axes."""
    rows, cols = image.shape
    return ifft(resize_kspace(resize_kspace(fft(image.to(torch.cfloat)), (rows // 4, cols // 4)), (rows, cols))).abs()


def disc(image: Tensor) -> Tensor:
    """A bottle: a disc of one value with a few inserts of other values."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in image.shape), indexing="ij")
    picture = 0.6 * (y**2 + x**2 < 0.6**2)
    for number in range(6):
        angle = math.pi * number / 3
        inside = (y - 0.35 * math.sin(angle)) ** 2 + (x - 0.35 * math.cos(angle)) ** 2 < (0.04 + 0.02 * number) ** 2
        picture = torch.where(inside, 0.2 * number, picture)
    return picture * percentile(image)


def shifted(maps: Tensor) -> Tensor:
    """Shift by a twelfth of the field of view: the patient moved after a separate calibration scan."""
    return maps.roll(maps.shape[-1] // 12, -1)


CONDITIONS = {
    "none": Condition(),
    "turned by 45 degrees": Condition(image=turned),
    "object half as large": Condition(image=lambda image: turned(image, 0.0, 0.5)),
    "object twice as large": Condition(image=lambda image: turned(image, 0.0, 2.0)),
    "a quarter of the resolution": Condition(image=quarter),
    "contrast turned over": Condition(image=negative),
    "discs, no head": Condition(image=disc),
    "2 coils": Condition(coils=2),
    "1 coil": Condition(coils=1),
    "noise 4 times stronger": Condition(noise=4.0),
    "noise level told as half": Condition(told=0.5),
    "noise level told as double": Condition(told=2.0),
    "coil maps shifted": Condition(maps=shifted),
}


class Score(NamedTuple):
    """PSNR (dB) of two methods, spread over skill of the draws' magnitude, and the misfit ratio."""

    prior: float
    wavelet: float
    spread: float
    misfit: float


def simulated(
    magnitude: Tensor, template: ScanTemplate, condition: Condition, acceleration: float, name: str
) -> tuple[Acquisition, Tensor]:
    """The scaled samples of a magnitude (H, W), and the truth (H, W)."""
    profiles = fit(template, magnitude[None])
    image = magnitude if condition.image is None else condition.image(magnitude)
    image = image / percentile(image)
    noise_std = condition.noise * template.noise_std
    kspace = fft(profiles * image)[None]
    kspace = kspace + noise_std * noise_like(kspace, generators(0, name))
    mask = make_mask("variable-density", (image.shape[-2], image.shape[-1]), acceleration, seed=(0,))[None, None]
    truth = image
    if condition.coils is not None:
        kspace, matrix = compress_coils(kspace * mask, condition.coils)
        mixed = torch.einsum("kc,chw->khw", matrix, profiles)
        truth = image * mixed.abs().square().sum(0).sqrt()  # the truth as combined from so few coils
    told = None if condition.told == 1 else condition.told * noise_std
    maps = None if condition.maps is None else condition.maps(coil_maps(kspace * mask, mask)[0])
    return from_arrays(kspace, mask, maps, told, name), truth


def score(scan: Acquisition, truth: Tensor, prior: NetworkPrior, samples: int) -> Score:
    """Scores of the magnitude within the foreground of the truth (H, W)."""
    kspace, maps, mask, noise_std = scan.cartesian
    weight, magnitude = coil_weight(scan)[0], truth.abs()[None]
    found = sample_posterior(scan, prior, samples=samples, slices=[0])
    wavelet = scan.scale * l1_wavelet(kspace[0], maps[0], mask[0], float(noise_std))
    prior_psnr, wavelet_psnr = (magnitude_psnr(truth, one * weight) for one in (found.image[0], wavelet))
    spread = calibration((found.samples * weight).abs(), magnitude, foreground(magnitude)).spread_skill
    return Score(prior_psnr, wavelet_psnr, spread, misfit_of(found))


def real_score(subject: Subject, prior: NetworkPrior, samples: int) -> Score:
    """The same scores for a real scan, computed as in `mri-score compare`."""
    found = sample_posterior(subject.acquisition, prior, samples=samples, slices=[subject.scan.middle])
    images = found.image[0], subject.scale * l1_wavelet(*subject.problem)
    prior_psnr, wavelet_psnr = (subject.scores(one)["mvue_foreground_psnr"] for one in images)
    spread = subject.calibration(found.samples[:, 0])["spread_skill"]
    return Score(prior_psnr, wavelet_psnr, spread, misfit_of(found))


def misfit_of(found: Reconstruction) -> float:
    return math.nan if found.misfit_ratios is None else float(found.misfit_ratios.nanmean())


def row(name: str, scores: Sequence[Score], threshold: float | None) -> str:
    mean = Score(*(float(np.mean(values)) for values in zip(*scores, strict=True)))
    gains = [one.prior - one.wavelet for one in scores]
    warned = "" if threshold is None else f"{sum(one.misfit > threshold for one in scores)} of {len(scores)}"
    return (
        f"| {name} | {mean.prior:.2f} | {mean.wavelet:.2f} | {np.mean(gains):+.2f} | {min(gains):+.2f} |"
        f" {mean.spread:.2f} | {mean.misfit:.2f} | {warned} |"
    )


FILES = click.Path(exists=True, path_type=Path)
"""A click type: an existing file."""


@click.command()
@click.option("--prior", "name", default="brain", show_default=True)
@click.option("--images", required=True, type=FILES, help="A stack of magnitude images.")
@click.option("--like", "likes", multiple=True, required=True, type=FILES, help="Scans whose phase and maps are used.")
@click.option("--real", multiple=True, type=FILES, help="Fully sampled scans, tried as they are.")
@click.option("--slices", type=int, default=4, show_default=True, help="Of the stack, contrasts by turns.")
@click.option("--samples", type=int, default=4, show_default=True)
@click.option("--accel", multiple=True, type=float, default=(4.0, 8.0), show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(CONDITIONS)), help="Changes.  [default: all of them]")
@click.option("--precision", default="auto", show_default=True, help="Of the prior's network.")
@click.option("--threads", type=int, default=1, show_default=True)
@click.option("--page", type=FILES, help="A page that the table is written into, between its marks.")
def main(
    name: str, images: Path, likes: tuple[Path, ...], real: tuple[Path, ...], slices: int, samples: int,
    accel: tuple[float, ...], only: tuple[str, ...], precision: str, threads: int, page: Path | None,
) -> None:  # fmt: skip
    if only and page is not None:
        raise click.UsageError("--page takes the whole table: leave --only out")
    check(page, "ood")
    torch.set_num_threads(threads)
    prior = load_prior(name)
    thresholds = prior.about.get("ood_thresholds")
    prior.precision = find_precision(precision)
    templates, stacks = [scan_template(path) for path in likes], ImageStacks([images], augment=False)
    chosen = stacks.spread(slices, 0.4, 0.6)
    head = "| changed | R | prior | L1-wavelet | gain | lowest gain | spread / skill | misfit | warned |"
    lines = [head, "|---" * 9 + "|"]

    def add(title: str, factor: float, scores: Sequence[Score]) -> None:
        lines.append(row(f"{title} | {factor:g}", scores, threshold_at(factor, thresholds)))
        click.echo(lines[-1])

    for title in only or CONDITIONS:
        condition = CONDITIONS[title]
        for factor in accel:
            pairs = [(number, template) for number in chosen for template in templates]
            cases = [(stacks.image(number).abs(), template, f"{number} {template.name}") for number, template in pairs]
            problems = [simulated(image, template, condition, factor, label) for image, template, label in cases]
            add(title, factor, [score(scan, truth, prior, samples) for scan, truth in problems])
    for path in real:
        file = FastMRI(path)
        for factor in accel:
            try:
                subject = Subjects(file).find(Scan(file).middle, Undersampling(factor, seed=0))
            except InputError as error:  # such as too few lines for this acceleration
                click.echo(f"left out: {file.name}, R = {factor:g}: {error}")
                continue
            add(file.name, factor, [real_score(subject, prior, samples)])
    text = "\n".join(lines)
    click.echo(text)
    if page is not None:
        fill(page, ood=text)


if __name__ == "__main__":
    main()
