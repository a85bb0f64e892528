"""mri-score evaluate."""

from __future__ import annotations

from pathlib import Path

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

    Both volumes are cropped to the central square, as in fastMRI. The data range is the maximum of the ground-truth
    volume; SSIM uses a 7 x 7 window. The last line printed is the mean over volumes +/- twice the standard deviation.

    \b
    Example:
      mri-score evaluate --target multicoil_val --predictions out/reconstructions
    """
    import csv
    import io

    from mri_score.files import write_text
    from mri_score.pipeline.folder_scores import score_folders
    from mri_score.untrusted.names import table_cell

    dataset = "reconstruction_rss" if challenge == "multicoil" else "reconstruction_esc"
    scores = score_folders(target, predictions, target=dataset, acceleration=acceleration, acquisition=acquisition)
    for name, values in scores.volumes.items():
        click.echo(f"{name:<40}" + "  ".join(f"{key.upper()} {value:.4g}" for key, value in values.items()))
    summary = {key: f"{mean:.4g} +/- {spread:.4g}" for key, (mean, spread) in scores.summary().items()}
    click.secho(" ".join(f"{key.upper()} = {value}" for key, value in summary.items()), bold=True)
    if table is not None:
        keys = list(next(iter(scores.volumes.values())))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", *keys])
        for name, values in scores.volumes.items():
            writer.writerow([table_cell(name), *(f"{values[key]:.8g}" for key in keys)])
        write_text(table, text.getvalue())
        click.echo(table)
