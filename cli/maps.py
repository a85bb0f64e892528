"""mri-score maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import ANY_PATH, FOLDER, make_sampling, sampling_options


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
    from mri_score.errors import InputError

    sampling = make_sampling(given)
    files, failed = fastmri_files(scan), []
    for path in files:
        try:
            view = Scan(FastMRI(path), sampling)
            found = [view.make_maps(slice) for slice in range(view.file.slices)]
        except InputError as error:
            if len(files) == 1:
                raise
            click.secho(f"{path.name}: skipped: {error}", fg="red", err=True)
            failed.append(path.name)
            continue
        target = out / path.name
        maps, eigenvalue = torch.cat([one[0] for one in found]), torch.cat([one[1] for one in found])
        write_maps(target, maps, eigenvalue, {"source": str(found[0][2]), "acceleration": view.acceleration})
        click.echo(f"{target}: {found[0][2]}")
    if failed:
        raise InputError(f"{len(failed)} of {len(files)} files failed: {', '.join(failed)}")
