"""mri-score convert."""

from __future__ import annotations

from pathlib import Path

import click

from .log import note, say
from .options import ANY_PATH, axes_option

SUFFIXES = {".h5": "fastmri", ".mrd": "ismrmrd", ".cfl": "cfl", ".hdr": "cfl"}
"""Suffix of the new file -> its format, unless --to names another."""


@click.command("convert")
@click.argument("scan", type=ANY_PATH)
@click.argument("out", type=ANY_PATH)
@click.option(
    "--to", type=click.Choice(["fastmri", "ismrmrd", "cfl"]),
    help="Format of OUT.  [default: by its suffix: .h5 fastmri, .mrd ismrmrd, .cfl cfl]",
)  # fmt: skip
@axes_option
def command(scan: Path, out: Path, to: str | None, axes: tuple[str, ...] | None) -> None:
    """Convert SCAN to the file OUT: from fastMRI, ISMRMRD, BART, NumPy or MATLAB to fastMRI, ISMRMRD or BART.

    Samples are copied bit for bit, with the mask, and with pixel sizes, position and directions if OUT's format can
    hold them. What it cannot hold is printed. Data on the patient are not copied.

    \b
    Examples:
      mri-score convert scan_ismrmrd.h5 scan.h5
      mri-score convert scan.h5 scan.mrd
      mri-score convert kspace.mat scan.h5 --axes rows,cols,coils,slices
    """
    from mri_score.errors import InputError
    from mri_score.pipeline.convert import convert
    from mri_score.readers import open_scan, scan_files

    kind = to or SUFFIXES.get(out.suffix.lower())
    if kind is None:
        raise InputError(f"{out}: which format? Name it with --to: fastmri, ismrmrd or cfl")
    (path,) = scan_files(scan, axes=axes) if not scan.is_dir() else [None]
    if path is None:
        raise InputError(f"{scan} is a folder; convert takes one scan at a time")
    file = open_scan(path, axes=axes)
    lost = convert(file, out, kind)
    say(f"{out}: {file.slices} image{'s' if file.slices > 1 else ''} as {kind}", file=out.name, format=kind)
    for text in lost:
        note(text, indent=2, file=out.name)
