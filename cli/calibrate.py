"""mri-score calibrate."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from .options import allow_code_option, axes_option, data_changes


@click.command("calibrate")
@click.option("--config", "-c", required=True, metavar="FILE", help="The training config that names the data.")
@click.option("--data", metavar="PATH", help="File or folder of training data: short for --set data.paths=[PATH].")
@axes_option
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE",
    help="Override a key of the config, such as data.patch=64; may be repeated.",
)  # fmt: skip
@allow_code_option
@click.option("--count", type=click.IntRange(2), help="Number of images to measure.  [default: of the config, 1000]")
@click.option(
    "--out", "-o", type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write.  [default: parameters/<dataset>.txt]",
)  # fmt: skip
def command(
    config: str,
    data: str | None,
    axes: tuple[str, ...] | None,
    changes: tuple[str, ...],
    count: int | None,
    out: Path | None,
    allow_code: bool,
) -> None:
    """Measure the noise levels, the Langevin step size and the statistics of a dataset for training and sampling.

    \b
    Example:
      mri-score calibrate --config tiny.yml
    """
    from mri_score import experiment
    from mri_score.config_file import read_config
    from mri_score.noise.parameters import bare_parameters, completed, write_parameters
    from mri_score.sources.own import code_allowed

    settings = read_config(config, (*changes, *data_changes(config, data, axes)))
    if not Path((settings.get("data") or {}).get("cache") or "/").is_absolute():
        settings["data"]["cache"] = None  # relative caches are within the folder of a run
    with code_allowed() if allow_code else nullcontext():
        parameters = experiment.calibrate(settings, experiment.make_source(settings), count)
    path = out or Path("parameters") / f"{settings['dataset']}.txt"
    if (before := bare_parameters(path)) is not None:
        parameters = completed(before, parameters)
    write_parameters(path, parameters)
    click.echo(path.read_text(encoding="utf-8"), nl=False)
    click.echo(path)
