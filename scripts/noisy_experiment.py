"""How near priors from noisy or undersampled scans come to those from clean images, in one protocol.

python scripts/noisy_experiment.py --train TRAIN.h5 --validate VAL.h5 [--scan SCAN.h5 ...] --out results/noisy

Every run is (SNR, method, seed): the same network, steps, scans and random numbers, another loss or other images. A run
that was killed goes on; one that is in results.jsonl is not made again; several processes may share the folder, each
with runs of its own (--methods, --snr, --seeds). --quick shows in a minute that all of it works, and nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from skimage.restoration import denoise_nl_means
from torch import Generator, Tensor

from mri_score.baselines import l1_wavelet
from mri_score.data.acquisition import Acquisition
from mri_score.data.fastmri import FastMRI
from mri_score.data.images import ImageStacks, read_stack
from mri_score.data.masks import make_mask
from mri_score.data.phantom import noise_level
from mri_score.data.scan import Sampling, Scan, scaled
from mri_score.data.transforms import SCALES, global_phase, log_between, percentile, smooth_phase
from mri_score.data.undersampled import random_maps
from mri_score.errors import InputError
from mri_score.evaluation.metrics import foreground, psnr
from mri_score.evaluation.statistics import mean_interval
from mri_score.files import whole_file, write_text
from mri_score.losses import LOSSES
from mri_score.numerics.fourier import fft, ifft, resize_kspace
from mri_score.numerics.noise import generators, key, noise_like
from mri_score.operators.sense import Sense
from mri_score.priors.store import build_prior, load_prior, save_prior
from mri_score.reconstruction import find_device, sample_posterior
from mri_score.schedules import LogNormal
from mri_score.score import ScoreModel
from mri_score.subject import Subject
from mri_score.training.loop import train

LAW, CALIBRATION = "fastmri-random", 10
"""Of training masks: lines drawn independently, for which the losses' weights are exact."""
LEVELS = (0.03, 0.06, 0.12, 0.25, 0.5)
"""At which priors denoise validation images."""
LEAST, LARGEST = 0.01, 5.0
"""Levels of training; priors that know of the noise start at it, and their walks end there."""


@dataclass(frozen=True)
class Method:
    """What a run learns from, and by which loss."""

    images: str | None
    """A row of IMAGES; None: samples."""
    loss: str = "denoising"
    options: dict[str, Any] = field(default_factory=dict)
    undersampled: bool = False

    @property
    def knows_noise(self) -> bool:
        return self.loss not in ("denoising", "ambient")


MASKS = {"law": LAW, "calibration_lines": CALIBRATION}
METHODS = {
    "clean": Method("clean"),
    "naive": Method("noisy"),
    "denoise-first": Method("non-local means"),
    "sure": Method("noisy", "sure"),
    "sure_score": Method("noisy", "sure_score"),
    "sure_score-published": Method("noisy", "sure_score", {"published": True}),
    "noisy_score": Method("noisy", "noisy_score"),
    "zero-filled": Method("zero-filled", undersampled=True),
    "l1-wavelet": Method("l1-wavelet", undersampled=True),
    "ambient": Method(None, "ambient", {"keep": 0.8, "centre": 8}, True),
    "gsure": Method(None, "gsure", MASKS, True),
    "splitting": Method(None, "splitting", {"centre": 8, "score_weight": 1.0, **MASKS}, True),
}


@dataclass(frozen=True)
class Settings:
    """One protocol; the numbers that a GPU would raise."""

    size: int = 128
    scans: int = 200
    patients: int | None = None
    coils: int = 8
    acceleration: float = 4.0
    widths: tuple[int, ...] = (32, 64, 128)
    steps: int = 4000
    batch_size: int = 8
    learning_rate: float = 1e-3
    walk_steps: int = 30
    samples: int = 4
    validation: int = 12
    scan_snr: float = 32.0
    noise_error: float = 1.0
    device: str = "auto"


QUICK = {"size": 96, "scans": 3, "widths": (8, 12), "steps": 2, "batch_size": 2, "walk_steps": 2, "samples": 1}


class TrainingScans:
    """Simulated multi-coil scans of training images at one SNR: each has one noise and one mask, for good."""

    def __init__(self, paths: Sequence[Path], snr: float, settings: Settings, cache: Path) -> None:
        self.settings, self.cache, self.noise_std = settings, cache, noise_level(snr)
        self.told = self.noise_std * settings.noise_error
        self.stacks = ImageStacks(paths, exclude=_other_patients(paths, settings.patients))

    @cached_property
    def clean(self) -> Tensor:
        """(N, H, W) complex: lower resolution of the whole field of view, the 99th percentile at 1."""
        count = self.settings.scans
        return torch.cat([small(self.stacks.sample(one).image, self.settings.size) for one in streams("image", count)])

    @cached_property
    def noisy(self) -> Tensor:
        """(N, H, W): the coils combined."""
        return torch.cat([self._combined(self.scan(number, None)) for number in range(len(self.clean))])

    @property
    def sd(self) -> float:
        """Of the noisy images without the energy of their noise."""
        return float((self.noisy.abs().square().mean() / 2 - self.noise_std**2).sqrt())

    def scan(self, number: int, acceleration: float | None) -> Acquisition:
        """Its samples, full or under its mask."""
        random = generators(0, "scan", draws=[number])[0]
        image, shape = self.clean[number : number + 1], (self.settings.size, self.settings.size)
        maps = random_maps(shape, self.settings.coils, random)
        mask = torch.ones(1, 1, 1, shape[1], dtype=torch.bool)
        if acceleration is not None:
            seed = key("mask", number)
            mask = make_mask(LAW, shape, acceleration, CALIBRATION, (seed % 2**31,))[None, None]
        noise = self.noise_std * noise_like(maps, [random])
        kspace = mask * (fft(maps * image[:, None]) + noise)
        return Acquisition(f"training {number}", kspace, maps, mask, torch.tensor([self.told]))

    def images(self, kind: str) -> Tensor:
        """(N, H, W) by a row of IMAGES, kept in the cache."""
        file = self.cache / f"{kind.replace(' ', '-')}-{key(self.noise_std, self.told, self.settings):x}.npy"
        if file.exists():
            return torch.from_numpy(np.load(file))
        images = torch.stack([IMAGES[kind](self, number) for number in range(len(self.clean))])
        with whole_file(file) as part, open(part, "wb") as opened:
            np.save(opened, images.numpy())
        return images

    def zero_filled(self, number: int) -> Tensor:
        return self._combined(self.scan(number, self.settings.acceleration))[0]

    def wavelet(self, number: int) -> Tensor:
        scan = self.scan(number, self.settings.acceleration)
        assert scan.kspace is not None and scan.maps is not None and scan.mask is not None
        return l1_wavelet(scan.kspace[0], scan.maps[0], scan.mask[0], self.told)

    def non_local_means(self, number: int) -> Tensor:
        parts = torch.view_as_real(self.noisy[number]).numpy()
        denoised = denoise_nl_means(
            parts, patch_size=5, patch_distance=6, h=0.8 * self.told, sigma=self.told, fast_mode=True, channel_axis=-1
        )
        return torch.view_as_complex(torch.from_numpy(denoised.astype(np.float32)).contiguous())

    @staticmethod
    def _combined(scan: Acquisition) -> Tensor:
        assert scan.kspace is not None and scan.maps is not None and scan.mask is not None
        return Sense(scan.maps, scan.mask).adjoint(scan.kspace)


IMAGES: dict[str, Callable[[TrainingScans, int], Tensor]] = {
    "clean": lambda data, number: data.clean[number],
    "noisy": lambda data, number: data.noisy[number],
    "non-local means": TrainingScans.non_local_means,
    "zero-filled": TrainingScans.zero_filled,
    "l1-wavelet": TrainingScans.wavelet,
}


class Items:
    """The training items of a method: images with the noise level that the method is told, or samples."""

    def __init__(self, data: TrainingScans, method: Method) -> None:
        self.data, self.method = data, method
        self.images = None if method.images is None else data.images(method.images)

    def __len__(self) -> int:
        return len(self.data.clean)

    def sample(self, random: Generator) -> Acquisition:
        """Flipped along the rows or not, with any phase, at a scale of its own: what samples allow as images do."""
        number = int(torch.randint(len(self), (), generator=random))
        flip, gain = float(torch.rand((), generator=random)) < 0.5, log_between(*SCALES, random)
        noise_std = gain * torch.tensor([self.data.told])
        if self.images is not None:
            image = self.images[number : number + 1]
            image = global_phase(gain * (image.flip(-2) if flip else image), random)
            return Acquisition(f"training {number}", image=image, noise_std=noise_std)
        scan = self.data.scan(number, self.data.settings.acceleration)
        assert scan.kspace is not None and scan.maps is not None
        kspace, maps = scan.kspace, scan.maps
        if flip:
            kspace, maps = fft(ifft(kspace, axes=(-2,)).flip(-2), axes=(-2,)), maps.flip(-2)
        return Acquisition(scan.name, global_phase(gain * kspace, random), maps, scan.mask, noise_std)


def small(image: Tensor | None, size: int) -> Tensor:
    """(1, size, size) of lower resolution over the same field of view, the 99th percentile at 1."""
    assert image is not None
    low = ifft(resize_kspace(fft(image), (size, size)))
    return low / percentile(low)[:, None, None]


def streams(name: str, count: int) -> list[Generator]:
    return generators(0, name, draws=count)


def _other_patients(paths: Sequence[Path], wanted: int | None) -> dict[str, list[str]] | None:
    """All patients of the stacks but the first `wanted`."""
    if wanted is None:
        return None
    patients = sorted({str(one) for path in paths for one in read_stack(path)[1].get("patient", [])})
    if len(patients) < wanted:
        raise InputError(f"--patients {wanted}: the stacks name {len(patients)} patients")
    return {"patient": patients[wanted:]} if patients[wanted:] else None


# ---- One run.


def train_one(data: TrainingScans, method: Method, seed: int, folder: Path) -> None:
    """Train, or go on, until folder/prior.safetensors is that of the last step."""
    settings = data.settings
    least = max(LEAST, data.told) if method.knows_noise else LEAST
    schedule = LogNormal(least, LARGEST, centre=0.2, spread=1.5)
    options = dict(method.options)
    if "law" in options:
        options["acceleration"] = settings.acceleration
    if method.loss == "sure_score":
        options["rise"] = max(1, settings.steps // 10)
    extra = 0 if method.images is not None else 1
    network = {"name": "unet", "widths": list(settings.widths), "extra_channels": extra}
    torch.manual_seed(seed)
    prior = build_prior(network, sd=data.sd, sigma_min=least, sigma_max=LARGEST)
    train(
        prior,
        LOSSES[method.loss](schedule, **options),
        Items(data, method),
        folder,
        lambda averaged, about: save_prior(folder / "prior.safetensors", averaged, network, about),
        steps=settings.steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        workers=0,
        seed=seed,
        device=find_device(settings.device),
        save_every=max(1, settings.steps // 8),
    )


# ---- What a prior is worth.


def validation_images(paths: Sequence[Path], settings: Settings) -> Tensor:
    """(N, H, W) complex, evenly spaced over the stacks, with smooth phases."""
    stacks = ImageStacks(paths, augment=False)
    numbers = np.linspace(0, len(stacks) - 1, min(settings.validation, len(stacks))).round().astype(int)
    random = streams("validation", len(numbers))
    phased = [smooth_phase(stacks.image(int(i)).abs(), one)[None] for i, one in zip(numbers, random, strict=True)]
    return torch.cat([small(image, settings.size) for image in phased])


@torch.no_grad()
def denoising_rows(prior: ScoreModel, images: Tensor) -> Iterator[dict[str, Any]]:
    """PSNR of magnitude in the foreground, level by level, image by image."""
    for level in LEVELS:
        for number, image in enumerate(images):
            noisy = image + level * noise_like(image[None], generators(0, f"noise {level}", number))[0]
            denoised = prior.denoise(noisy[None], level)[0]
            yield {"task": f"denoise {level:g}", "image": number, "psnr": _psnr(image, denoised)}


def reconstruction_rows(prior: ScoreModel, images: Tensor, settings: Settings) -> Iterator[dict[str, Any]]:
    """The same of R = 4 and 8 scans, simulated with coils, noise and masks that all methods share."""
    noise_std = noise_level(settings.scan_snr)
    for acceleration in (4, 8):
        for number, image in enumerate(images):
            random = generators(0, "validation scan", number)
            shape = (settings.size, settings.size)
            maps = random_maps(shape, settings.coils, random[0])
            seed = (key("validation mask", number) % 2**31,)
            mask = make_mask("variable-density", shape, acceleration, seed=seed)[None, None]
            kspace = mask * (fft(maps * image[None, None]) + noise_std * noise_like(maps, random))
            scan = scaled(kspace, mask, maps, noise_std, f"validation {number}")
            found = _sample(scan, prior, settings, number)
            yield {"task": f"R = {acceleration}", "image": number, "psnr": _psnr(image, found)}


def real_rows(prior: ScoreModel, scans: Sequence[Path], settings: Settings) -> Iterator[dict[str, Any]]:
    """The middle slices of real scans at their own resolution, maps from the samples."""
    for path in scans:
        file = FastMRI(path)
        whole = Scan(file)
        for acceleration in (4, 8):
            subject = Subject(Scan(file, Sampling(acceleration)), whole.middle, whole.truth(whole.middle))
            image = _sample(subject.acquisition, prior, settings, whole.middle)
            found = subject.scores(image)["mvue_foreground_psnr"]
            yield {"task": f"real, R = {acceleration}", "image": file.name, "psnr": found}


def _sample(scan: Acquisition, prior: ScoreModel, settings: Settings, number: int) -> Tensor:
    """The posterior mean (H, W)."""
    found = sample_posterior(
        scan, prior, steps=settings.walk_steps, samples=settings.samples, device=settings.device, slices=[number]
    )
    return found.image[0]


def _psnr(truth: Tensor, image: Tensor) -> float:
    target = truth.abs()[None]
    return psnr(target, image.abs()[None], foreground(target))


# ---- Rows and the table.


def read_rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """For each SNR, mean PSNR (dB) with its 95 % interval over images, seeds averaged; after it the gap to `clean`."""
    parts = []
    for snr in sorted({row["snr"] for row in rows}, reverse=True):
        here = [row for row in rows if row["snr"] == snr]
        tasks = list(dict.fromkeys(row["task"] for row in here))
        seeds = len({row["seed"] for row in here})
        caption = f"PSNR (dB), 95 % intervals over images, mean of {seeds} seed(s); in brackets: against `clean`."
        lines = [f"## {snr:g} dB\n", caption + "\n"]
        lines += ["| Method | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
        best = {task: _by_image(here, "clean", task) for task in tasks}
        for name in dict.fromkeys(row["method"] for row in here):
            cells = [_cell(_by_image(here, name, task), best[task]) for task in tasks]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _by_image(rows: Sequence[dict[str, Any]], method: str, task: str) -> dict[Any, float]:
    found: dict[Any, list[float]] = {}
    for row in rows:
        if (row["method"], row["task"]) == (method, task):
            found.setdefault(row["image"], []).append(row["psnr"])
    return {image: float(np.mean(values)) for image, values in found.items()}


def _cell(values: dict[Any, float], clean: dict[Any, float]) -> str:
    if not values:
        return ""
    text = _interval(list(values.values()), list(values))
    both = [image for image in values if image in clean]
    if both and values != clean:
        text += f" ({_interval([values[image] - clean[image] for image in both], both, sign='+')})"
    return text


def _interval(values: list[float], groups: list[Any], sign: str = "") -> str:
    found = mean_interval(values, groups)
    ends = "" if math.isnan(found.low) else f" [{found.low:{sign}.2f}, {found.high:{sign}.2f}]"
    return f"{found.mean:{sign}.2f}{ends}"


FILES = click.Path(exists=True, path_type=Path)


@click.command()
@click.option("--train", "training", multiple=True, required=True, type=FILES, help="Stacks of magnitude images.")
@click.option("--validate", "validation", multiple=True, required=True, type=FILES, help="Stacks of another patient.")
@click.option("--scan", "scans", multiple=True, type=FILES, help="Fully sampled real scans.")
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--snr", default="32,22,12", show_default=True)
@click.option("--methods", default=",".join(METHODS), show_default=True)
@click.option("--seeds", default="0", show_default=True)
@click.option("--size", type=int, help="Rows and columns of the simulated scans.")
@click.option("--count", "scans_of_training", type=int, help="Training scans.")
@click.option("--patients", type=int, help="Train on the first so many alone.")
@click.option("--widths", help="Of the U-Net, such as 32,64,128.")
@click.option("--steps", type=int)
@click.option("--batch-size", type=int)
@click.option("--images", type=int, help="Validation images.")
@click.option("--walk-steps", type=int)
@click.option("--samples", type=int, help="Draws of a reconstruction.")
@click.option("--noise-error", type=float, help="What methods are told of the noise, over the truth, such as 1.2.")
@click.option("--device")
@click.option("--quick", is_flag=True, help="A minute's check that everything runs; its numbers mean nothing.")
def main(
    training: tuple[Path, ...], validation: tuple[Path, ...], scans: tuple[Path, ...], out: Path,
    snr: str, methods: str, seeds: str, quick: bool, **given: Any,
) -> None:  # fmt: skip
    renamed = {"scans_of_training": "scans", "images": "validation"}
    changes = {renamed.get(name, name): value for name, value in given.items() if value is not None}
    if "widths" in changes:
        changes["widths"] = tuple(int(width) for width in changes["widths"].split(","))
    settings = Settings(**({"validation": 1, **QUICK} if quick else {}) | changes)
    chosen = methods.split(",")
    if unknown := [name for name in chosen if name not in METHODS]:
        raise click.UsageError(f"unknown methods {', '.join(unknown)}; known: {', '.join(METHODS)}")
    results, images = out / "results.jsonl", validation_images(validation, settings)
    protocol = f"{key(replace(settings, device='auto')):x}"
    for tier in (float(one) for one in snr.split(",")):
        data = TrainingScans(training, tier, settings, out / "cache")
        for name, seed in ((name, int(seed)) for name in chosen for seed in seeds.split(",")):
            run = {"snr": tier, "method": name, "seed": seed, "protocol": protocol}
            if any(run.items() <= row.items() for row in read_rows(results)):
                continue
            folder = out / "runs" / f"{tier:g}dB-{name}-{seed}-{protocol}"
            train_one(data, METHODS[name], seed, folder)
            prior = load_prior(folder)
            rows = [*denoising_rows(prior, images), *reconstruction_rows(prior, images, settings)]
            rows += real_rows(prior, scans, settings)
            results.parent.mkdir(parents=True, exist_ok=True)
            with open(results, "a", encoding="utf-8") as file:
                file.write("".join(json.dumps({**run, **row}) + "\n" for row in rows))
            click.echo(f"{tier:g} dB, {name}, seed {seed}: done")
            here = [row for row in read_rows(results) if row["protocol"] == protocol]
            write_text(out / "table.md", table(here))


if __name__ == "__main__":
    main()
