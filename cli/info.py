"""mri-score info."""

from __future__ import annotations

from pathlib import Path

import click

from .options import ANY_PATH, each_file


@click.command("info")
@click.argument("scan", type=ANY_PATH)
def command(scan: Path) -> None:
    """Tell what SCAN (a fastMRI file, or a folder of them) holds, and what to watch out for.

    \b
    Example:
      mri-score info multicoil_val/file1000000.h5
    """
    from mri_score.data.fastmri import FastMRI, fastmri_files
    from mri_score.data.scan import Scan

    def tell(path: Path) -> None:
        view = Scan(FastMRI(path))
        lines = _describe(view)
        click.secho(str(path), bold=True)
        for name, value in lines.items():
            click.echo(f"  {name:<15}{value}")
        for note in view.notes:
            click.secho(f"  note: {note}", fg="yellow")

    each_file(fastmri_files(scan), tell)


def _describe(scan) -> dict[str, str]:  # type: ignore[no-untyped-def]
    file, noise = scan.file, scan.noise
    matrix = "no header" if file.encoded is None else f"encoded {_by(file.encoded)}, reconstructed {_by(file.recon)}"
    lines = {
        "acquisition": file.acquisition,
        "k-space": f"{file.slices} slices, {file.coils} coils, {file.rows} rows x {file.cols} columns",
        "matrix": matrix,
        "oversampling": f"readout {file.rows} -> {file.image_shape[0]} rows" if file.oversampled else "none",
        "padding": "none" if file.padding == (0, file.cols) else f"columns outside {file.padding} are not data",
        "sampling": "full" if file.mask is None else f"undersampled, R = {scan.acceleration:.2f}",
        "truth": "reconstruction in the file" if file.has_target else ("full k-space" if file.mask is None else "none"),
        "noise": f"{noise.noise_std:.4g} (standard deviation of the real and of the imaginary part of a sample)",
        "coils": "can be whitened" if noise.whitening is not None else "not whitened",
    }
    return lines


def _by(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"
