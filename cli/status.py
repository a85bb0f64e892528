"""mri-score status."""

from __future__ import annotations

from pathlib import Path

import click

from .options import FOLDER

MOST_NAMES = 20
"""Number of failed scans that are listed; --json has all."""


@click.command("status")
@click.argument("out", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with the names of all scans.")
def command(out: Path, as_json: bool) -> None:
    """Show how far reconstruct has come in the folder OUT, over all machines and jobs that write to it.

    Prints the number of scans that are done, failed (with the reason), in work and left; the rate of all processes
    together, from the 50 scans finished last; and when the rest will be done at this rate.

    \b
    Example:
      mri-score status out
    """
    import json
    import time

    from mri_score.errors import visible
    from mri_score.pipeline.run_log import read_study
    from mri_score.progress import duration

    study = read_study(out)
    if as_json:
        click.echo(json.dumps(study.as_dict()))
        return
    lines = {
        "scans": f"{study.count:,}", "done": f"{len(study.done):,}", "failed": f"{len(study.failed):,}",
        "in work": f"{len(study.working):,}", "left": f"{len(study.left):,}",
    }  # fmt: skip
    if study.per_hour is not None:
        lines["rate"] = f"{study.per_hour:,.4g} scans an hour" + (
            "" if study.scan_seconds is None else f"; one takes {duration(study.scan_seconds)}"
        )
    if study.ends is not None:
        moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(study.ends))
        lines["ends"] = f"in {duration(study.ends - time.time())}, {moment}"
    for name, value in lines.items():
        click.echo(f"{name:<9}{value}")
    for name, why in list(study.failed.items())[:MOST_NAMES]:
        click.secho(visible(f"failed: {name}: {why}"), fg="red")
    if len(study.failed) > MOST_NAMES:
        click.echo(f"and {len(study.failed) - MOST_NAMES:,} more; --json lists all")
