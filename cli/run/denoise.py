"""The work behind mri-score denoise: files one by one, what fails is reported and skipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from tqdm import tqdm

from mri_score.data.scan import Scan
from mri_score.evaluation.panel import panel, save_png
from mri_score.files import make_folder
from mri_score.models.network import find_precision
from mri_score.numerics.fourier import resize_image
from mri_score.pipeline.denoise import Denoised, check_full, denoise_slice
from mri_score.pipeline.facts import counted
from mri_score.priors.store import find_prior, load_prior, read_record
from mri_score.readers import open_scan, scan_files
from mri_score.readers.hdf5 import write_arrays
from mri_score.reconstruction import find_device

from ..options import each_file, read_slices, take_shard

FAR = 0.02
"""A level that differs by more than this part from what the prior was told is worth a note."""


@dataclass(frozen=True, kw_only=True)
class DenoiseOptions:
    """The options of the command, as click names and types them."""

    prior: str
    noise_std: float | None
    probes: int
    slices: str | None
    maps: Path | None
    coils: int | None
    precision: str
    seed: int
    device: str
    threads: int | None
    shard: str | None
    out: Path


def denoise_all(scan: Path, given: DenoiseOptions) -> None:
    """Denoise every file; print where results are; fail at the end if any file failed."""
    if given.threads:
        torch.set_num_threads(given.threads)
    precision = find_precision(given.precision)
    device = find_device(given.device)
    out = given.out
    path = find_prior(given.prior)
    prior, digest = load_prior(path), read_record(path)["sha256"]
    prior.precision = precision
    make_folder(out)
    asked: dict[str, Any] = {"noise_std": given.noise_std, "probes": given.probes, "seed": given.seed}

    def work(file: Path) -> None:
        view = Scan(open_scan(file), maps=given.maps, cache=out / "maps", coils=given.coils)
        check_full(view)
        slices = read_slices(given.slices, view.file.slices)
        total = len(slices) * given.probes
        with tqdm(total=total, unit="probe", desc=file.stem, leave=False, dynamic_ncols=True, disable=None) as bar:
            found = [denoise_slice(view, slice, prior, device=device, progress=bar.update, **asked) for slice in slices]
        attributes = {"prior": str(given.prior), "prior_sha256": digest, **asked}
        written = _write(out / "denoised" / file.name, view, slices, found, attributes)
        count = counted(len(slices), "slice")
        click.secho(f"{file.name}: {count}, noise_std {found[0].noise_std:.4g} in the file's units", bold=True)
        for note in [*view.notes, *_levels(found)]:
            click.secho(f"  note: {note}", fg="yellow")
        click.echo(f"  denoised  {written}\n  pictures  {_draw(out / 'denoised', view, slices, found)}")

    each_file(take_shard(scan_files(scan), given.shard), work)


def _levels(found: Sequence[Denoised]) -> list[str]:
    """What to know where the prior was told another level than the scan's."""
    worst = max((one.told for one in found), key=lambda told: abs(told - 1))
    if abs(worst - 1) < FAR:
        return []
    return [f"the scan's noise is outside of what the prior was trained on, which was told {worst:.2f} times as much"]


def _write(
    path: Path, scan: Scan, slices: Sequence[int], found: Sequence[Denoised], attributes: dict[str, Any]
) -> Path:
    """`reconstruction` as fastMRI's tools read it, and beside it what it was made of and how sure it is."""
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
    """A panel of the middle slice: noisy, denoised, std."""
    place = len(found) // 2
    one = found[place]
    noisy, image, std = (resize_image(part * one.weight, scan.file.crop) for part in (one.noisy, one.image, one.std))
    path = folder / f"{scan.file.name}-slice{slices[place]:03d}.png"
    save_png(path, panel({"noisy": noisy, "denoised": image}, std=std))
    return path
