"""mri-score info."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import ANY_PATH, each_file

if TYPE_CHECKING:
    from mri_score.readers.fastmri import FastMRI


@click.command("info")
@click.argument("scan", type=ANY_PATH)
def command(scan: Path) -> None:
    """Tell what SCAN (a fastMRI file, or a folder of them) holds, and what to watch out for.

    \b
    Example:
      mri-score info multicoil_val/file1000000.h5
    """
    from mri_score.readers.fastmri import FastMRI, fastmri_files

    def tell(path: Path) -> None:
        file = FastMRI(path)
        stored = _stored(file)  # all of it is checked before the first line is printed
        click.secho(str(path), bold=True)
        _echo(stored)
        measured, notes = _measured(file)
        _echo(measured)
        for note in notes:
            click.secho(f"  note: {note}", fg="yellow")

    each_file(fastmri_files(scan), tell)


def _stored(file: FastMRI) -> dict[str, str]:
    """What the file says, found without torch: at once."""
    matrix = "no header" if file.encoded is None else f"encoded {_by(file.encoded)}, reconstructed {_by(file.recon)}"
    return {
        "acquisition": file.acquisition,
        "k-space": f"{file.slices} slices, {file.coils} coils, {file.rows} rows x {file.cols} columns",
        "matrix": matrix,
        "oversampling": f"readout {file.rows} -> {file.image_shape[0]} rows" if file.oversampled else "none",
        "padding": "none" if file.padding == (0, file.cols) else f"columns outside {file.padding} are not data",
        "truth": "reconstruction in the file" if file.has_target else ("full k-space" if file.full else "none"),
    }


def _measured(file: FastMRI) -> tuple[dict[str, str], list[str]]:
    """What the samples say, and the notes on both: the noise is what coil maps leave unexplained, which takes torch."""
    from mri_score.data.scan import Scan

    scan = Scan(file)
    noise = scan.noise
    lines = {
        "sampling": "full" if file.full else f"undersampled, R = {scan.acceleration:.2f}",
        "noise": f"{noise.noise_std:.4g} (standard deviation of the real and of the imaginary part of a sample)",
        "coils": "can be whitened" if noise.whitening is not None else "not whitened",
    }
    return lines, scan.notes


def _echo(lines: dict[str, str]) -> None:
    for name, value in lines.items():
        click.echo(f"  {name:<15}{value}")


def _by(shape: tuple[int, int] | None) -> str:
    return "unknown" if shape is None else f"{shape[0]} x {shape[1]}"
