"""mri-score info."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mri_score.errors import visible

from .options import ANY_PATH, axes_option, each_file, ignore_mask_option

if TYPE_CHECKING:
    from mri_score.readers.base import Reader


@click.command("info")
@click.argument("scan", type=ANY_PATH)
@axes_option
@ignore_mask_option
@click.option("--quick", is_flag=True, help="Show what the header says, and measure nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each file.")
def command(scan: Path, axes: tuple[str, ...] | None, ignore_mask: bool, quick: bool, as_json: bool) -> None:
    """Show what SCAN contains: matrix, coils, sampling, noise level, and warnings about problems.

    SCAN is a file, or a folder of files: fastMRI, ISMRMRD, BART's .cfl; NumPy's and MATLAB's with --axes.

    \b
    Example:
      mri-score info multicoil_val/file1000000.h5
      mri-score info kspace.npy --axes coils,rows,cols
      mri-score info multicoil_val --quick --json
    """
    import json

    from mri_score.readers import open_scan, scan_files

    def show(path: Path) -> None:
        file = open_scan(path, axes=axes, ignore_mask=ignore_mask)
        stored = file.about()  # all of it is checked before the first line is printed
        if as_json:
            sizes = {name: getattr(file, name) for name in ("slices", "coils", "rows", "cols")}
            measured, notes = ({}, []) if quick else _measured(file)
            about = {"file": str(path), **sizes, "about": stored, **measured, "notes": [visible(one) for one in notes]}
            click.echo(json.dumps(about))
            return
        click.secho(visible(str(path)), bold=True)
        _echo(stored)
        if quick:
            return
        measured, notes = _measured(file)
        _echo(_described(measured))
        for note in notes:
            click.secho(f"  note: {visible(note)}", fg="yellow")

    each_file(scan_files(scan, axes=axes), show)


def _measured(file: Reader) -> tuple[dict[str, Any], list[str]]:
    """Sampling, noise level and whitening as measured from the samples, and the scan's notes. Imports torch."""
    from mri_score.data.scan import Scan

    if file.coordinates(0) is None:
        scan = Scan(file)
    else:
        from mri_score.data.noncartesian import MeasuredScan  # SigPy takes seconds to import

        scan = MeasuredScan(file)
    measured = {
        "full": scan.has_truth,
        "acceleration": scan.acceleration,
        "noise_std": scan.noise_std * scan.unit,
        "whitening": scan.noise.whitening is not None,
    }
    return measured, scan.notes


def _described(measured: Mapping[str, Any]) -> dict[str, str]:
    return {
        "sampling": "full" if measured["full"] else f"undersampled, R = {measured['acceleration']:.2f}",
        "noise": f"{measured['noise_std']:.4g} (standard deviation of the real and of the imaginary part of a sample)",
        "coils": "can be whitened" if measured["whitening"] else "not whitened",
    }


def _echo(lines: dict[str, str]) -> None:
    for name, value in lines.items():
        click.echo(f"  {name:<15}{visible(value)}")
