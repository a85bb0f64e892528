"""mri-score calibrate."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("calibrate")
@click.option("--config", "-c", required=True, metavar="FILE", help="The training config whose data are measured.")
@click.option("--data", metavar="PATH", help="The training data; the same as --set data.paths=[PATH].")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key of the config.")
@click.option("--count", type=click.IntRange(2), default=1000, show_default=True, help="Images to look at.")
@click.option(
    "--out", "-o", type=click.Path(dir_okay=False, path_type=Path), help="[default: parameters/<dataset>.txt]"
)
def command(config: str, data: str | None, changes: tuple[str, ...], count: int, out: Path | None) -> None:
    """Measure the noise levels, step size and statistics that training and sampling use.

    \b
    Example:
      mri-score calibrate --config tiny.yml
    """
    import json

    from mri_score import experiment
    from mri_score.noise.parameters import write_parameters

    if data is not None:
        changes = (*changes, f"data.paths={json.dumps([data])}")
    settings = experiment.read_config(config, changes)
    parameters = experiment.calibrate(settings, experiment.make_source(settings), count)
    path = out or Path("parameters") / f"{settings['dataset']}.txt"
    write_parameters(path, parameters)
    click.echo(path.read_text(encoding="utf-8"), nl=False)
    click.echo(path)
