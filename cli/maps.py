"""mri-score maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import ANY_PATH, FOLDER, each_file, make_sampling, sampling_options


@click.command("maps")
@click.argument("scan", type=ANY_PATH)
@sampling_options
@click.option("--out", "-o", type=FOLDER, default=Path("maps"), show_default=True, help="The folder to fill.")
def command(scan: Path, out: Path, **given: Any) -> None:
    """Make ESPIRiT coil maps of SCAN (a file or a folder), from the calibration region of what is sampled.

    Maps have unit sum of squares at every pixel; `eigenvalue` beside them says where there is signal.

    \b
    Example:
      mri-score maps multicoil_val --out maps --accel 4
    """
    import torch

    from mri_score.data.fastmri import FastMRI, fastmri_files
    from mri_score.data.maps import write_maps
    from mri_score.data.scan import Scan

    sampling = make_sampling(given)

    def make(path: Path) -> None:
        view = Scan(FastMRI(path), sampling)
        found = [view.make_maps(slice) for slice in range(view.file.slices)]
        maps, eigenvalue = torch.cat([one[0] for one in found]), torch.cat([one[1] for one in found])
        target, source = out / path.name, str(found[0][2])
        write_maps(target, maps, eigenvalue, {"source": source, "acceleration": view.acceleration})
        click.echo(f"{target}: {source}")

    each_file(fastmri_files(scan), make)
