"""mri-score maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .log import note, say
from .options import (
    ANY_PATH,
    FOLDER,
    MaskOptions,
    axes_option,
    each_file,
    ignore_mask_option,
    make_sampling,
    sampling_options,
    shard_option,
    take_shard,
)


@click.command("maps")
@click.argument("scan", type=ANY_PATH)
@sampling_options
@shard_option
@click.option("--out", "-o", type=FOLDER, default=Path("maps"), show_default=True, help="Folder for the coil maps.")
@click.option("--again", is_flag=True, help="Redo files that are already finished.")
@axes_option
@ignore_mask_option
def command(
    scan: Path,
    axes: tuple[str, ...] | None,
    ignore_mask: bool,
    shard: str | None,
    out: Path,
    again: bool,
    **given: Any,
) -> None:
    """Estimate coil sensitivity maps of SCAN with ESPIRiT, from the calibration region of the sampled k-space.

    SCAN is a file or a folder of files. Each file written has the datasets `maps`, whose squared magnitudes sum
    to 1 over the coils at every pixel, and `eigenvalue`, which is near 1 where there is signal.

    \b
    Example:
      mri-score maps multicoil_val --out maps --accel 4
    """
    import torch

    from mri_score.data.scan import Scan
    from mri_score.pipeline.sound import left_out_notes, sound_slices
    from mri_score.progress import progress
    from mri_score.readers import open_scan, scan_files
    from mri_score.readers.base import result_name
    from mri_score.readers.maps import cache_key, finished_maps, write_maps

    sampling = make_sampling(MaskOptions(**given))

    def make(path: Path) -> None:
        view, target = Scan(open_scan(path, axes=axes, ignore_mask=ignore_mask), sampling), out / result_name(path)
        identity = cache_key(path, view.mask, axes=view.file.axes, calibration_lines=sampling.calibration_lines)
        if not again and finished_maps(target, identity):
            say(f"{target}: finished before (--again redoes it)", file=path.name, finished=True)
            return
        slices, left_out = sound_slices(view, range(view.file.slices), refuse=False)
        found = {}
        with progress(len(slices), "slice", path.stem) as bar:
            for slice in slices:
                found[slice] = view.make_maps(slice)
                bar.update()
        some = found[slices[0]]
        none = torch.zeros_like(some[0]), torch.zeros_like(some[1]), some[2]
        parts = [found.get(slice, none) for slice in range(view.file.slices)]
        maps, eigenvalue = torch.cat([one[0] for one in parts]), torch.cat([one[1] for one in parts])
        source = str(some[2])
        attributes: dict[str, str | float] = {"source": source, "acceleration": view.acceleration, "identity": identity}
        write_maps(target, maps, eigenvalue, attributes)
        for text in left_out_notes(left_out):
            note(f"{text}; its maps are zero", file=path.name)
        say(f"{target}: {source}", file=path.name, maps=target)

    each_file(take_shard(scan_files(scan, axes=axes), shard, scan.is_dir()), make)
