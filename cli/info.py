"""mri-score info."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mri_score.errors import visible

from .options import ANY_PATH, axes_option, each_file, ignore_mask_option

if TYPE_CHECKING:
    from mri_score.readers.base import Reader


@click.command("info")
@click.argument("scan", type=ANY_PATH)
@axes_option
@ignore_mask_option
def command(scan: Path, axes: tuple[str, ...] | None, ignore_mask: bool) -> None:
    """Show what SCAN contains: matrix, coils, sampling, noise level, and warnings about problems.

    SCAN is a file, or a folder of files: fastMRI, ISMRMRD, BART's .cfl; NumPy's and MATLAB's with --axes.

    \b
    Example:
      mri-score info multicoil_val/file1000000.h5
      mri-score info kspace.npy --axes coils,rows,cols
    """
    from mri_score.readers import open_scan, scan_files

    def show(path: Path) -> None:
        file = open_scan(path, axes=axes, ignore_mask=ignore_mask)
        stored = file.about()  # all of it is checked before the first line is printed
        click.secho(str(path), bold=True)
        _echo(stored)
        measured, notes = _measured(file)
        _echo(measured)
        for note in notes:
            click.secho(f"  note: {visible(note)}", fg="yellow")

    each_file(scan_files(scan, axes=axes), show)


def _measured(file: Reader) -> tuple[dict[str, str], list[str]]:
    """Sampling, noise level and whitening as measured from the samples, and the scan's notes. Imports torch."""
    from mri_score.data.scan import Scan

    if file.coordinates(0) is None:
        scan = Scan(file)
    else:
        from mri_score.data.noncartesian import MeasuredScan  # SigPy takes seconds to import

        scan = MeasuredScan(file)
    noise, level = scan.noise, scan.noise_std * scan.unit
    lines = {
        "sampling": "full" if scan.has_truth else f"undersampled, R = {scan.acceleration:.2f}",
        "noise": f"{level:.4g} (standard deviation of the real and of the imaginary part of a sample)",
        "coils": "can be whitened" if noise.whitening is not None else "not whitened",
    }
    return lines, scan.notes


def _echo(lines: dict[str, str]) -> None:
    for name, value in lines.items():
        click.echo(f"  {name:<15}{visible(value)}")
