"""mri-score evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .options import FOLDER


@click.command("evaluate")
@click.option("--target", type=FOLDER, required=True, help="Folder of fastMRI files with ground truth.")
@click.option(
    "--predictions", type=FOLDER, required=True,
    help="Folder of reconstructions: files of the same names, each with a dataset `reconstruction`.",
)  # fmt: skip
@click.option(
    "--challenge", type=click.Choice(["multicoil", "singlecoil"]), default="multicoil", show_default=True,
    help="The ground truth to compare with: reconstruction_rss or reconstruction_esc of the file.",
)  # fmt: skip
@click.option("--acceleration", type=float, help="Score only files of this nominal acceleration.")
@click.option("--acquisition", help="Score only files of this acquisition, such as AXT2.")
@click.option(
    "--csv", "table", type=click.Path(dir_okay=False, path_type=Path), help="Also write a CSV file, one row per volume."
)
def command(
    target: Path,
    predictions: Path,
    challenge: str,
    acceleration: float | None,
    acquisition: str | None,
    table: Path | None,
) -> None:
    """Score reconstructions against the ground truth in fastMRI files, with fastMRI's PSNR, SSIM, NMSE and MSE.

    The ground truth is the RSS image of full k-space (or ESC of single coils). Both volumes are cropped to the central
    square, as in fastMRI. The data range is the maximum of the ground-truth volume; SSIM uses a 7 x 7 window. Scores
    are of the whole image, as fastMRI's, and inside the foreground. For results of mri-score reconstruct, those against
    the combined image |MVUE| that it printed are repeated from the file. The last lines are means over volumes +/-
    twice the standard deviation.

    \b
    Example:
      mri-score evaluate --target multicoil_val --predictions out/reconstructions
    """
    import csv
    import io
    import math

    from mri_score.evaluation.metrics import AIR, REGIONS
    from mri_score.files import write_text
    from mri_score.pipeline.folder_scores import score_folders
    from mri_score.untrusted.names import table_cell

    dataset = "reconstruction_rss" if challenge == "multicoil" else "reconstruction_esc"
    scores = score_folders(target, predictions, target=dataset, acceleration=acceleration, acquisition=acquisition)
    for name in scores.volumes:
        click.secho(name, bold=True)
        for region, found in (("whole", scores.volumes[name]), ("foreground", scores.foreground[name])):
            click.echo(_line(f"{dataset}, {REGIONS[region]}", {key: f"{value:.4g}" for key, value in found.items()}))
        for row in _stored(predictions / name):
            texts = {key: f"{row[key]:.4g}" for key in ("psnr", "ssim", "nmse")}
            click.echo(_line(f"{row['target']}, {REGIONS[row['region']]}, {row['method']}", texts))
    count = len(scores.volumes)
    click.secho(f"Mean over {count} volume{'s' if count > 1 else ''} +/- twice the standard deviation", bold=True)
    for region, title in REGIONS.items():
        summary = {
            key: f"{mean:.4g} +/- {'n/a' if math.isnan(spread) else format(spread, '.4g')}"
            for key, (mean, spread) in scores.summary(region).items()
        }
        click.secho(_line(f"{dataset}, {title}", summary), bold=True)
    click.echo(AIR)
    if table is not None:
        keys = list(next(iter(scores.volumes.values())))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", *keys, *(f"{key}_foreground" for key in keys)])
        for name, values in scores.volumes.items():
            both = [*(values[key] for key in keys), *(scores.foreground[name][key] for key in keys)]
            writer.writerow([table_cell(name), *(f"{value:.8g}" for value in both)])
        write_text(table, text.getvalue())
        click.echo(table)


def _line(what: str, values: Mapping[str, str]) -> str:
    return f"  {what}: " + "  ".join(f"{key.upper()} = {value}" for key, value in values.items())


def _stored(result: Path) -> list[dict[str, Any]]:
    """The scores of the reconstruction against |MVUE| in a result file of mri-score; empty for files of others."""
    from mri_score.pipeline.result_file import MVUE, read_scores
    from mri_score.readers.hdf5 import open_hdf5

    if "mri_score" not in open_hdf5(result).attrs:
        return []
    rows = [row for row in read_scores(result) if row["target"] == MVUE]
    return [row for row in rows if row["method"] == rows[-1]["method"]]
