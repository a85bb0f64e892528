"""mri-score merge."""

from __future__ import annotations

from pathlib import Path

import click

from .log import say
from .options import FOLDER


@click.command("merge")
@click.argument("folders", metavar="FOLDER...", type=FOLDER, nargs=-1, required=True)
@click.option("--out", "-o", type=FOLDER, required=True, help="Folder of the joint table and report.")
def command(folders: tuple[Path, ...], out: Path) -> None:
    """Join the scores and reports of several output folders of reconstruct: of shards, machines or jobs.

    Writes metrics.csv with the rows of all folders, and report/index.html with the mean of each method and the scores
    of each volume. Pages and results of single volumes stay where they are. A volume whose scores differ between
    folders is refused, because other options made them. (Shards that wrote one folder need no merge.)

    \b
    Example:
      mri-score merge out/monday out/tuesday --out out/both
    """
    from mri_score.pipeline.merge import merge_folders

    table, page = merge_folders(folders, out)
    say(f"scores  {table}\nreport  {page}", scores=table, report=page)
