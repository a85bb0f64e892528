"""Comparison of priors from noisy or undersampled scans with those from clean images, in one protocol.

python scripts/noisy_experiment.py --train TRAIN.h5 --validate VAL.h5 [--scan SCAN.h5 ...] --out results/noisy

A case is METHOD@SNR, such as sure@22, with a change after a colon, such as sure@22:noise+20; --list prints all cases.
Each trains the same network with the same seed, steps and scans, but with another loss or other images, and writes
cases/<case>/ with its prior, pictures.npz and numbers.json. A case with numbers is not run again; an interrupted one is
resumed. Several processes can share a folder: a case that one of them runs is skipped by the others. `--only CASE`
(patterns such as 'sure@*', can be repeated) runs some cases; results of other machines can be copied into cases/.
table.md is updated after each case. At the end, or with `--table` only, plot and pictures are made, and `--page FILE`
writes all into a page between its marks. --quick only tests in minutes that everything runs.

The full run is 37 trainings of 1500 steps. A step takes 0.14 s of one core for `denoising`, 0.20 for `noisy_score` and
0.42 with SURE: trainings of 4, 5 and 11 minutes, about 4 hours in all, and an hour for tests, as measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from noisy_cases import (
    ACCELERATIONS,
    CALIBRATION,
    CHANGES,
    LARGEST,
    LAW,
    LEAST,
    LEVELS,
    METHODS,
    QUICK,
    Case,
    Method,
    Settings,
    chosen,
)
from noisy_report import Results, report, write_report
from skimage.restoration import denoise_nl_means
from torch import Generator, Tensor

from mri_score.baselines import l1_wavelet
from mri_score.benchmark.ledger import Ledger
from mri_score.benchmark.subject import Subject, Subjects
from mri_score.data.acquisition import Acquisition
from mri_score.data.masks import make_mask
from mri_score.data.scale import percentile
from mri_score.data.scan import Scan, Undersampling, scaled
from mri_score.data.training_item import TrainingItem
from mri_score.errors import InputError
from mri_score.evaluation.metrics import magnitude_psnr
from mri_score.files import whole_file, write_text
from mri_score.losses import LOSSES
from mri_score.methods import DEFAULT_METHOD
from mri_score.models.network import NetworkPrior
from mri_score.noise.parameters import Parameters, measure
from mri_score.noise.schedules import LogNormal
from mri_score.numerics.fourier import fft, ifft, resize_kspace
from mri_score.numerics.noise import generators, key, noise_like
from mri_score.pipeline.denoise import nearest_level
from mri_score.priors.store import build_prior, load_prior, save_prior
from mri_score.readers.fastmri import FastMRI
from mri_score.readers.image_stack import read_stack
from mri_score.reconstruction import find_device, sample_posterior
from mri_score.simulation.phantom import noise_std_of_snr
from mri_score.sources.augmentation import SCALES, global_phase, log_between, smooth_phase
from mri_score.sources.magnitude_images import ImageStacks
from mri_score.sources.simulated_scans import random_maps
from mri_score.sources.undersampled_scans import filled_image
from mri_score.training import checkpoint
from mri_score.training.batches import as_training_item
from mri_score.training.loop import train

# ---- Training data.


class TrainingScans:
    """Simulated multi-coil scans of training images, each with one fixed noise and one fixed mask.

    The image has its 99th percentile at 1, noise_std is 10^(-SNR / 20) / sqrt 2 in each real component.
    """

    def __init__(self, paths: Sequence[Path], case: Case, settings: Settings, out: Path) -> None:
        self.settings, self.cache, self.change = settings, out / "cache", CHANGES[case.change]
        after = METHODS[case.method].after
        self.earlier = None if after is None else out / "cases" / str(replace(case, method=after))
        self.noise_std = noise_std_of_snr(case.snr)
        self.told = self.noise_std * self.change.told
        self.stacks = ImageStacks(paths, exclude=_other_patients(paths, self.change.patients))

    def __len__(self) -> int:
        return self.settings.scans

    @cached_property
    def clean(self) -> Tensor:
        """(N, H, W) complex: lower resolution of the whole field of view."""
        random = generators(0, "image", draws=len(self))
        return torch.cat([small(self.stacks.sample(one).image, self.settings.size) for one in random])

    @cached_property
    def noisy(self) -> Tensor:
        """(N, H, W): the coils combined, which keeps the noise white."""
        combined = torch.cat([_combined(self.scan(number, None)) for number in range(len(self))])
        return self.clean + _bowl(self.settings.size) * (combined - self.clean) if self.change.uneven else combined

    def scan(self, number: int, acceleration: float | None) -> Acquisition:
        """Samples of one scan, full or undersampled by its mask."""
        random = generators(0, "scan", draws=[number])[0]
        shape = (self.settings.size, self.settings.size)
        maps = random_maps(shape, self.settings.coils, random)
        mask = torch.ones(1, 1, 1, shape[1], dtype=torch.bool)
        if acceleration is not None:
            seed = key("mask", number) % 2**31
            mask = make_mask(LAW, shape, acceleration, CALIBRATION, (seed,))[None, None]
        noise = self.noise_std * noise_like(maps, [random])
        kspace = mask * (fft(maps * self.clean[number][None, None]) + noise)
        return Acquisition(f"training {number}", kspace, maps, mask, torch.tensor([self.told]))

    def undersampled(self, number: int) -> Acquisition:
        return self.scan(number, self.settings.acceleration)

    def prepared(self, number: int) -> Acquisition:
        """The undersampled scan in the scale of a prior, as at reconstruction."""
        scan = self.undersampled(number)
        kspace, maps, mask, _ = scan.cartesian
        return scaled(kspace, mask, maps, self.told, scan.name)

    def images(self, kind: str) -> Tensor:
        """(N, H, W) by a row of IMAGES."""
        return self.kept(kind, lambda: torch.stack([IMAGES[kind](self, number) for number in range(len(self))]))

    @property
    def sample_scales(self) -> Tensor:
        """(N,): the 99th percentile of each undersampled scan's CG-SENSE image, as at reconstruction."""

        def one(number: int) -> Tensor:
            scale = self.prepared(number).scale
            assert scale is not None
            return scale

        return self.kept("scales", lambda: torch.cat([one(number) for number in range(len(self))]))

    def kept(self, kind: str, make: Callable[[], Tensor]) -> Tensor:
        """An array from the cache, computed by `make` if it is missing."""
        s = self.settings
        made_of = (self.noise_std, self.change, s.size, s.scans, s.coils, s.acceleration, self.stacks.groups)
        by = "" if self.earlier is None else f"-{self.earlier.name}"
        file = self.cache / f"{kind.replace(' ', '-')}{by}-{key(*made_of):x}.npy"
        if not file.exists():
            with whole_file(file) as part, open(part, "wb") as opened:
                np.save(opened, make().numpy())
        return torch.from_numpy(np.load(file))

    def zero_filled(self, number: int) -> Tensor:
        return _combined(self.undersampled(number))[0]

    def wavelet(self, number: int) -> Tensor:
        kspace, maps, mask, _ = self.undersampled(number).cartesian
        return l1_wavelet(kspace[0], maps[0], mask[0], self.told, iterations=40)

    @cached_property
    def earlier_prior(self) -> NetworkPrior:
        """The prior of the case that this one builds on."""
        assert self.earlier is not None
        if not (self.earlier / "numbers.json").exists():
            raise InputError(f"{self.earlier} is not finished, and draws the images of this case; run it first")
        return load_prior(self.earlier)

    def reconstructed(self, number: int, method: str) -> Tensor:
        """One image of an undersampled scan under the earlier prior."""
        scan, steps = self.prepared(number), self.settings.walk_steps
        return sample_posterior(scan, self.earlier_prior, method, steps=steps, samples=1, slices=[number]).image[0]

    def non_local_means(self, number: int) -> Tensor:
        parts = torch.view_as_real(self.noisy[number]).numpy()
        denoised = denoise_nl_means(
            parts, patch_size=5, patch_distance=6, h=0.8 * self.told, sigma=self.told, fast_mode=True, channel_axis=-1
        )
        return torch.view_as_complex(torch.from_numpy(denoised.astype(np.float32)).contiguous())


IMAGES: dict[str, Callable[[TrainingScans, int], Tensor]] = {
    "clean": lambda data, number: data.clean[number],
    "noisy": lambda data, number: data.noisy[number],
    "non-local means": TrainingScans.non_local_means,
    "zero-filled": TrainingScans.zero_filled,
    "l1-wavelet": TrainingScans.wavelet,
    "draws": lambda data, number: data.reconstructed(number, DEFAULT_METHOD),
    "estimates": lambda data, number: data.reconstructed(number, "proximal"),
}


class Items:
    """The training items of a method: images with the noise level that it gets, or samples.

    Items are computed from the data of the method only: the scale is the 99th percentile of the item's own image, and
    the ground truth is not used.
    """

    def __init__(self, data: TrainingScans, method: Method) -> None:
        self.data = data
        self.images = None if method.images is None else data.images(method.images)
        self.scales = data.sample_scales if self.images is None else percentile(self.images)

    def __len__(self) -> int:
        return len(self.data)

    def item(self, number: int) -> TrainingItem:
        """One item, scaled, neither cropped nor augmented."""
        scale = self.scales[number]
        noise_std = self.data.told / scale[None]
        if self.images is not None:
            return TrainingItem(f"training {number}", image=self.images[number][None] / scale, noise_std=noise_std)
        scan = self.data.undersampled(number)
        return replace(as_training_item(scan), kspace=scan.kspace / scale, noise_std=noise_std)

    def sample(self, random: Generator) -> TrainingItem:
        """A band of rows with random flip, global phase and scale: augmentations that are possible for samples and
        images.
        """
        item = self.item(int(torch.randint(len(self), (), generator=random)))
        assert item.noise_std is not None
        size, band = self.data.settings.size, self.data.settings.band
        rows = torch.arange(band) + int(torch.randint(size - band + 1, (), generator=random))
        rows = rows.flip(0) if float(torch.rand((), generator=random)) < 0.5 else rows
        gain = log_between(*SCALES, random)
        item = replace(item, noise_std=gain * item.noise_std)
        if item.image is not None:
            return replace(item, image=global_phase(gain * item.image.index_select(-2, rows), random))
        assert item.kspace is not None and item.maps is not None
        kspace = fft(ifft(item.kspace, axes=(-2,)).index_select(-2, rows), axes=(-2,))
        return replace(item, kspace=global_phase(gain * kspace, random), maps=item.maps.index_select(-2, rows))

    def measured(self, knows_noise: bool) -> Parameters:
        """The parameters of the dataset: sd, and the smallest level that is identified."""
        items = [self.item(number) for number in range(len(self))]
        random = generators(0, "filled", draws=len(self))
        images = [
            filled_image(item, [one]) if item.image is None else item.image
            for item, one in zip(items, random, strict=True)
        ]
        levels = [float(item.noise_std) for item in items if item.noise_std is not None]
        noise_std = float(np.mean(np.square(levels)) ** 0.5) if knows_noise else None
        return measure([image[0] for image in images], noise_std=noise_std, sigma_min=LEAST)


def small(image: Tensor | None, size: int) -> Tensor:
    """(1, size, size) of lower resolution over the same field of view, the 99th percentile at 1."""
    assert image is not None
    low = ifft(resize_kspace(fft(image), (size, size)))
    return low / percentile(low)[:, None, None]


def _combined(scan: Acquisition) -> Tensor:
    return scan.operator().adjoint(scan.kspace)


def _bowl(size: int) -> Tensor:
    """(size, size): falling from the middle to a third in the corners, of mean square 1."""
    place = torch.linspace(-1, 1, size)
    field = 1 - (place[:, None] ** 2 + place**2) / 3
    return field / field.square().mean().sqrt()


def _other_patients(paths: Sequence[Path], wanted: int | None) -> dict[str, list[str]] | None:
    """All patients of the stacks except the first `wanted`."""
    if wanted is None:
        return None
    patients = sorted({str(one) for path in paths for one in read_stack(path)[1].get("patient", [])})
    if len(patients) < wanted:
        raise InputError(f"{wanted} patients are wanted, and the stacks name {len(patients)}")
    return {"patient": patients[wanted:]} if patients[wanted:] else None


def train_case(data: TrainingScans, case: Case, folder: Path, device: str) -> None:
    """Train or resume, until folder/prior.safetensors is that of the last step."""
    settings, method = data.settings, METHODS[case.method]
    items = Items(data, method)
    known = items.measured(method.knows_noise)
    least = LEAST if method.below else known.sigma_min
    schedule = LogNormal(least, LARGEST, centre=0.2, spread=1.5)
    options = dict(method.options)
    if "law" in options:
        options["acceleration"] = settings.acceleration
    if method.loss == "sure_score":
        options["rise"] = max(1, settings.steps // 10)
    extra = 0 if method.images is not None else 1
    network = {"name": "unet", "widths": list(settings.widths), "extra_channels": extra}
    seed = data.change.seed
    torch.manual_seed(seed)
    prior = build_prior(network, sd=known.sd, sigma_min=least, sigma_max=LARGEST)
    train(
        prior,
        LOSSES[method.loss](schedule, **options),
        items,
        folder,
        lambda averaged, about: save_prior(folder / "prior.safetensors", averaged, network, about),
        steps=settings.steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        workers=0,
        seed=seed,
        device=find_device(device),
        save_every=max(1, settings.steps // 8),
    )


# ---- Tests of a prior.


class Tests:
    """Images of the validation patient and slices of real scans: the same for all priors."""

    def __init__(self, paths: Sequence[Path], scans: Sequence[Path], settings: Settings, cache: Path) -> None:
        self.settings, self.cache = settings, cache
        self.stacks, self.scans = ImageStacks(paths, augment=False), scans

    @cached_property
    def images(self) -> list[Tensor]:
        """Complex (H, W) with smooth phases, alternating contrasts, evenly spaced over the inner four fifths."""
        count, size = self.settings.validation, self.settings.size
        magnitudes = [self.stacks.image(number).abs() for number in self.stacks.spread(count, 0.1, 0.9)]
        random = generators(0, "validation", draws=count)
        return [small(smooth_phase(*pair)[None], size)[0] for pair in zip(magnitudes, random, strict=True)]

    @cached_property
    def acquisitions(self) -> dict[tuple[int, int], Acquisition]:
        """(acceleration, image) -> scan, simulated with coils, noise and masks."""
        found, noise_std = {}, noise_std_of_snr(self.settings.scan_snr)
        shape = (self.settings.size, self.settings.size)
        for acceleration in ACCELERATIONS:
            for number, image in enumerate(self.images):
                random = generators(0, "validation scan", number)
                maps = random_maps(shape, self.settings.coils, random[0])
                seed = (key("validation mask", number) % 2**31,)
                mask = make_mask("variable-density", shape, acceleration, seed=seed)[None, None]
                kspace = mask * (fft(maps * image[None, None]) + noise_std * noise_like(maps, random))
                found[acceleration, number] = scaled(kspace, mask, maps, noise_std, f"validation {number}")
        return found

    @cached_property
    def subjects(self) -> list[tuple[str, int, int, Subject]]:
        """(scan, acceleration, mask, subject): middle slices at their own resolution, maps from the samples."""
        found = []
        for path in self.scans:
            file = FastMRI(path)
            subjects, middle = Subjects(file, self.cache), Scan(file).middle
            for acceleration in ACCELERATIONS:
                for mask in range(self.settings.masks):
                    subject = subjects.find(middle, Undersampling(acceleration, seed=mask))
                    found.append((file.name, acceleration, mask, subject))
        return found

    def rows(self, prior: NetworkPrior, device: str, pictures: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
        """PSNR of magnitude in the foreground for each item; items with equal `block` are not independent."""
        yield from self._denoised(prior)
        for (acceleration, number), scan in self.acquisitions.items():
            found = self._sample(scan, prior, number, device)
            if number == len(self.images) // 2:
                pictures[f"validation, R = {acceleration}"] = found.numpy()
            score = magnitude_psnr(self.images[number], found)
            yield {"task": f"R = {acceleration}", "item": number, "block": number // 2, "psnr": score}
        for name, acceleration, mask, subject in self.subjects:
            found = self._sample(subject.acquisition, prior, subject.scan.middle, device)
            if not mask:
                pictures[f"{name}, R = {acceleration}"] = (found.abs() * subject.weight).numpy()
            item, score = f"{name}, mask {mask}", subject.scores(found)["mvue_foreground_psnr"]
            yield {"task": f"real, R = {acceleration}", "item": item, "block": item, "psnr": score}

    @torch.no_grad()
    def _denoised(self, prior: NetworkPrior) -> Iterator[dict[str, Any]]:
        """A level outside the prior's range is replaced by the nearest inside."""
        for level in LEVELS:
            told = nearest_level(prior, level)
            for number, image in enumerate(self.images):
                noisy = image + level * noise_like(image[None], generators(0, f"noise {level}", number))[0]
                score = magnitude_psnr(image, prior.cpu().denoise(noisy[None], told)[0])
                yield {"task": f"denoise {level:g}", "item": number, "block": number // 2, "psnr": score}

    def _sample(self, scan: Acquisition, prior: NetworkPrior, number: int, device: str) -> Tensor:
        """The posterior mean (H, W)."""
        steps, samples = self.settings.walk_steps, self.settings.samples
        return sample_posterior(scan, prior, steps=steps, samples=samples, device=device, slices=[number]).image[0]

    def truths(self) -> dict[str, Tensor]:
        """Images for the pictures; those of real scans in the units of the file."""
        number = len(self.images) // 2
        real = {f"{name}, R = {factor}": one.truth for name, factor, mask, one in self.subjects if not mask}
        return {f"validation, R = {factor}": self.images[number] for factor in ACCELERATIONS} | real


def run_case(case: Case, training: Sequence[Path], tests: Tests, out: Path, device: str) -> None:
    """Train, test, and write the numbers."""
    folder, settings = out / "cases" / str(case), tests.settings
    started = time.process_time()
    train_case(TrainingScans(training, case, settings, out), case, folder, device)
    prior, trained = load_prior(folder), time.process_time()
    pictures: dict[str, np.ndarray] = {}
    rows = list(tests.rows(prior, device, pictures))
    with whole_file(folder / "pictures.npz") as part, open(part, "wb") as file:
        np.savez(file, **pictures)  # type: ignore[arg-type]
    about = {
        "case": str(case),
        "sigma_min": prior.sigma_min,
        "sd": prior.sd,
        "training_seconds": trained - started,
        "testing_seconds": time.process_time() - trained,
        "settings": asdict(settings),
    }
    write_text(folder / "numbers.json", json.dumps({**about, "rows": rows}) + "\n")
    for path in checkpoint.found(folder):
        path.unlink()


FILES = click.Path(exists=True, path_type=Path)


@click.command()
@click.option("--train", "training", multiple=True, type=FILES, help="Stacks of magnitude images.")
@click.option("--validate", "validation", multiple=True, type=FILES, help="Stacks of another patient.")
@click.option("--scan", "scans", multiple=True, type=FILES, help="Fully sampled real scans.")
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--only", multiple=True, metavar="CASE", help="Such as sure@22, or a pattern such as '*@22'.")
@click.option("--list", "listing", is_flag=True, help="Name the cases and which of them are done.")
@click.option("--table", is_flag=True, help="Train nothing: tables, plot and pictures of what is there.")
@click.option("--page", type=FILES, help="A page that results are written into, such as docs/lab/noisy_training.md.")
@click.option("--size", type=int, help="Rows and columns of the simulated scans.")
@click.option("--band", type=int, help="Rows of a training item.")
@click.option("--count", type=int, help="Training scans.")
@click.option("--widths", help="Of the U-Net, such as 32,64,128.")
@click.option("--steps", type=int)
@click.option("--batch-size", type=int)
@click.option("--images", type=int, help="Validation images.")
@click.option("--walk-steps", type=int)
@click.option("--samples", type=int, help="Draws of a reconstruction.")
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", type=int, default=1, show_default=True, help="Of this process, on the CPU.")
@click.option("--quick", is_flag=True, help="A check that everything runs; its numbers mean nothing.")
def main(
    training: tuple[Path, ...], validation: tuple[Path, ...], scans: tuple[Path, ...], out: Path,
    only: tuple[str, ...], listing: bool, table: bool, page: Path | None, device: str, threads: int, quick: bool,
    **given: Any,
) -> None:  # fmt: skip
    cases = chosen(only)
    if listing:
        for case in cases:
            done = (out / "cases" / str(case) / "numbers.json").exists()
            click.echo(f"{case}{'  done' if done else ''}")
        return
    if not validation or not (training or table):
        raise click.UsageError("give --train and --validate, files of magnitude images of different patients")
    torch.set_num_threads(threads)
    renamed = {"count": "scans", "images": "validation"}
    changes = {renamed.get(name, name): value for name, value in given.items() if value is not None}
    if "widths" in changes:
        changes["widths"] = tuple(int(width) for width in changes["widths"].split(","))
    settings = Settings(**(QUICK if quick else {}) | changes)
    _keep_settings(out, settings)
    tests, ledger = Tests(validation, scans, settings, out / "cache"), Ledger(out)
    for case in [] if table else cases:
        with ledger.claim(case) as mine:
            if not mine or (out / "cases" / str(case) / "numbers.json").exists():
                continue
            run_case(case, training, tests, out, device)
        write_text(out / "table.md", report(Results(out)))
        click.echo(f"{case}: done")
    write_report(out, tests.truths(), page)


def _keep_settings(out: Path, settings: Settings) -> None:
    """Check that a folder has only one protocol."""
    path, text = out / "settings.json", json.dumps(asdict(settings)) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise InputError(f"{out} holds cases of other settings ({path}); give another --out")
    write_text(path, text)


if __name__ == "__main__":
    main()
