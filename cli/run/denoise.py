"""The work of mri-score denoise, file by file. Files that fail are reported and skipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mri_score.data.scan import Scan
from mri_score.evaluation.panel import panel, save_png
from mri_score.files import make_folder
from mri_score.models.one_channel import digest_of_use, for_complex_images
from mri_score.models.precision import find_precision
from mri_score.numerics.fourier import resize_image
from mri_score.pipeline.denoise import Denoised, check_full, denoise_slice
from mri_score.pipeline.facts import counted
from mri_score.pipeline.sound import left_out_notes, sound_slices
from mri_score.priors.store import find_prior, load_prior, read_record
from mri_score.progress import progress
from mri_score.readers import open_scan, scan_files
from mri_score.readers.base import result_name
from mri_score.readers.hdf5 import write_arrays
from mri_score.reconstruction import find_device

from ..log import note, say
from ..options import each_file, maps_of, read_slices, take_precision, take_shard

TOLERANCE = 0.02
"""Largest relative difference between the scan's noise level and the one given to the prior without a note."""


@dataclass(frozen=True, kw_only=True)
class DenoiseOptions:
    """The options of the command, named and typed as by click."""

    prior: str
    one_channel: str | None
    noise_std: float | None
    probes: int
    slices: str | None
    axes: tuple[str, ...] | None
    bad_slices: str
    ignore_mask: bool
    maps: Path | None
    coils: int | None
    precision: str
    seed: int
    device: str
    threads: int | None
    shard: str | None
    out: Path


def denoise_all(scan: Path, given: DenoiseOptions) -> None:
    """Denoise every file and print where the results are. Errors: InputError at the end if a file failed."""
    if given.threads:
        torch.set_num_threads(given.threads)
    device = find_device(given.device)
    precision = find_precision(take_precision(given.precision, given.device))
    out = given.out
    path = find_prior(given.prior)
    prior = for_complex_images(load_prior(path).in_precision(precision), given.one_channel)
    digest = digest_of_use(read_record(path)["sha256"], given.one_channel)
    make_folder(out)
    asked: dict[str, Any] = {"noise_std": given.noise_std, "probes": given.probes, "seed": given.seed}

    def work(file: Path) -> None:
        view = Scan(
            open_scan(file, axes=given.axes, ignore_mask=given.ignore_mask),
            maps=maps_of(given.maps, file),
            cache=out / "maps",
            coils=given.coils,
        )
        check_full(view)
        asked_slices = read_slices(given.slices, view.file.slices)
        slices, left_out = sound_slices(view, asked_slices, given.bad_slices == "refuse")
        total = len(slices) * given.probes
        with progress(total, "probe", file.stem) as bar:
            found = [denoise_slice(view, slice, prior, device=device, progress=bar.update, **asked) for slice in slices]
        attributes = {"prior": str(given.prior), "prior_sha256": digest, **asked}
        written = _write(out / "denoised" / result_name(file), view, slices, found, attributes)
        count = counted(len(slices), "slice")
        drawn = _draw(out / "denoised", view, slices, found)
        level = found[0].noise_std
        say(f"{file.name}: {count}, noise_std {level:.4g} in the file's units", True, file=file.name, noise_std=level)
        for text in [*view.notes, *left_out_notes(left_out), *_levels(found)]:
            note(text, indent=2, file=file.name)
        say(f"  denoised  {written}\n  pictures  {drawn}", file=file.name, denoised=written, pictures=drawn)

    each_file(take_shard(scan_files(scan, axes=given.axes), given.shard, scan.is_dir()), work)


def _levels(found: Sequence[Denoised]) -> list[str]:
    """A note if a slice's noise level is outside the training range of the prior; else an empty list."""
    worst = max((one.level_ratio for one in found), key=lambda ratio: abs(ratio - 1))
    if abs(worst - 1) < TOLERANCE:
        return []
    return [
        "the noise level is outside the training range of the prior; the nearest level in it was used:"
        f" {worst:.2f} times the noise level"
    ]


def _write(
    path: Path, scan: Scan, slices: Sequence[int], found: Sequence[Denoised], attributes: dict[str, Any]
) -> Path:
    """Write `reconstruction` in fastMRI's format, the complex and the noisy images and the standard deviation."""
    weight, image, noisy, std = (
        torch.stack([resize_image(getattr(one, key), scan.file.crop) for one in found])
        for key in ("weight", "image", "noisy", "std")
    )
    arrays: dict[str, Tensor] = {
        "reconstruction": image.abs() * weight, "reconstruction_complex": image, "std": std * weight, "noisy": noisy,
        "slices": torch.tensor(slices),
    }  # fmt: skip
    about = {key: value for key, value in attributes.items() if value is not None}
    return write_arrays(path, arrays, {**about, "noise_std": found[0].noise_std, "complete": True})


def _draw(folder: Path, scan: Scan, slices: Sequence[int], found: Sequence[Denoised]) -> Path:
    """Write a panel of the middle slice: noisy image, denoised image, standard deviation."""
    place = len(found) // 2
    one = found[place]
    noisy, image, std = (resize_image(part * one.weight, scan.file.crop) for part in (one.noisy, one.image, one.std))
    path = folder / f"{scan.file.name}-slice{slices[place]:03d}.png"
    save_png(path, panel({"noisy": noisy, "denoised": image}, std=std))
    return path
